"""Run a job: in this process on one device, or in processes of its own on several."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deepnets_bench.harness.data import prepare_dataset
from deepnets_bench.harness.jobs import Job, carry_out
from deepnets_bench.harness.progress import Report
from deepnets_bench.harness.ranks import run_ranks
from deepnets_bench.harness.tracks import Track, load_track
from deepnets_bench.leaderboard.results import ResultRow


def run_job(
    track: Track | str,
    gnn: str,
    seed: int = 0,
    *,
    data: str | Path,
    out: str | Path,
    options: Mapping[str, Any] | None = None,
    images: str | Path | None = None,
    device: str = "auto",
    devices: int = 1,
    resume: bool = False,
    tuning_trials: int = 0,
    report: Report | None = None,
) -> list[ResultRow]:
    """Train and evaluate one GNN; appends a row per split to `out`/results.csv.

    `out`/scores/ gets the accuracy of every architecture, `out`/runs/ the learning curve, the checkpoints
    and the trained hypernetwork. `images` is the folder of images that are files. `tuning_trials` is as in
    `Job`. With `resume`, the training continues from its newest checkpoint. One device is used by this
    process; several by processes of their own, among which each meta-batch is divided.
    """
    track = load_track(track) if isinstance(track, str) else track
    folder = Path(images) if images is not None else None
    job = Job(track, gnn, seed, dict(options or {}), folder, devices, tuning_trials)
    if devices == 1:
        return carry_out(job, Path(data), Path(out), device=device, resume=resume, report=report)
    prepare_dataset(track, Path(data), images=folder)  # once, before all processes look for it
    return run_ranks(job, Path(data), Path(out), device=device, devices=devices, resume=resume, report=report)

"""Run a job: in this process on one device, or in processes of its own on several."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from deepnets_bench.gnn import GNNLike, identify
from deepnets_bench.harness.protocol.tracks import Track, load_track
from deepnets_bench.harness.runs.ddp import run_ranks
from deepnets_bench.harness.runs.job import Job, carry_out, finished_jobs, is_finished, make_folder
from deepnets_bench.harness.training.progress import JobProgress, Report
from deepnets_bench.harness.training.splits import prepare_dataset
from deepnets_bench.leaderboard.results import ResultRow

LOCK = ".lock"  # in a job's folder; held by the process that carries the job out
_WAIT_SECONDS = 1.0  # between two messages of a job that waits for another run of it


def run_job(
    track: Track | str,
    gnn: GNNLike,
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

    `gnn` and `options` are those of `deepnets_bench.gnn.identify`: a name, or a class wherever it is defined.
    A finished job is not run again: its rows are returned. While another process runs the same job with the
    same `out`, this one waits, which `report` hears as phase 'wait'.

    `out`/scores/ gets the accuracy of every architecture, `out`/runs/ the learning curve, the checkpoints
    and the trained hypernetwork. `images` is the folder of images that are files. `tuning_trials` is as in
    `Job`. With `resume`, the training continues from its newest checkpoint. One device is used by this
    process; several by processes of their own, among which each meta-batch is divided.
    """
    track = load_track(track) if isinstance(track, str) else track
    folder = Path(images) if images is not None else None
    job = Job(track, identify(gnn, options), seed, folder, devices, tuning_trials)
    dataset, out = prepare_dataset(track, Path(data), images=folder), Path(out)
    config_hash = job.config_hash(dataset.fingerprint)
    with _alone(job.folder(out, config_hash), report):
        finished = finished_jobs(out).get(config_hash, [])
        if is_finished(job, finished):
            return finished
        if devices == 1:
            return carry_out(job, dataset, out, device=device, resume=resume, report=report)
        return run_ranks(job, dataset, out, device=device, devices=devices, resume=resume, report=report)


@contextmanager
def _alone(folder: Path, report: Report | None) -> Iterator[None]:
    """Hold a job's folder; wait while another process does, which says so by the lock that ends with it."""
    make_folder(folder)
    lock = FileLock(folder / LOCK)
    while True:
        try:
            lock.acquire(timeout=_WAIT_SECONDS)
            break
        except Timeout:
            if report:
                report(JobProgress("wait", 0, 1, f"another process runs this job in {folder}"))
    try:
        yield
    finally:
        lock.release()

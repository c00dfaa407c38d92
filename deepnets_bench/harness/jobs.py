"""Jobs: one GNN with one seed on one track, from the dataset to result rows."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepnets_bench.errors import BadInput
from deepnets_bench.harness import provenance
from deepnets_bench.harness.data import Dataset, load_architectures, prepare_dataset
from deepnets_bench.harness.progress import JobProgress, Report
from deepnets_bench.harness.tracks import Track, load_track
from deepnets_bench.leaderboard.results import (
    ResultRow,
    accuracy_summary,
    append_rows,
    canonical_json,
    read_rows,
    write_scores,
)

if TYPE_CHECKING:
    import torch

    from deepnets_bench.ghn.model import GHN

RESULTS = "results.csv"


@dataclass(frozen=True)
class Job:
    """One training with all its evaluations; `config_hash` names it."""

    track: Track
    gnn: str
    seed: int
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """For people: the GNN, its options and the seed."""
        options = "".join(f" {key}={value}" for key, value in self.options.items())
        return f"{self.gnn}{options} seed {self.seed}"

    def config_hash(self, dataset_fingerprint: str) -> str:
        """16 hexadecimal digits over all that determines the result: protocol, data, GNN and seed."""
        identity = {
            "track": self.track.fingerprint(),
            "dataset": dataset_fingerprint,
            "gnn": self.gnn,
            "gnn_source": _file_digest(self.gnn),
            "options": canonical_json(self.options),
            "seed": self.seed,
        }
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]

    def folder(self, out: Path, config_hash: str) -> Path:
        """Where the job keeps its learning curve, checkpoints, log and trained hypernetwork."""
        gnn = re.sub(r"[^A-Za-z0-9]+", "-", self.gnn).strip("-")
        return out / "runs" / f"{gnn}-seed{self.seed}-{config_hash[:8]}"


def finished_jobs(out: Path) -> dict[str, set[str]]:
    """Config hash → splits that have a finished row in the results of a folder."""
    path = out / RESULTS
    finished: dict[str, set[str]] = {}
    for row in read_rows(path) if path.exists() else []:
        if row.status in ("ok", "partial"):
            finished.setdefault(row.config_hash, set()).add(row.split)
    return finished


def run_job(
    track: Track | str,
    gnn: str,
    seed: int = 0,
    *,
    data: str | Path,
    out: str | Path,
    options: Mapping[str, Any] | None = None,
    device: str = "auto",
    resume: bool = False,
    report: Report | None = None,
) -> list[ResultRow]:
    """Train and evaluate one GNN in this process; appends a row per split to `out`/results.csv.

    `out`/scores/ gets the accuracy of every architecture, `out`/runs/ the learning curve, the checkpoints
    and the trained hypernetwork. With `resume`, the training continues from its newest checkpoint.
    """
    import torch

    from deepnets_bench.harness.checkpoint import remove_checkpoints
    from deepnets_bench.harness.images import load_images
    from deepnets_bench.harness.scoring import pick_device, score_splits, virtual_edges
    from deepnets_bench.harness.training import Progress, Trainer

    track = load_track(track) if isinstance(track, str) else track
    job = Job(track, gnn, seed, dict(options or {}))
    out, root = Path(out), Path(data)
    dataset = prepare_dataset(track, root)
    config_hash = job.config_hash(dataset.fingerprint)
    folder = job.folder(out, config_hash)
    make_folder(folder)
    torch.set_num_threads(track.training.threads)
    torch.manual_seed(seed)
    target = pick_device(device)
    images = load_images(track.images.dataset, track.images.size)
    ghn = build_ghn(track, gnn, job.options, images.num_classes)

    def report_training(progress: Progress) -> None:
        if report:
            val = "" if progress.val_accuracy is None else f" val {progress.val_accuracy:.1%}"
            text = (
                f"loss {progress.loss:.3f} acc {progress.accuracy:.1%}{val} "
                f"{progress.networks_per_second:.1f} networks/s"
            )
            report(JobProgress("train", progress.step, progress.steps, text))

    trainer = Trainer(
        track,
        ghn,
        load_architectures(root, "train", track.networks.count),
        images,
        seed=seed,
        device=target,
        virtual_edges=virtual_edges(track, ghn),
        validation=load_architectures(root, "val", track.selection.count),
        folder=folder,
        report=report_training,
    )
    if resume:
        trainer.resume()
    else:
        remove_checkpoints(folder)
    state = trainer.run()
    ghn.save(folder / "ghn.safetensors")

    common: dict[str, Any] = {
        "ghn_params": sum(weight.numel() for weight in ghn.parameters()),
        "gnn_params": sum(weight.numel() for weight in ghn.gnn.parameters()),
        "steps": state.step,
        "train_seconds": round(state.seconds, 2),
    }
    scores: dict[str, dict[int, float]] = {}
    outcomes: dict[str, dict[str, Any]] = {}
    splits = list(track.evaluation.splits)
    for split, result in score_splits(ghn, track, root, images.to(target), splits, report):
        scores[split] = result.accuracies
        status = "ok" if not result.failures else "partial" if result.accuracies else "failed"
        reason = "; ".join(f"architecture {index}: {why}" for index, why in list(result.failures.items())[:3])
        outcomes[split] = {
            "status": status,
            "reason": reason,
            "eval_seconds": round(result.seconds, 2),
            **accuracy_summary(result.accuracies),
        }
    stem = f"{folder.name}-{provenance.utc_now().replace(':', '')}"
    common["scores_file"] = write_scores(out / "scores", stem, scores)
    common["peak_memory_mb"] = round(_peak_memory_mb(target), 1)
    common["device"] = _device_name(target)
    rows = result_rows(job, dataset, {split: common | outcome for split, outcome in outcomes.items()})
    append_rows(out / RESULTS, rows)
    return rows


def failed_rows(job: Job, dataset: Dataset, status: str, reason: str, seconds: float) -> list[ResultRow]:
    """One row per split for a job that did not finish; `status` is 'failed' or 'timeout'."""
    outcome = {"status": status, "reason": reason, "n_evaluated": 0, "train_seconds": round(seconds, 2)}
    return result_rows(job, dataset, dict.fromkeys(job.track.evaluation.splits, outcome))


def result_rows(job: Job, dataset: Dataset, outcomes: Mapping[str, Mapping[str, Any]]) -> list[ResultRow]:
    """The rows of a job: what the job determines, joined with the outcome of each split."""
    identity: dict[str, Any] = {
        "track": job.track.name,
        "track_version": job.track.version,
        "comparable": job.track.comparable,
        "gnn": job.gnn,
        "gnn_options": canonical_json(job.options),
        "seed": job.seed,
        "dataset_fingerprint": dataset.fingerprint,
        "config_hash": job.config_hash(dataset.fingerprint),
        "utc_time": provenance.utc_now(),
        **provenance.versions(),
    }
    counts = {split: protocol.count for split, protocol in job.track.evaluation.splits.items()}
    return [
        ResultRow(**identity, split=split, n_split=counts[split], **outcome)
        for split, outcome in outcomes.items()
    ]


def build_ghn(track: Track, gnn: str, options: Mapping[str, Any], num_classes: int) -> GHN:
    """The track's hypernetwork around a GNN, with fresh weights from PyTorch's generator."""
    from deepnets_bench.ghn.config import preset
    from deepnets_bench.ghn.model import GHN
    from deepnets_bench.gnn import resolve

    config = replace(
        preset(track.ghn.config, num_classes),
        hid=track.ghn.hid,
        max_shape=track.ghn.max_shape,
        gnn=gnn,
        gnn_options=dict(options),
        ve=resolve(gnn).edges in ("virtual", "undeclared"),
    )
    return GHN(config)


def make_folder(folder: Path) -> None:
    """Create a folder; raises `BadInput` where that is not permitted."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"Folder {folder} cannot be made: {error.strerror or error}.") from error


def _device_name(device: torch.device) -> str:
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else provenance.cpu_name()


def _peak_memory_mb(device: torch.device) -> float:
    import torch

    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    return provenance.peak_memory_mb()


def _file_digest(gnn: str) -> str:
    """SHA-256 of a user's file, so that an edited GNN is another job; '' for anything that is no file."""
    path = Path(gnn if gnn.endswith(".py") else gnn.rpartition(":")[0])
    if path.suffix != ".py" or not path.is_file():
        return ""
    return hashlib.sha256(path.read_bytes()).hexdigest()

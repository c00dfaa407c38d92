"""Jobs: one GNN with one seed on one track, from the dataset to result rows."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepnets_bench.errors import BadInput, RunFailed
from deepnets_bench.gnn import GNNIdentity
from deepnets_bench.gnn.registry import UNTRAINED
from deepnets_bench.harness.protocol.tracks import Track
from deepnets_bench.harness.runs import provenance
from deepnets_bench.harness.runs.options import RunOptions
from deepnets_bench.harness.training.progress import JobProgress, Report
from deepnets_bench.harness.training.splits import Dataset, StoredArchitectures, load_networks
from deepnets_bench.leaderboard.admission import group_by, stack_of
from deepnets_bench.leaderboard.identity import hash_config
from deepnets_bench.leaderboard.results import (
    ResultRow,
    accuracy_summary,
    append_rows,
    canonical_json,
    read_rows,
)
from deepnets_bench.leaderboard.scores import write_scores

if TYPE_CHECKING:
    import torch

    from deepnets_bench.ghn.model import GHN
    from deepnets_bench.harness.images.sets import ImageSet
    from deepnets_bench.harness.training.distributed import Compute, Rank
    from deepnets_bench.harness.training.evaluation import Evaluation
    from deepnets_bench.harness.training.trainer import Progress, Trainer, TrainingState

RESULTS = "results.csv"
GHN_FILE = "ghn.safetensors"


@dataclass(frozen=True)
class Job:
    """One training with all its evaluations; `config_hash` names it.

    `gnn` is what `deepnets_bench.gnn.identify` returns; it is resolved once in each process of the job.
    `tuning_trials`, the number of settings of the GNN that were tried on the track to find this one, is a
    declaration and no part of the name.
    """

    track: Track
    gnn: GNNIdentity
    seed: int
    tuning_trials: int = field(default=0, compare=False)

    @property
    def name(self) -> str:
        """For people: the GNN, its options and the seed."""
        options = "".join(f" {key}={value}" for key, value in self.gnn.options.items())
        return f"{self.gnn.name}{options} seed {self.seed}"

    def config_hash(self, dataset_fingerprint: str) -> str:
        """16 hexadecimal digits over all that determines the result: protocol, data, GNN and seed."""
        return hash_config(
            track_digest=self.track.fingerprint(),
            dataset_fingerprint=dataset_fingerprint,
            frame_digest=self.track.frame_digest(self.seed),
            gnn=self.gnn.name,
            gnn_digest=self.gnn.digest,
            gnn_options=self.gnn.options,
            seed=self.seed,
        )

    def folder(self, out: Path, config_hash: str) -> Path:
        """Where the job keeps its learning curve, checkpoints, log and trained hypernetwork."""
        gnn = re.sub(r"[^A-Za-z0-9]+", "-", self.gnn.name).strip("-")
        return out / "runs" / f"{gnn}-seed{self.seed}-{config_hash[:8]}"


def finished_jobs(out: Path) -> dict[str, list[ResultRow]]:
    """Config hash → finished rows in the results of a folder; partial ones are not finished."""
    path = out / RESULTS
    rows = read_rows(path) if path.exists() else []
    return group_by((row for row in rows if row.status == "ok"), lambda row: row.config_hash)


def is_finished(job: Job, rows: Iterable[ResultRow]) -> bool:
    """Has a job, whose finished rows are given, one of each split?"""
    return len(finished_rows(job, rows)) == len(job.track.evaluation.splits)


def finished_rows(job: Job, rows: Iterable[ResultRow]) -> list[ResultRow]:
    """Of the finished rows of a job the newest one of each split, splits in the order of the track.

    The track's calibration job runs once with each stack, so only rows of the one in use count.
    """
    calibration = job.track.calibration
    measured = job.gnn.name, dict(job.gnn.options), job.seed
    if calibration and measured == (calibration.gnn, {}, calibration.seed):
        versions = provenance.versions()
        stack = versions["torch_version"], versions["package_version"]
        rows = [row for row in rows if stack_of(row) == stack]
    newest = {row.split: row for row in sorted(rows, key=lambda row: row.utc_time)}
    return [newest[split] for split in job.track.evaluation.splits if split in newest]


def carry_out(
    job: Job,
    dataset: Dataset,
    out: Path,
    options: RunOptions,
    report: Report | None = None,
    process: Rank | None = None,
) -> list[ResultRow]:
    """Train and evaluate as `launch.run_job` says, in this process.

    It may be one of several: then the first one evaluates alone, and the others return no rows. Raises
    `RunFailed` where not one network of any split could be evaluated.
    """
    import torch

    from deepnets_bench.harness.images.loading import load_images
    from deepnets_bench.harness.training.checkpoint import remove_checkpoints
    from deepnets_bench.harness.training.distributed import Compute, Rank
    from deepnets_bench.harness.training.scoring import pick_device, score_splits

    track, rank = job.track, (process or Rank()).rank
    folder = job.folder(out, job.config_hash(dataset.fingerprint))
    make_folder(folder)
    torch.set_num_threads(track.training.threads)
    device = pick_device(options.device, rank)
    images = load_images(track.images, dataset.images).to(device)
    ghn = build_ghn(track, job.gnn, images.num_classes, job.seed)
    compute = Compute(device, track.training.precision, process)
    if job.gnn.name.startswith(UNTRAINED):
        state = _untrained(ghn, compute)
    else:
        state = _train(_trainer(job, dataset, ghn, images, compute, folder, report), options.resume)
    if rank:
        return []
    ghn.save(folder / GHN_FILE)
    results = dict(score_splits(ghn, track, dataset.root, images, list(track.evaluation.splits), report))
    _require_accuracies(state, results)
    measured = _training_columns(ghn, state) | {
        "scores_file": _write_scores(out, folder.name, results),
        "peak_memory_mb": _peak_memory_mb(device),
        "device": _device_name(device, compute.size),
    }
    rows = result_rows(job, dataset, _outcomes(measured, state, results))
    append_rows(out / RESULTS, rows)
    if all(row.status == "ok" for row in rows):  # else the next run has only to evaluate
        remove_checkpoints(folder)
    return rows


def _trainer(
    job: Job,
    dataset: Dataset,
    ghn: GHN,
    images: ImageSet,
    compute: Compute,
    folder: Path,
    report: Report | None,
) -> Trainer:
    from deepnets_bench.harness.training.trainer import Trainer

    track = job.track
    return Trainer(
        track,
        ghn,
        StoredArchitectures(dataset.root, "train", track.networks.count),
        images,
        seed=job.seed,
        compute=compute,
        validation=load_networks(dataset.root, "val", track.selection.count),
        folder=folder,
        report=_training_report(report) if report else None,
    )


def _train(trainer: Trainer, resume: bool) -> TrainingState:
    """Train to the end, from the newest checkpoint with `resume`; then this process is on its own."""
    from deepnets_bench.harness.training.checkpoint import remove_checkpoints

    if resume:
        trainer.resume()
    elif trainer.compute.rank == 0 and trainer.folder:
        remove_checkpoints(trainer.folder)
    state = trainer.run()
    trainer.compute.leave()
    return state


def _untrained(ghn: GHN, compute: Compute) -> TrainingState:
    """What `_train` leaves, before the first step."""
    from deepnets_bench.harness.training.trainer import TrainingState

    ghn.to(compute.device)
    compute.leave()
    return TrainingState()


def _training_report(report: Report) -> Callable[[Progress], None]:
    """What a training reports, in words."""

    def report_training(progress: Progress) -> None:
        val = "" if progress.val_accuracy is None else f" val {progress.val_accuracy:.1%}"
        text = (
            f"loss {progress.loss:.3f} acc {progress.accuracy:.1%}{val} "
            f"{progress.networks_per_second:.1f} networks/s"
        )
        report(JobProgress("train", progress.step, progress.steps, text))

    return report_training


def _training_columns(ghn: GHN, state: TrainingState) -> dict[str, Any]:
    return {
        "ghn_params": sum(weight.numel() for weight in ghn.parameters()),
        "gnn_params": sum(weight.numel() for weight in ghn.gnn.parameters()),
        "steps": state.step,
        "train_seconds": round(state.seconds, 2),
        "train_cpu_seconds": round(state.cpu_seconds, 2),
    }


def _outcomes(
    measured: Mapping[str, Any], state: TrainingState, results: Mapping[str, Evaluation]
) -> dict[str, dict[str, Any]]:
    """What was measured of the whole job, beside what was measured on each split."""
    remark = failed_networks(state.failures, state.last_failure)
    return {split: {**measured, **_evaluation_columns(result, remark)} for split, result in results.items()}


def _require_accuracies(state: TrainingState, results: Mapping[str, Evaluation]) -> None:
    """Raise `RunFailed` for a job that measured nothing: it has failed as one that was not evaluated has."""
    if any(result.accuracies for result in results.values()):
        return
    first = next(why for result in results.values() for why in result.failures.values())
    reason = f"no network of any split could be evaluated, the first one because {first}"
    remark = failed_networks(state.failures, state.last_failure)
    raise RunFailed("; ".join(filter(None, [reason, remark])))


def _evaluation_columns(result: Evaluation, remark: str) -> dict[str, Any]:
    """The columns of one split; `remark` is what a reader must know of the training."""
    return {
        "status": "ok" if not result.failures else "partial" if result.accuracies else "failed",
        "reason": "; ".join(filter(None, [remark, result.reason])),
        "eval_seconds": round(result.seconds, 2),
        "eval_cpu_seconds": round(result.cpu_seconds, 2),
        **accuracy_summary(result.accuracies),
    }


def _write_scores(out: Path, stem: str, results: Mapping[str, Evaluation]) -> str:
    stem = f"{stem}-{provenance.utc_now().replace(':', '')}"
    return write_scores(out / "scores", stem, {split: result.accuracies for split, result in results.items()})


def failed_rows(job: Job, dataset: Dataset, status: str, reason: str, seconds: float) -> list[ResultRow]:
    """One row per split for a job that did not finish; `status` is 'failed' or 'timeout'."""
    outcome = {"status": status, "reason": reason, "n_evaluated": 0, "train_seconds": round(seconds, 2)}
    return result_rows(job, dataset, dict.fromkeys(job.track.evaluation.splits, outcome))


def result_rows(job: Job, dataset: Dataset, outcomes: Mapping[str, Mapping[str, Any]]) -> list[ResultRow]:
    """The rows of a job: what the job determines, joined with the outcome of each split."""
    track = job.track
    identity: dict[str, Any] = {
        "track": track.name,
        "track_version": track.version,
        "track_digest": track.fingerprint(),
        "comparable": track.comparable,
        "gnn": job.gnn.name,
        "gnn_options": canonical_json(job.gnn.options),
        "gnn_digest": job.gnn.digest,
        "edges": job.gnn.edges,
        "seed": job.seed,
        "tuning_trials": job.tuning_trials,
        "metric": f"top{track.evaluation.top_k}",
        "dataset_fingerprint": dataset.fingerprint,
        "frame_digest": track.frame_digest(job.seed),
        "config_hash": job.config_hash(dataset.fingerprint),
        "precision": track.training.precision,
        "threads": track.training.threads,
        "utc_time": provenance.utc_now(),
        **provenance.versions(),
    }
    counts = {split: protocol.count for split, protocol in track.evaluation.splits.items()}
    return [
        ResultRow(**identity, split=split, n_split=counts[split], **outcome)
        for split, outcome in outcomes.items()
    ]


def build_ghn(track: Track, gnn: GNNIdentity, num_classes: int, seed: int = 0) -> GHN:
    """The track's hypernetwork around a GNN, as a run of a seed starts with it.

    The GNN has fresh weights; everything else those of the track's frame, or fresh ones that are the same for
    every GNN. Raises `BadInput` for a GNN with more parameters than the track permits, and for a frame that
    is missing, changed or of other shapes.
    """
    import torch

    from deepnets_bench.ghn.model import GHN, build_gnn
    from deepnets_bench.harness.randomness import FRAME_WEIGHTS, GNN_WEIGHTS, Streams
    from deepnets_bench.harness.training.frames import ghn_config, start_from

    config = ghn_config(track, num_classes, gnn)
    streams, cpu = Streams.of_run(track, seed), torch.device("cpu")
    with streams.seeded(cpu, GNN_WEIGHTS):
        module = build_gnn(config, gnn)
    with streams.seeded(cpu, FRAME_WEIGHTS):
        ghn = GHN(config, module)
    if frame := track.frame_of(seed):
        start_from(ghn, frame, track.name)
    budget, count = track.ghn.max_gnn_params, sum(weight.numel() for weight in ghn.gnn.parameters())
    if budget is not None and count > budget:
        raise BadInput(
            f"GNN '{gnn.name}' has {count:,} parameters; track '{track.name}' permits at most {budget:,}."
        )
    return ghn


def make_folder(folder: Path) -> None:
    """Create a folder; raises `BadInput` where that is not permitted."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"Folder {folder} cannot be made: {error.strerror or error}.") from error


def failed_networks(count: int, reason: str) -> str:
    """What a reader of a result must know of its training; '' for nothing."""
    return f"{count} networks failed in training, the last one because {reason}" if count else ""


def _device_name(device: torch.device, processes: int) -> str:
    """The processor's name, and the number of processes where that is not one."""
    import torch

    name = torch.cuda.get_device_name(device) if device.type == "cuda" else provenance.cpu_name()
    return f"{name}, {processes} processes" if processes > 1 else name


def _peak_memory_mb(device: torch.device) -> float | None:
    import torch

    on_gpu = device.type == "cuda"
    peak = torch.cuda.max_memory_allocated(device) / 1e6 if on_gpu else provenance.peak_memory_mb()
    return None if peak is None else round(peak, 1)

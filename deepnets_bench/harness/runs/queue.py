"""The queue of a grid: its unfinished jobs, run board by board, rows committed as they are made."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from deepnets_bench.errors import BadInput
from deepnets_bench.gnn import GNNIdentity, identify
from deepnets_bench.harness.protocol.grid import Board
from deepnets_bench.harness.runs.job import Job, build_ghn, make_folder
from deepnets_bench.harness.runs.options import RunOptions
from deepnets_bench.harness.runs.scheduler import View, run_jobs, unfinished
from deepnets_bench.harness.runs.worker import Outcome
from deepnets_bench.harness.training.progress import JobProgress
from deepnets_bench.harness.training.splits import Dataset, prepare_dataset


def jobs_of(board: Board) -> list[Job]:
    """The jobs of a board, all GNNs of a seed before the next seed: a comparison needs whole seeds.

    Raises `BadInput` for a GNN that cannot be built or a frame that cannot be used.
    """
    from deepnets_bench.harness.training.frames import check_frames

    classes = check_frames(board.track)
    gnns: list[GNNIdentity] = []
    for entry in board.gnns:
        gnn = identify(entry.gnn, entry.options)
        build_ghn(board.track, gnn, num_classes=classes, seed=board.seeds[0])
        gnns.append(gnn)
    return [Job(board.track, gnn, seed) for seed in board.seeds for gnn in gnns]


def run_board(
    board: Board,
    jobs: Sequence[Job],
    dataset: Dataset,
    options: RunOptions,
    view: View,
    record: Callable[[str], None],
) -> list[Outcome]:
    """Run the unfinished ones of a board's jobs; after each, `record` gets a sentence that says what is new.

    It is called before the first job too, for what an earlier run left. Raises what `run_jobs` does.
    """
    make_folder(board.out)
    record(f"Add results of track {board.track.name} v{board.track.version}")
    todo = unfinished(jobs, dataset, board.out)
    return run_jobs(todo, dataset, board.out, options, _Recording(view, record))


def folders_of(board: Board, jobs: Sequence[Job], dataset: Dataset) -> list[Path]:
    """Where the jobs of a board keep curves and hypernetworks, there or not."""
    return [job.folder(board.out, job.config_hash(dataset.fingerprint)) for job in jobs]


def dataset_of(board: Board, data: Path, images: Path | None, workers: int) -> Dataset:
    """The data of a board's track, generated where they are missing."""
    return prepare_dataset(board.track, data, images=images, workers=workers)


class _Recording:
    """A view that records the results of every job that ends."""

    def __init__(self, view: View, record: Callable[[str], None]) -> None:
        self._view, self._record = view, record

    def update(self, name: str, progress: JobProgress) -> None:
        self._view.update(name, progress)

    def finish(self, outcome: Outcome) -> None:
        self._view.finish(outcome)
        job = outcome.job
        result = "results" if outcome.status == "ok" else f"the {outcome.status} run"
        self._record(f"Add {result} of {job.name} on {job.track.name} v{job.track.version}")


def commit_folder(folder: Path, message: str) -> str:
    """Commit what is new in a folder, and nothing else that is staged; returns why git refused, '' if not.

    Nothing is pushed. What .gitignore names (checkpoints, logs, hypernetworks) stays out.
    """
    try:
        _git(folder, "add", "--", ".")
        if _git(folder, "status", "--porcelain", "--untracked-files=no", "--", "."):
            _git(folder, "commit", "--quiet", "-m", message, "--", ".")
    except subprocess.CalledProcessError as error:
        return (error.stderr.strip().splitlines() or [f"git ended with {error.returncode}"])[0]
    return ""


def require_repository(folder: Path) -> None:
    """Raise `BadInput` unless a folder, or the one it will be made in, belongs to a git repository."""
    try:
        existing = next(place for place in (folder, *folder.absolute().parents) if place.is_dir())
        _git(existing, "rev-parse", "--is-inside-work-tree")
    except (OSError, subprocess.CalledProcessError) as error:
        raise BadInput(f"{folder} is in no git repository: results cannot be committed there.") from error


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", check=True)
    return done.stdout.strip()

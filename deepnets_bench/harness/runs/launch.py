"""Run a job: in this process on one device, or in processes of its own on several."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from deepnets_bench.harness.runs.ddp import run_ranks
from deepnets_bench.harness.runs.job import (
    Job,
    carry_out,
    finished_jobs,
    finished_rows,
    is_finished,
    make_folder,
)
from deepnets_bench.harness.runs.options import RunOptions
from deepnets_bench.harness.training.progress import JobProgress, Report
from deepnets_bench.harness.training.splits import Dataset
from deepnets_bench.leaderboard.results import ResultRow

LOCK = ".lock"  # in a job's folder; held by the process that carries the job out
_WAIT_SECONDS = 1.0  # between two messages of a job that waits for another run of it


def run_job(
    job: Job,
    dataset: Dataset,
    out: Path,
    options: RunOptions = RunOptions(),
    report: Report | None = None,
) -> list[ResultRow]:
    """Train and evaluate one GNN; appends a row per split to `out`/results.csv.

    A finished job is not run again: its rows are returned. While another process runs the same job with the
    same `out`, this one waits, which `report` hears as phase 'wait'.

    `out`/scores/ gets the accuracy of every architecture, `out`/runs/ the learning curve, the checkpoints
    and the trained hypernetwork. One device is used by this process; several by processes of their own, among
    which each meta-batch is divided.
    """
    config_hash = job.config_hash(dataset.fingerprint)
    with _alone(job.folder(out, config_hash), report):
        finished = finished_jobs(out).get(config_hash, [])
        if is_finished(job, finished):
            return finished_rows(job, finished)
        carry = carry_out if options.devices == 1 else run_ranks
        return carry(job, dataset, out, options, report)


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

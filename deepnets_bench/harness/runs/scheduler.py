"""Scheduler: hands jobs to an executor until each has an outcome; none can end another one, or the run."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Protocol

from deepnets_bench.errors import reason_of
from deepnets_bench.harness.runs.executors import dask_executor, local_executor
from deepnets_bench.harness.runs.job import RESULTS, Job, failed_rows, finished_jobs, is_finished, make_folder
from deepnets_bench.harness.runs.options import RunOptions
from deepnets_bench.harness.runs.worker import Outcome, Task
from deepnets_bench.harness.training.progress import JobProgress
from deepnets_bench.harness.training.splits import Dataset
from deepnets_bench.leaderboard.results import append_rows
from deepnets_bench.system.processes import require_posix
from deepnets_bench.system.signals import termination_as_interrupt

if TYPE_CHECKING:
    from distributed import Client

_SHOW_SECONDS = 0.2  # between two looks at what the jobs report
_STOP_SECONDS = 60.0  # for jobs that were asked to stop


class View(Protocol):
    """Where the progress of running jobs is shown."""

    def update(self, name: str, progress: JobProgress) -> None:
        """The job of a name has got on."""

    def finish(self, outcome: Outcome) -> None:
        """A job has ended."""


def unfinished(jobs: Sequence[Job], dataset: Dataset, out: Path) -> list[Job]:
    """The jobs without a finished row for each split in the results of `out`, by config hash."""
    done = finished_jobs(out)
    return [job for job in jobs if not is_finished(job, done.get(job.config_hash(dataset.fingerprint), []))]


def run_jobs(
    jobs: Sequence[Job],
    dataset: Dataset,
    out: Path,
    options: RunOptions,
    view: View,
    cluster: Client | None = None,
) -> list[Outcome]:
    """Run jobs, each in a process of its own: `options.workers` at a time here, or on a Dask cluster.

    Failed and timed-out ones leave rows with the reason, and a log. On a cluster, the data and `out` must be
    on a file system that all machines share; the rows of finished jobs are appended there by the workers,
    under the lock that all writers take.

    Ctrl-C (or SIGTERM) stops the running jobs, whose checkpoints are kept, and is raised again. Raises
    `RunFailed` on systems other than POSIX ones.
    """
    if cluster is None:
        require_posix()
    messages: SimpleQueue[tuple[str, JobProgress]] = SimpleQueue()
    outcomes: list[Outcome] = []

    def on_progress(config_hash: str, progress: JobProgress) -> None:
        messages.put((config_hash, progress))

    running: dict[Future[Outcome], Task] = {}
    executor_context = (
        dask_executor(cluster, on_progress) if cluster else local_executor(options.workers, on_progress)
    )
    with termination_as_interrupt(), executor_context as executor:
        try:
            for job in jobs:
                task = _task(job, dataset, out, options)
                running[executor.submit(task)] = task
            while running:
                done, _ = wait(running, timeout=_SHOW_SECONDS, return_when=FIRST_COMPLETED)
                known = {task.config_hash: task.job.name for task in running.values()}
                while not messages.empty():
                    config_hash, progress = messages.get()
                    if config_hash in known:  # not a latecomer of a job that has ended
                        view.update(known[config_hash], progress)
                while done:
                    future = done.pop()
                    outcome = _outcome(future, running.pop(future))
                    del future  # Dask would run the job again if its worker died while somebody holds this
                    if outcome.status != "ok":
                        rows = failed_rows(
                            outcome.job, dataset, outcome.status, outcome.reason, outcome.seconds
                        )
                        append_rows(out / RESULTS, rows)
                    outcomes.append(outcome)
                    view.finish(outcome)
        except BaseException:
            executor.stop()
            wait(running, timeout=_STOP_SECONDS)
            raise
    return outcomes


def _task(job: Job, dataset: Dataset, out: Path, options: RunOptions) -> Task:
    folder = job.folder(out.absolute(), job.config_hash(dataset.fingerprint))
    make_folder(folder)
    return Task(job, dataset.absolute(), out.absolute(), folder, Path.cwd(), options)


def _outcome(future: Future[Outcome], task: Task) -> Outcome:
    """How a task ended; a job whose process could not be run, or whose Dask worker died, has failed."""
    try:
        return future.result()
    except CancelledError:
        reason = "the Dask cluster that ran it was lost"
        return Outcome(task.job, "failed", reason, 0.0, task.log)
    except Exception as error:  # whatever a cluster raises must become a row, not the end of the run
        return Outcome(task.job, "failed", reason_of(error), 0.0, task.log)

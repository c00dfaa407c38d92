"""Runner: each job in its own process with a timeout; none can take another one, or the run, down."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Protocol

from deepnets_bench.errors import DeepNetsError
from deepnets_bench.harness.data import Dataset
from deepnets_bench.harness.jobs import RESULTS, Job, failed_rows, finished_jobs, make_folder, run_job
from deepnets_bench.harness.progress import JobProgress
from deepnets_bench.leaderboard.results import append_rows

LOG = "log.txt"
_GRACE_SECONDS = 30.0  # for a process that was asked to stop to save its checkpoint
_REPORT_SECONDS = 0.2  # between two messages of a job


@dataclass(frozen=True)
class Outcome:
    """How a job ended: ok, failed or timeout."""

    job: Job
    status: str
    reason: str
    seconds: float
    log: Path


class View(Protocol):
    """Where the progress of running jobs is shown."""

    def update(self, job: Job, progress: JobProgress) -> None:
        """A job has got on."""

    def finish(self, outcome: Outcome) -> None:
        """A job has ended."""


@dataclass
class _Running:
    job: Job
    process: BaseProcess
    folder: Path
    started: float

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started


def unfinished(jobs: Sequence[Job], dataset: Dataset, out: Path) -> list[Job]:
    """The jobs without a finished row for each split in the results of `out`, by config hash."""
    done = finished_jobs(out)
    return [
        job
        for job in jobs
        if not done.get(job.config_hash(dataset.fingerprint), set()).issuperset(job.track.evaluation.splits)
    ]


def run_jobs(
    jobs: Sequence[Job],
    dataset: Dataset,
    out: Path,
    *,
    device: str,
    resume: bool,
    workers: int,
    view: View,
) -> list[Outcome]:
    """Run jobs, `workers` at a time; failed and timed-out ones leave rows with the reason, and a log.

    Ctrl-C (or SIGTERM) stops the running jobs, whose checkpoints are kept, and is raised again.
    """
    pending = list(reversed(jobs))
    running: dict[Connection, _Running] = {}
    outcomes: list[Outcome] = []

    def end(connection: Connection, status: str, reason: str) -> None:
        entry = running.pop(connection)
        connection.close()
        entry.process.join()
        if status in ("failed", "timeout"):
            rows = failed_rows(entry.job, dataset, status, reason, entry.seconds)
            append_rows(out / RESULTS, rows)
        outcome = Outcome(entry.job, status, reason, entry.seconds, entry.folder / LOG)
        outcomes.append(outcome)
        view.finish(outcome)

    try:
        with _termination_as_interrupt():
            while pending or running:
                while pending and len(running) < workers:
                    connection, entry = _start(pending.pop(), dataset, out, device, resume)
                    running[connection] = entry
                ready = wait(list(running), timeout=1.0)
                for connection, entry in [item for item in running.items() if item[0] in ready]:
                    try:
                        message = connection.recv()
                    except (EOFError, OSError):
                        entry.process.join()
                        end(connection, "failed", _ending(entry.process.exitcode))
                        continue
                    if isinstance(message, JobProgress):
                        view.update(entry.job, message)
                    else:
                        end(connection, *message)
                for connection, entry in list(running.items()):
                    limit = entry.job.track.timeout_minutes
                    if entry.seconds > limit * 60:
                        _stop([entry])
                        end(connection, "timeout", f"it took longer than {limit:g} minutes")
    finally:
        _stop(list(running.values()))
    return outcomes


def _start(job: Job, dataset: Dataset, out: Path, device: str, resume: bool) -> tuple[Connection, _Running]:
    folder = job.folder(out, job.config_hash(dataset.fingerprint))
    make_folder(folder)
    context = multiprocessing.get_context("spawn")  # a fork would copy PyTorch's threads and CUDA state
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(
        target=_work, args=(sender, job, dataset.root, out, device, resume, folder / LOG), daemon=True
    )
    process.start()
    sender.close()
    return receiver, _Running(job, process, folder, time.monotonic())


def _work(sender: Connection, job: Job, root: Path, out: Path, device: str, resume: bool, log: Path) -> None:
    """The process of one job: all it prints goes to its log, and its ending to `sender`."""
    with open(log, "a", encoding="utf-8", buffering=1) as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
        try:
            run_job(
                job.track,
                job.gnn,
                job.seed,
                data=root,
                out=out,
                options=job.options,
                device=device,
                resume=resume,
                report=_throttled(sender.send),
            )
            sender.send(("ok", ""))
        except KeyboardInterrupt:
            traceback.print_exc()
        except Exception as error:  # whatever a user's GNN raises must become a row, not the end of the run
            traceback.print_exc()
            first = (str(error).strip().splitlines() or [""])[0]
            reason = first if isinstance(error, DeepNetsError) else f"{type(error).__name__}: {first}"
            sender.send(("failed", reason))


def _throttled(send: Callable[[JobProgress], None]) -> Callable[[JobProgress], None]:
    """Pass on a message now and then, and the last one of each phase."""
    last = 0.0

    def report(progress: JobProgress) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last > _REPORT_SECONDS or progress.done == progress.total:
            last = now
            send(progress)

    return report


def _ending(code: int | None) -> str:
    """Why a process that sent no outcome is gone."""
    if code is not None and code < 0:
        hint = ", perhaps for want of memory" if -code == signal.SIGKILL else ""
        return f"its process was ended by {signal.Signals(-code).name}{hint}"
    return f"its process ended with exit code {code} before it had finished"


def _stop(entries: Sequence[_Running]) -> None:
    """Ask processes to stop, which saves their checkpoints, and end those that do not."""
    for entry in entries:
        entry.process.terminate()
    deadline = time.monotonic() + _GRACE_SECONDS
    for entry in entries:
        entry.process.join(max(0.1, deadline - time.monotonic()))
        if entry.process.is_alive():
            entry.process.kill()
            entry.process.join()


@contextmanager
def _termination_as_interrupt() -> Iterator[None]:
    """SIGTERM, which batch systems send, ends a run as Ctrl-C does."""

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)

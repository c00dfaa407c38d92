"""Isolation: one job in a process of its own, which can be timed out and killed and takes nobody down."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from multiprocessing.connection import Connection
from pathlib import Path

from deepnets_bench.errors import RunFailed, reason_of
from deepnets_bench.gnn.importing import inherited_path
from deepnets_bench.harness.runs.job import Job
from deepnets_bench.harness.runs.launch import run_job
from deepnets_bench.harness.runs.options import RunOptions
from deepnets_bench.harness.training.progress import JobProgress, Report
from deepnets_bench.harness.training.splits import Dataset, require_unchanged
from deepnets_bench.system.processes import GRACE_SECONDS, ending, start

LOG = "log.txt"
_REPORT_SECONDS = 0.2  # between two messages of a job
_POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Task:
    """A job with what a process on any machine that sees the same files needs to run it.

    The paths of `dataset`, `out` and `folder` (the job's own) are absolute; `directory` is where relative
    paths of GNN files start.
    """

    job: Job
    dataset: Dataset
    out: Path
    folder: Path
    directory: Path
    options: RunOptions

    @cached_property
    def config_hash(self) -> str:
        """The name of the job."""
        return self.job.config_hash(self.dataset.fingerprint)

    @property
    def log(self) -> Path:
        """All that the job's process prints."""
        return self.folder / LOG


@dataclass(frozen=True)
class Outcome:
    """How a job ended: ok, failed, timeout, or stopped because the run was."""

    job: Job
    status: str
    reason: str
    seconds: float
    log: Path


def run_isolated(task: Task, report: Report, stopped: Callable[[], bool]) -> Outcome:
    """Run a job in a new process and wait for its end; its rows are appended there, but for failures.

    `report` gets its progress. The process is asked to stop, which saves its checkpoint, when the track's
    time is over or `stopped()`. Raises `RunFailed` where the job's folder is not seen from here.
    """
    started = time.monotonic()
    limit = task.job.track.timeout_minutes

    def outcome(status: str, reason: str = "") -> Outcome:
        return Outcome(task.job, status, reason, time.monotonic() - started, task.log)

    if stopped():
        return outcome("stopped")
    receiver, process = _start(task)
    try:
        while True:
            ended = process.poll()  # before its last message is looked for
            if receiver.poll(_POLL_SECONDS if ended is None else 0):
                try:
                    message = receiver.recv()
                except (EOFError, OSError):
                    return outcome("failed", ending(process.wait()))
                if not isinstance(message, JobProgress):
                    return outcome(*message)
                report(message)
                if message.phase == "wait":  # for another run of this job: the track's time has not begun
                    started = time.monotonic()
            elif ended is not None:  # a child of its own may hold the other end open
                return outcome("failed", ending(ended))
            if stopped():
                process.terminate()
                return outcome("stopped")
            if time.monotonic() - started > limit * 60:
                process.terminate()
                return outcome("timeout", f"it took longer than {limit:g} minutes")
    except BaseException:
        process.terminate()
        raise
    finally:
        _end(process)
        receiver.close()


def _start(task: Task) -> tuple[Connection, subprocess.Popen[bytes]]:
    """The process of a job and what it reports; all that it prints is its log.

    Its session is its own, so that Ctrl-C reaches it only through us, and its children can be ended with it.
    """
    try:
        with open(task.log, "ab") as log:
            return start(
                _work,
                task,
                inherited_path(),
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=task.directory,
                start_new_session=True,
            )
    except OSError as error:
        raise RunFailed(f"{error.filename or task.log} cannot be used: {error.strerror}") from error


def _work(task: Task, sender: Connection) -> None:
    """What the process of a job does: run it, and send how it ended."""
    try:
        require_unchanged(task.job.track, task.dataset)
        run_job(task.job, task.dataset, task.out, task.options, _reports(task, sender))
        sender.send(("ok", ""))
    except KeyboardInterrupt:
        traceback.print_exc()
    except BrokenPipeError:
        print("The run that started this job is gone; the job ends with it.", flush=True)
    except Exception as error:  # whatever a user's GNN raises must become a row, not the end of the run
        traceback.print_exc()
        sender.send(("failed", reason_of(error)))


def _reports(task: Task, sender: Connection) -> Report:
    """Send a message now and then, and the last one of each phase; keep the event files up to date."""
    last = 0.0
    events = None
    if task.options.tensorboard:
        from deepnets_bench.harness.runs.tensorboard import CurveEvents

        events = CurveEvents(task.folder)

    def report(progress: JobProgress) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last > _REPORT_SECONDS or progress.done == progress.total:
            last = now
            with contextlib.suppress(BrokenPipeError):  # without us, the process is asked to stop
                sender.send(progress)
            if events:
                events.update()

    return report


def _end(process: subprocess.Popen[bytes]) -> None:
    """Wait until a process ends, but not for ever, and end the children it leaves."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(GRACE_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdin:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()

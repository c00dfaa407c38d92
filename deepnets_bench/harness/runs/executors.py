"""Executors: who runs the jobs of a run, threads of this process or the workers of a Dask cluster."""

from __future__ import annotations

import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from queue import SimpleQueue
from typing import TYPE_CHECKING

from deepnets_bench.errors import RunFailed
from deepnets_bench.harness.runs.job import finished_jobs, is_finished
from deepnets_bench.harness.runs.worker import Outcome, Task, run_isolated
from deepnets_bench.harness.training.progress import JobProgress

if TYPE_CHECKING:
    from distributed import Client

_EVENT_SECONDS = 1.0  # between two messages of a job to Dask's scheduler, and two looks at whether to stop

OnProgress = Callable[[str, JobProgress], None]  # config hash of a job, and where it stands


@dataclass(frozen=True)
class Executor:
    """`submit` starts a task as soon as somebody is free; after `stop` tasks end, their checkpoints saved."""

    submit: Callable[[Task], Future[Outcome]]
    stop: Callable[[], None]


@contextmanager
def local_executor(workers: int, on_progress: OnProgress) -> Iterator[Executor]:
    """`workers` tasks at a time on this machine, spread over its GPUs."""
    stop = threading.Event()
    free: SimpleQueue[int] = SimpleQueue()
    for worker in range(workers):
        free.put(worker)

    def run(task: Task) -> Outcome:
        worker = free.get()
        try:
            if task.options.devices == 1:
                options = replace(task.options, device=device_of(worker, task.options.device))
                task = replace(task, options=options)
            return run_isolated(task, lambda progress: on_progress(task.config_hash, progress), stop.is_set)
        finally:
            free.put(worker)

    with ThreadPoolExecutor(workers) as pool:
        try:
            yield Executor(lambda task: pool.submit(run, task), stop.set)
        finally:
            stop.set()


def device_of(worker: int, device: str) -> str:
    """Where a worker runs its tasks: 'cuda', and 'auto' where that means it, are the GPUs by turns."""
    if device not in ("auto", "cuda"):
        return device
    import torch

    count = torch.cuda.device_count()
    return f"cuda:{worker % count}" if count > 1 else device


@contextmanager
def dask_executor(client: Client, on_progress: OnProgress) -> Iterator[Executor]:
    """As many tasks at a time as the workers of a Dask cluster have threads.

    Folders of data and results must be on a file system that this process and all workers share.
    """
    from distributed import Event

    run = f"deepnets-bench-{uuid.uuid4().hex}"
    client.subscribe_topic(run, lambda event: on_progress(event[1][0], JobProgress(*event[1][1:])))
    executor = client.get_executor(pure=False)
    try:
        yield Executor(lambda task: executor.submit(_on_worker, task, run), Event(run, client=client).set)
    finally:
        client.unsubscribe_topic(run)


def _on_worker(task: Task, run: str) -> Outcome:
    """A task in a Dask worker. Where Dask starts it again because a worker died, it goes on from there."""
    from distributed import Event, get_worker

    if not task.folder.is_dir():
        raise RunFailed(
            f"Worker {socket.gethostname()} does not see {task.folder}: --out must be on a file system that "
            "all workers share."
        )
    done = finished_jobs(task.out).get(task.config_hash, [])
    if is_finished(task.job, done):  # the worker died when all was written
        return Outcome(task.job, "ok", "", 0.0, task.log)
    started = task.folder / f".{run}"
    if started.exists():
        task = replace(task, options=replace(task.options, resume=True))
    started.touch()
    worker, event = get_worker(), Event(run)
    last_sent = last_looked = 0.0

    def report(progress: JobProgress) -> None:
        nonlocal last_sent
        now = time.monotonic()
        if now - last_sent > _EVENT_SECONDS or progress.done == progress.total:
            last_sent = now
            where = (progress.phase, progress.done, progress.total, progress.text)
            worker.log_event(run, (task.config_hash, *where))

    def stopped() -> bool:
        nonlocal last_looked
        now = time.monotonic()
        if now - last_looked < _EVENT_SECONDS:
            return False
        last_looked = now
        return bool(event.is_set())

    outcome = run_isolated(task, report, stopped)
    started.unlink(missing_ok=True)
    return outcome

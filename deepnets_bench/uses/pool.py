"""Many tasks carried out one by one, by a pool of processes, or on an executor such as a Dask cluster's."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    ProcessPoolExecutor,
    wait,
)
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from deepnets_bench.errors import Interrupted, RunFailed
from deepnets_bench.system.signals import interrupt_held_back, one_interrupt

Task = TypeVar("Task")
Result = TypeVar("Result")

# A Dask worker may have many threads, but the generators of PyTorch that tasks seed are the process's.
_ALONE = threading.Lock()


def carried_out(
    function: Callable[[Task], Result], tasks: Sequence[Task], workers: int, executor: Executor | None
) -> Iterator[Result]:
    """Results of tasks as they are finished; when closed early, lets those that run end.

    In one process tasks run one at a time, whatever its number of threads. Raises what the function does,
    after all results that have come, and `BrokenExecutor` where a process died or the cluster was lost.
    """
    if executor is None and min(workers, len(tasks)) <= 1:
        yield from map(function, tasks)
        return
    pool = executor or ProcessPoolExecutor(min(workers, len(tasks)), multiprocessing.get_context("spawn"))
    pending: set[Future[Result]] = set()
    try:
        with interrupt_held_back():  # Ctrl-C is for us: workers, which start here, end their task
            pending = {pool.submit(_alone, function, task) for task in tasks}
        while pending:
            ended, pending = wait(pending, return_when=FIRST_COMPLETED)
            errors = {future: _error_of(future) for future in ended}
            yield from (future.result() for future in ended if errors[future] is None)
            if error := next(filter(None, errors.values()), None):
                raise error
    finally:
        for future in pending:
            future.cancel()
        if executor is None:
            pool.shutdown(wait=True, cancel_futures=True)


@dataclass
class Tally:
    """How many pieces of work are done, told to `report(done, total)` at once and with each more."""

    done: int
    total: int
    report: Callable[[int, int], None]

    def __post_init__(self) -> None:
        self.report(self.done, self.total)

    def add(self, count: int = 1) -> None:
        """So many more are done."""
        self.done += count
        self.report(self.done, self.total)


@contextmanager
def going_on(tally: Tally, units: str, kept: str, place: Path) -> Iterator[None]:
    """Work that the same command goes on with: what is done leaves what is `kept` in a `place`.

    One Ctrl-C or SIGTERM ends the block. Raises `Interrupted` there, and `RunFailed` where a process died.
    """
    try:
        with one_interrupt():
            yield
    except KeyboardInterrupt:
        raise Interrupted(
            f"Interrupted after {tally.done:,} of {tally.total:,} {units}; their {kept} are in {place}, and "
            "the same command goes on from there."
        ) from None
    except BrokenExecutor:
        raise RunFailed(
            f"A worker process died (killed, or out of memory); the {kept} of {tally.done:,} {units} are in "
            f"{place}, and the same command goes on from there."
        ) from None


def _alone(function: Callable[[Task], Result], task: Task) -> Result:
    with _ALONE:
        return function(task)


def _error_of(future: Future[Result]) -> BaseException | None:
    """What a future that has ended raises; Dask's own errors as those of a process pool."""
    try:
        error = future.exception()
    except CancelledError as cancelled:
        error = cancelled
    lost = isinstance(error, CancelledError) or type(error).__name__ == "KilledWorker"  # an extra's class
    return BrokenExecutor(str(error)) if lost else error

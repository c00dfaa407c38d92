"""Many tasks carried out by a pool of processes, or on an executor such as a Dask cluster's (no torch)."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future, ProcessPoolExecutor
from functools import partial
from queue import SimpleQueue
from typing import TypeVar

from deepnets_bench.system.signals import interrupt_held_back

Task = TypeVar("Task")
Result = TypeVar("Result")

# A Dask worker may have many threads, but the generators of PyTorch that tasks seed are the process's.
_ALONE = threading.Lock()


def carried_out(
    function: Callable[[Task], Result], tasks: Sequence[Task], workers: int, executor: Executor | None
) -> Generator[Result]:
    """Results of tasks as they are finished; when closed early, ends the processes amid their tasks.

    In one process tasks run one at a time, whatever its number of threads. Raises what the function does,
    after all results that have come, and `BrokenExecutor` where a process died or the cluster was lost.
    """
    if executor is None and min(workers, len(tasks)) <= 1:
        yield from map(function, tasks)
        return
    spawn = multiprocessing.get_context("spawn")
    pool = executor or ProcessPoolExecutor(min(workers, len(tasks)), spawn, _watch_parent)
    others = multiprocessing.active_children()
    futures: set[Future[Result]] = set()
    # An interrupt in `concurrent.futures.wait` can leave futures locked, and their executor waiting for them
    # for ever; one in a queue cannot.
    endings: SimpleQueue[Future[Result]] = SimpleQueue()
    try:
        with interrupt_held_back():  # Ctrl-C is for us, who end the workers, which start here
            futures.update(_submitted(pool, partial(_alone, function), task, endings) for task in tasks)
        while futures:
            ended = {endings.get()}
            while not endings.empty():
                ended.add(endings.get())
            # All results are taken, and their futures let go, before anything else is done: Dask carries out
            # a task again if its worker dies while somebody holds its future.
            futures -= ended
            errors = {future: _error_of(future) for future in ended}
            results = [future.result() for future, error in errors.items() if error is None]
            error = next(filter(None, errors.values()), None)
            ended.clear()
            errors.clear()
            yield from results
            if error:
                raise error
    finally:
        for future in futures:
            future.cancel()
        if executor is None:
            if futures:
                for process in set(multiprocessing.active_children()).difference(others):
                    process.kill()
            pool.shutdown(wait=True, cancel_futures=True)


def _watch_parent() -> None:
    """Let this process end when the one that started it is gone."""
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _submitted(
    pool: Executor, function: Callable[[Task], Result], task: Task, endings: SimpleQueue[Future[Result]]
) -> Future[Result]:
    """The future of a task, which goes into `endings` when it ends."""
    future = pool.submit(function, task)
    future.add_done_callback(endings.put)
    return future


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

"""Many tasks carried out one by one, by a pool of processes, or on an executor such as a Dask cluster's."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from typing import TypeVar

from deepnets_bench.system.signals import interrupt_held_back

Task = TypeVar("Task")
Result = TypeVar("Result")


def carried_out(
    function: Callable[[Task], Result], tasks: Sequence[Task], workers: int, executor: Executor | None
) -> Iterator[Result]:
    """Results of tasks as they are finished; when closed early, lets those that run end.

    Raises what the function does, and `BrokenProcessPool` where a process died.
    """
    if executor is None and min(workers, len(tasks)) <= 1:
        yield from map(function, tasks)
        return
    pool = executor or ProcessPoolExecutor(min(workers, len(tasks)), multiprocessing.get_context("spawn"))
    pending: set[Future[Result]] = set()
    try:
        with interrupt_held_back():  # Ctrl-C is for us: workers, which start here, end their task
            pending = {pool.submit(function, task) for task in tasks}
        while pending:
            ended, pending = wait(pending, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in ended)
    finally:
        for future in pending:
            future.cancel()
        if executor is None:
            pool.shutdown(wait=True, cancel_futures=True)

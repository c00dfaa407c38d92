"""What commands with long work share: how far it is, and a Dask cluster that carries it out."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from concurrent.futures import Executor

OnProgress = Callable[[int, int], None]  # done, total

_QUIET_SECONDS = 2.0  # shorter work shows no progress
_LINE_SECONDS = 10.0  # between two lines of progress where there is no terminal


JobsOption = Annotated[int | None, typer.Option("--jobs", min=1, metavar="N", help="Processes; one a core.")]
SchedulerOption = Annotated[
    str | None, typer.Option("--scheduler", help="Address of a Dask scheduler, such as tcp://host:8786.")
]


def workers_of(jobs: int | None, scheduler: str | None) -> int:
    """Processes of this machine, one a core when not given; raises `BadInput` for a cluster beside them."""
    from deepnets_bench.errors import BadInput
    from deepnets_bench.system.processes import usable_cores

    if jobs is not None and scheduler is not None:
        raise BadInput("Give --jobs or --scheduler, not both.")
    return jobs or usable_cores()


@contextmanager
def cluster_executor(scheduler: str | None) -> Iterator[Executor | None]:
    """A Dask cluster as an executor; None without an address."""
    from deepnets_bench.system.dask import connected

    with connected(scheduler) as client:
        yield None if client is None else client.get_executor(pure=False)


@contextmanager
def progress_of(what: str, unit: str = "graphs") -> Iterator[OnProgress]:
    """A function that shows how far the work is: a bar on a terminal, a line now and then elsewhere."""
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=console)
    task = bar.add_task(what)
    start = last = time.perf_counter()

    def on_progress(done: int, total: int) -> None:
        nonlocal last
        now = time.perf_counter()
        bar.update(task, completed=done, total=total)
        if now - start < _QUIET_SECONDS:
            return
        if console.is_terminal:
            bar.start()
        elif now - last > _LINE_SECONDS or done == total:
            print(f"{what}: {done:,} of {total:,} {unit}, {now - start:.0f} s", file=sys.stderr, flush=True)
            last = now

    try:
        yield on_progress
    finally:
        if bar.live.is_started:
            bar.stop()

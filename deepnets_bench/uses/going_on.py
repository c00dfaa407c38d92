"""Work that goes on where it was stopped: how much is done, and what an interruption says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from deepnets_bench.errors import Interrupted, RunFailed
from deepnets_bench.system.signals import one_interrupt


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

"""A running Dask cluster, by the address of its scheduler."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from deepnets_bench.errors import BadInput, MissingExtra

if TYPE_CHECKING:
    from distributed import Client


@contextmanager
def connected(scheduler: str | None) -> Iterator[Client | None]:
    """A client of the scheduler at an address such as tcp://host:8786, closed at the end; None without one.

    Raises `MissingExtra` without Dask, `BadInput` where no scheduler answers within ten seconds.
    """
    if scheduler is None:
        yield None
        return
    try:
        from distributed import Client
    except ImportError as error:
        raise MissingExtra("--scheduler", "dask") from error
    try:
        client = Client(scheduler, timeout="10s")
    except (OSError, ValueError) as error:
        raise BadInput(f"No Dask scheduler answers at {scheduler}.") from error
    with client:
        yield client

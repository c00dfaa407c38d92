"""Writing files: whole or not at all, with clear errors, and locks where other processes read and append."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from deepnets_bench.errors import BadInput, RunFailed
from deepnets_bench.system.files import write_atomically

LOCK_SECONDS = 120.0


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file beside `path`, whose folder is made when missing.

    Raises BadInput when the folder cannot be written, RunFailed when another process keeps the lock.
    """
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    with writable(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=LOCK_SECONDS)
        except Timeout:
            raise RunFailed(
                f"Another process has locked {path} for {LOCK_SECONDS:.0f} s; try again when it has ended."
            ) from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def writable(path: Path) -> Iterator[None]:
    """Turn any operating system error inside into a BadInput that names `path`."""
    try:
        yield
    except OSError as error:
        raise BadInput(f"Cannot write {path}: {error.strerror or error}.") from error


def write_output(path: Path, data: bytes) -> None:
    """Write a file in one step, its folder made when missing; BadInput where that cannot be."""
    with writable(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, data)

"""Files that appear whole or not at all, and files that may hold anything when they are read."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deepnets_bench.errors import BadInput, CorruptFile, DeepNetsError, one_line

SHORT = 12  # hexadecimal digits of a digest that tell one file from others


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`; what is written there takes its place when the block ends well.

    The bytes are on the disk before the name is: readers and crashes meet the old file or the new. After
    an error the temporary file is gone and `path` is as it was. Raises `OSError` where the disk refuses.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.touch()
        mode = (path if path.exists() else temporary).stat().st_mode
        yield temporary
        temporary.chmod(mode)  # libraries may replace it by a file that nobody else can read
        _sync(temporary)
        os.replace(temporary, path)
        _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def reading(path: str | os.PathLike[str], what: str) -> Iterator[None]:
    """Turn whatever a parser raises over the content of the file `path` into one sentence.

    Raises `BadInput` where the system cannot read the file, `CorruptFile` for all that shows that it is not
    `what` ("a JSON file"): parsers raise anything for foreign bytes, down to RecursionError and MemoryError.
    Our own errors pass.
    """
    try:
        yield
    except DeepNetsError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise BadInput(f"Cannot read {path}: {error.strerror}.") from error
        raise CorruptFile(f"{path} is truncated or not {what} ({one_line(error)}).") from error


def clear_unfinished(folder: Path, pattern: str = "*") -> None:
    """Remove what killed processes left in `folder` of `replacing` the files of a glob pattern.

    Nobody may be writing such files there meanwhile.
    """
    for leftover in folder.glob(f".{pattern}.tmp"):
        leftover.unlink(missing_ok=True)


def write_atomically(path: Path, data: bytes) -> None:
    """Replace `path` by `data` in one step."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def short_digest(path: Path) -> str:
    """The first `SHORT` hexadecimal digits of the SHA-256 of a file; raises `OSError`."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:SHORT]


def _sync(path: Path) -> None:
    if os.name != "posix":  # Windows syncs neither folders nor files opened for reading
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

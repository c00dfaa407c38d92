"""The learning curve of a training: curve.csv, which a resumed training continues (no torch)."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from deepnets_bench.system.files import reading, write_atomically

CURVE = "curve.csv"
CURVE_COLUMNS = ("step", "loss", "train_accuracy", "val_accuracy", "lr", "seconds", "failures")


@contextmanager
def learning_curve(folder: Path | None, step: int) -> Iterator[Callable[[Sequence[Any]], None]]:
    """A function that adds a row to the learning curve; rows of steps after `step` are dropped first."""
    if folder is None:
        yield lambda row: None
        return
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / CURVE
    start = io.StringIO()
    csv.writer(start, lineterminator="\n").writerows([CURVE_COLUMNS, *_rows_up_to(path, step)])
    write_atomically(path, start.getvalue().encode())
    with open(path, "a", newline="", encoding="utf-8", buffering=1) as file:
        yield csv.writer(file, lineterminator="\n").writerow


def _rows_up_to(path: Path, step: int) -> list[list[str]]:
    if not step or not path.exists():
        return []
    with (
        reading(path, "a learning curve"),
        open(path, newline="", encoding="utf-8", errors="replace") as file,
    ):
        rows = [row for row in csv.reader(file) if len(row) == len(CURVE_COLUMNS)]
        # A machine that crashed may have left half of a row, or bytes that are none.
        return [row for row in rows if row[0].isdecimal() and int(row[0]) <= step]

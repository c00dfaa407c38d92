"""TensorBoard event files beside a training curve: the rows of curve.csv again, and nothing else."""

from __future__ import annotations

import csv
import importlib.util
import time
from pathlib import Path

from deepnets_bench.errors import MissingExtra
from deepnets_bench.harness.training.curve import CURVE

FOLDER = "tensorboard"


def require_tensorboard() -> None:
    """Raise `MissingExtra` where TensorBoard is not installed."""
    if importlib.util.find_spec("tensorboard") is None:
        raise MissingExtra("--log tensorboard", "tensorboard")


class CurveEvents:
    """Event files in `folder`/tensorboard that follow `folder`/curve.csv, one scalar a column.

    They are written anew by the first `update`, so that a resumed training has one set of them. Times are
    those of the column `seconds`: the time that training took, without interruptions.
    """

    def __init__(self, folder: Path) -> None:
        require_tensorboard()
        from torch.utils.tensorboard import SummaryWriter

        self._curve, self._folder = folder / CURVE, folder / FOLDER
        self._open = SummaryWriter
        self._writer: SummaryWriter | None = None
        self._size = self._written = 0
        self._started = 0.0

    def update(self) -> None:
        """Write the rows that the curve has got since the last call."""
        size = self._curve.stat().st_size if self._curve.exists() else 0
        if size == self._size:
            return
        self._size = size
        with open(self._curve, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        if not rows:
            return
        if self._writer is None:
            for old in self._folder.glob("events.out.tfevents.*"):
                old.unlink()
            self._writer = self._open(str(self._folder))
            self._started = time.time() - float(rows[-1]["seconds"])
        for row in rows[self._written :]:
            step, at = int(row.pop("step")), self._started + float(row["seconds"])
            for name, value in row.items():
                if value:  # no validation at this step
                    self._writer.add_scalar(name, float(value), step, walltime=at)
        self._written = len(rows)
        self._writer.flush()

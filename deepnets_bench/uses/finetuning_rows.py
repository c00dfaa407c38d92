"""Rows of fine-tuning: what each training gave, and of what, as a CSV file with the curves in another one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from deepnets_bench.uses.rows import Row, read_rows

_OUTCOME = ("accuracy", "held_out_accuracy", "lr", "initial_accuracy")


class _OfTraining(Row):
    """A row that says which training it is of."""

    AGAIN = "fine-tune"

    model: str
    init: str
    shots: int = Field(ge=1)
    seed: int = Field(ge=0)


class FineTuneRow(_OfTraining):
    """What a training gave: accuracy on the test images, and at which rate.

    One that failed has a `failure` and none of these.
    """

    WHAT = "a CSV file of fine-tuning"
    REFUSAL = "holds no results of fine-tuning"

    accuracy: float | None = Field(None, ge=0, le=1)
    held_out_accuracy: float | None = Field(None, ge=0, le=1)  # at the chosen rate
    lr: float | None = Field(None, gt=0)
    initial_accuracy: float | None = Field(None, ge=0, le=1)  # before the training
    failure: str = ""
    cpu_seconds: float = Field(ge=0)  # of all rates, and of evaluations
    track: str
    track_version: int
    track_digest: str
    images: str  # digest of their files, where no checksum verifies them
    recipe_digest: str
    source: str  # digest of the model's file, where it has one
    ghn: str  # digest of its file
    settings: str  # all else that decides the result
    package_version: str
    git_commit: str = ""
    torch_version: str
    device: str
    timestamp: str

    @model_validator(mode="after")
    def _outcome_is_whole(self) -> FineTuneRow:
        for name in _OUTCOME:
            if not self.failure and getattr(self, name) is None:
                raise ValueError(f"{name} is missing, and no failure says why")
        return self

    @property
    def key(self) -> tuple[str, str, int, int]:
        """Model, initial weights, shots and seed."""
        return self.model, self.init, self.shots, self.seed

    @classmethod
    def from_cells(cls, cells: Mapping[str, Any]) -> FineTuneRow:
        """An empty cell of the outcome is a missing value."""
        return cls.model_validate({k: None if k in _OUTCOME and v == "" else v for k, v in cells.items()})


class CurvePoint(_OfTraining):
    """Accuracy on the test images after some epochs of a training on all shots; 0 is before it."""

    WHAT = "a CSV file of curves"
    REFUSAL = "holds no curves of fine-tuning"

    epoch: int = Field(ge=0)
    accuracy: float = Field(ge=0, le=1)

    @property
    def key(self) -> tuple[str, str, int, int, int]:
        """That of the training, and the epoch."""
        return self.model, self.init, self.shots, self.seed, self.epoch


def curves_path(path: Path) -> Path:
    """The file of the curves beside that of the rows: study.curves.csv beside study.csv."""
    return path.with_name(f"{path.stem}.curves.csv")


def read_fine_tuning(path: Path) -> list[FineTuneRow]:
    """All rows; raises what `read_rows` does."""
    return read_rows(path, FineTuneRow)

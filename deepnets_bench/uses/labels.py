"""Labels: what training measured of architectures, one row an architecture and seed, as a CSV file."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from deepnets_bench.errors import BadInput
from deepnets_bench.system.files import reading, write_atomically
from deepnets_bench.system.locks import locked

LABELS = "labels.csv"
PROPERTIES = ("accuracy", "accuracy_noise", "convergence")
COSTS = ("parameters", "multiply_adds", "nodes", "depth")


class Label(BaseModel):
    """One architecture of a split, trained once.

    `convergence` is the share of the schedule until the recipe's training accuracy was reached; where it
    never was, `converged` is False and `convergence` 1 (censored). A training that failed has a `failure`,
    and no accuracies.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    split: str
    index: int = Field(ge=0)
    fingerprint: str
    seed: int = Field(ge=0)
    accuracy: float | None = Field(None, ge=0, le=1)
    accuracy_noise: float | None = Field(None, ge=0, le=1)
    convergence: float | None = Field(None, gt=0, le=1)
    converged: bool | None = None
    parameters: int = Field(ge=0)
    multiply_adds: int = Field(ge=0)
    nodes: int = Field(ge=1)
    depth: int = Field(ge=1)
    train_accuracy: float | None = Field(None, ge=0, le=1)
    cpu_seconds: float = Field(ge=0)
    failure: str = ""
    track: str
    track_version: int
    track_digest: str
    width: int
    recipe_version: int
    recipe_digest: str
    part: str  # of the images that accuracies are of
    package_version: str
    git_commit: str
    torch_version: str
    device: str
    timestamp: str

    @model_validator(mode="after")
    def _outcome_is_whole(self) -> Label:
        if self.failure:
            return self
        for name in (*PROPERTIES, "converged"):
            if getattr(self, name) is None:
                raise ValueError(f"{name} is missing, and no failure says why")
        if not self.converged and self.convergence != 1:
            raise ValueError(f"it never converged, and yet has the convergence {self.convergence:g}, not 1")
        return self

    @property
    def key(self) -> tuple[str, int, int]:
        """Split, index and seed."""
        return self.split, self.index, self.seed


COLUMNS = tuple(Label.model_fields)


def read_labels(path: Path) -> list[Label]:
    """The rows of a label file.

    Raises `BadInput` for a file that is missing, of another form or truncated, a value out of range, and an
    architecture that is there twice with one seed.
    """
    with reading(path, "a CSV file of labels"):
        text = path.read_text(encoding="utf-8")
        if text and not text.endswith("\n"):
            raise BadInput(f"{path} ends in the middle of a row; remove it, and label again.")
        reader = csv.DictReader(StringIO(text), strict=True)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
            lacks = f" lacks {', '.join(missing)}" if missing else "'s columns are others"
            raise BadInput(f"{path} is no file of labels: it{lacks}.")
        labels = [_label(path, line, row) for line, row in enumerate(reader, 2)]
    for (split, index, seed), count in Counter(label.key for label in labels).items():
        if count > 1:
            raise BadInput(f"{path} holds {split}/{index} with seed {seed} {count} times.")
    return labels


def append_labels(path: Path, labels: Iterable[Label]) -> None:
    """Add rows, in the order of split, index and seed, in one step under the file's lock."""
    with locked(path):
        held = {label.key: label for label in (read_labels(path) if path.exists() else [])}
        held |= {label.key: label for label in labels}
        rows = [held[key] for key in sorted(held)]
        write_atomically(path, _text(rows).encode())


def table_of(labels: Sequence[Label]) -> pd.DataFrame:
    """The rows as a data frame, a column a field."""
    return pd.DataFrame([label.model_dump() for label in labels], columns=list(COLUMNS))


def _label(path: Path, line: int, row: dict[str, Any]) -> Label:
    try:
        return Label.model_validate(
            {name: None if value == "" else value for name, value in row.items()} | _kept(row)
        )
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or f"{row['split']}/{row['index']}"
        message = first["msg"].removeprefix("Value error, ")
        raise BadInput(f"{path}, line {line}: {place}: {message}.") from error


def _kept(row: dict[str, Any]) -> dict[str, str]:
    """Texts that may be empty."""
    return {
        name: row.get(name) or "" for name in ("failure", "git_commit", "package_version", "torch_version")
    }


def _text(labels: Sequence[Label]) -> str:
    buffer = StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(COLUMNS)
    for label in labels:
        values = label.model_dump()
        writer.writerow([_cell(values[name]) for name in COLUMNS])
    return buffer.getvalue()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)

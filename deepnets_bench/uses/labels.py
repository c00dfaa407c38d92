"""Labels: what training measured of architectures, one row an architecture and seed, as a CSV file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from deepnets_bench.errors import BadInput
from deepnets_bench.uses.rows import Row, append_rows, read_rows

PROPERTIES = ("accuracy", "accuracy_noise", "convergence")
COSTS = ("parameters", "multiply_adds", "nodes", "depth")
_MAY_BE_EMPTY = frozenset({"failure", "git_commit", "package_version", "torch_version"})


class Label(Row):
    """One architecture of a split, trained once.

    `convergence` is the share of the schedule until the recipe's training accuracy was reached; where it
    never was, `converged` is False and `convergence` 1 (censored). A training that failed has a `failure`,
    and no accuracies.
    """

    WHAT = "a CSV file of labels"
    REFUSAL = "is no file of labels"
    AGAIN = "label"

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

    @property
    def made(self) -> tuple[str, int, str, str]:
        """Track, version and digest, and the recipe's digest: labels that differ in it never mix."""
        return self.track, self.track_version, self.track_digest, self.recipe_digest

    @classmethod
    def from_cells(cls, cells: Mapping[str, Any]) -> Label:
        """An empty cell is a missing value, but for texts that may be empty."""
        values = {
            name: None if value == "" and name not in _MAY_BE_EMPTY else value
            for name, value in cells.items()
        }
        return cls.model_validate(values)


def read_labels(path: Path) -> list[Label]:
    """The rows of a label file.

    Raises what `read_rows` does, and `BadInput` for an architecture that is there twice with one seed.
    """
    labels = read_rows(path, Label)
    for (split, index, seed), count in Counter(label.key for label in labels).items():
        if count > 1:
            raise BadInput(f"{path} holds {split}/{index} with seed {seed} {count} times.")
    return labels


def append_labels(path: Path, labels: Iterable[Label]) -> None:
    """Add rows, in the order of split, index and seed, in one step under the file's lock."""
    append_rows(path, Label, labels, ordered=True)


def check_alike(labels: Sequence[Label], what: str = "The labels") -> None:
    """Raise `BadInput`, in the name of `what`, where labels are of several tracks or recipes."""
    if len(made := list(dict.fromkeys(label.made for label in labels))) > 1:
        first, second = (
            f"{track} v{version} ({digest}) with recipe {recipe}"
            for track, version, digest, recipe in made[:2]
        )
        raise BadInput(
            f"{what} are of several tracks or recipes, {first} and {second}; keep each in a file of its own."
        )

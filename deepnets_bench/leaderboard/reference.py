"""Published accuracies of the DeepNets-1M paper, to stand beside measured rows and never among them.

They are data: `published.toml` beside this module, with their source.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from deepnets_bench.leaderboard.table import Table

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

CIFAR10 = "cifar10"  # the published results with MLP, GHN-1 and GHN-2 on every split
_NOTE = (
    "Published figures, not measured by this package: mean ± standard error over architectures, one training "
    "run each."
)
_ELSEWHERE = (
    "They are of other images, networks four times as wide and a training of 300 epochs: their order can be "
    "held against the one above, their height cannot."
)


@dataclass(frozen=True)
class Published:
    """The published accuracies on an image set: {method: {split: (mean, standard error)}} in percent.

    The standard error is None for a single network.
    """

    title: str
    note: str
    source: str
    accuracy: Mapping[str, Mapping[str, tuple[float, float | None]]]

    def table(self, *more: str) -> Table:
        """Labelled as published; `more` are further notes."""
        splits = list(next(iter(self.accuracy.values())))
        rows = tuple(
            (method, *(_cell(*by_split[split]) for split in splits))
            for method, by_split in self.accuracy.items()
        )
        notes = (f"{_NOTE} {self.note}", *more, f"Source: {self.source}.")
        return Table(f"Published · {self.title}", ("method", *splits), rows, notes)


@cache
def published() -> Mapping[str, Published]:
    """{image set: what was published on it}."""
    text = (files("deepnets_bench") / "leaderboard" / "published.toml").read_text(encoding="utf-8")
    data = tomllib.loads(text)
    source = data.pop("source")
    return {
        name: Published(
            part["title"],
            part["note"],
            source,
            {
                method: {
                    split: (values[0], values[1] if len(values) > 1 else None) for split, values in of.items()
                }
                for method, of in part["methods"].items()
            },
        )
        for name, part in data.items()
    }


def reference_tables(track: str) -> list[Table]:
    """The published tables of a track that follows the paper; none for a track of our own."""
    return [published()[track].table()] if track in published() else []


def beside(track: str) -> list[Table]:
    """The published tables that stand on the page of any track: its own, else those of CIFAR-10."""
    return reference_tables(track) or [published()[CIFAR10].table(_ELSEWHERE)]


def _cell(mean: float, error: float | None) -> str:
    return f"{mean:.2f}" if error is None else f"{mean:.2f} ± {error:.2f}"

"""What a perfect predictor would reach on noisy labels: of rows and of the labels they were made with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from deepnets_bench.errors import BadInput
from deepnets_bench.uses.labels import read_labels
from deepnets_bench.uses.properties.protocol import PROTOCOL
from deepnets_bench.uses.properties.results import PropertyRow
from deepnets_bench.uses.properties.targets import NAMES, digest_of, read_targets
from deepnets_bench.uses.reliability import reliability


@dataclass(frozen=True)
class Bounds:
    """Kendall's tau of a perfect predictor, by property; `note` says why there is none."""

    taus: Mapping[str, float | None] = field(default_factory=dict)
    note: str = ""


def bounds_of(rows: Sequence[PropertyRow], labels: Path) -> Bounds:
    """The bounds for rows of one mode, from the label file that they were made with.

    There are none where the file is missing or holds other labels, nor for the published mode: one training
    made each released label.
    """
    if not rows or rows[0].mode == "published":
        return Bounds()
    if not labels.exists():
        return Bounds(note=f"The label-noise bound is left out: there are no labels at {labels}.")
    names = [name for name in NAMES if name in {row.target for row in rows}]
    try:
        parts = read_targets(labels, names, PROTOCOL)
    except BadInput as error:
        return Bounds(note=f"The label-noise bound is left out: {error}")
    if {row.labels_digest for row in rows} != {digest_of(parts, names)}:
        return Bounds(
            note=f"The label-noise bound is left out: {labels} holds other labels than those of these rows."
        )
    tested = [
        label
        for label in read_labels(labels)
        if label.split == PROTOCOL.test_split and label.index < PROTOCOL.tested
    ]
    return Bounds({found.property: found.bound for found in reliability(tested)})

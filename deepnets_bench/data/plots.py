"""Distributions of splits, drawn with matplotlib (extra `report`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from deepnets_bench.data.shards import ShardReader
from deepnets_bench.data.statistics import SAMPLE
from deepnets_bench.errors import BadInput
from deepnets_bench.graphs.algorithms import degree_and_path
from deepnets_bench.graphs.drawing import load_pyplot

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# What is compared between splits: (attribute of `Distributions`, label, logarithmic axis).
_QUANTITIES = (
    ("nodes", "nodes", True),
    ("degree", "average degree", False),
    ("path", "average shortest path", False),
    ("num_params", "parameters", True),  # at the stored width
)
_BINS = 24
_FEW = 10  # values up to which each is drawn as a line of its own
_TICKS = 4  # labels below a logarithmic axis, at most
_ROW_INCHES, _COLUMN_INCHES = 0.85, 1.75
_REFERENCE = "train"
_ORDER = ("search", "val", "test", "wide", "deep", "dense", "bnfree", "predefined")  # from top to bottom
_COLOURS = ("#4477aa", "#228833", "#117733", "#cc3311", "#ee7733", "#aa3377", "#332288", "#7d5a38")


@dataclass(frozen=True)
class Distributions:
    """Figures of the first graphs of a split, one value a graph; `num_params` at the stored widths."""

    split: str
    nodes: np.ndarray
    degree: np.ndarray
    path: np.ndarray
    num_params: np.ndarray


def distributions(reader: ShardReader, sample: int = SAMPLE) -> Distributions:
    """Read what `draw_statistics` draws; degrees and paths take edges as undirected."""
    records = reader[:sample]
    degree, path = np.array([degree_and_path(record.edge_index, record.num_nodes) for record in records]).T
    return Distributions(
        reader.split,
        np.array([record.num_nodes for record in records], np.float64),
        degree,
        path,
        np.array([record.num_params[0] for record in records], np.float64),
    )


def draw_statistics(splits: Sequence[Distributions]) -> Figure:
    """Distributions of nodes, degree, path length and parameters: a row a split, in front of train in grey.

    Areas are equal, and the dotted line is the mean. Splits of few networks are drawn as a line for each.
    Raises `MissingExtra` without matplotlib, `BadInput` without a split.
    """
    pyplot = load_pyplot()
    if not splits:
        raise BadInput("There is no split to draw.")
    by_name = {split.split: split for split in splits}
    reference = by_name.get(_REFERENCE)
    order = {name: i for i, name in enumerate(_ORDER)}
    rows = sorted(
        (split for split in splits if split is not reference or len(splits) == 1),
        key=lambda split: (order.get(split.split, len(order)), split.split),
    )
    size = (_COLUMN_INCHES * len(_QUANTITIES) + 0.7, _ROW_INCHES * len(rows) + 0.75)
    with pyplot.rc_context({"font.size": 8, "axes.linewidth": 0.6, "xtick.major.width": 0.6}):
        figure, axes = pyplot.subplots(
            len(rows), len(_QUANTITIES), sharex="col", squeeze=False, figsize=size, layout="constrained"
        )
        for column, (key, label, logarithmic) in enumerate(_QUANTITIES):
            every = np.concatenate([getattr(split, key) for split in splits])
            bins = _bins(every, logarithmic)
            for row, split in enumerate(rows):
                ax = axes[row, column]
                if reference is not None and reference is not split:
                    _histogram(ax, getattr(reference, key), bins, "#c8c8c8", fill=True)
                _histogram(ax, getattr(split, key), bins, _COLOURS[row % len(_COLOURS)], fill=False)
                if logarithmic:
                    _logarithmic(ax, bins)
                ax.set_yticks([])
                ax.set_ylim(bottom=0)
                ax.spines[["left", "right", "top"]].set_visible(False)
                if column == 0:
                    ax.set_ylabel(split.split, rotation=0, ha="right", va="center", weight="bold")
            axes[-1, column].set_xlabel(label)
        handles = axes[0, 0].get_legend_handles_labels()[0]
        if reference is not None and handles and len(splits) > 1:
            figure.legend(handles[:1], [_REFERENCE], loc="outside upper right", frameon=False)
    return figure


def _bins(values: np.ndarray, logarithmic: bool) -> np.ndarray:
    low, high = float(values.min()), float(values.max())
    if logarithmic:
        return np.geomspace(low * 0.98, high * 1.02, _BINS + 1)
    pad = 0.02 * (high - low) or 0.5
    return np.linspace(low - pad, high + pad, _BINS + 1)


def _logarithmic(ax: Axes, bins: np.ndarray) -> None:
    """A logarithmic axis with a few short labels (200, 5k, 2M), over decades or a tenth of one."""
    from matplotlib.ticker import EngFormatter, FixedLocator, NullFormatter

    ax.set_xscale("log")
    ax.xaxis.set_major_locator(FixedLocator(_round_numbers(bins[0], bins[-1])))
    ax.xaxis.set_major_formatter(EngFormatter(sep=""))
    ax.xaxis.set_minor_formatter(NullFormatter())


def _round_numbers(low: float, high: float) -> list[float]:
    """Numbers to label in [low, high]: powers of ten, those with 2 and 5 between them, or equal steps."""
    from matplotlib.ticker import MaxNLocator

    exponents = np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    for steps in ((1, 2, 5), (1, 3), (1,)):
        numbers = (10.0 ** exponents[:, None] * steps).ravel()
        inside = numbers[(low <= numbers) & (numbers <= high)]
        if 2 <= len(inside) <= _TICKS:
            return inside.tolist()
    if len(inside) > _TICKS:
        return inside[:: -(-len(inside) // _TICKS)].tolist()
    equal = np.asarray(MaxNLocator(_TICKS - 1).tick_values(low, high))
    return equal[(low <= equal) & (equal <= high)].tolist()


def _histogram(ax: Axes, values: np.ndarray, bins: np.ndarray, colour: str, fill: bool) -> None:
    """Shares of the values in each bin, so that splits of different sizes compare."""
    if len(values) <= _FEW:
        for value in values:
            ax.axvline(value, color=colour, lw=1.2)
        return
    shares = np.histogram(values, bins)[0] / len(values)
    if fill:
        ax.stairs(shares, bins, fill=True, color=colour, label=_REFERENCE)
    else:
        ax.stairs(shares, bins, color=colour, lw=1.3)
    ax.axvline(values.mean(), color="#888888" if fill else colour, lw=0.9, ls=":")

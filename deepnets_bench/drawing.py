"""Pictures with matplotlib (extra `report`): one computation graph, and the distributions of splits."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deepnets_bench.errors import BadInput, MissingExtra
from deepnets_bench.files import write_atomically
from deepnets_bench.inspection import SAMPLE, degree_and_path
from deepnets_bench.layout import Layout, Point, layered_layout
from deepnets_bench.primitives import PRIMITIVES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from deepnets_bench.graph import ComputationGraph
    from deepnets_bench.shards import ShardReader

SUFFIXES = ("png", "svg", "pdf")

# (colour, shape) of every primitive. Hues go with what a primitive does and shapes repeat it: circles have
# convolution or linear weights, squares other parameters, triangles pool, diamonds join.
_STYLE = {
    "input": ("#ffffff", "s"),
    "conv": ("#4477aa", "o"),
    "sep_conv": ("#88ccee", "o"),
    "dil_conv": ("#332288", "o"),
    "bias": ("#bbbbbb", "s"),
    "bn": ("#ddcc77", "s"),
    "ln": ("#b8860b", "s"),
    "pos_enc": ("#7d5a38", "s"),
    "max_pool": ("#117733", "v"),
    "avg_pool": ("#66c27c", "v"),
    "glob_avg": ("#b5e3a0", "v"),
    "sum": ("#cc3311", "D"),
    "concat": ("#ee8866", "D"),
    "msa": ("#aa3377", "h"),
    "cse": ("#ee99cc", "h"),
}
_EDGE = "#777777"
_RADIUS = 0.3  # of the corners of edges from row to row, in lanes
_SIZE = {"o": 0.68, "s": 0.58, "v": 0.66, "D": 0.52, "h": 0.76}  # diameter of each shape in lanes
_INCH = 0.2  # a lane on paper
_MAX_INCHES = 30.0
_LEGEND_COLUMN = 5.6  # lanes that the longest entry takes

# What is compared between splits: (attribute of `Distributions`, label, logarithmic axis).
_QUANTITIES = (
    ("nodes", "nodes", True),
    ("degree", "average degree", False),
    ("path", "average shortest path", False),
    ("num_params", "parameters (stored width)", True),
)
_BINS = 24
_FEW = 10  # values up to which each is drawn as a line of its own
_ROW_INCHES, _COLUMN_INCHES = 0.85, 1.75
_REFERENCE = "train"
_ORDER = ("search", "val", "test", "wide", "deep", "dense", "bnfree", "predefined")  # from top to bottom
_COLOURS = ("#4477aa", "#228833", "#117733", "#cc3311", "#ee7733", "#aa3377", "#332288", "#7d5a38")
_DPI = 200


def draw_graph(graph: ComputationGraph, ax: Axes | None = None) -> Axes:
    """Draw a graph with its dataflow from left to right, folded into rows; returns the axes.

    Cells are boxes that follow each other like words of a text; colours and shapes are primitives, with
    their numbers in the legend. Without `ax` a pyplot figure of fitting size is made, about 7 inches wide
    for 200 nodes. Raises `MissingExtra` without matplotlib.
    """
    pyplot = _pyplot()
    layout = layered_layout(graph)
    counts = Counter(PRIMITIVES[op] for op in graph.op)
    left, bottom, right, top = layout.bounds
    legend_rows = -(-len(counts) // max(1, int((right - left) / _LEGEND_COLUMN)))
    bottom -= legend_rows + 0.8
    if ax is None:
        inches = min(_INCH, _MAX_INCHES / max(right - left, top - bottom))
        figure = pyplot.figure(figsize=((right - left) * inches, (top - bottom) * inches))
        ax = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    ax.set_xlim(left, right)
    ax.set_ylim(bottom, top)
    ax.set_aspect("equal")
    ax.set_axis_off()
    size = ax.get_window_extent()
    lane = min(size.width / (right - left), size.height / (top - bottom)) * 72 / ax.figure.dpi  # in points

    _draw_blocks(ax, layout, lane)
    _draw_edges(ax, layout, max(0.05 * lane, 0.2))
    for primitive in PRIMITIVES:
        if counts[primitive]:
            colour, marker = _STYLE[primitive]
            chosen = graph.op == PRIMITIVES.index(primitive)
            ax.scatter(
                layout.position[chosen, 0],
                layout.position[chosen, 1],
                s=(_SIZE[marker] * lane) ** 2,
                c=colour,
                marker=marker,
                edgecolors="#333333",
                linewidths=0.04 * lane,
                zorder=3,
                label=f"{primitive} ({counts[primitive]})",
            )
    ax.legend(
        loc="lower center",
        ncols=-(-len(counts) // legend_rows),
        fontsize=0.62 * lane,
        frameon=False,
        borderaxespad=0.2,
        handletextpad=0.2,
        columnspacing=1.0,
    )
    return ax


def _draw_blocks(ax: Axes, layout: Layout, lane: float) -> None:
    from matplotlib.patches import FancyBboxPatch

    for block in layout.blocks:
        x, y, width, height = block.box
        style = "round,pad=0,rounding_size=0.3"
        ax.add_patch(
            FancyBboxPatch((x, y), width, height, boxstyle=style, fc="#f5f5f2", ec="#d5d5d0", lw=0.04 * lane)
        )
        ax.text(x + 0.15, y + height + 0.08, block.label, fontsize=0.52 * lane, color="#666666")


def _draw_edges(ax: Axes, layout: Layout, line_width: float) -> None:
    from matplotlib.patches import FancyArrowPatch, PathPatch
    from matplotlib.path import Path as Line

    style: dict[str, Any] = {"fc": "none", "ec": _EDGE, "lw": line_width, "zorder": 1}
    for _, (start, end) in layout.curves:
        half = (start[0] + end[0]) / 2
        points = [start, (half, start[1]), (half, end[1]), end]
        ax.add_patch(PathPatch(Line(points, [Line.MOVETO, *[Line.CURVE4] * 3]), **style))
    for _, corners in layout.turns:
        ax.add_patch(PathPatch(_rounded(corners), **style))
        (left, y), (right, _y) = corners[-2:]
        tip = Line(np.array([(left + _RADIUS, y), (min(left + 0.55, right), y)]))
        head = f"-|>,head_width={2 * line_width},head_length={4 * line_width}"
        ax.add_patch(FancyArrowPatch(path=tip, arrowstyle=head, fc=_EDGE, ec=_EDGE, lw=line_width, zorder=1))


def _rounded(points: tuple[Point, ...]) -> Any:
    """The path through right-angled corners, each cut by a curve."""
    from matplotlib.path import Path as Line

    corners = np.array(points)
    vertices, codes = [corners[0]], [Line.MOVETO]
    for before, corner, after in zip(corners, corners[1:], corners[2:], strict=False):
        sides = before - corner, after - corner
        cuts = [corner + side * min(0.5, _RADIUS / max(np.abs(side).sum(), 1e-9)) for side in sides]
        vertices += [cuts[0], corner, cuts[1]]
        codes += [Line.LINETO, Line.CURVE3, Line.CURVE3]
    return Line([*vertices, corners[-1]], [*codes, Line.LINETO])


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
    pyplot = _pyplot()
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
                    ax.set_xscale("log")
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


def save_figure(figure: Figure, path: Path) -> None:
    """Write a picture, whole or not at all; the same picture gives the same bytes. Closes the figure."""
    pyplot = _pyplot()
    image = io.BytesIO()
    suffix = path.suffix[1:]
    dates: dict[str, dict[str, Any]] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}
    with pyplot.rc_context({"svg.hashsalt": "deepnets-bench", "pdf.fonttype": 42}):
        figure.savefig(image, format=suffix, dpi=_DPI, metadata=dates[suffix])
    pyplot.close(figure)
    write_atomically(path, image.getvalue())


def check_target(path: Path) -> None:
    """Raise where no picture can be written to a path, before any work is done."""
    _pyplot()
    if path.suffix[1:] not in SUFFIXES:
        raise BadInput(f"{path} must end in .{', .'.join(SUFFIXES[:-1])} or .{SUFFIXES[-1]}.")
    if not path.parent.is_dir():
        raise BadInput(f"The folder {path.parent} of {path.name} does not exist.")
    if path.is_dir():
        raise BadInput(f"{path} is a folder.")


def _pyplot() -> Any:
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise MissingExtra("Drawing", "report") from error
    return pyplot

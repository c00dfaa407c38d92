"""Pictures with matplotlib (extra `report`): computation graphs, and how figures are saved."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deepnets_bench.compiler.primitives import PRIMITIVES
from deepnets_bench.errors import BadInput, MissingExtra
from deepnets_bench.graphs.layout import Drawable, Layout, Point, layered_layout
from deepnets_bench.system.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

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

_DPI = 200


def draw_graph(graph: Drawable, ax: Axes | None = None) -> Axes:
    """Draw a graph with its dataflow from left to right, folded into rows; returns the axes.

    Cells are boxes that follow each other like words of a text; colours and shapes are primitives, with
    their numbers in the legend. Without `ax` a pyplot figure of fitting size is made, about 7 inches wide
    for 200 nodes. Raises `MissingExtra` without matplotlib.
    """
    pyplot = load_pyplot()
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


def save_figure(figure: Figure, path: Path) -> None:
    """Write a picture, whole or not at all; the same picture gives the same bytes. Closes the figure."""
    write_atomically(path, picture(figure, path.suffix[1:]))


def picture(figure: Figure, suffix: str) -> bytes:
    """The content of a file with a suffix; the same picture gives the same bytes. Closes the figure."""
    pyplot = load_pyplot()
    image = io.BytesIO()
    dates: dict[str, dict[str, Any]] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}
    with pyplot.rc_context({"svg.hashsalt": "deepnets-bench", "pdf.fonttype": 42}):
        figure.savefig(image, format=suffix, dpi=_DPI, metadata=dates[suffix])
    pyplot.close(figure)
    return image.getvalue()


def check_target(path: Path) -> None:
    """Raise where no picture can be written to a path, before any work is done."""
    load_pyplot()
    if path.suffix[1:] not in SUFFIXES:
        raise BadInput(f"{path} must end in .{', .'.join(SUFFIXES[:-1])} or .{SUFFIXES[-1]}.")
    if not path.parent.is_dir():
        raise BadInput(f"The folder {path.parent} of {path.name} does not exist.")
    if path.is_dir():
        raise BadInput(f"{path} is a folder.")


def load_pyplot() -> Any:
    """matplotlib's pyplot; raises `MissingExtra` without it."""
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise MissingExtra("Drawing", "report") from error
    return pyplot

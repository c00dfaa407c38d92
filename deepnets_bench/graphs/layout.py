"""Layered layout of computation graphs for drawing: columns, lanes, rows like lines of text (no matplotlib).

The method of Sugiyama et al. ("Methods for visual understanding of hierarchical system structures", 1981):
nodes go to columns along the dataflow, long edges are cut into pieces by points in the columns between,
columns are ordered by barycentres so that few edges cross. Cells are blocks of columns, one after another;
a long sequence of columns is folded into rows that are read from left to right and top to bottom.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np

from deepnets_bench.compiler.primitives import GLOB_AVG

Point = tuple[float, float]

COLUMN_WIDTH = 1.35  # all lengths in lanes: two neighbouring nodes of a column are 1 apart
BLOCK_GAP = 1.1
ROW_GAP = 1.5
TRACK = 0.32  # between two edges that run side by side from a row to the next
_SWEEPS = 12
_ASPECT = 1.5  # width to height that the number of rows aims at


class Drawable(Protocol):
    """What of a `ComputationGraph` decides where its nodes are drawn and how they look."""

    @property
    def op(self) -> np.ndarray: ...

    @property
    def cell(self) -> np.ndarray: ...

    @property
    def param_name(self) -> list[str | None]: ...

    @property
    def edge_index(self) -> np.ndarray: ...

    @property
    def num_nodes(self) -> int: ...


@dataclass(frozen=True)
class Block:
    """The box (left, bottom, width, height) around a cell, or around the part of it in one row."""

    label: str
    box: tuple[float, float, float, float]


@dataclass(frozen=True)
class Layout:
    """Where everything is drawn; y grows upwards.

    `position` [N, 2]; `curves` are (source, points) to be joined by smooth left-to-right curves,
    `turns` (source, points) are right-angled lines from the end of a row to the start of the next.
    """

    position: np.ndarray
    curves: tuple[tuple[int, tuple[Point, ...]], ...]
    turns: tuple[tuple[int, tuple[Point, ...]], ...]
    blocks: tuple[Block, ...]
    bounds: tuple[float, float, float, float]  # left, bottom, right, top


def layered_layout(graph: Drawable) -> Layout:
    """Lay a graph out; the result depends on the graph alone."""
    blocks = _blocks(graph)
    column, block_columns = _columns(graph, blocks)
    lanes = _Lanes(graph, column)
    lanes.order()
    y = _centred(lanes, block_columns)
    rows = _rows(lanes, block_columns, y)
    return _place(lanes, y, rows, block_columns, _labels(graph, blocks))


def _blocks(graph: Drawable) -> np.ndarray:
    """Block of every node, ascending: stem, cells, head; one block where cells do not follow each other."""
    cell = graph.cell.astype(np.int64)
    if len(set(cell.tolist())) == 1 or np.any(np.diff(cell) < 0):
        return np.zeros(graph.num_nodes, np.int64)
    names = [name or "" for name in graph.param_name]
    first = next((i for i, name in enumerate(names) if name.startswith("cells.")), 0)
    stems = [i for i in range(first) if names[i].startswith(("stem", "pos_enc"))]
    n_stem = max(stems) + 1 if stems else 0
    if n_stem and n_stem < first and _only_consumer(graph, n_stem):  # the stem's pooling, or its sum
        n_stem += 1
    heads = [i for i, op in enumerate(graph.op) if op == GLOB_AVG or names[i].startswith("classifier")]
    block = cell + 1
    block[:n_stem] = 0
    if heads:
        block[min(heads) :] = block.max() + 1
    return np.unique(block, return_inverse=True)[1]


def _only_consumer(graph: Drawable, node: int) -> bool:
    """Does everything before a node lead through it?"""
    source, target = graph.edge_index
    return bool(np.all(target[source < node] <= node))


def _labels(graph: Drawable, blocks: np.ndarray) -> list[str]:
    if blocks[-1] == 0:
        return [""]
    labels = []
    for number in range(int(blocks[-1]) + 1):
        nodes = np.flatnonzero(blocks == number)
        cell = int(graph.cell[nodes[0]])
        other = [int(b) for b in np.unique(blocks[graph.cell == cell]) if b != number]
        if other and number == 0:
            labels.append("stem")
        elif other and number == blocks[-1]:
            labels.append("head")
        else:
            labels.append(f"cell {cell}")
    return labels


def _columns(graph: Drawable, blocks: np.ndarray) -> tuple[np.ndarray, list[range]]:
    """Column of every node, and the columns of every block.

    Within its block a node is one column to the right of its last predecessor.
    """
    local = np.zeros(graph.num_nodes, np.int64)
    for u, v in graph.edge_index.T.tolist():
        if blocks[u] == blocks[v]:
            local[v] = max(local[v], local[u] + 1)
    ranges, start = [], 0
    for number in range(int(blocks[-1]) + 1):
        width = int(local[blocks == number].max()) + 1
        ranges.append(range(start, start + width))
        start += width
    return local + np.array([ranges[b].start for b in blocks]), ranges


class _Lanes:
    """Items in columns: nodes, and points where edges pass; all edges of a source share their points."""

    def __init__(self, graph: Drawable, column: np.ndarray) -> None:
        self.column = column.tolist()  # of every item; nodes come first
        self.source = list(range(graph.num_nodes))  # the node whose value passes here
        n = graph.num_nodes
        passing: dict[tuple[int, int], int] = {}
        links: set[tuple[int, int]] = set()
        self.paths: list[list[int]] = []  # items of every edge
        for u, v in graph.edge_index.T.tolist():
            path = [u]
            for c in range(self.column[u] + 1, self.column[v]):
                if (u, c) not in passing:
                    passing[u, c] = len(self.column)
                    self.column.append(c)
                    self.source.append(u)
                path.append(passing[u, c])
            path.append(v)
            links.update(pairwise(path))
            self.paths.append(path)
        self.links = sorted(links)
        self.n_nodes = n
        self.left: dict[int, list[int]] = defaultdict(list)
        self.right: dict[int, list[int]] = defaultdict(list)
        for a, b in self.links:
            self.left[b].append(a)
            self.right[a].append(b)
        members: dict[int, list[int]] = defaultdict(list)
        for item, c in enumerate(self.column):
            members[c].append(item)
        self.members = [members[c] for c in range(max(self.column) + 1)]  # top to bottom

    def order(self) -> None:
        """Sort every column so that few links cross; the best of several sweeps in both directions."""
        best, fewest = [list(items) for items in self.members], self._crossings()
        for sweep in range(_SWEEPS):
            forward = sweep % 2 == 0
            near = self.left if forward else self.right
            rank: dict[int, float] = {}  # from 0 to 1 in the columns that are done
            for items in self.members if forward else reversed(self.members):
                wanted = {
                    item: _mean([rank[other] for other in near[item]]) if near[item] else i / len(items)
                    for i, item in enumerate(items)
                }
                items.sort(key=wanted.__getitem__)
                rank.update((item, i / max(len(items) - 1, 1)) for i, item in enumerate(items))
            if (crossings := self._crossings()) < fewest:
                best, fewest = [list(items) for items in self.members], crossings
        self.members = best

    def _crossings(self) -> int:
        place = {item: i for items in self.members for i, item in enumerate(items)}
        total = 0
        for items in self.members:
            ends = [[place[b] for b in self.right[a]] for a in items]
            for i, above in enumerate(ends):
                below = [y for other in ends[i + 1 :] for y in other]
                total += sum(y < x for x in above for y in below)
        return total

    def heights(self) -> np.ndarray:
        """y of every item: near its neighbours, in the order of its column, apart from the next."""
        y = [0.0] * len(self.column)
        columns = [(items, self._spots(items)) for items in self.members]
        for items, spots in columns:
            for item, spot in zip(items, (spots[-1] / 2 - spots).tolist(), strict=True):
                y[item] = spot
        for sweep in range(4 * _SWEEPS):
            forward = sweep % 2 == 0
            for items, spots in columns if forward else reversed(columns):
                wanted = []
                for item in items:
                    near = self.left[item] if forward else self.right[item]
                    if sweep >= 2 * _SWEEPS:
                        near = self.left[item] + self.right[item]
                    wanted.append(_mean([y[other] for other in near]) if near else y[item])
                # With the required distances taken off, order is all that is left to keep.
                for item, spot in zip(items, _monotone(-np.array(wanted) - spots) + spots, strict=True):
                    y[item] = -float(spot)
        return np.array(y)

    def _spots(self, items: list[int]) -> np.ndarray:
        """Positions from the top of a column at the smallest allowed distances."""
        sizes = np.array([0.5 if item < self.n_nodes else 0.28 for item in items])
        return np.concatenate([[0], np.cumsum(sizes[1:] + sizes[:-1])])


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _monotone(values: np.ndarray) -> np.ndarray:
    """The non-decreasing sequence nearest to the values in squares (pool adjacent violators)."""
    means: list[float] = []
    counts: list[int] = []
    for value in values.tolist():
        means.append(value)
        counts.append(1)
        while len(means) > 1 and means[-2] > means[-1]:
            n = counts[-2] + counts[-1]
            means[-2:] = [(means[-2] * counts[-2] + means[-1] * counts[-1]) / n]
            counts[-2:] = [n]
    return np.repeat(means, counts)


def _centred(lanes: _Lanes, blocks: list[range]) -> np.ndarray:
    """y of every item, with all blocks centred on 0."""
    y = lanes.heights()
    for block in blocks:
        items = [item for c in block for item in lanes.members[c]]
        y[items] -= (y[items].max() + y[items].min()) / 2
    return y


def _rows(lanes: _Lanes, blocks: list[range], y: np.ndarray) -> list[range]:
    """Cut the columns into rows of the best proportions."""
    n_columns = blocks[-1].stop
    extent = np.array([[y[items].min(), y[items].max()] for items in lanes.members])
    crossing = np.zeros(n_columns + 1, np.int64)  # values on their way into each column
    for _source, c in {(lanes.source[a], lanes.column[b]) for a, b in lanes.links}:
        crossing[c] += 1
    best: list[range] = [range(n_columns)]
    fewest = np.inf
    for length in range(4, n_columns + 1):
        rows = _fold(blocks, length, crossing)
        longest = max(len(row) for row in rows)
        height = sum(np.ptp(extent[row.start : row.stop]) + 2 + ROW_GAP for row in rows)
        cost = abs(np.log(longest * COLUMN_WIDTH / height / _ASPECT))
        cost += max(0.0, 0.4 - len(rows[-1]) / longest)  # a last row with little in it
        if cost < fewest:
            best, fewest = rows, float(cost)
    return best


def _fold(blocks: list[range], length: int, crossing: np.ndarray) -> list[range]:
    """Rows of at most `length` columns that end where blocks do; a longer block ends one where few values
    cross."""
    rows = []
    start = 0
    for block in blocks:
        if block.stop - start > length and block.start > start:
            rows.append(range(start, block.start))
            start = block.start
        while block.stop - start > length:
            stops = range(start + length, start + length - length // 3, -1)
            stop = min(stops, key=lambda c: crossing[c])
            rows.append(range(start, stop))
            start = stop
    rows.append(range(start, blocks[-1].stop))
    return rows


def _place(lanes: _Lanes, y: np.ndarray, rows: list[range], blocks: list[range], labels: list[str]) -> Layout:
    """Final coordinates: rows below each other, gaps between blocks, edges as lists of points."""
    n_columns = blocks[-1].stop
    block_of = np.repeat(np.arange(len(blocks)), [len(block) for block in blocks])
    row_of = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
    x_of = np.zeros(n_columns)
    shift = np.zeros(len(rows))
    right = np.zeros(len(rows))
    gutter = np.zeros(len(rows))  # top of the space below each row
    boxes = []
    column = np.array(lanes.column)
    crossing = [
        sorted((link for link in lanes.links if column[link[0]] == row.stop - 1), key=lambda k: -y[k[0]])
        for row in rows
    ]
    top = 0.0
    for number, row in enumerate(rows):
        x = 0.0
        for c in row:
            if c > row.start:
                x += COLUMN_WIDTH + (BLOCK_GAP if block_of[c] != block_of[c - 1] else 0)
            x_of[c] = x
        right[number] = x
        inside = np.isin(column, list(row))
        shift[number] = top - 1 - y[inside].max()
        bottom = top - 1 - np.ptp(y[inside]) - 1
        for block in np.unique(block_of[list(row)]).tolist():
            own = [c for c in row if block_of[c] == block]
            heights = y[np.isin(column, own)] + shift[number]
            if labels[block]:
                low, high = heights.min() - 0.62, heights.max() + 0.62
                left = x_of[own[0]] - 0.75
                boxes.append(Block(labels[block], (left, low, x_of[own[-1]] + 0.75 - left, high - low)))
        gutter[number] = bottom
        n_tracks = len({link[0] for link in crossing[number]})
        top = bottom - ROW_GAP - TRACK * n_tracks
    x_item = x_of[column]
    y_item = y + shift[row_of[column]]

    curves: list[tuple[int, tuple[Point, ...]]] = []
    turns: list[tuple[int, tuple[Point, ...]]] = []
    at = list(zip(x_item.tolist(), y_item.tolist(), strict=True))
    for a, b in lanes.links:
        if row_of[column[a]] == row_of[column[b]]:
            curves.append((lanes.source[a], (at[a], at[b])))
    for number, links in enumerate(crossing[:-1]):
        starts = list(dict.fromkeys(a for a, _ in links))
        for rank, a in enumerate(starts):
            inner, outer = rank + 1, len(starts) - rank  # the topmost line runs outside, then inside
            ends = sorted(b for source, b in links if source == a)
            out, down = right[number] + 0.75 + TRACK * outer, gutter[number] - 0.35 - TRACK * outer
            back = -0.75 - TRACK * inner
            for b in ends:
                corners = [at[a], (out, at[a][1]), (out, down), (back, down), (back, at[b][1]), at[b]]
                turns.append((lanes.source[a], tuple(corners)))
    xs = [x for _, points in turns for x, _ in points] + x_item.tolist()
    ys = y_item.tolist()
    bounds = (min(xs) - 0.9, min(ys) - 0.9, max(xs) + 0.9, max(ys) + 1.5)
    position = np.stack([x_item, y_item], axis=1)[: lanes.n_nodes]
    return Layout(position, tuple(curves), tuple(turns), tuple(boxes), bounds)

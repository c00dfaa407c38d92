"""Statistics of splits beside the published ones, and descriptions of single architectures, as tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from rich import box
from rich.table import Table

from deepnets_bench.compiler import instructions as ir
from deepnets_bench.compiler.primitives import PRIMITIVES
from deepnets_bench.data.shards import ShardReader
from deepnets_bench.data.verification import count_duplicates
from deepnets_bench.graphs.algorithms import degree_and_path

if TYPE_CHECKING:
    from deepnets_bench.architecture import Architecture
    from deepnets_bench.graphs.graph import ComputationGraph
    from deepnets_bench.predefined import ResNet50


class Published(NamedTuple):
    """Nodes (min, max, mean, std), undirected degree and shortest path (mean, std) of the released files."""

    nodes: tuple[int, int, float, float]
    degree: tuple[float, float]
    path: tuple[float, float]


# Knyazev et al., NeurIPS 2021, as computed by the authors' notebook (train: its first 1000 graphs).
PUBLISHED = {
    "train": Published((35, 681, 192.3, 94.9), (2.3, 0.1), (14.5, 4.8)),
    "val": Published((33, 549, 190.5, 94.4), (2.3, 0.1), (14.5, 5.0)),
    "test": Published((43, 579, 185.5, 91.2), (2.3, 0.1), (14.3, 4.8)),
    "wide": Published((48, 381, 178.6, 75.1), (2.3, 0.1), (14.7, 4.9)),
    "deep": Published((74, 1017, 391.2, 176.7), (2.3, 0.1), (26.2, 9.3)),
    "dense": Published((57, 993, 355.1, 182.3), (2.4, 0.1), (15.1, 4.1)),
    "bnfree": Published((33, 503, 135.1, 78.1), (2.4, 0.1), (10.0, 2.8)),
}
SAMPLE = 1000  # graphs that statistics are taken of: the first of a split


@dataclass(frozen=True)
class SplitStatistics:
    """Figures of the first `sampled` graphs of a split; `duplicates` is of all `count`.

    `nodes` (min, max, mean, std), `degree` and `path` (mean, std over graphs; edges taken as undirected),
    `cells` (min, max), `num_params` the median in CIFAR-10 form, `without_norm` a share.
    """

    split: str
    count: int
    sampled: int
    nodes: tuple[int, int, float, float]
    degree: tuple[float, float]
    path: tuple[float, float]
    cells: tuple[int, int]
    num_params: float
    without_norm: float
    duplicates: int


def split_statistics(reader: ShardReader, sample: int = SAMPLE) -> SplitStatistics:
    """Compute the statistics of a split from its first graphs."""
    records = reader[:sample]
    nodes = np.array([record.num_nodes for record in records])
    degrees, paths = np.array([degree_and_path(record.edge_index, record.num_nodes) for record in records]).T
    cells = [int(record.cell.max()) + 1 for record in records]
    norms = [record.encoded[ir.NORM_KIND] > 0 for record in records if record.name is None]
    return SplitStatistics(
        split=reader.split,
        count=len(reader),
        sampled=len(records),
        nodes=(int(nodes.min()), int(nodes.max()), float(nodes.mean()), float(nodes.std())),
        degree=(float(degrees.mean()), float(degrees.std())),
        path=(float(paths.mean()), float(paths.std())),
        cells=(min(cells), max(cells)),
        num_params=float(np.median([record.num_params[0] for record in records])),
        without_norm=1 - sum(norms) / max(len(norms), 1),
        duplicates=count_duplicates(reader.column("key")),
    )


_COLUMNS = ("split", "graphs", "nodes", "nodes", "degree", "path", "cells", "params", "no BN", "duplicates")
_OF_NETWORKS = 6  # the first column that says something of the networks, and not of their graphs


def statistics_tables(statistics: Sequence[SplitStatistics], width: int) -> list[Table]:
    """A row for each split, and one below with the published figures; two tables where `width` is small."""
    rows: list[tuple[str, ...]] = []
    for found in statistics:
        rows.append(_measured_row(found))
        if published := PUBLISHED.get(found.split):
            rows.append(("  published", "", *_graph_cells(published, digits=1), *[""] * 4))
    needed = sum(max(map(len, column)) + 2 for column in zip(_COLUMNS, *rows, strict=True))
    last = len(_COLUMNS)
    blocks = [range(1, last)] if needed <= width else [range(1, _OF_NETWORKS), range(_OF_NETWORKS, last)]
    tables = [_block(rows, block) for block in blocks]
    tables[0].title = "mean ± std over graphs, edges taken as undirected"
    tables[-1].caption = "params: median, CIFAR-10 form"
    if any(found.count > found.sampled for found in statistics):
        tables[-1].caption = f"first {SAMPLE:,} graphs (duplicates: all); {tables[-1].caption}"
    return tables


def _measured_row(found: SplitStatistics) -> tuple[str, ...]:
    return (
        found.split,
        f"{found.count:,}",
        *_graph_cells(found, digits=2),
        "{}-{}".format(*found.cells),
        f"{found.num_params / 1e6:.2f}M",
        f"{found.without_norm:.1%}",
        str(found.duplicates),
    )


def _graph_cells(found: SplitStatistics | Published, digits: int) -> tuple[str, str, str, str]:
    low, high, mean, std = found.nodes
    degree, path = f"{found.degree[0]:.{digits}f}", f"{found.path[0]:.1f} ± {found.path[1]:.1f}"
    return f"{low}-{high}", f"{mean:.1f} ± {std:.1f}", degree, path


def _block(rows: Sequence[tuple[str, ...]], block: range) -> Table:
    """Some columns beside that of the splits; rows that have nothing there are left out."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column(_COLUMNS[0])
    for column in block:
        table.add_column(_COLUMNS[column], justify="right")
    for row in rows:
        if any(row[column] for column in block):
            style = "dim" if row[0].startswith(" ") else None
            table.add_row(row[0], *(row[column] for column in block), style=style)
    return table


def architecture_table(arch: Architecture | ResNet50, width: int, image_size: int) -> Table:
    """What an architecture is made of, and its graph at a size."""
    program = arch.program(width=width, image_size=image_size)
    graph: ComputationGraph = arch.graph(width=width, image_size=image_size)
    degree, path = degree_and_path(graph.edge_index, graph.num_nodes)
    counts = Counter(PRIMITIVES[op] for op in graph.op)
    table = Table(show_header=False)
    table.add_row("fingerprint", arch.fingerprint())
    for key, value in arch.to_dict().items():
        if key == "genotype":
            for cell in ("normal", "reduce"):
                steps = [" ".join(map(str, pair)) for pair in value[cell]]
                pairs = zip(steps[::2], steps[1::2], strict=True)
                table.add_row(f"{cell} cell", " | ".join(f"{a}, {b}" for a, b in pairs))
                table.add_row(f"{cell} concat", ", ".join(map(str, value[f"{cell}_concat"])))
        else:
            table.add_row(key, str(value))
    table.add_row(
        "parameters", f"{program.num_params:,} at width {width}, images of {image_size}, 10 classes"
    )
    table.add_row("nodes, edges", f"{graph.num_nodes}, {graph.num_edges}")
    table.add_row("degree, path", f"{degree:.2f}, {path:.2f} (undirected)")
    table.add_row("primitives", ", ".join(f"{n} {name}" for name, n in counts.most_common()))
    return table

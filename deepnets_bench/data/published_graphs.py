"""Graphs as the released HDF5 files store them: their spellings, and how they differ from rebuilt ones."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from deepnets_bench.compiler.primitives import PRIMITIVES
from deepnets_bench.graphs.graph import ComputationGraph

CUTOFF = 250  # of the stored distances
ROW_ORDER = "rows in another order than the adjacency"

_KERNEL = re.compile(r"_\d+x\d+$")
_OLD_OP = re.compile(r"^_ops\.(\d+)\.(\d+)")
_WITH_WEIGHT = frozenset({"conv", "sep_conv", "dil_conv", "bn", "ln", "pos_enc"})


@dataclass(frozen=True)
class StoredNames:
    """The tables of a split that turn stored numbers into names."""

    primitives: Mapping[int, str] = field(default_factory=dict)
    params: Mapping[int, str] = field(default_factory=dict)

    @classmethod
    def from_json(cls, meta: Any) -> StoredNames:
        """Read `primitives_ext` and `unique_op_names`; a table that is missing or unreadable is empty."""
        return cls(*(_table(meta, key) for key in ("primitives_ext", "unique_op_names")))

    def labels(self, nodes: np.ndarray) -> list[tuple[str, str | None]]:
        """(primitive, parameter name or None) of every row (primitive, cell, name) of `nodes` [N, 3]."""
        labels = []
        for kind, cell, name in nodes.tolist():
            primitive = primitive_name(self.primitives.get(kind, f"unknown {kind}"))
            labels.append((primitive, param_name(self.params.get(name, ""), primitive, cell)))
        return labels


def _table(meta: Any, key: str) -> dict[int, str]:
    table = meta.get(key) if isinstance(meta, Mapping) else None
    if not isinstance(table, Mapping):
        return {}
    return {int(number): str(name) for number, name in table.items() if str(number).isdecimal()}


def primitive_name(stored: str) -> str:
    """A stored node type as one of PRIMITIVES: older files add kernel sizes and spell biases `fc-b`."""
    if stored == "fc-b":
        return "bias"
    if stored.startswith("conv_"):
        return "conv"
    return _KERNEL.sub("", stored)


def param_name(stored: str, primitive: str, cell: int) -> str | None:
    """A stored name in full; None for a primitive without parameters.

    Stored names lack the cell's prefix, and in older files `.weight` and the `op` of an operation's layers.
    """
    if primitive not in _WITH_WEIGHT and primitive != "bias":
        return None
    name = _OLD_OP.sub(r"_ops.\1.op.\2", stored.removeprefix(f"cells.{cell}."))
    name = name.removesuffix(".")
    if not name.endswith((".weight", ".bias")):
        name += ".bias" if primitive == "bias" else ".weight"
    if name.startswith("classifier") or "stem" in name or "pos_enc" in name:
        return name
    return f"cells.{cell}.{name}"


def compare(
    graph: ComputationGraph, adj: np.ndarray, nodes: np.ndarray, names: StoredNames
) -> dict[str, int]:
    """Differences of a stored graph (`adj` [N, N] distances, `nodes` [N, 3]) from ours: kind → number.

    Nodes are matched by parameter name, the others by what they read; order does not count. Empty where the
    graphs and their distances are equal.
    """
    found: Counter[str] = Counter()
    primitives = [PRIMITIVES[op] for op in graph.op]
    ours = list(zip(primitives, graph.param_name, strict=True))
    theirs = names.labels(nodes)
    for different, what in (
        (Counter(ours) - Counter(theirs), "missing"),
        (Counter(theirs) - Counter(ours), "extra"),
    ):
        for (primitive, _), number in different.items():
            found[f"{what} node: {primitive}"] += number

    edges = np.argwhere(adj.T == 1)[:, ::-1]  # by target
    _, distance = graph.shortest_paths(CUTOFF)
    same_distances = np.array_equal(
        np.bincount(distance, minlength=256), np.bincount(adj[adj > 0], minlength=256)
    )
    if backward := int((edges[:, 0] >= edges[:, 1]).sum()):
        found["edges against the order of nodes"] += backward
    our_edges = _labelled_edges(ours, graph.edge_index.T.tolist())
    their_edges = _labelled_edges(theirs, edges.tolist())
    if our_edges != their_edges and not found and same_distances:
        found[ROW_ORDER] += 1  # the same shape and nodes, but joined to each other differently
    else:
        for unlike, what in ((our_edges - their_edges, "missing"), (their_edges - our_edges, "extra")):
            for (_, _, primitive), number in unlike.items():
                found[f"{what} edge into: {primitive}"] += number
        if not found and not same_distances:
            found["distances"] += abs(len(distance) - int((adj > 0).sum())) or 1
    return dict(found)


def _labelled_edges(
    labels: Sequence[tuple[str, str | None]], edges: Iterable[Sequence[int]]
) -> Counter[tuple[int, int, str]]:
    """Edges as (source, target, primitive of the target), by labels that do not depend on node numbers.

    A node without a parameter is labelled by its primitive and by what it reads; edges come by target.
    """
    edges = list(edges)
    reads: list[list[int]] = [[] for _ in labels]
    for u, v in edges:
        reads[v].append(u)
    known: list[int] = []
    for node, (primitive, name) in enumerate(labels):
        inputs = [] if name else sorted(known[u] for u in reads[node] if u < node)
        known.append(hash((primitive, name, *inputs)))
    return Counter((known[u], known[v], labels[v][0]) for u, v in edges)

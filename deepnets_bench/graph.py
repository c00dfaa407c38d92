"""Computation graphs: primitives as nodes, dataflow as edges, derived from a `Program` or traced."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from deepnets_bench import ir
from deepnets_bench.kernel import kernel
from deepnets_bench.primitives import PRIMITIVES
from deepnets_bench.program import weight_shape

if TYPE_CHECKING:
    import networkx
    import torch
    from matplotlib.axes import Axes
    from torch_geometric.data import Data

    from deepnets_bench.program import Program

(
    MAX_POOL,
    AVG_POOL,
    SEP_CONV,
    DIL_CONV,
    CONV,
    MSA,
    CSE,
    SUM,
    CONCAT,
    INPUT,
    BIAS,
    BN,
    LN,
    POS_ENC,
    GLOB_AVG,
) = range(len(PRIMITIVES))


@dataclass(frozen=True, eq=False)
class ComputationGraph:
    """A network as a directed acyclic graph of primitives.

    `op` uint8 [N] indexes `PRIMITIVES`; `cell` int16 [N] labels the cell of a node; `param_name` and
    `param_shape` [N] are None for nodes without parameters, and a norm is one node that carries the name
    and shape of its weight. `shape` int64 [N, 4] is what a hypernetwork reads: (out, in, height, width)
    padded with ones, (1, 1, 3, 3) for pools, zeros for nodes without a shape. `edge_index` int64 [2, E]
    holds (source, target) with source < target, sorted by (target, source): nodes are in a topological
    order, the input is node 0 and `class_weight`, `class_bias` are the nodes of the last linear layer.
    """

    op: np.ndarray
    cell: np.ndarray
    param_name: list[str | None]
    param_shape: list[tuple[int, ...] | None]
    shape: np.ndarray
    edge_index: np.ndarray
    class_weight: int
    class_bias: int

    @classmethod
    def from_program(cls, program: Program) -> ComputationGraph:
        """Fold and prune a program into its graph: what does not lead to the logits is left out."""
        program.require_output()
        op, cell, row, edge_index = assemble(program.table, program.args, program.live)
        return _CompiledGraph(program, row, op, cell, node_shapes(program.table, op, row), edge_index)

    @classmethod
    def from_module(
        cls, module: torch.nn.Module, input_shape: tuple[int, ...] = (3, 32, 32)
    ) -> ComputationGraph:
        """Trace any `torch.nn.Module` that maps one image [C, H, W] (without the batch) to logits."""
        from deepnets_bench.trace import trace

        return trace(module, input_shape).graph

    @property
    def num_nodes(self) -> int:
        return len(self.op)

    @property
    def num_edges(self) -> int:
        return self.edge_index.shape[1]

    @cached_property
    def level(self) -> np.ndarray:
        """int64 [N]: length of the longest path that ends in each node; edges go to higher levels."""
        return node_levels(self.edge_index, self.num_nodes)

    def shortest_paths(self, cutoff: int = 50) -> tuple[np.ndarray, np.ndarray]:
        """Directed distances from 1 to `cutoff`: (edge_index int64 [2, P], distance int64 [P]).

        Pairs are sorted by (target, source); the edges of the graph are among them at distance 1.
        """
        return shortest_paths(self.edge_index, self.num_nodes, cutoff)

    def to_networkx(self) -> networkx.DiGraph:
        """A `networkx.DiGraph` with node attributes op (name), cell, param_name and param_shape."""
        import networkx

        graph = networkx.DiGraph()
        for node in range(self.num_nodes):
            graph.add_node(
                node,
                op=PRIMITIVES[self.op[node]],
                cell=int(self.cell[node]),
                param_name=self.param_name[node],
                param_shape=self.param_shape[node],
            )
        graph.add_edges_from(self.edge_index.T.tolist())
        return graph

    def to_pyg(self) -> Data:
        """A `torch_geometric.data.Data` with op, cell, shape and edge_index as int64 tensors."""
        import torch
        from torch_geometric.data import Data

        return Data(
            op=torch.from_numpy(self.op.astype(np.int64)),
            cell=torch.from_numpy(self.cell.astype(np.int64)),
            shape=torch.from_numpy(self.shape),
            edge_index=torch.from_numpy(self.edge_index),
            num_nodes=self.num_nodes,
        )

    def to_dgl(self) -> Any:
        """A `dgl.DGLGraph` with node data op, cell and shape; needs the extra `dgl`."""
        import torch

        from deepnets_bench.errors import MissingExtra

        try:
            import dgl
        except ImportError as error:
            raise MissingExtra("to_dgl", "dgl") from error
        source, target = torch.from_numpy(self.edge_index)
        graph = dgl.graph((source, target), num_nodes=self.num_nodes)
        for key in ("op", "cell", "shape"):
            graph.ndata[key] = torch.from_numpy(getattr(self, key).astype(np.int64))
        return graph

    def draw(self, ax: Axes | None = None) -> Axes:
        """Draw the graph left to right with matplotlib, one colour per primitive; returns the axes."""
        from deepnets_bench.drawing import draw_graph

        return draw_graph(self, ax)


class _CompiledGraph(ComputationGraph):
    """The graph of a program: names are spelled out when asked for, as that takes longer than the rest."""

    _program: Program
    _row: np.ndarray  # of the program's table, per node

    def __init__(
        self,
        program: Program,
        row: np.ndarray,
        op: np.ndarray,
        cell: np.ndarray,
        shape: np.ndarray,
        edge_index: np.ndarray,
    ) -> None:
        last = len(op) - 1
        vars(self).update(
            _program=program, _row=row, op=op, cell=cell, shape=shape, edge_index=edge_index,
            class_weight=last - 1, class_bias=last,
        )  # fmt: skip

    @cached_property
    def param_name(self) -> list[str | None]:  # type: ignore[override]
        modules = self._program.module_names(self._row)
        return [
            module + (".bias" if op == BIAS else ".weight") if module else None
            for op, module in zip(self.op.tolist(), modules, strict=True)
        ]

    @cached_property
    def param_shape(self) -> list[tuple[int, ...] | None]:  # type: ignore[override]
        rows = self._program.table[self._row].tolist()
        return [
            None if not row[ir.SLOT] else (row[ir.OUT_CH],) if op == BIAS else weight_shape(row)
            for op, row in zip(self.op.tolist(), rows, strict=True)
        ]


@kernel()
def node_shapes(table, op, row):  # type: ignore[no-untyped-def]
    """int64 [N, 4] shape features of the nodes that `assemble` made of the rows of a program's table."""
    shape = np.zeros((len(op), 4), np.int64)
    for node in range(len(op)):
        kind, columns, features = op[node], table[row[node]], shape[node]
        if kind == MAX_POOL or kind == AVG_POOL:
            features[:] = (1, 1, 3, 3)
        elif kind == SEP_CONV or kind == DIL_CONV or kind == CONV:
            features[0], features[1] = columns[ir.OUT_CH], columns[ir.IN_CH]
            features[2], features[3] = columns[ir.KH], columns[ir.KW]
        elif kind == POS_ENC:
            features[0], features[1] = 1, columns[ir.OUT_CH]
            features[2], features[3] = columns[ir.KH], columns[ir.KW]
        elif kind == BIAS or kind == BN or kind == LN:
            features[:] = 1
            features[0] = columns[ir.OUT_CH]
    return shape


@kernel()
def assemble(table, args, live):  # type: ignore[no-untyped-def]
    """Fold a table into nodes: (op uint8 [N], cell int16 [N], row int32 [N], edge_index int64 [2, E]).

    A sum or concatenation of fewer than two distinct producers, a subsampling, a mean and a flattening
    are not nodes: they stand for their producer.
    """
    n = len(table)
    node_op = np.empty(2 * n, np.uint8)
    cell = np.empty(2 * n, np.int16)
    row = np.empty(2 * n, np.int32)
    edges = np.empty((2, 3 * n + len(args)), np.int64)
    producer = np.full(n, -1, np.int32)  # node that stands for the value of a row
    sources = np.empty(2 + len(args), np.int32)
    n_nodes = n_edges = 0
    for i in range(n):
        if not live[i]:
            continue
        kind, a, b = table[i, ir.KIND], table[i, ir.IN0], table[i, ir.IN1]
        count = 0  # distinct producers of the inputs, ascending
        if kind == ir.CONCAT:
            for k in range(a, a + b):
                if args[k] >= 0:
                    count = _insert(sources, count, producer[args[k]])
        else:
            if a >= 0:
                count = _insert(sources, count, producer[a])
            if b >= 0:
                count = _insert(sources, count, producer[b])
        joins = kind == ir.SUM or kind == ir.CONCAT
        if (joins and count < 2) or kind == ir.SUBSAMPLE or kind == ir.MEAN or kind == ir.FLATTEN:
            producer[i] = sources[0]
            continue
        if kind == ir.CONV:
            if table[i, ir.GROUPS] == 1:
                op = CONV
            else:
                op = DIL_CONV if table[i, ir.DILATION] > 1 else SEP_CONV
        else:
            op = _NODE_OP[kind]
        for k in range(count):
            edges[0, n_edges], edges[1, n_edges] = sources[k], n_nodes
            n_edges += 1
        node_op[n_nodes], cell[n_nodes], row[n_nodes] = op, table[i, ir.CELL], i
        n_nodes += 1
        if kind == ir.LINEAR and table[i, ir.BIAS]:
            edges[0, n_edges], edges[1, n_edges] = n_nodes - 1, n_nodes
            n_edges += 1
            node_op[n_nodes], cell[n_nodes], row[n_nodes] = BIAS, table[i, ir.CELL], i
            n_nodes += 1
        producer[i] = n_nodes - 1
    return (
        node_op[:n_nodes].copy(),
        cell[:n_nodes].copy(),
        row[:n_nodes].copy(),
        edges[:, :n_edges].copy(),
    )


# Primitive of each kind of operation that is always a node of one type.
_NODE_OP = np.zeros(16, np.uint8)
for _kind, _op in (
    (ir.INPUT, INPUT),
    (ir.NORM, BN),
    (ir.LAYER_NORM, LN),
    (ir.LINEAR, CONV),
    (ir.MAX_POOL, MAX_POOL),
    (ir.AVG_POOL, AVG_POOL),
    (ir.SUM, SUM),
    (ir.CONCAT, CONCAT),
    (ir.ATTENTION, MSA),
    (ir.SCALE, CSE),
    (ir.POS_ENC, POS_ENC),
    (ir.GLOB_AVG, GLOB_AVG),
):
    _NODE_OP[_kind] = _op


@kernel()
def _insert(values, count, value):  # type: ignore[no-untyped-def]
    """Insert into the ascending values[:count] unless it is there; returns the new count."""
    k = count
    while k > 0 and values[k - 1] > value:
        k -= 1
    if k > 0 and values[k - 1] == value:
        return count
    for i in range(count, k, -1):
        values[i] = values[i - 1]
    values[k] = value
    return count + 1


@kernel()
def node_levels(edge_index, num_nodes):  # type: ignore[no-untyped-def]
    """int64 [N]: longest path that ends in each node; edges sorted by target, source < target."""
    level = np.zeros(num_nodes, np.int64)
    for e in range(edge_index.shape[1]):
        u, v = edge_index[0, e], edge_index[1, e]
        level[v] = max(level[v], level[u] + 1)
    return level


@kernel()
def shortest_paths(edge_index, num_nodes, cutoff):  # type: ignore[no-untyped-def]
    """Directed distances 1..cutoff as (edge_index int64 [2, P], distance int64 [P]), by (target, source).

    Edges must be sorted by target with source < target. The distances to a node are one more than the
    smallest of those to its predecessors, so one pass in topological order is enough.
    """
    far = np.uint16(65535 // 2)
    to = np.full((num_nodes, num_nodes), far, np.uint16)
    e = 0
    n_edges = edge_index.shape[1]
    pairs = 0
    for v in range(num_nodes):
        row = to[v]
        while e < n_edges and edge_index[1, e] == v:
            u = edge_index[0, e]
            previous = to[u]
            for w in range(u):
                row[w] = min(row[w], previous[w] + np.uint16(1))
            row[u] = 1
            e += 1
        for w in range(v):
            pairs += row[w] <= cutoff
    index = np.empty((2, pairs), np.int64)
    distance = np.empty(pairs, np.int64)
    p = 0
    for v in range(num_nodes):
        for w in range(v):
            if to[v, w] <= cutoff:
                index[0, p], index[1, p], distance[p] = w, v, to[v, w]
                p += 1
    return index, distance

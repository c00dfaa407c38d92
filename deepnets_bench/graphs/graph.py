"""Computation graphs: primitives as nodes, dataflow as edges, derived from a `Program` or traced."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from deepnets_bench.compiler import instructions as ir
from deepnets_bench.compiler.primitives import BIAS, PRIMITIVES
from deepnets_bench.compiler.program import Program, weight_shape
from deepnets_bench.errors import BadInput, MissingExtra
from deepnets_bench.graphs.algorithms import LONGEST_DISTANCE, node_levels, shortest_paths
from deepnets_bench.graphs.folding import assemble, node_shapes

if TYPE_CHECKING:
    import networkx
    import torch
    from matplotlib.axes import Axes
    from torch_geometric.data import Data


@dataclass(frozen=True, eq=False)
class ComputationGraph:
    """A network as a directed acyclic graph of primitives.

    `op` uint8 [N] indexes `PRIMITIVES`; `cell` int16 [N] labels the cell of a node; `param_name` and
    `param_shape` [N] are None for nodes without parameters, and a norm is one node that carries the name
    and shape of its weight. `shape` int64 [N, 4] is what a hypernetwork reads: (out, in, height, width)
    padded with ones, (1, 1, 3, 3) for pools, zeros for nodes without a shape. `edge_index` int64 [2, E]
    holds (source, target) with source < target, sorted by (target, source): nodes are in a topological
    order, the input is node 0 and `class_weight`, `class_bias` are the nodes of the last linear layer.
    `left` holds the parameters of a traced module that have no node: name → why.
    """

    op: np.ndarray
    cell: np.ndarray
    param_name: list[str | None]
    param_shape: list[tuple[int, ...] | None]
    shape: np.ndarray
    edge_index: np.ndarray
    class_weight: int
    class_bias: int
    left: dict[str, str] = field(default_factory=dict)

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
        """Trace any `torch.nn.Module` that takes one image [C, H, W] (without the batch).

        Parameters that are no part of the graph are in `left`, and a `UserWarning` says so. Raises `BadInput`
        for a module that has no graph of this kind (see `deepnets_bench.graphs.tracing.trace.trace`).
        """
        from deepnets_bench.graphs.tracing.trace import trace, warn_of_left

        traced = trace(module, input_shape)
        warn_of_left(traced.left)
        return cls(**vars(traced))

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

        Pairs are sorted by (target, source); the edges of the graph are among them at distance 1. A cutoff
        beyond the number of nodes stands for all pairs with a directed path.

        Raises `BadInput` unless the cutoff is a whole number of at least 1.
        """
        if not isinstance(cutoff, int | np.integer) or cutoff < 1:
            raise BadInput(f"The cutoff of shortest paths is a whole number of at least 1, not {cutoff!r}.")
        reach = min(int(cutoff), self.num_nodes)
        if reach > LONGEST_DISTANCE:
            raise BadInput(f"The cutoff of shortest paths is {LONGEST_DISTANCE:,} at most, not {cutoff:,}.")
        return shortest_paths(self.edge_index, self.num_nodes, reach)

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
        from deepnets_bench.graphs.drawing import draw_graph

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
            class_weight=last - 1, class_bias=last, left={},
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

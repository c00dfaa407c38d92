"""The node loops of a sweep of the gated graph network on a GPU: one Triton program per graph.

Level by level in eager PyTorch, a meta-batch takes tens of thousands of kernel launches; here a sweep is
one launch forward and one backward. Within a graph the nodes are visited one after another, as on the CPU.
"""

# The values of Triton's functions have no types that mypy knows.
# mypy: disable-error-code="no-untyped-def, misc"

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from deepnets_bench.errors import BadInput
from deepnets_bench.ghn.gated.numba import Gradients, Values, Weights

DIMS = (16, 32, 64)  # widths of states whose weights a program holds in registers
_BLOCK = 32  # edges that are gathered at once


@dataclass(frozen=True)
class Neighbours:
    """As `numba.Neighbours`, on the device."""

    ptr: Tensor  # int64 [relations * N + 1]
    node: Tensor  # int64 [edges of all relations]
    weight: Tensor


@dataclass(frozen=True)
class TritonSchedule:
    """As `numba.Schedule`, on the device; the nodes of graph g are order[first[g]:first[g + 1]]."""

    order: Tensor  # [N] nodes, graph by graph in topological order
    first: Tensor  # [graphs + 1]
    predecessors: Neighbours
    successors: Neighbours

    @classmethod
    def build(
        cls, relations: list[tuple[Tensor, Tensor]], level: Tensor, dtype: torch.dtype, graph: Tensor
    ) -> TritonSchedule:
        """As `gated_kernel.Schedule.build`; `graph` [N] is the number of each node's graph."""
        source, target = torch.cat([ends for ends, _ in relations], 1)
        distance = torch.cat([distance for _, distance in relations])
        num_nodes = level.numel()
        if source.numel():
            ends = torch.stack([source, target])
            if int(ends.min()) < 0 or int(ends.max()) >= num_nodes:
                raise BadInput(f"An edge of the batch names a node outside 0..{num_nodes - 1}.")
            if bool((level[source] >= level[target]).any()):
                raise BadInput("Every edge of the batch must lead to a node of a higher level.")
        by_level = torch.argsort(level, stable=True)
        order = by_level[torch.argsort(graph[by_level], stable=True)]
        relation = torch.cat([torch.full_like(d, k, dtype=torch.long) for k, (_, d) in enumerate(relations)])
        weight, rows = 1 / distance.to(dtype), len(relations) * num_nodes
        return cls(
            order,
            _starts(graph, int(graph.max()) + 1),
            _neighbours(relation * num_nodes + target, source, weight, rows),
            _neighbours(relation * num_nodes + source, target, weight, rows),
        )

    def forward(self, reverse: bool, h: Tensor, gate_h: Tensor, weights: Weights, values: Values) -> None:
        """As `gated_kernel.Schedule.forward`."""
        edges = self.successors if reverse else self.predecessors
        named = _contiguous(weights) | values._asdict()
        self._launch(_forward, edges, reverse, weights, h=h, gate_h=gate_h, **named)

    def backward(
        self, reverse: bool, h: Tensor, gate_h: Tensor, weights: Weights, values: Values, d_state: Tensor,
        gradients: Gradients,
    ) -> None:  # fmt: skip
        """As `gated_kernel.Schedule.backward`."""
        edges = self.predecessors if reverse else self.successors
        w = _contiguous(weights)
        named = {name: w[name] for name in ("w_ih", "w1", "w2")} | gradients._asdict()
        named |= {"gates": values.gates, "hidden": values.hidden, "out": values.out}
        named |= {"h": h, "gate_h": gate_h, "d_state": d_state.contiguous()}
        self._launch(_backward, edges, not reverse, weights, **named)

    def _launch(
        self, kernel: Any, edges: Neighbours, reverse: bool, weights: Weights, **tensors: Tensor
    ) -> None:
        """One program a graph, its pointers passed by name; `reverse` visits the nodes from last to first."""
        relations, m, d = weights.w1.shape
        with torch.cuda.device_of(weights.w1):
            kernel[(len(self.first) - 1,)](
                order=self.order, first=self.first, ptr=edges.ptr, node=edges.node, weight=edges.weight,
                **tensors, num_nodes=len(self.order), reverse=reverse,
                RELATIONS=relations, D=d, M=m, BLOCK=_BLOCK,
            )  # fmt: skip


def _starts(group: Tensor, count: int) -> Tensor:
    """[count + 1]: where each group begins once elements are sorted by group."""
    return torch.nn.functional.pad(torch.bincount(group, minlength=count).cumsum(0), (1, 0))


def _contiguous(weights: Weights) -> dict[str, Tensor]:
    return {name: weight.contiguous() for name, weight in weights._asdict().items()}


def _neighbours(row: Tensor, node: Tensor, weight: Tensor, rows: int) -> Neighbours:
    by_row = torch.argsort(row, stable=True)
    return Neighbours(_starts(row, rows), node[by_row], weight[by_row])


@triton.jit
def _sum_of_neighbours(rows, row, start, stop, node, weight, columns, D: tl.constexpr, BLOCK: tl.constexpr):
    """Sum of weight[e] * rows[row + node[e]] over the edges start..stop."""
    total = tl.zeros([D], dtype=rows.dtype.element_ty)
    for begin in range(start, stop, BLOCK):
        edge = begin + tl.arange(0, BLOCK)
        valid = edge < stop
        ends = tl.load(node + edge, mask=valid, other=0)
        factor = tl.load(weight + edge, mask=valid, other=0.0)
        places = rows + (row + ends)[:, None] * D + columns[None, :]
        values = tl.load(places, mask=valid[:, None], other=0.0)
        total += tl.sum(values * factor[:, None], 0)
    return total


@triton.jit
def _forward(
    order, first, ptr, node, weight, h, gate_h, w_ih, b_ih, w1, b1, w2, b2, state, message, gates, hidden,
    out, num_nodes, reverse,
    RELATIONS: tl.constexpr, D: tl.constexpr, M: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    low, high = tl.load(first + tl.program_id(0)), tl.load(first + tl.program_id(0) + 1)
    c, m = tl.arange(0, D), tl.arange(0, M)
    square = c[:, None] * D + c[None, :]
    w_r, w_z, w_n = tl.load(w_ih + square), tl.load(w_ih + D * D + square), tl.load(w_ih + 2 * D * D + square)
    b_r, b_z, b_n = tl.load(b_ih + c), tl.load(b_ih + D + c), tl.load(b_ih + 2 * D + c)
    for i in range(low, high):
        v = tl.load(order + tl.where(reverse, low + high - 1 - i, i))
        received = tl.zeros([D], dtype=h.dtype.element_ty)
        for k in tl.static_range(RELATIONS):
            row = k * num_nodes
            start, stop = tl.load(ptr + row + v), tl.load(ptr + row + v + 1)
            received += _sum_of_neighbours(out, row, start, stop, node, weight, c, D, BLOCK)
        tl.store(message + v * D + c, received)

        gate = 3 * D * v + c
        r = tl.sigmoid(tl.sum(w_r * received[None, :], 1) + b_r + tl.load(gate_h + gate))
        z = tl.sigmoid(tl.sum(w_z * received[None, :], 1) + b_z + tl.load(gate_h + gate + D))
        n = tl.sum(w_n * received[None, :], 1) + b_n + r * tl.load(gate_h + gate + 2 * D)
        n = 2 * tl.sigmoid(2 * n) - 1  # tanh
        new = n + z * (tl.load(h + v * D + c) - n)
        tl.store(gates + gate, r)
        tl.store(gates + gate + D, z)
        tl.store(gates + gate + 2 * D, n)
        tl.store(state + v * D + c, new)

        for k in tl.static_range(RELATIONS):
            inner = tl.sum(tl.load(w1 + k * M * D + m[:, None] * D + c[None, :]) * new[None, :], 1)
            inner = tl.maximum(inner + tl.load(b1 + k * M + m), 0.0)
            outer = tl.sum(tl.load(w2 + k * D * M + c[:, None] * M + m[None, :]) * inner[None, :], 1)
            outer = tl.maximum(outer + tl.load(b2 + k * D + c), 0.0)
            tl.store(hidden + (v * RELATIONS + k) * M + m, inner)
            tl.store(out + (k * num_nodes + v) * D + c, outer)
        tl.debug_barrier()  # the next node reads what this one wrote


@triton.jit
def _backward(
    order, first, ptr, node, weight, h, gate_h, w_ih, w1, w2, gates, hidden, out, d_state, d_h, d_gate_h,
    d_gates, d_message, d_hidden, d_out, num_nodes, reverse,
    RELATIONS: tl.constexpr, D: tl.constexpr, M: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    low, high = tl.load(first + tl.program_id(0)), tl.load(first + tl.program_id(0) + 1)
    c, m = tl.arange(0, D), tl.arange(0, M)
    square = c[:, None] * D + c[None, :]
    w_r, w_z, w_n = tl.load(w_ih + square), tl.load(w_ih + D * D + square), tl.load(w_ih + 2 * D * D + square)
    for i in range(low, high):
        v = tl.load(order + tl.where(reverse, low + high - 1 - i, i))
        grad = tl.load(d_state + v * D + c)
        for k in tl.static_range(RELATIONS):
            row = k * num_nodes
            start, stop = tl.load(ptr + row + v), tl.load(ptr + row + v + 1)
            outer = _sum_of_neighbours(d_message, 0, start, stop, node, weight, c, D, BLOCK)
            outer = tl.where(tl.load(out + (row + v) * D + c) > 0, outer, 0.0)
            inner = tl.sum(tl.load(w2 + k * D * M + c[:, None] * M + m[None, :]) * outer[:, None], 0)
            inner = tl.where(tl.load(hidden + (v * RELATIONS + k) * M + m) > 0, inner, 0.0)
            grad += tl.sum(tl.load(w1 + k * M * D + m[:, None] * D + c[None, :]) * inner[:, None], 0)
            tl.store(d_out + (row + v) * D + c, outer)
            tl.store(d_hidden + (v * RELATIONS + k) * M + m, inner)

        gate = 3 * D * v + c
        r, z, n = tl.load(gates + gate), tl.load(gates + gate + D), tl.load(gates + gate + 2 * D)
        d_n = grad * (1 - z) * (1 - n * n)
        d_z = grad * (tl.load(h + v * D + c) - n) * z * (1 - z)
        d_r = d_n * tl.load(gate_h + gate + 2 * D) * r * (1 - r)
        tl.store(d_h + v * D + c, grad * z)
        tl.store(d_gates + gate, d_r)
        tl.store(d_gates + gate + D, d_z)
        tl.store(d_gates + gate + 2 * D, d_n)
        tl.store(d_gate_h + gate, d_r)
        tl.store(d_gate_h + gate + D, d_z)
        tl.store(d_gate_h + gate + 2 * D, d_n * r)
        passed = tl.sum(w_r * d_r[:, None], 0) + tl.sum(w_z * d_z[:, None], 0)
        tl.store(d_message + v * D + c, passed + tl.sum(w_n * d_n[:, None], 0))
        tl.debug_barrier()  # the next node reads what this one wrote

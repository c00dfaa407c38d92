"""One sweep of the gated graph network as an operator of PyTorch, with a hand-written gradient.

The nodes are visited one after another by loops that are compiled for the device: `numba` on the CPU,
`triton` on a GPU. Everything that is known for all nodes at once (the hidden half of the GRU before a sweep,
the weight gradients after it) is a matrix product. Edges belong to relations (1-hop and, optionally, virtual
edges), each with its own message MLP. As operators of `torch.library` the loops have shapes without values,
so that hypernetworks can be traced, and tried on devices that are not there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from deepnets_bench.ghn.gated import numba

_BLOCK = 128  # nodes whose weight gradients are summed in one product


class Values(NamedTuple):
    """What a sweep over N nodes with K relations computes: the new states, and what their gradient needs."""

    state: Tensor  # [N, d]
    message: Tensor  # [N, d]
    gates: Tensor  # [N, 3d]
    hidden: Tensor  # [N, K, m]: inside of the message MLPs
    out: Tensor  # [K, N, d]: of the message MLPs


class Gradients(NamedTuple):
    """What the loops compute backward: gradients of a sweep's inputs and of its `Values`, likewise shaped."""

    d_h: Tensor
    d_gate_h: Tensor
    d_gates: Tensor
    d_message: Tensor
    d_hidden: Tensor
    d_out: Tensor


class Neighbours(NamedTuple):
    """The other ends of every node's edges in compressed rows, for each relation.

    Those of node v of N under relation k are `node[ptr[r]:ptr[r + 1]]`, where r = k N + v.
    """

    ptr: Tensor  # int64 [K N + 1]
    node: Tensor  # [edges of all relations], uint32 on the CPU, else int64
    weight: Tensor  # like node: 1 / distance, in the dtype of the states


class Schedule(NamedTuple):
    """What both sweeps and their gradients need to know of a batch of B graphs."""

    order: Tensor  # int64 [N]: nodes in topological order, on a GPU graph by graph
    first: Tensor  # int64 [B + 1]: where each graph begins in it
    predecessors: Neighbours
    successors: Neighbours

    @classmethod
    def build(cls, relations: Sequence[tuple[Tensor, Tensor]], batch: Any, dtype: torch.dtype) -> Schedule:
        """Index the edges in both directions.

        `relations`: per relation the edge_index [2, E] and the positive distances [E]; `batch` has
        the `level` [N] and the graph of every node, and in `ptr` [B + 1] the first node of each graph.
        Raises `BadInput` unless every edge leads to a higher level.
        """
        edges, distances = zip(*relations, strict=True)
        order, *index = _schedule(list(edges), list(distances), batch.level, batch.batch, dtype)
        return cls(order, batch.ptr, Neighbours(*index[:3]), Neighbours(*index[3:]))


def sweep(states: Tensor, weights: Sequence[Tensor], schedule: Schedule, reverse: bool) -> Tensor:
    """States [N, d] before a sweep → those after it, [N, d].

    `weights`: of the GRU w_ih, b_ih, w_hh, b_hh ([3d, d] and [3d]), and of the message MLP of each relation
    w1 [K, m, d], b1 [K, m], w2 [K, d, m], b2 [K, d]. `reverse` sweeps from the outputs to the inputs along
    reversed edges.
    """
    state: Tensor = _Sweep.apply(states, *weights, schedule, reverse)
    return state


def _loops(device: torch.device) -> ModuleType:
    if device.type == "cpu":
        return numba
    from deepnets_bench.ghn.gated import triton

    return triton


def _build(
    edges: list[Tensor], distances: list[Tensor], level: Tensor, graph: Tensor, dtype: torch.dtype
) -> list[Tensor]:
    """What `Schedule` holds but for `first`, flat."""
    return list(_loops(level.device).schedule(edges, distances, level, graph, dtype))


def _schedule_shapes(
    edges: list[Tensor], distances: list[Tensor], level: Tensor, graph: Tensor, dtype: torch.dtype
) -> list[Tensor]:
    count = sum(len(distance) for distance in distances)
    whole = torch.uint32 if level.device.type == "cpu" else torch.int64

    def neighbours() -> list[Tensor]:
        ptr = level.new_empty(len(edges) * len(level) + 1, dtype=torch.int64)
        return [ptr, level.new_empty(count, dtype=whole), level.new_empty(count, dtype=dtype)]

    return [torch.empty_like(level), *neighbours(), *neighbours()]


def _forward(reverse: bool, index: list[Tensor], inputs: list[Tensor]) -> list[Tensor]:
    """`Values` from the index of a sweep (order, first, ptr, node, weight), h, gate_h and the weights."""
    values = _values(reverse, index, inputs)
    _loops(inputs[0].device).forward(*index, reverse, *inputs, values)
    return values


def _values(_reverse: bool, _index: list[Tensor], inputs: list[Tensor]) -> list[Tensor]:
    h, b1 = inputs[0], inputs[5]
    (num_nodes, d), (relations, m) = h.shape, b1.shape
    return [
        h.new_empty(num_nodes, d),
        h.new_empty(num_nodes, d),
        h.new_empty(num_nodes, 3 * d),
        h.new_empty(num_nodes, relations, m),
        h.new_empty(relations, num_nodes, d),
    ]


def _backward(reverse: bool, index: list[Tensor], inputs: list[Tensor]) -> list[Tensor]:
    """`Gradients` from the index, h, gate_h, w_ih, w1, w2, gates, hidden, out and d_state.

    What goes through the hidden half of the GRU is not yet in d_h.
    """
    gradients = _gradients(reverse, index, inputs)
    _loops(inputs[0].device).backward(*index, reverse, *inputs, gradients)
    return gradients


def _gradients(_reverse: bool, _index: list[Tensor], inputs: list[Tensor]) -> list[Tensor]:
    h, gate_h, _, _, _, gates, hidden, out, _ = inputs
    return [torch.empty_like(value) for value in (h, gate_h, gates, h, hidden, out)]


# Not `torch.library.custom_op`, whose wrappers cost a single graph a quarter of its time on the CPU.
_LIBRARY = torch.library.Library("deepnets_bench", "DEF")


def _define(schema: str, function: Callable[..., list[Tensor]], shapes: Callable[..., list[Tensor]]) -> Any:
    """An operator of PyTorch: `function` on the CPU and on a GPU, `shapes` where tensors have no values."""
    name = _LIBRARY.define(schema).partition("(")[0]
    for key in ("CPU", "CUDA"):
        _LIBRARY.impl(name, function, key)
    torch.library.register_fake(f"deepnets_bench::{name}", shapes, lib=_LIBRARY)
    return getattr(torch.ops.deepnets_bench, name).default


_SWEEP = "(bool reverse, Tensor[] index, Tensor[] inputs) -> Tensor[]"
_schedule = _define(
    "gated_schedule(Tensor[] edges, Tensor[] distances, Tensor level, Tensor graph, ScalarType dtype) "
    "-> Tensor[]",
    _build,
    _schedule_shapes,
)
_sweep_forward = _define(f"gated_sweep{_SWEEP}", _forward, _values)
_sweep_backward = _define(f"gated_sweep_backward{_SWEEP}", _backward, _gradients)


class _Sweep(torch.autograd.Function):
    """A sweep with its gradient: see `sweep`."""

    @staticmethod
    def forward(
        ctx: Any, h: Tensor, w_ih: Tensor, b_ih: Tensor, w_hh: Tensor, b_hh: Tensor, w1: Tensor, b1: Tensor,
        w2: Tensor, b2: Tensor, schedule: Schedule, reverse: bool,
    ) -> Tensor:  # fmt: skip
        h = h.contiguous()
        gate_h = torch.addmm(b_hh, h, w_hh.t())
        index = [schedule.order, schedule.first, *(schedule.successors if reverse else schedule.predecessors)]
        values = Values(*_sweep_forward(reverse, index, [h, gate_h, w_ih, b_ih, w1, b1, w2, b2]))
        ctx.save_for_backward(h, gate_h, w_ih, w_hh, w1, w2, *values)
        ctx.schedule, ctx.reverse = schedule, reverse
        return values.state

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_state: Tensor) -> tuple[Tensor | None, ...]:
        h, gate_h, w_ih, w_hh, w1, w2, *saved = ctx.saved_tensors
        state, message, gates, hidden, out = saved
        schedule, reverse = ctx.schedule, ctx.reverse
        index = [schedule.order, schedule.first, *(schedule.predecessors if reverse else schedule.successors)]
        inputs = [h, gate_h, w_ih, w1, w2, gates, hidden, out, d_state]
        d = Gradients(*_sweep_backward(reverse, index, inputs))
        d.d_h.addmm_(d.d_gate_h, w_hh)
        return (
            d.d_h, *_affine_gradients(d.d_gates, message), *_affine_gradients(d.d_gate_h, h),
            *_affine_gradients(d.d_hidden.transpose(0, 1), state),
            *_affine_gradients(d.d_out, hidden.transpose(0, 1)), None, None,
        )  # fmt: skip


def _affine_gradients(d_output: Tensor, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of weight [..., o, i] and bias [..., o] from d_output [..., N, o] and inputs [..., N, i].

    The terms of thousands of nodes nearly cancel, so blocks of nodes are added up in float64: six times
    more accurate than one float32 product, for a seventh of the time of both sweeps.
    """
    blocks = list(zip(d_output.split(_BLOCK, -2), inputs.split(_BLOCK, -2), strict=True))
    weight = torch.stack([d.mT @ x for d, x in blocks]).sum(0, dtype=torch.float64)
    bias = torch.stack([d.sum(-2) for d, _ in blocks]).sum(0, dtype=torch.float64)
    return weight.to(inputs.dtype), bias.to(inputs.dtype)

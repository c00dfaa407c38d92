"""The node loops of a sweep of the gated graph network on a GPU: one Triton program per graph.

Level by level in eager PyTorch, a meta-batch takes tens of thousands of kernel launches; here a sweep is
one launch forward and one backward. Within a graph the nodes are visited one after another, as on the CPU.
"""

# The values of Triton's functions have no types that mypy knows.
# mypy: disable-error-code="no-untyped-def, misc"

from __future__ import annotations

import os
import shutil
import sysconfig
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from deepnets_bench.errors import BadInput

DIMS = (16, 32, 64)  # widths of states whose weights a program holds in registers
BLOCK = 32  # edges that are gathered at once


@cache
def lacking() -> str:
    """What Triton needs on this machine to launch a kernel and does not find; '' for nothing.

    It compiles the launcher of each kernel with the system's C compiler, against Python's headers.
    """
    if not (os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")):
        return "a C compiler (gcc or clang, or CC)"
    if not Path(sysconfig.get_paths()["include"], "Python.h").exists():
        return "Python.h (the python3-dev package, or the like)"
    return ""


def schedule(
    edges: Sequence[Tensor], distances: Sequence[Tensor], level: Tensor, graph: Tensor, dtype: torch.dtype
) -> tuple[Tensor, ...]:
    """What `sweep.Schedule` holds but for `first`; the host waits once, to check the edges."""
    source, target = torch.cat(list(edges), 1)
    num_nodes = level.numel()
    if source.numel():
        ends = torch.stack([source, target])
        inside = ends.clamp(0, num_nodes - 1)
        ascending = level[inside[0]] < level[inside[1]]
        all_inside, all_ascending = torch.stack([(inside == ends).all(), ascending.all()]).tolist()
        if not all_inside:
            raise BadInput(f"An edge of the batch names a node outside 0..{num_nodes - 1}.")
        if not all_ascending:
            raise BadInput("Every edge of the batch must lead to a node of a higher level.")
    by_level = torch.argsort(level, stable=True)
    order = by_level[torch.argsort(graph[by_level], stable=True)]
    first_row = torch.cat([torch.full_like(d, k * num_nodes) for k, d in enumerate(distances)])
    weight, rows = 1 / torch.cat(list(distances)).to(dtype), len(edges) * num_nodes
    return (
        order,
        *_neighbours(first_row + target, source, weight, rows),
        *_neighbours(first_row + source, target, weight, rows),
    )


def _neighbours(row: Tensor, node: Tensor, weight: Tensor, rows: int) -> tuple[Tensor, Tensor, Tensor]:
    by_row = torch.argsort(row, stable=True)
    starts = torch.searchsorted(row[by_row], torch.arange(rows + 1, device=row.device))
    return starts, node[by_row], weight[by_row]


def forward(
    order: Tensor, first: Tensor, ptr: Tensor, node: Tensor, weight: Tensor, reverse: bool,
    h: Tensor, gate_h: Tensor, w_ih: Tensor, b_ih: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor,
    values: Sequence[Tensor],
) -> None:  # fmt: skip
    """As `numba.forward`: one program a graph."""
    _launch(
        _forward, first, w1, (order, first, ptr, node, weight),
        (h, gate_h, w_ih, b_ih, w1, b1, w2, b2), values, reverse,
    )  # fmt: skip


def backward(
    order: Tensor, first: Tensor, ptr: Tensor, node: Tensor, weight: Tensor, reverse: bool,
    h: Tensor, gate_h: Tensor, w_ih: Tensor, w1: Tensor, w2: Tensor, gates: Tensor, hidden: Tensor,
    out: Tensor, d_state: Tensor, gradients: Sequence[Tensor],
) -> None:  # fmt: skip
    """As `numba.backward`: one program a graph."""
    _launch(
        _backward, first, w1, (order, first, ptr, node, weight),
        (h, gate_h, w_ih, w1, w2, gates, hidden, out, d_state), gradients, not reverse,
    )  # fmt: skip


def options(dim: int) -> dict[str, int]:
    """How the kernels are compiled for states of a size.

    The loops carry values through memory from node to node, so nothing may be loaded ahead: one stage. The
    weights of 64 states fit into the registers of eight warps, those of fewer into four.
    """
    return {"num_stages": 1, "num_warps": 8 if dim == 64 else 4}


def _launch(
    kernel: Any, first: Tensor, w1: Tensor, index: Sequence[Tensor], inputs: Sequence[Tensor],
    outputs: Sequence[Tensor], reverse: bool,
) -> None:  # fmt: skip
    """One program a graph; `reverse` visits the nodes from last to first."""
    relations, m, d = w1.shape
    with torch.cuda.device_of(w1):
        kernel[(len(first) - 1,)](
            *index, *(tensor.contiguous() for tensor in inputs), *outputs, len(index[0]), reverse,
            RELATIONS=relations, D=d, M=m, BLOCK=BLOCK, **options(d),
        )  # fmt: skip


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

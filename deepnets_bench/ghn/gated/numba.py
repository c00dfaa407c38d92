"""The node loops of a sweep of the gated graph network on the CPU, compiled by numba.

A sweep visits the nodes one after another, so almost all of its cost in eager PyTorch is dispatch.
Here only what is sequential runs node by node; `sweep` does the rest by matrix products.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepnets_bench.errors import BadInput

# Contraction lets LLVM emit fused multiply-adds; sums keep their order, so runs repeat bit for bit.
_njit = numba.njit(cache=True, fastmath={"contract"}, error_model="numpy")

_LOG2E = 1.4426950408889634
_LN2 = 0.6931471805599453
# Taylor coefficients of exp, highest first: below one ulp of float64 on |x| <= ln(2) / 2.
_EXP = np.array([1 / float(np.prod(np.arange(1.0, k + 1))) for k in range(13, -1, -1)])
_POWERS_OF_TWO = np.ldexp(np.float32(1), np.arange(-126, 130).clip(max=127)).astype(np.float32)


def schedule(
    edges: Sequence[Tensor], distances: Sequence[Tensor], level: Tensor, graph: Tensor, dtype: torch.dtype
) -> tuple[Tensor, ...]:
    """What `sweep.Schedule` holds but for `first`; the order does not go by `graph`."""
    num_nodes = level.numel()
    source, target = torch.cat(list(edges), 1).numpy()
    distance = torch.cat(list(distances)).numpy()
    first_row = np.repeat(np.arange(len(edges)) * num_nodes, [len(d) for d in distances])
    inside, ascending = _check(source, target, num_nodes)
    if not inside:
        raise BadInput(f"An edge of the batch names a node outside 0..{num_nodes - 1}.")
    order = np.arange(num_nodes)
    if not ascending:
        levels = level.numpy()
        if (levels[source] >= levels[target]).any():
            raise BadInput("Every edge of the batch must lead to a node of a higher level.")
        order = np.argsort(levels, kind="stable")
    rows = len(edges) * num_nodes
    real = torch.empty(0, dtype=dtype).numpy().dtype
    predecessors = _group(source, first_row + target, distance, rows, real)
    successors = _group(target, first_row + source, distance, rows, real)
    return tuple(map(torch.from_numpy, (order, *predecessors, *successors)))


def forward(
    order: Tensor, first: Tensor, ptr: Tensor, node: Tensor, weight: Tensor, reverse: bool,
    h: Tensor, gate_h: Tensor, w_ih: Tensor, b_ih: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor,
    values: Sequence[Tensor],
) -> None:  # fmt: skip
    """Visit all nodes; fills `values`, which are `sweep.Values`."""
    _forward(
        _visit(order, reverse), ptr.numpy(), node.numpy(), weight.numpy(),
        *_arrays(h, gate_h, w_ih.t(), b_ih, w1.mT, b1, w2.mT, b2), *(value.numpy() for value in values),
    )  # fmt: skip


def backward(
    order: Tensor, first: Tensor, ptr: Tensor, node: Tensor, weight: Tensor, reverse: bool,
    h: Tensor, gate_h: Tensor, w_ih: Tensor, w1: Tensor, w2: Tensor, gates: Tensor, hidden: Tensor,
    out: Tensor, d_state: Tensor, gradients: Sequence[Tensor],
) -> None:  # fmt: skip
    """Visit all nodes against the order of `forward`; fills `gradients`, which are `sweep.Gradients`."""
    _backward(
        _visit(order, not reverse), ptr.numpy(), node.numpy(), weight.numpy(),
        *_arrays(h, gate_h, w_ih, w1, w2, gates, hidden, out, d_state),
        *(gradient.numpy() for gradient in gradients),
    )  # fmt: skip


def _visit(order: Tensor, reverse: bool) -> NDArray[np.int64]:
    nodes: NDArray[np.int64] = order.numpy()
    return nodes[::-1].copy() if reverse else nodes


@_njit
def _check(source, target, num_nodes):  # type: ignore[no-untyped-def]
    """Whether all ends are nodes, and whether every edge leads from a lower to a higher one."""
    inside, ascending = True, True
    for e in range(source.size):
        u, v = source[e], target[e]
        inside &= (u >= 0) & (u < num_nodes) & (v >= 0) & (v < num_nodes)
        ascending &= u < v
    return inside, ascending


@_njit
def _group(end, row, distance, rows, dtype):  # type: ignore[no-untyped-def]
    """Sort edges by row with a counting sort, which keeps their order within a row."""
    ptr = np.zeros(rows + 1, np.int64)
    for e in range(row.size):
        ptr[row[e] + 1] += 1
    for r in range(rows):
        ptr[r + 1] += ptr[r]
    free = ptr[:-1].copy()
    node, weight = np.empty(row.size, np.uint32), np.empty(row.size, dtype)
    for e in range(row.size):
        slot = free[row[e]]
        free[row[e]] = slot + 1
        node[slot] = end[e]
        weight[slot] = 1 / distance[e]
    return ptr, node, weight


@_njit
def _sigmoid(x):  # type: ignore[no-untyped-def]
    """Vectorises, unlike libm's exp; saturates at exp(60), far below one ulp. Exact to 2 ulp of 1."""
    real = x.dtype.type
    for j in range(x.size):
        y = -x[j]
        y = real(-60) if y < real(-60) else y
        y = real(60) if y > real(60) else y
        n = np.int32(y * real(_LOG2E) + real(128.5)) - np.int32(128)  # round: truncation of a positive
        rest = y - real(n) * real(_LN2)
        p = real(_EXP[0])
        for k in range(1, 14):
            p = p * rest + real(_EXP[k])
        # The mask keeps the lookup inside the table when x is NaN; p is NaN then, and stays so.
        x[j] = real(1) / (real(1) + p * real(_POWERS_OF_TWO[np.uint32(n + 126) & np.uint32(255)]))


@_njit
def _add_product(y, x, w):  # type: ignore[no-untyped-def]
    """y[n] += x[k] @ w[k, n]; four rows at a time save loads and stores of y."""
    whole = x.size // 4 * 4
    for k in range(0, whole, 4):
        x0, x1, x2, x3 = x[k], x[k + 1], x[k + 2], x[k + 3]
        w0, w1, w2, w3 = w[k], w[k + 1], w[k + 2], w[k + 3]
        for j in range(y.size):
            y[j] += x0 * w0[j] + x1 * w1[j] + x2 * w2[j] + x3 * w3[j]
    for k in range(whole, x.size):
        xk, wk = x[k], w[k]
        for j in range(y.size):
            y[j] += xk * wk[j]


@_njit
def _add_neighbours(y, rows, first, last, node, weight):  # type: ignore[no-untyped-def]
    """y[n] += sum of weight[e] * rows[node[e]] over the edges first..last."""
    whole = first + (last - first) // 4 * 4
    for e in range(first, whole, 4):
        a0, a1, a2, a3 = weight[e], weight[e + 1], weight[e + 2], weight[e + 3]
        r0, r1, r2, r3 = rows[node[e]], rows[node[e + 1]], rows[node[e + 2]], rows[node[e + 3]]
        for j in range(y.size):
            y[j] += a0 * r0[j] + a1 * r1[j] + a2 * r2[j] + a3 * r3[j]
    for e in range(whole, last):
        a, r = weight[e], rows[node[e]]
        for j in range(y.size):
            y[j] += a * r[j]


@_njit
def _forward(  # type: ignore[no-untyped-def]
    order, ptr, node, weight, h, gate_h, w_ih, b_ih, w1, b1, w2, b2, state, message, gates, hidden, out
):
    """Fill state [N, d], message [N, d], gates [N, 3d], hidden [N, K, m] and out [K, N, d].

    w_ih [d, 3d], w1 [K, d, m] and w2 [K, m, d] are transposed, so that all inner loops are contiguous.
    """
    d = h.shape[1]
    relations, m = hidden.shape[1:]
    zero = h.dtype.type(0)
    one = h.dtype.type(1)
    for i in range(order.size):
        v = order[i]
        msg = message[v]
        msg[:] = zero
        for k in range(relations):
            row = k * order.size + v
            _add_neighbours(msg, out[k], ptr[row], ptr[row + 1], node, weight)

        gate, recurrent = gates[v], gate_h[v]
        gate[:] = b_ih
        _add_product(gate, msg, w_ih)
        for j in range(2 * d):
            gate[j] += recurrent[j]
        _sigmoid(gate[: 2 * d])
        # tanh(x) = 2 sigmoid(2x) - 1
        new = gate[2 * d :]
        for j in range(d):
            new[j] = (new[j] + gate[j] * recurrent[2 * d + j]) * (one + one)
        _sigmoid(new)
        for j in range(d):
            new[j] = new[j] + new[j] - one
            state[v, j] = new[j] + gate[d + j] * (h[v, j] - new[j])

        for k in range(relations):
            inner, outer = hidden[v, k], out[k, v]
            inner[:] = b1[k]
            _add_product(inner, state[v], w1[k])
            for j in range(m):
                inner[j] = max(inner[j], zero)
            outer[:] = b2[k]
            _add_product(outer, inner, w2[k])
            for j in range(d):
                outer[j] = max(outer[j], zero)


@_njit
def _backward(  # type: ignore[no-untyped-def]
    order, ptr, node, weight, h, gate_h, w_ih, w1, w2, gates, hidden, out, d_state,
    d_h, d_gate_h, d_gates, d_message, d_hidden, d_out,
):  # fmt: skip
    """Fill the gradients d_*; `order` is the reverse of the sweep's, `ptr` and `node` its successors.

    w_ih [3d, d], w1 [K, m, d] and w2 [K, d, m] are as in PyTorch, so that inner loops are contiguous.
    """
    d = h.shape[1]
    relations, m = hidden.shape[1:]
    zero = h.dtype.type(0)
    one = h.dtype.type(1)
    grad = np.empty(d, h.dtype)
    for i in range(order.size):
        v = order[i]
        grad[:] = d_state[v]
        for k in range(relations):
            inner, outer = d_hidden[v, k], d_out[k, v]
            outer[:] = zero
            row = k * order.size + v
            _add_neighbours(outer, d_message, ptr[row], ptr[row + 1], node, weight)
            for j in range(d):
                outer[j] = outer[j] if out[k, v, j] > zero else zero
            inner[:] = zero
            _add_product(inner, outer, w2[k])
            for j in range(m):
                inner[j] = inner[j] if hidden[v, k, j] > zero else zero
            _add_product(grad, inner, w1[k])

        for j in range(d):
            r, z, n = gates[v, j], gates[v, d + j], gates[v, 2 * d + j]
            d_n = grad[j] * (one - z) * (one - n * n)
            d_z = grad[j] * (h[v, j] - n) * z * (one - z)
            d_r = d_n * gate_h[v, 2 * d + j] * r * (one - r)
            d_h[v, j] = grad[j] * z
            d_gates[v, j] = d_r
            d_gates[v, d + j] = d_z
            d_gates[v, 2 * d + j] = d_n
            d_gate_h[v, j] = d_r
            d_gate_h[v, d + j] = d_z
            d_gate_h[v, 2 * d + j] = d_n * r
        d_message[v, :] = zero
        _add_product(d_message[v], d_gates[v], w_ih)


def _arrays(*tensors: Tensor) -> list[NDArray[Any]]:
    return [tensor.detach().contiguous().numpy() for tensor in tensors]

"""Packing of a graph's cells and edges into few bytes, and checked unpacking, at numba speed.

A distance between node numbers takes one byte below 128, two below 16384 (LEB128: seven bits a byte, the
lowest first, the top bit set on all bytes but the last).
"""

from __future__ import annotations

import numba
import numpy as np

from deepnets_bench.compiler.canonical import is_valid
from deepnets_bench.compiler.jit import kernel
from deepnets_bench.compiler.primitives import PRIMITIVES

MAX_NODES = 32767  # of a graph; cells and distances then fit any of the formats readers use
PROBLEMS = (
    "",
    "a primitive out of range",
    "cell sizes that do not add up",
    "edges out of range",
    "an invalid architecture",
)

_N_PRIMITIVES = len(PRIMITIVES)
_SUM, _CONCAT, _CSE = (PRIMITIVES.index(name) for name in ("sum", "concat", "cse"))
_INPUT, _POS_ENC = PRIMITIVES.index("input"), PRIMITIVES.index("pos_enc")


@numba.njit(cache=True, inline="always")
def _joins(op):  # type: ignore[no-untyped-def]
    return op in (_SUM, _CONCAT, _CSE)


@kernel()
def pack_edges(op, source, target, out, at):  # type: ignore[no-untyped-def]
    """Write the edges, sorted by (target, source), to out[at:]; returns the end, or -1 where they do not fit
    the format (wrong order, or an in-degree its primitive cannot have). Needs at most 3 bytes an edge and
    one a node."""
    n_edges = len(source)
    edge = 0
    for node in range(len(op)):
        first = edge
        while edge < n_edges and target[edge] == node:
            unordered = edge > first and source[edge] <= source[edge - 1]
            if unordered or source[edge] < 0 or source[edge] >= node:
                return -1
            edge += 1
        degree = edge - first
        if _joins(op[node]):
            if degree < 1 or degree > 127:
                return -1
            out[at] = degree
            at += 1
        elif degree != (0 if op[node] == _INPUT or op[node] == _POS_ENC else 1):
            return -1
        for k in range(first, edge):
            distance = node - source[k]
            while distance > 127:
                out[at] = 128 | (distance & 127)
                distance >>= 7
                at += 1
            out[at] = distance
            at += 1
    return at if edge == n_edges else -1


@kernel()
def unpack(op, cell_size, packed, architecture):  # type: ignore[no-untyped-def]
    """One graph from its parts of the columns: (problem, op, cell, edge_index, encoded architecture).

    `problem` indexes PROBLEMS; where it is not 0 the arrays hold nothing of use. Reads only inside the
    given arrays, whatever they hold.
    """
    n = len(op)
    cell = np.empty(n, np.int16)
    edge_index = np.empty((2, len(packed)), np.int64)
    encoded = architecture.astype(np.int32)
    primitives = op.copy()
    if n == 0 or n > MAX_NODES:
        return 2, primitives, cell, edge_index, encoded
    for node in range(n):
        if op[node] >= _N_PRIMITIVES:
            return 1, primitives, cell, edge_index, encoded
    node = 0
    for c in range(len(cell_size)):
        if node + cell_size[c] > n:
            return 2, primitives, cell, edge_index, encoded
        cell[node : node + cell_size[c]] = c
        node += cell_size[c]
    if node != n:
        return 2, primitives, cell, edge_index, encoded
    if len(architecture) > 0 and not is_valid(encoded):
        return 4, primitives, cell, edge_index, encoded

    at, n_edges = 0, 0
    for node in range(n):
        degree = np.int64(0 if op[node] == _INPUT or op[node] == _POS_ENC else 1)
        if _joins(op[node]):
            if at >= len(packed) or packed[at] < 1 or packed[at] > 127:
                return 3, primitives, cell, edge_index, encoded
            degree = np.int64(packed[at])
            at += 1
        previous = np.int64(-1)
        for _ in range(degree):
            distance, shift = np.int64(0), 0
            while at < len(packed) and packed[at] > 127 and shift < 14:
                distance |= np.int64(packed[at] & 127) << shift
                shift += 7
                at += 1
            if at >= len(packed) or packed[at] > 127:
                return 3, primitives, cell, edge_index, encoded
            distance |= np.int64(packed[at]) << shift
            at += 1
            source = node - distance
            if source <= previous or source >= node:
                return 3, primitives, cell, edge_index, encoded
            edge_index[0, n_edges] = source
            edge_index[1, n_edges] = node
            previous = source
            n_edges += 1
    problem = 0 if at == len(packed) else 3
    return problem, primitives, cell, edge_index[:, :n_edges].copy(), encoded

"""Fold the operations of a program into the nodes and edges of its graph, at numba speed."""

from __future__ import annotations

import numpy as np

from deepnets_bench.compiler import instructions as ir
from deepnets_bench.compiler.jit import kernel
from deepnets_bench.compiler.primitives import (
    AVG_POOL,
    BIAS,
    BN,
    CONCAT,
    CONV,
    CSE,
    DIL_CONV,
    GLOB_AVG,
    INPUT,
    LN,
    MAX_POOL,
    MSA,
    POS_ENC,
    SEP_CONV,
    SUM,
)


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

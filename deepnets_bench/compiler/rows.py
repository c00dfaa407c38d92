"""Rows of a program's table: each function writes from row n on and returns the next free row."""

from __future__ import annotations

from numba import int32, int64
from numba.core.types import UniTuple

from deepnets_bench.compiler import instructions as ir
from deepnets_bench.compiler.jit import kernel

INT = int64
TABLE = int32[:, ::1]
VECTOR = int32[::1]
PAIR, TRIPLE = UniTuple(int64, 2), UniTuple(int64, 3)


@kernel(INT(TABLE, INT, INT, INT, INT, INT, INT))
def add_row(table, n, kind, cell, slot, op, source):  # type: ignore[no-untyped-def]
    """Write the common columns of row n; returns the next free row."""
    row = table[n]
    row[ir.KIND], row[ir.CELL], row[ir.SLOT], row[ir.OP] = kind, cell, slot, op
    row[ir.IN0], row[ir.IN1] = source, -1
    row[ir.STRIDE_H] = row[ir.STRIDE_W] = row[ir.DILATION] = row[ir.GROUPS] = 1
    return n + 1


@kernel(INT(TABLE, INT, INT, INT, INT, INT, INT, INT, INT, INT, INT))
def add_conv(table, n, cell, slot, op, source, act, c_in, c_out, k, stride):  # type: ignore[no-untyped-def]
    add_row(table, n, ir.CONV, cell, slot, op, source)
    row = table[n]
    row[ir.ACT], row[ir.OUT_CH], row[ir.IN_CH] = act, c_out, c_in
    row[ir.KH] = row[ir.KW] = k
    row[ir.STRIDE_H] = row[ir.STRIDE_W] = stride
    row[ir.PAD_H] = row[ir.PAD_W] = k // 2
    return n + 1


@kernel(INT(TABLE, INT, INT, INT, INT, INT, INT, INT, INT, INT, INT))
def add_depthwise(table, n, cell, slot, op, source, act, channels, k, stride, dilation):  # type: ignore[no-untyped-def]
    n = add_conv(table, n, cell, slot, op, source, act, 1, channels, k, stride)
    row = table[n - 1]
    row[ir.GROUPS], row[ir.DILATION] = channels, dilation
    row[ir.PAD_H] = row[ir.PAD_W] = dilation * (k // 2)
    return n


@kernel(INT(TABLE, INT, INT, INT, INT, INT, INT))
def add_norm(table, n, cell, slot, op, channels, norm):  # type: ignore[no-untyped-def]
    """Batch normalisation of the row before, if the network has norms."""
    if not norm:
        return n
    add_row(table, n, ir.NORM, cell, slot, op, n - 1)
    table[n, ir.OUT_CH], table[n, ir.BIAS] = channels, 1
    return n + 1


@kernel(INT(TABLE, INT, INT, INT, INT, INT, INT, INT, INT, INT))
def add_linear(table, n, cell, slot, op, source, act, c_in, c_out, bias):  # type: ignore[no-untyped-def]
    add_row(table, n, ir.LINEAR, cell, slot, op, source)
    row = table[n]
    row[ir.ACT], row[ir.OUT_CH], row[ir.IN_CH], row[ir.BIAS] = act, c_out, c_in, bias
    row[ir.KH] = row[ir.KW] = 1
    return n + 1


@kernel(INT(TABLE, INT, INT, INT, INT, INT))
def add_pool(table, n, kind, cell, source, stride):  # type: ignore[no-untyped-def]
    """3×3 pooling with padding 1; the average excludes the padding."""
    add_row(table, n, kind, cell, 0, 0, source)
    row = table[n]
    row[ir.KH] = row[ir.KW] = 3
    row[ir.PAD_H] = row[ir.PAD_W] = 1
    row[ir.STRIDE_H] = row[ir.STRIDE_W] = stride
    return n + 1


@kernel(PAIR(TABLE, INT, INT, INT, INT))
def add_subsample(table, n, cell, source, stride):  # type: ignore[no-untyped-def]
    """x[::stride, ::stride]; nothing for stride 1. Returns (next row, value)."""
    if stride == 1:
        return n, source
    add_row(table, n, ir.SUBSAMPLE, cell, 0, 0, source)
    table[n, ir.STRIDE_H] = table[n, ir.STRIDE_W] = stride
    return n + 1, n


@kernel(PAIR(TABLE, INT, INT, INT, INT, INT, INT, INT, INT))
def add_relu_conv_norm(table, n, cell, conv_slot, norm_slot, source, c_in, c_out, norm):  # type: ignore[no-untyped-def]
    """ReLU, 1×1 convolution, norm; the value is empty where the source is. Returns (next row, value)."""
    n = add_conv(table, n, cell, conv_slot, 0, source, ir.RELU, c_in, c_out, 1, 1)
    n = add_norm(table, n, cell, norm_slot, 0, c_out, norm)
    return n, (n - 1 if source >= 0 else -1)


@kernel(TRIPLE(TABLE, INT, VECTOR, INT, INT, INT, INT, INT, INT, INT, INT))
def add_factorized_reduce(table, n, args, n_args, cell, slot, op, source, c_in, c_out, norm):  # type: ignore[no-untyped-def]
    """Two strided 1×1 convolutions, the second one pixel off, concatenated. Returns (row, args, value)."""
    n = add_conv(table, n, cell, slot, op, source, ir.RELU, c_in, c_out // 2, 1, 2)
    n = add_conv(table, n, cell, slot + 1, op, source, ir.RELU, c_in, c_out // 2, 1, 2)
    table[n - 1, ir.CROP] = 1
    args[n_args], args[n_args + 1] = n - 2, n - 1
    n = add_row(table, n, ir.CONCAT, cell, 0, op, n_args)
    table[n - 1, ir.IN1] = 2
    n = add_norm(table, n, cell, slot + 2, op, c_out, norm)
    return n, n_args + 2, (n - 1 if source >= 0 else -1)

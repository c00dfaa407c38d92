"""The rules of the cells: preprocessing, operations and concatenations as rows of a program's table."""

from __future__ import annotations

from deepnets_bench.compiler import instructions as ir
from deepnets_bench.compiler.jit import kernel
from deepnets_bench.compiler.rows import (
    INT,
    PAIR,
    TABLE,
    TRIPLE,
    VECTOR,
    add_conv,
    add_depthwise,
    add_factorized_reduce,
    add_linear,
    add_norm,
    add_pool,
    add_relu_conv_norm,
    add_row,
    add_subsample,
)


@kernel(TRIPLE(TABLE, INT, VECTOR, INT, INT, INT, INT, INT, INT, INT, INT))
def add_preprocess0(table, n, args, n_args, cell, source, c_in, c_out, norm, preproc, halve):  # type: ignore[no-untyped-def]
    if preproc and halve:
        return add_factorized_reduce(table, n, args, n_args, cell, ir.PRE0_FR, 0, source, c_in, c_out, norm)
    if preproc:
        n, out = add_relu_conv_norm(table, n, cell, ir.PRE0_CONV, ir.PRE0_NORM, source, c_in, c_out, norm)
        return n, n_args, out
    if halve and source >= 0:
        n, source = add_subsample(table, n, cell, source, 2)
    return n, n_args, source


@kernel(PAIR(TABLE, INT, INT, INT, INT, INT, INT, INT))
def _attention(table, n, cell, j, x, c_in, c_out, stride):  # type: ignore[no-untyped-def]
    """Transformer layer (Vaswani et al., 2017) over pixels with a residual around each half."""
    inner = ir.HEADS * (c_in // ir.HEADS)
    n = add_row(table, n, ir.LAYER_NORM, cell, ir.OP_LN1, j, x)
    table[n - 1, ir.OUT_CH], table[n - 1, ir.BIAS] = c_in, 1
    n = add_linear(table, n, cell, ir.OP_QKV, j, n - 1, ir.NO_ACT, c_in, 3 * inner, 0)
    n = add_row(table, n, ir.ATTENTION, cell, 0, j, n - 1)
    n = add_linear(table, n, cell, ir.OP_OUT, j, n - 1, ir.NO_ACT, inner, c_out, 1)
    n = add_row(table, n, ir.SUM, cell, 0, j, n - 1)
    table[n - 1, ir.IN1] = x
    middle = n - 1
    n = add_row(table, n, ir.LAYER_NORM, cell, ir.OP_LN2, j, middle)
    table[n - 1, ir.OUT_CH], table[n - 1, ir.BIAS] = c_in, 1
    n = add_linear(table, n, cell, ir.OP_FF0, j, n - 1, ir.NO_ACT, c_in, c_out, 1)
    n = add_linear(table, n, cell, ir.OP_FF3, j, n - 1, ir.GELU, c_out, c_in, 1)
    n = add_row(table, n, ir.SUM, cell, 0, j, n - 1)
    table[n - 1, ir.IN1] = middle
    return add_subsample(table, n, cell, n - 1, stride)


@kernel(PAIR(TABLE, INT, INT, INT, INT, INT, INT))
def _squeeze_excite(table, n, cell, j, x, channels, stride):  # type: ignore[no-untyped-def]
    """Channel squeeze-and-excitation (Hu et al., 2018) with a Hardswish gate."""
    n = add_row(table, n, ir.MEAN, cell, 0, j, x)
    n = add_linear(table, n, cell, ir.OP_FC1, j, n - 1, ir.NO_ACT, channels, channels // 2, 1)
    n = add_linear(table, n, cell, ir.OP_FC2, j, n - 1, ir.RELU, channels // 2, channels, 1)
    n = add_row(table, n, ir.SCALE, cell, 0, j, x)
    table[n - 1, ir.IN1], table[n - 1, ir.ACT] = n - 2, ir.HARDSWISH
    return add_subsample(table, n, cell, n - 1, stride)


@kernel(TRIPLE(TABLE, INT, VECTOR, INT, INT, INT, INT, INT, INT, INT, INT, INT))
def add_cell_op(table, n, args, n_args, op, cell, j, x, c_in, c_out, stride, norm):  # type: ignore[no-untyped-def]
    """One operation of a cell on value x (-1: empty). Returns (next row, next arg, value)."""
    if op == ir.NONE:
        return n, n_args, -1
    if op == ir.SKIP:
        if stride == 1:
            return n, n_args, x
        return add_factorized_reduce(table, n, args, n_args, cell, ir.OP_FR, j, x, c_in, c_out, norm)
    if op == ir.MAX3 or op == ir.AVG3:
        if x < 0:
            return n, n_args, -1
        n = add_pool(table, n, ir.MAX_POOL if op == ir.MAX3 else ir.AVG_POOL, cell, x, stride)
    elif op == ir.SEP3 or op == ir.SEP5:
        k = 3 if op == ir.SEP3 else 5
        n = add_depthwise(table, n, cell, ir.OP_BASE + 1, j, x, ir.RELU, c_in, k, stride, 1)
        n = add_conv(table, n, cell, ir.OP_BASE + 2, j, n - 1, ir.NO_ACT, c_in, c_in, 1, 1)
        n = add_norm(table, n, cell, ir.OP_BASE + 3, j, c_in, norm)
        n = add_depthwise(table, n, cell, ir.OP_BASE + 5, j, n - 1, ir.RELU, c_in, k, 1, 1)
        n = add_conv(table, n, cell, ir.OP_BASE + 6, j, n - 1, ir.NO_ACT, c_in, c_out, 1, 1)
        n = add_norm(table, n, cell, ir.OP_BASE + 7, j, c_out, norm)
    elif op == ir.DIL3 or op == ir.DIL5:
        k = 3 if op == ir.DIL3 else 5
        n = add_depthwise(table, n, cell, ir.OP_BASE + 1, j, x, ir.RELU, c_in, k, stride, 2)
        n = add_conv(table, n, cell, ir.OP_BASE + 2, j, n - 1, ir.NO_ACT, c_in, c_out, 1, 1)
        n = add_norm(table, n, cell, ir.OP_BASE + 3, j, c_out, norm)
    elif op == ir.CONV71:
        n = add_conv(table, n, cell, ir.OP_BASE + 1, j, x, ir.RELU, c_in, c_in, 7, 1)
        row = table[n - 1]
        row[ir.KH], row[ir.PAD_H], row[ir.STRIDE_W] = 1, 0, stride
        n = add_conv(table, n, cell, ir.OP_BASE + 2, j, n - 1, ir.NO_ACT, c_in, c_out, 7, 1)
        row = table[n - 1]
        row[ir.KW], row[ir.PAD_W], row[ir.STRIDE_H] = 1, 0, stride
        n = add_norm(table, n, cell, ir.OP_BASE + 3, j, c_out, norm)
    elif op == ir.MSA:
        n, last = _attention(table, n, cell, j, x, c_in, c_out, stride)
        return n, n_args, (last if x >= 0 else -1)
    elif op == ir.CSE:
        n, last = _squeeze_excite(table, n, cell, j, x, c_in, stride)
        return n, n_args, (last if x >= 0 else -1)
    else:
        k = 1 if op == ir.CONV1 else 3 if op == ir.CONV3 else 5 if op == ir.CONV5 else 7
        n = add_conv(table, n, cell, ir.OP_BASE + 1, j, x, ir.RELU, c_in, c_out, k, stride)
        n = add_norm(table, n, cell, ir.OP_BASE + 2, j, c_out, norm)
    return n, n_args, (n - 1 if x >= 0 else -1)


@kernel(TRIPLE(TABLE, INT, VECTOR, INT, INT, VECTOR, VECTOR, INT, INT))
def add_concat(table, n, args, n_args, cell, states, code, concat_at, n_concat):  # type: ignore[no-untyped-def]
    """Join the listed states; empty ones become zeros unless all are. Returns (next row, next arg, value)."""
    first = n_args
    present = 0
    for k in range(n_concat):
        args[n_args] = states[code[concat_at + k]]
        present += args[n_args] >= 0
        n_args += 1
    if present == 0 or n_concat == 1:
        return n, first, args[first]
    n = add_row(table, n, ir.CONCAT, cell, 0, 0, first)
    table[n - 1, ir.IN1] = n_concat
    return n, n_args, n - 1

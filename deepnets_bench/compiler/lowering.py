"""The compiler's core: encoded architectures to tables of operations, on integers only, compiled by numba.

The rules of the stems and heads are here, those of the cells in `cells.py`, and nowhere else (see
`program.py` for their source).
"""

from __future__ import annotations

import numpy as np
from numba import int64
from numba.core.types import UniTuple

from deepnets_bench.compiler import instructions as ir
from deepnets_bench.compiler.cells import add_cell_op, add_concat, add_preprocess0
from deepnets_bench.compiler.jit import kernel
from deepnets_bench.compiler.rows import (
    INT,
    TABLE,
    VECTOR,
    add_conv,
    add_linear,
    add_norm,
    add_pool,
    add_relu_conv_norm,
    add_row,
)

_STEM = UniTuple(int64, 5)


@kernel()
def emit(code, width, image_size, num_classes, fc_dim):  # type: ignore[no-untyped-def]
    """Compile an encoded architecture: (table, args, used rows, used args, output is not empty)."""
    n_cells = code[ir.N_CELLS]
    steps_max = max(code[ir.STEPS_NORMAL], code[ir.STEPS_REDUCE])
    table = np.zeros((16 + n_cells * (14 + 27 * steps_max), ir.N_COLUMNS), np.int32)
    args = np.empty(n_cells * (4 * steps_max + 2 + steps_max) + 2, np.int32)
    normal_at = ir.HEADER
    reduce_at = normal_at + 4 * code[ir.STEPS_NORMAL]
    normal_concat_at = reduce_at + 4 * code[ir.STEPS_REDUCE]
    reduce_concat_at = normal_concat_at + code[ir.CONCAT_NORMAL]

    vit = False
    for k in range(2 * (code[ir.STEPS_NORMAL] + code[ir.STEPS_REDUCE])):
        vit = vit or code[ir.HEADER + 2 * k] == ir.MSA
    norm = code[ir.NORM_KIND] > 0
    preproc = code[ir.PREPROC] > 0

    n = add_row(table, 0, ir.INPUT, 0, 0, 0, -1)
    n, s0, s1, channels, size = _stem(table, n, code, width, image_size, vit, norm, preproc)
    before_last, last = channels, channels  # channels of s0 and s1
    current = width
    reduced = code[ir.STEM_TYPE] == 1  # does the step before this cell halve the image?
    n_args = 0
    states = np.empty(steps_max + 2, np.int32)
    for cell in range(n_cells):
        reduction = cell > 0 and (cell == n_cells // 3 or cell == 2 * n_cells // 3)
        if reduction:
            current *= code[ir.C_MULT]
        pairs, steps = (reduce_at, code[ir.STEPS_REDUCE]) if reduction else (normal_at, code[ir.STEPS_NORMAL])
        n, n_args, states[0] = add_preprocess0(
            table, n, args, n_args, cell, s0, before_last, current, norm, preproc, reduced and not vit
        )
        states[1] = s1
        if preproc:
            n, states[1] = add_relu_conv_norm(
                table, n, cell, ir.PRE1_CONV, ir.PRE1_NORM, s1, last, current, norm
            )
        c_in = current if preproc else last
        for step in range(steps):
            pair = (-1, -1)
            for side in range(2):
                op = code[pairs + 4 * step + 2 * side]
                source = code[pairs + 4 * step + 2 * side + 1]
                stride = 2 if reduction and source < 2 and not vit else 1
                n, n_args, out = add_cell_op(
                    table, n, args, n_args, op, cell, 2 * step + side, states[source],
                    c_in if source < 2 else current, current, stride, norm,
                )  # fmt: skip
                if out >= 0 and out != states[source]:
                    table[out, ir.ROLE] |= ir.OP_VALUE
                pair = (pair[1], out)
            a, b = pair
            if a >= 0 and b >= 0:
                n = add_row(table, n, ir.SUM, cell, 0, 0, a)
                table[n - 1, ir.IN1] = b
                a = n - 1
            states[2 + step] = a if a >= 0 else b
        concat_at, n_concat = (
            (reduce_concat_at, code[ir.CONCAT_REDUCE])
            if reduction
            else (normal_concat_at, code[ir.CONCAT_NORMAL])
        )
        n, n_args, out = add_concat(table, n, args, n_args, cell, states, code, concat_at, n_concat)
        if out >= 0 and cell == 2 * n_cells // 3:
            table[out, ir.ROLE] |= ir.AUXILIARY_INPUT
        s0, s1 = s1, out
        before_last, last = last, n_concat * current
        reduced = reduction
        if reduction and not vit:
            size = (size + 1) // 2
    valid = s1 >= 0
    n = _head(table, n, code, s1, last, size, num_classes, fc_dim)
    return table, args, n, n_args, valid


@kernel(_STEM(TABLE, INT, VECTOR, INT, INT, INT, INT, INT))
def _stem(table, n, code, width, image_size, vit, norm, preproc):  # type: ignore[no-untyped-def]
    """Returns (next row, s0, s1, channels, size of the image that s1 has)."""
    imagenet = image_size > ir.IMAGENET_FROM
    ks = code[ir.KS]
    if vit:
        k = 16 if imagenet else 3
        n = add_conv(table, n, 0, ir.VIT_STEM, 0, 0, ir.NO_ACT, 3, width, k, k)
        pad = 0 if imagenet else 1
        table[n - 1, ir.PAD_H] = table[n - 1, ir.PAD_W] = pad
        size = (image_size + 2 * pad - k) // k + 1
        n = add_row(table, n, ir.POS_ENC, 0, ir.VIT_POS, 0, -1)
        table[n - 1, ir.OUT_CH], table[n - 1, ir.KH], table[n - 1, ir.KW] = width, size, size
        n = add_row(table, n, ir.SUM, 0, 0, 0, n - 2)
        table[n - 1, ir.IN1] = n - 2
        return n, n - 1, n - 1, width, size
    if code[ir.STEM_TYPE] == 0:
        channels = 3 * width if preproc and not imagenet else width
        stride = 4 if imagenet else 1
        n = add_conv(table, n, 0, ir.STEM_CONV, 0, 0, ir.NO_ACT, 3, channels, ks, stride)
        n = add_norm(table, n, 0, ir.STEM_NORM, 0, channels, norm)
        size = (image_size + stride - 1) // stride
        if code[ir.STEM_POOL]:
            n = add_pool(table, n, ir.MAX_POOL, 0, n - 1, 2)
            size = (size + 1) // 2
        return n, n - 1, n - 1, channels, size
    stride = 2 if imagenet else 1
    n = add_conv(table, n, 0, ir.STEM0_CONV0, 0, 0, ir.NO_ACT, 3, width // 2, ks, stride)
    n = add_norm(table, n, 0, ir.STEM0_NORM0, 0, width // 2, norm)
    n = add_conv(table, n, 0, ir.STEM0_CONV1, 0, n - 1, ir.RELU, width // 2, width, 3, stride)
    n = add_norm(table, n, 0, ir.STEM0_NORM1, 0, width, norm)
    s0 = n - 1
    n = add_conv(table, n, 0, ir.STEM1_CONV, 0, s0, ir.RELU, width, width, 3, 2)
    n = add_norm(table, n, 0, ir.STEM1_NORM, 0, width, norm)
    size = image_size // (stride * stride)
    return n, s0, n - 1, width, (size + 1) // 2


@kernel(INT(TABLE, INT, VECTOR, INT, INT, INT, INT, INT))
def _head(table, n, code, x, channels, size, num_classes, fc_dim):  # type: ignore[no-untyped-def]
    cell = code[ir.N_CELLS] - 1
    if code[ir.POOL_HEAD]:
        n = add_row(table, n, ir.GLOB_AVG, cell, 0, 0, x)
    else:
        n = add_row(table, n, ir.FLATTEN, cell, 0, 0, x)
        channels *= size * size
    if code[ir.FC_LAYERS] == 1:
        return add_linear(table, n, cell, ir.CLASSIFIER0, 0, n - 1, ir.NO_ACT, channels, num_classes, 1)
    n = add_linear(table, n, cell, ir.CLASSIFIER0, 0, n - 1, ir.NO_ACT, channels, fc_dim, 1)
    return add_linear(table, n, cell, ir.CLASSIFIER3, 0, n - 1, ir.RELU_DROPOUT, fc_dim, num_classes, 1)


@kernel()
def count_params(table, n):  # type: ignore[no-untyped-def]
    """Scalars in the parameters of the first n rows."""
    total = np.int64(0)
    for i in range(n):
        kind, out = table[i, ir.KIND], np.int64(table[i, ir.OUT_CH])
        if kind == ir.CONV:
            total += out * table[i, ir.IN_CH] * table[i, ir.KH] * table[i, ir.KW]
        elif kind == ir.LINEAR:
            total += out * table[i, ir.IN_CH] + table[i, ir.BIAS] * out
        elif kind == ir.NORM or kind == ir.LAYER_NORM:
            total += 2 * out
        elif kind == ir.POS_ENC:
            total += out * table[i, ir.KH] * table[i, ir.KW]
    return total


@kernel()
def live_rows(table, args):  # type: ignore[no-untyped-def]
    """bool per row: is it an ancestor of the last row (or that row)?"""
    n = len(table)
    live = np.zeros(n, np.bool_)
    live[n - 1] = True
    for i in range(n - 1, -1, -1):
        if not live[i]:
            continue
        a, b = table[i, ir.IN0], table[i, ir.IN1]
        if table[i, ir.KIND] == ir.CONCAT:
            for k in range(a, a + b):
                if args[k] >= 0:
                    live[args[k]] = True
        else:
            if a >= 0:
                live[a] = True
            if b >= 0:
                live[b] = True
    return live

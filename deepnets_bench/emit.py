"""The compiler's core: encoded architectures to tables of operations, on integers only, compiled by numba.

The rules of the cells, stems and heads are here and nowhere else (see `program.py` for their source).
"""

from __future__ import annotations

import numpy as np
from numba import int32, int64
from numba.core.types import UniTuple

from deepnets_bench.ir import (
    ACT,
    ATTENTION,
    AVG3,
    AVG_POOL,
    BIAS,
    C_MULT,
    CELL,
    CLASSIFIER0,
    CLASSIFIER3,
    CONCAT,
    CONCAT_NORMAL,
    CONCAT_REDUCE,
    CONV,
    CONV1,
    CONV3,
    CONV5,
    CONV71,
    CROP,
    CSE,
    DIL3,
    DIL5,
    DILATION,
    FC_LAYERS,
    FLATTEN,
    GELU,
    GLOB_AVG,
    GROUPS,
    HARDSWISH,
    HEADER,
    HEADS,
    IMAGENET_FROM,
    IN0,
    IN1,
    IN_CH,
    INPUT,
    KH,
    KIND,
    KS,
    KW,
    LAYER_NORM,
    LINEAR,
    MAX3,
    MAX_POOL,
    MEAN,
    MSA,
    N_CELLS,
    N_COLUMNS,
    NO_ACT,
    NONE,
    NORM,
    NORM_KIND,
    OP,
    OP_BASE,
    OP_FC1,
    OP_FC2,
    OP_FF0,
    OP_FF3,
    OP_FR,
    OP_LN1,
    OP_LN2,
    OP_OUT,
    OP_QKV,
    OUT_CH,
    PAD_H,
    PAD_W,
    POOL_HEAD,
    POS_ENC,
    PRE0_CONV,
    PRE0_FR,
    PRE0_NORM,
    PRE1_CONV,
    PRE1_NORM,
    PREPROC,
    RELU,
    RELU_DROPOUT,
    SCALE,
    SEP3,
    SEP5,
    SKIP,
    SLOT,
    STEM0_CONV0,
    STEM0_CONV1,
    STEM0_NORM0,
    STEM0_NORM1,
    STEM1_CONV,
    STEM1_NORM,
    STEM_CONV,
    STEM_NORM,
    STEM_POOL,
    STEM_TYPE,
    STEPS_NORMAL,
    STEPS_REDUCE,
    STRIDE_H,
    STRIDE_W,
    SUBSAMPLE,
    SUM,
    VIT_POS,
    VIT_STEM,
)
from deepnets_bench.kernel import kernel

_I = int64
_TABLE = int32[:, ::1]
_VECTOR = int32[::1]
_PAIR, _TRIPLE, _STEM = UniTuple(int64, 2), UniTuple(int64, 3), UniTuple(int64, 5)


@kernel()
def emit(code, width, image_size, num_classes, fc_dim):  # type: ignore[no-untyped-def]
    """Compile an encoded architecture: (table, args, used rows, used args, output is not empty)."""
    n_cells = code[N_CELLS]
    steps_max = max(code[STEPS_NORMAL], code[STEPS_REDUCE])
    table = np.zeros((16 + n_cells * (14 + 27 * steps_max), N_COLUMNS), np.int32)
    args = np.empty(n_cells * (4 * steps_max + 2 + steps_max) + 2, np.int32)
    normal_at = HEADER
    reduce_at = normal_at + 4 * code[STEPS_NORMAL]
    normal_concat_at = reduce_at + 4 * code[STEPS_REDUCE]
    reduce_concat_at = normal_concat_at + code[CONCAT_NORMAL]

    vit = False
    for k in range(2 * (code[STEPS_NORMAL] + code[STEPS_REDUCE])):
        vit = vit or code[HEADER + 2 * k] == MSA
    norm = code[NORM_KIND] > 0
    preproc = code[PREPROC] > 0

    n = _row(table, 0, INPUT, 0, 0, 0, -1)
    n, s0, s1, channels, size = _stem(table, n, code, width, image_size, vit, norm, preproc)
    before_last, last = channels, channels  # channels of s0 and s1
    current = width
    reduced = code[STEM_TYPE] == 1  # does the step before this cell halve the image?
    n_args = 0
    states = np.empty(steps_max + 2, np.int32)
    for cell in range(n_cells):
        reduction = cell > 0 and (cell == n_cells // 3 or cell == 2 * n_cells // 3)
        if reduction:
            current *= code[C_MULT]
        pairs, steps = (reduce_at, code[STEPS_REDUCE]) if reduction else (normal_at, code[STEPS_NORMAL])
        n, n_args, states[0] = _preprocess0(
            table, n, args, n_args, cell, s0, before_last, current, norm, preproc, reduced and not vit
        )
        states[1] = s1
        if preproc:
            n, states[1] = _relu_conv_norm(table, n, cell, PRE1_CONV, PRE1_NORM, s1, last, current, norm)
        c_in = current if preproc else last
        for step in range(steps):
            pair = (-1, -1)
            for side in range(2):
                op = code[pairs + 4 * step + 2 * side]
                source = code[pairs + 4 * step + 2 * side + 1]
                stride = 2 if reduction and source < 2 and not vit else 1
                n, n_args, out = _cell_op(
                    table, n, args, n_args, op, cell, 2 * step + side, states[source],
                    c_in if source < 2 else current, current, stride, norm,
                )  # fmt: skip
                pair = (pair[1], out)
            a, b = pair
            if a >= 0 and b >= 0:
                n = _row(table, n, SUM, cell, 0, 0, a)
                table[n - 1, IN1] = b
                a = n - 1
            states[2 + step] = a if a >= 0 else b
        concat_at, n_concat = (
            (reduce_concat_at, code[CONCAT_REDUCE]) if reduction else (normal_concat_at, code[CONCAT_NORMAL])
        )
        n, n_args, out = _concat(table, n, args, n_args, cell, states, code, concat_at, n_concat)
        s0, s1 = s1, out
        before_last, last = last, n_concat * current
        reduced = reduction
        if reduction and not vit:
            size = (size + 1) // 2
    valid = s1 >= 0
    n = _head(table, n, code, s1, last, size, num_classes, fc_dim)
    return table, args, n, n_args, valid


@kernel(_I(_TABLE, _I, _I, _I, _I, _I, _I))
def _row(table, n, kind, cell, slot, op, source):  # type: ignore[no-untyped-def]
    """Write the common columns of row n; returns the next free row."""
    row = table[n]
    row[KIND], row[CELL], row[SLOT], row[OP] = kind, cell, slot, op
    row[IN0], row[IN1] = source, -1
    row[STRIDE_H] = row[STRIDE_W] = row[DILATION] = row[GROUPS] = 1
    return n + 1


@kernel(_I(_TABLE, _I, _I, _I, _I, _I, _I, _I, _I, _I, _I))
def _conv(table, n, cell, slot, op, source, act, c_in, c_out, k, stride):  # type: ignore[no-untyped-def]
    _row(table, n, CONV, cell, slot, op, source)
    row = table[n]
    row[ACT], row[OUT_CH], row[IN_CH] = act, c_out, c_in
    row[KH] = row[KW] = k
    row[STRIDE_H] = row[STRIDE_W] = stride
    row[PAD_H] = row[PAD_W] = k // 2
    return n + 1


@kernel(_I(_TABLE, _I, _I, _I, _I, _I, _I, _I, _I, _I, _I))
def _depthwise(table, n, cell, slot, op, source, act, channels, k, stride, dilation):  # type: ignore[no-untyped-def]
    n = _conv(table, n, cell, slot, op, source, act, 1, channels, k, stride)
    row = table[n - 1]
    row[GROUPS], row[DILATION] = channels, dilation
    row[PAD_H] = row[PAD_W] = dilation * (k // 2)
    return n


@kernel(_I(_TABLE, _I, _I, _I, _I, _I, _I))
def _norm(table, n, cell, slot, op, channels, norm):  # type: ignore[no-untyped-def]
    """Batch normalisation of the row before, if the network has norms."""
    if not norm:
        return n
    _row(table, n, NORM, cell, slot, op, n - 1)
    table[n, OUT_CH], table[n, BIAS] = channels, 1
    return n + 1


@kernel(_I(_TABLE, _I, _I, _I, _I, _I, _I, _I, _I, _I))
def _linear(table, n, cell, slot, op, source, act, c_in, c_out, bias):  # type: ignore[no-untyped-def]
    _row(table, n, LINEAR, cell, slot, op, source)
    row = table[n]
    row[ACT], row[OUT_CH], row[IN_CH], row[BIAS] = act, c_out, c_in, bias
    row[KH] = row[KW] = 1
    return n + 1


@kernel(_I(_TABLE, _I, _I, _I, _I, _I))
def _pool(table, n, kind, cell, source, stride):  # type: ignore[no-untyped-def]
    """3×3 pooling with padding 1; the average excludes the padding."""
    _row(table, n, kind, cell, 0, 0, source)
    row = table[n]
    row[KH] = row[KW] = 3
    row[PAD_H] = row[PAD_W] = 1
    row[STRIDE_H] = row[STRIDE_W] = stride
    return n + 1


@kernel(_PAIR(_TABLE, _I, _I, _I, _I))
def _subsample(table, n, cell, source, stride):  # type: ignore[no-untyped-def]
    """x[::stride, ::stride]; nothing for stride 1. Returns (next row, value)."""
    if stride == 1:
        return n, source
    _row(table, n, SUBSAMPLE, cell, 0, 0, source)
    table[n, STRIDE_H] = table[n, STRIDE_W] = stride
    return n + 1, n


@kernel(_PAIR(_TABLE, _I, _I, _I, _I, _I, _I, _I, _I))
def _relu_conv_norm(table, n, cell, conv_slot, norm_slot, source, c_in, c_out, norm):  # type: ignore[no-untyped-def]
    """ReLU, 1×1 convolution, norm; the value is empty where the source is. Returns (next row, value)."""
    n = _conv(table, n, cell, conv_slot, 0, source, RELU, c_in, c_out, 1, 1)
    n = _norm(table, n, cell, norm_slot, 0, c_out, norm)
    return n, (n - 1 if source >= 0 else -1)


@kernel(_TRIPLE(_TABLE, _I, _VECTOR, _I, _I, _I, _I, _I, _I, _I, _I))
def _factorized_reduce(table, n, args, n_args, cell, slot, op, source, c_in, c_out, norm):  # type: ignore[no-untyped-def]
    """Two strided 1×1 convolutions, the second one pixel off, concatenated. Returns (row, args, value)."""
    n = _conv(table, n, cell, slot, op, source, RELU, c_in, c_out // 2, 1, 2)
    n = _conv(table, n, cell, slot + 1, op, source, RELU, c_in, c_out // 2, 1, 2)
    table[n - 1, CROP] = 1
    args[n_args], args[n_args + 1] = n - 2, n - 1
    n = _row(table, n, CONCAT, cell, 0, op, n_args)
    table[n - 1, IN1] = 2
    n = _norm(table, n, cell, slot + 2, op, c_out, norm)
    return n, n_args + 2, (n - 1 if source >= 0 else -1)


@kernel(_TRIPLE(_TABLE, _I, _VECTOR, _I, _I, _I, _I, _I, _I, _I, _I))
def _preprocess0(table, n, args, n_args, cell, source, c_in, c_out, norm, preproc, halve):  # type: ignore[no-untyped-def]
    if preproc and halve:
        return _factorized_reduce(table, n, args, n_args, cell, PRE0_FR, 0, source, c_in, c_out, norm)
    if preproc:
        n, out = _relu_conv_norm(table, n, cell, PRE0_CONV, PRE0_NORM, source, c_in, c_out, norm)
        return n, n_args, out
    if halve and source >= 0:
        n, source = _subsample(table, n, cell, source, 2)
    return n, n_args, source


@kernel(_STEM(_TABLE, _I, _VECTOR, _I, _I, _I, _I, _I))
def _stem(table, n, code, width, image_size, vit, norm, preproc):  # type: ignore[no-untyped-def]
    """Returns (next row, s0, s1, channels, size of the image that s1 has)."""
    imagenet = image_size > IMAGENET_FROM
    ks = code[KS]
    if vit:
        k = 16 if imagenet else 3
        n = _conv(table, n, 0, VIT_STEM, 0, 0, NO_ACT, 3, width, k, k)
        pad = 0 if imagenet else 1
        table[n - 1, PAD_H] = table[n - 1, PAD_W] = pad
        size = (image_size + 2 * pad - k) // k + 1
        n = _row(table, n, POS_ENC, 0, VIT_POS, 0, -1)
        table[n - 1, OUT_CH], table[n - 1, KH], table[n - 1, KW] = width, size, size
        n = _row(table, n, SUM, 0, 0, 0, n - 2)
        table[n - 1, IN1] = n - 2
        return n, n - 1, n - 1, width, size
    if code[STEM_TYPE] == 0:
        channels = 3 * width if preproc and not imagenet else width
        stride = 4 if imagenet else 1
        n = _conv(table, n, 0, STEM_CONV, 0, 0, NO_ACT, 3, channels, ks, stride)
        n = _norm(table, n, 0, STEM_NORM, 0, channels, norm)
        size = (image_size + stride - 1) // stride
        if code[STEM_POOL]:
            n = _pool(table, n, MAX_POOL, 0, n - 1, 2)
            size = (size + 1) // 2
        return n, n - 1, n - 1, channels, size
    stride = 2 if imagenet else 1
    n = _conv(table, n, 0, STEM0_CONV0, 0, 0, NO_ACT, 3, width // 2, ks, stride)
    n = _norm(table, n, 0, STEM0_NORM0, 0, width // 2, norm)
    n = _conv(table, n, 0, STEM0_CONV1, 0, n - 1, RELU, width // 2, width, 3, stride)
    n = _norm(table, n, 0, STEM0_NORM1, 0, width, norm)
    s0 = n - 1
    n = _conv(table, n, 0, STEM1_CONV, 0, s0, RELU, width, width, 3, 2)
    n = _norm(table, n, 0, STEM1_NORM, 0, width, norm)
    size = image_size // (stride * stride)
    return n, s0, n - 1, width, (size + 1) // 2


@kernel(_PAIR(_TABLE, _I, _I, _I, _I, _I, _I, _I))
def _attention(table, n, cell, j, x, c_in, c_out, stride):  # type: ignore[no-untyped-def]
    """Transformer layer (Vaswani et al., 2017) over pixels with a residual around each half."""
    inner = HEADS * (c_in // HEADS)
    n = _row(table, n, LAYER_NORM, cell, OP_LN1, j, x)
    table[n - 1, OUT_CH], table[n - 1, BIAS] = c_in, 1
    n = _linear(table, n, cell, OP_QKV, j, n - 1, NO_ACT, c_in, 3 * inner, 0)
    n = _row(table, n, ATTENTION, cell, 0, j, n - 1)
    n = _linear(table, n, cell, OP_OUT, j, n - 1, NO_ACT, inner, c_out, 1)
    n = _row(table, n, SUM, cell, 0, j, n - 1)
    table[n - 1, IN1] = x
    middle = n - 1
    n = _row(table, n, LAYER_NORM, cell, OP_LN2, j, middle)
    table[n - 1, OUT_CH], table[n - 1, BIAS] = c_in, 1
    n = _linear(table, n, cell, OP_FF0, j, n - 1, NO_ACT, c_in, c_out, 1)
    n = _linear(table, n, cell, OP_FF3, j, n - 1, GELU, c_out, c_in, 1)
    n = _row(table, n, SUM, cell, 0, j, n - 1)
    table[n - 1, IN1] = middle
    return _subsample(table, n, cell, n - 1, stride)


@kernel(_PAIR(_TABLE, _I, _I, _I, _I, _I, _I))
def _squeeze_excite(table, n, cell, j, x, channels, stride):  # type: ignore[no-untyped-def]
    """Channel squeeze-and-excitation (Hu et al., 2018) with a Hardswish gate."""
    n = _row(table, n, MEAN, cell, 0, j, x)
    n = _linear(table, n, cell, OP_FC1, j, n - 1, NO_ACT, channels, channels // 2, 1)
    n = _linear(table, n, cell, OP_FC2, j, n - 1, RELU, channels // 2, channels, 1)
    n = _row(table, n, SCALE, cell, 0, j, x)
    table[n - 1, IN1], table[n - 1, ACT] = n - 2, HARDSWISH
    return _subsample(table, n, cell, n - 1, stride)


@kernel(_TRIPLE(_TABLE, _I, _VECTOR, _I, _I, _I, _I, _I, _I, _I, _I, _I))
def _cell_op(table, n, args, n_args, op, cell, j, x, c_in, c_out, stride, norm):  # type: ignore[no-untyped-def]
    """One operation of a cell on value x (-1: empty). Returns (next row, next arg, value)."""
    if op == NONE:
        return n, n_args, -1
    if op == SKIP:
        if stride == 1:
            return n, n_args, x
        return _factorized_reduce(table, n, args, n_args, cell, OP_FR, j, x, c_in, c_out, norm)
    if op == MAX3 or op == AVG3:
        if x < 0:
            return n, n_args, -1
        n = _pool(table, n, MAX_POOL if op == MAX3 else AVG_POOL, cell, x, stride)
    elif op == SEP3 or op == SEP5:
        k = 3 if op == SEP3 else 5
        n = _depthwise(table, n, cell, OP_BASE + 1, j, x, RELU, c_in, k, stride, 1)
        n = _conv(table, n, cell, OP_BASE + 2, j, n - 1, NO_ACT, c_in, c_in, 1, 1)
        n = _norm(table, n, cell, OP_BASE + 3, j, c_in, norm)
        n = _depthwise(table, n, cell, OP_BASE + 5, j, n - 1, RELU, c_in, k, 1, 1)
        n = _conv(table, n, cell, OP_BASE + 6, j, n - 1, NO_ACT, c_in, c_out, 1, 1)
        n = _norm(table, n, cell, OP_BASE + 7, j, c_out, norm)
    elif op == DIL3 or op == DIL5:
        k = 3 if op == DIL3 else 5
        n = _depthwise(table, n, cell, OP_BASE + 1, j, x, RELU, c_in, k, stride, 2)
        n = _conv(table, n, cell, OP_BASE + 2, j, n - 1, NO_ACT, c_in, c_out, 1, 1)
        n = _norm(table, n, cell, OP_BASE + 3, j, c_out, norm)
    elif op == CONV71:
        n = _conv(table, n, cell, OP_BASE + 1, j, x, RELU, c_in, c_in, 7, 1)
        row = table[n - 1]
        row[KH], row[PAD_H], row[STRIDE_W] = 1, 0, stride
        n = _conv(table, n, cell, OP_BASE + 2, j, n - 1, NO_ACT, c_in, c_out, 7, 1)
        row = table[n - 1]
        row[KW], row[PAD_W], row[STRIDE_H] = 1, 0, stride
        n = _norm(table, n, cell, OP_BASE + 3, j, c_out, norm)
    elif op == MSA:
        n, last = _attention(table, n, cell, j, x, c_in, c_out, stride)
        return n, n_args, (last if x >= 0 else -1)
    elif op == CSE:
        n, last = _squeeze_excite(table, n, cell, j, x, c_in, stride)
        return n, n_args, (last if x >= 0 else -1)
    else:
        k = 1 if op == CONV1 else 3 if op == CONV3 else 5 if op == CONV5 else 7
        n = _conv(table, n, cell, OP_BASE + 1, j, x, RELU, c_in, c_out, k, stride)
        n = _norm(table, n, cell, OP_BASE + 2, j, c_out, norm)
    return n, n_args, (n - 1 if x >= 0 else -1)


@kernel(_TRIPLE(_TABLE, _I, _VECTOR, _I, _I, _VECTOR, _VECTOR, _I, _I))
def _concat(table, n, args, n_args, cell, states, code, concat_at, n_concat):  # type: ignore[no-untyped-def]
    """Join the listed states; empty ones become zeros unless all are. Returns (next row, next arg, value)."""
    first = n_args
    present = 0
    for k in range(n_concat):
        args[n_args] = states[code[concat_at + k]]
        present += args[n_args] >= 0
        n_args += 1
    if present == 0 or n_concat == 1:
        return n, first, args[first]
    n = _row(table, n, CONCAT, cell, 0, 0, first)
    table[n - 1, IN1] = n_concat
    return n, n_args, n - 1


@kernel(_I(_TABLE, _I, _VECTOR, _I, _I, _I, _I, _I))
def _head(table, n, code, x, channels, size, num_classes, fc_dim):  # type: ignore[no-untyped-def]
    cell = code[N_CELLS] - 1
    if code[POOL_HEAD]:
        n = _row(table, n, GLOB_AVG, cell, 0, 0, x)
    else:
        n = _row(table, n, FLATTEN, cell, 0, 0, x)
        channels *= size * size
    if code[FC_LAYERS] == 1:
        return _linear(table, n, cell, CLASSIFIER0, 0, n - 1, NO_ACT, channels, num_classes, 1)
    n = _linear(table, n, cell, CLASSIFIER0, 0, n - 1, NO_ACT, channels, fc_dim, 1)
    return _linear(table, n, cell, CLASSIFIER3, 0, n - 1, RELU_DROPOUT, fc_dim, num_classes, 1)


@kernel()
def count_params(table, n):  # type: ignore[no-untyped-def]
    """Scalars in the parameters of the first n rows."""
    total = np.int64(0)
    for i in range(n):
        kind, out = table[i, KIND], np.int64(table[i, OUT_CH])
        if kind == CONV:
            total += out * table[i, IN_CH] * table[i, KH] * table[i, KW]
        elif kind == LINEAR:
            total += out * table[i, IN_CH] + table[i, BIAS] * out
        elif kind == NORM or kind == LAYER_NORM:
            total += 2 * out
        elif kind == POS_ENC:
            total += out * table[i, KH] * table[i, KW]
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
        a, b = table[i, IN0], table[i, IN1]
        if table[i, KIND] == CONCAT:
            for k in range(a, a + b):
                if args[k] >= 0:
                    live[args[k]] = True
        else:
            if a >= 0:
                live[a] = True
            if b >= 0:
                live[b] = True
    return live

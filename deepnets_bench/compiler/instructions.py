"""The instruction set of programs: kinds of operation, columns of the table, names of modules."""

from __future__ import annotations

# Kinds of operation.
INPUT, CONV, NORM, LAYER_NORM, LINEAR, MAX_POOL, AVG_POOL, SUM, CONCAT = range(9)
ATTENTION, MEAN, SCALE, POS_ENC, GLOB_AVG, SUBSAMPLE, FLATTEN = range(9, 16)

# Activation applied to the input of an operation: to IN1 of SUM and SCALE, to IN0 of the others.
NO_ACT, RELU, GELU, HARDSWISH, RELU_DROPOUT = range(5)

# Columns of the table. CONCAT reads args[IN0 : IN0 + IN1]; the others read rows IN0 and IN1 (-1: nothing).
KIND, CELL, SLOT, OP, IN0, IN1, ACT, OUT_CH, IN_CH = range(9)
KH, KW, STRIDE_H, STRIDE_W, PAD_H, PAD_W, DILATION, GROUPS, BIAS, CROP, ROLE = range(9, 20)
N_COLUMNS = 20

# Bits of ROLE, for training: the value of a cell's operation that is not an identity (drop-path drops these),
# and the value of the cell that an auxiliary classifier reads.
OP_VALUE, AUXILIARY_INPUT = 1, 2

# Modules that own parameters; `Program.module_name` fills in the cell and the operation.
_OPS = "cells.{cell}._ops.{op}."
SLOT_NAMES = (
    "",
    *("stem0", "pos_enc", "stem.0", "stem.1"),
    *("stem0.0", "stem0.1", "stem0.3", "stem0.4", "stem1.1", "stem1.2"),
    *(f"cells.{{cell}}.preprocess0.{part}" for part in ("op.1", "op.2", "conv_1", "conv_2", "bn")),
    *(f"cells.{{cell}}.preprocess1.{part}" for part in ("op.1", "op.2")),
    *(_OPS + f"op.{i}" for i in range(1, 8)),
    *(_OPS + part for part in ("conv_1", "conv_2", "bn", "fc1", "fc2")),
    *(_OPS + part for part in ("to_qkv", "to_out.0", "ln1", "ln2", "ff.net.0", "ff.net.3")),
    *("classifier.0", "classifier.3"),
)
VIT_STEM, VIT_POS, STEM_CONV, STEM_NORM = range(1, 5)
STEM0_CONV0, STEM0_NORM0, STEM0_CONV1, STEM0_NORM1, STEM1_CONV, STEM1_NORM = range(5, 11)
PRE0_CONV, PRE0_NORM, PRE0_FR = 11, 12, 13  # a factorized reduction takes three consecutive slots
PRE1_CONV, PRE1_NORM = 16, 17
OP_BASE = 17  # slot of `op.<k>` is OP_BASE + k
OP_FR, OP_FC1, OP_FC2 = 25, 28, 29
OP_QKV, OP_OUT, OP_LN1, OP_LN2, OP_FF0, OP_FF3 = range(30, 36)
CLASSIFIER0, CLASSIFIER3 = 36, 37

# Cell operations, in the order of CELL_OPS.
NONE, MAX3, AVG3, SKIP, SEP3, SEP5, DIL3, DIL5, CONV1, CONV71, CONV3, CONV5, CONV7, MSA, CSE = range(15)
HEADS = 8  # of every self-attention

# Positions in an encoded architecture; the two cells and their concatenated states follow.
N_CELLS, KS, STEM_TYPE, STEM_POOL, NORM_KIND, PREPROC, C_MULT, FC_LAYERS, FC_DIM, POOL_HEAD = range(10)
STEPS_NORMAL, STEPS_REDUCE, CONCAT_NORMAL, CONCAT_REDUCE = range(10, 14)
HEADER = 14

IMAGENET_FROM = 64  # image sizes above this one use the ImageNet stems

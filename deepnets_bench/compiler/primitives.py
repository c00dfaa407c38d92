"""The two vocabularies of DeepNets-1M: node types of a graph and operations of a cell."""

from __future__ import annotations

# Order is the index stored in graphs and the row of the GHN's embedding table.
PRIMITIVES = (
    "max_pool",
    "avg_pool",
    "sep_conv",
    "dil_conv",
    "conv",
    "msa",
    "cse",
    "sum",
    "concat",
    "input",
    "bias",
    "bn",
    "ln",
    "pos_enc",
    "glob_avg",
)
(
    MAX_POOL,
    AVG_POOL,
    SEP_CONV,
    DIL_CONV,
    CONV,
    MSA,
    CSE,
    SUM,
    CONCAT,
    INPUT,
    BIAS,
    BN,
    LN,
    POS_ENC,
    GLOB_AVG,
) = range(len(PRIMITIVES))

# Order is the order in which operations are sampled.
CELL_OPS = (
    "none",
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
    "conv_1x1",
    "conv_7x1_1x7",
    "conv_3x3",
    "conv_5x5",
    "conv_7x7",
    "msa",
    "cse",
)

NORMS = ("none", "bnorm", "bn-track")

"""The splits of DeepNets-1M and how their architectures are drawn.

Rules: Knyazev et al., "Parameter Prediction for Unseen Deep Architectures", NeurIPS 2021, as fixed by the
authors' code. Each (dataset version, split, index) has a random stream of its own, so that any graph can be
made alone; a rejected candidate is followed by the next one from the same stream.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numba import boolean, int32, int64, uint64, void
from numba.core.types import Tuple

from deepnets_bench.architecture import Architecture, decode
from deepnets_bench.compiler import instructions as ir
from deepnets_bench.compiler.canonical import canonical_key
from deepnets_bench.compiler.jit import kernel
from deepnets_bench.compiler.lowering import count_params, emit
from deepnets_bench.compiler.primitives import CELL_OPS, NORMS
from deepnets_bench.errors import BadInput, UnknownName
from deepnets_bench.generators.streams import chance, integer, open_stream

# Raise it when any graph of any split changes; files of different versions never mix.
DATASET_VERSION = 1

# Number of the first stream. With 0, the hundred networks of bnfree came out 10 % larger on average than the
# published ones, by chance; with 24 the mean sizes of all splits are within 7 % of the published.
FIRST_STREAM = 24

# What candidates are counted with, and the sizes behind `width` and `num_params` in the files.
WIDTH = 32
FC_DIM = 256
CIFAR_SIZE, CIFAR_CLASSES = 32, 10
IMAGENET_SIZE, IMAGENET_CLASSES = 224, 1000
# Evaluation width: the smallest multiple of the step, from WIDTH up, with this many CIFAR-form parameters.
MIN_EVALUATION_PARAMS = 2_500_000
WIDTH_STEP = 16

MIXED_NORM, ONLY_NORM, NO_NORM = range(3)
LARGE = 100_000_000  # parameters
NO_BN, BN = (NORMS.index(name) for name in ("none", "bnorm"))


class Recipe(NamedTuple):
    """Ranges of a split's draws. Networks of more than `threshold` cells are deep: they get fewer steps."""

    cells: tuple[int, int] = (4, 18)
    threshold: tuple[int, int] = (7, 10)
    steps: tuple[int, int] = (1, 4)
    deep_steps: tuple[int, int] = (1, 2)
    max_params: int = 10_000_000
    norm: int = MIXED_NORM
    # Probabilities of preprocessing where it is optional, without and with attention.
    preproc: tuple[float, float] = (1.0, 0.2)


_AS_TRAIN = Recipe()


@dataclass(frozen=True)
class Split:
    """A named set of architectures.

    `size` is the number in the paper. `stream` is part of the random streams' key; wide repeats the
    architectures of test, at widths multiplied by `scale` in CIFAR-10 and ImageNet form.
    """

    name: str
    size: int
    stream: int
    recipe: Recipe = _AS_TRAIN
    evaluation: bool = True
    scale: tuple[int, int] = (1, 1)


SPLITS = {
    split.name: split
    for split in (
        Split("train", 1_000_000, 0, evaluation=False),
        Split("val", 500, 1),
        Split("test", 500, 2),
        Split("wide", 100, 2, scale=(4, 2)),
        Split("deep", 100, 3, Recipe(cells=(10, 36), threshold=(18, 18), max_params=LARGE)),
        Split("dense", 100, 4, Recipe(steps=(2, 10), deep_steps=(2, 6), max_params=LARGE)),
        Split("bnfree", 100, 5, Recipe(norm=NO_NORM)),
        Split(
            "search",
            100_000,
            6,
            Recipe((6, 20), (10, 10), (1, 6), (1, 3), norm=ONLY_NORM, preproc=(0.8, 0.2)),
            evaluation=False,
        ),
    )
}
PREDEFINED = "predefined"
SPLIT_NAMES = (*SPLITS, PREDEFINED)

# The splits are disjoint at any size because an architecture's key says which of them may hold it: of this
# many equal shares of all keys, one belongs to each evaluation stream and the rest to train and search.
KEY_SHARES = 16
N_EVALUATION_STREAMS = max(split.stream for split in SPLITS.values() if split.evaluation)


def find_split(name: str) -> Split:
    """A sampled split by name; raises `UnknownName`."""
    if name not in SPLITS:
        raise UnknownName("split", name, SPLIT_NAMES)
    return SPLITS[name]


_INDICES = 1 << 63  # what the second word of a stream's key, signed, can hold


def sample(split: str, index: int, dataset_version: int = DATASET_VERSION) -> Architecture:
    """The architecture with a number in a split, the one that `generate` stores there."""
    if not 0 <= index < _INDICES:
        raise BadInput(f"The number of a graph must be from 0 to {_INDICES - 1:,}, not {index}.")
    found = find_split(split)
    key = stream_key(found, dataset_version)
    return decode(draw(key, np.uint64(index), found.recipe, key_share(found))[0])


def stream_key(split: Split, dataset_version: int) -> np.uint64:
    """First word of the key of a split's random streams; the index is the second."""
    return np.uint64(dataset_version << 32 | FIRST_STREAM + split.stream)


def key_share(split: Split) -> int:
    """The share of all keys that a split draws from; 0 stands for all that no evaluation split owns."""
    return split.stream if split.evaluation else 0


@kernel()
def draw(key, index, recipe, share):  # type: ignore[no-untyped-def]
    """The architecture of one stream: (encoded, its CIFAR-form table and args at WIDTH, parameters at WIDTH
    in CIFAR and ImageNet form)."""
    stream = open_stream(key, index)
    while True:
        code = candidate(stream, recipe)
        if len(code) == 0 or _share_of(canonical_key(code)) != share:
            continue
        table, args, rows, n_args, valid = compiled(code, WIDTH, CIFAR_SIZE, CIFAR_CLASSES)
        cifar = count_params(table, rows)
        if cifar > recipe.max_params or not valid:
            continue
        imagenet = num_params(code, WIDTH, IMAGENET_SIZE, IMAGENET_CLASSES)
        if imagenet <= recipe.max_params:
            return code, table[:rows], args[:n_args], cifar, imagenet


@kernel()
def _share_of(key):  # type: ignore[no-untyped-def]
    share = np.int64(key[1] % np.uint64(KEY_SHARES))
    return share if share <= N_EVALUATION_STREAMS else 0


@kernel(Tuple((int32[:, ::1], int32[::1], int64, int64, boolean))(int32[::1], int64, int64, int64))
def compiled(code, width, image_size, num_classes):  # type: ignore[no-untyped-def]
    """`emit` with fc_dim FC_DIM."""
    return emit(code, width, image_size, num_classes, np.int64(FC_DIM))


@kernel(int64(int32[::1], int64, int64, int64))
def num_params(code, width, image_size, num_classes):  # type: ignore[no-untyped-def]
    """Parameters of an encoded architecture, those of dead branches included, with fc_dim FC_DIM."""
    table, _, rows, _, _ = compiled(code, width, image_size, num_classes)
    return count_params(table, rows)


@kernel(int64(int32[::1], int64))
def evaluation_width(code, cifar):  # type: ignore[no-untyped-def]
    """The smallest width with enough parameters; `cifar` is the number at WIDTH."""
    width = WIDTH
    while cifar < MIN_EVALUATION_PARAMS:
        width += WIDTH_STEP
        cifar = num_params(code, width, CIFAR_SIZE, CIFAR_CLASSES)
    return width


@kernel()
def candidate(stream, recipe):  # type: ignore[no-untyped-def]
    """Draw one encoded candidate; empty where its operations are rejected. The order of draws is fixed."""
    n_cells = integer(stream, recipe.cells[0], recipe.cells[1])
    deep = n_cells > integer(stream, recipe.threshold[0], recipe.threshold[1])
    few, many = recipe.deep_steps if deep else recipe.steps
    steps = integer(stream, few, many)
    only_pool = chance(stream, 0.5)
    drop_concat = steps > 1 and chance(stream, 0.5)

    code = np.zeros(ir.HEADER + 8 * steps + 2 * steps, np.int32)
    normal, reduction = ir.HEADER, ir.HEADER + 4 * steps
    first_op = 0 if steps > 1 else 1  # a single step with a `none` would often be empty
    last_op = len(CELL_OPS) - 1
    _draw_cell(stream, code[normal:reduction], first_op, last_op)
    _draw_cell(stream, code[reduction : reduction + 4 * steps], first_op, ir.SKIP if only_pool else last_op)
    n_concat = 0
    for state in range(2, steps + 2):
        if state == steps + 1 or not drop_concat or chance(stream, 0.5):
            code[reduction + 4 * steps + n_concat] = state
            n_concat += 1
    ks = 3 + 2 * integer(stream, 0, 2)

    counts = np.zeros((2, len(CELL_OPS)), np.int64)  # of operations in each cell
    for pair in range(4 * steps):
        counts[pair // (2 * steps), code[ir.HEADER + 2 * pair]] += 1
    has_attention = counts[:, ir.MSA].sum() > 0
    has_excitation = counts[:, ir.CSE].sum() > 0
    has_conv = counts[:, ir.SEP3 : ir.CONV7 + 1].sum() > 0
    wide_kernels = counts[:, ir.CONV5] + counts[:, ir.CONV7]
    if not has_conv and (has_excitation or not has_attention):
        return code[:0]
    if counts[:, ir.CSE].max() > 1 or wide_kernels.max() > 1:
        return code[:0]

    c_mult = integer(stream, 1, 2)
    preproc = steps > 1 or c_mult == 2
    if not preproc:
        probability = recipe.preproc[1] if has_attention else recipe.preproc[0]
        preproc = probability == 1 or chance(stream, probability)
    glob_avg = has_attention or deep or chance(stream, 0.9)
    norm = NO_BN if recipe.norm == NO_NORM else BN
    if recipe.norm == MIXED_NORM and n_cells <= recipe.cells[0] + 1 and steps <= recipe.deep_steps[1]:
        norm = BN if integer(stream, 0, 1) == 0 else NO_BN
    stem_type = integer(stream, 0, 1)
    stem_pool = stem_type == 0 and chance(stream, 0.5)

    code[ir.N_CELLS], code[ir.KS], code[ir.STEM_TYPE], code[ir.STEM_POOL] = n_cells, ks, stem_type, stem_pool
    code[ir.NORM_KIND], code[ir.PREPROC], code[ir.C_MULT] = norm, preproc, c_mult
    code[ir.FC_LAYERS], code[ir.FC_DIM], code[ir.POOL_HEAD] = integer(stream, 1, 2), FC_DIM, glob_avg
    code[ir.STEPS_NORMAL] = code[ir.STEPS_REDUCE] = steps
    code[ir.CONCAT_NORMAL] = code[ir.CONCAT_REDUCE] = n_concat
    concat = reduction + 4 * steps
    code[concat + n_concat : concat + 2 * n_concat] = code[concat : concat + n_concat]
    return code[: concat + 2 * n_concat]


@kernel(void(uint64[::1], int32[::1], int64, int64))
def _draw_cell(stream, pairs, first_op, last_op):  # type: ignore[no-untyped-def]
    """Fill in (operation, state) pairs: two different states of those before, in any order, a step."""
    for step in range(len(pairs) // 4):
        a = integer(stream, 0, step + 1)
        b = integer(stream, 0, step)
        b += b >= a
        pairs[4 * step + 1], pairs[4 * step + 3] = a, b
        pairs[4 * step] = integer(stream, first_op, last_op)
        pairs[4 * step + 2] = integer(stream, first_op, last_op)

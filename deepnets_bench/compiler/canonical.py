"""Checks and canonical 128-bit keys of integer-encoded architectures, at numba speed.

An encoded architecture is the integer vector of `architecture.encode`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from deepnets_bench.compiler.instructions import (
    C_MULT,
    CONCAT_NORMAL,
    CONCAT_REDUCE,
    FC_DIM,
    FC_LAYERS,
    HEADER,
    KS,
    MSA,
    NONE,
    PREPROC,
    STEM_POOL,
    STEM_TYPE,
    STEPS_NORMAL,
    STEPS_REDUCE,
)
from deepnets_bench.compiler.jit import kernel
from deepnets_bench.compiler.primitives import CELL_OPS, NORMS

Vector = NDArray[np.int32]

MAX_STEPS = 20  # as `Architecture` allows

_N_OPS = len(CELL_OPS)
_N_NORMS = len(NORMS)


@kernel()
def is_valid(vector: Vector) -> bool:
    """True where the vector encodes an architecture that `Architecture` would accept."""
    if len(vector) < HEADER:
        return False
    low = (1, 1, 0, 0, 0, 0, 1, 1, 1, 0, 1, 1, 1, 1)
    high = (255, 31, 1, 1, _N_NORMS - 1, 1, 8, 2, 65535, 1, MAX_STEPS, MAX_STEPS, MAX_STEPS, MAX_STEPS)
    for field in range(HEADER):
        if vector[field] < low[field] or vector[field] > high[field]:
            return False
    if vector[KS] % 2 == 0 or vector[CONCAT_NORMAL] != vector[CONCAT_REDUCE]:
        return False
    if not vector[PREPROC] and (vector[C_MULT] > 1 or vector[CONCAT_NORMAL] > 1):
        return False
    n_pairs = 2 * (vector[STEPS_NORMAL] + vector[STEPS_REDUCE])
    if len(vector) != HEADER + 2 * n_pairs + 2 * vector[CONCAT_NORMAL]:
        return False
    for cell in range(2):
        pairs = HEADER + 4 * cell * vector[STEPS_NORMAL]
        steps = vector[STEPS_NORMAL + cell]
        for pair in range(2 * steps):
            op, state = vector[pairs + 2 * pair], vector[pairs + 2 * pair + 1]
            if op < 0 or op >= _N_OPS or state < 0 or state > pair // 2 + 1:
                return False
        concat = HEADER + 2 * n_pairs + cell * vector[CONCAT_NORMAL]
        for i in range(vector[CONCAT_NORMAL]):
            state = vector[concat + i]
            if state < 2 or state > steps + 1:
                return False
            for j in range(i):
                if vector[concat + j] == state:
                    return False
    return True


@kernel()
def canonical(vector: Vector) -> Vector:
    """The representative of all vectors that encode the same network, as in `Architecture.fingerprint`."""
    result = vector.copy()
    n_pairs = 2 * (result[STEPS_NORMAL] + result[STEPS_REDUCE])
    is_vit = False
    for step in range(HEADER, HEADER + 2 * n_pairs, 4):
        for pair in (step, step + 2):
            if result[pair] == MSA:
                is_vit = True
            if result[pair] == NONE:
                result[pair + 1] = 0
        op, state, other_op, other_state = result[step : step + 4]
        if (other_op, other_state) < (op, state):
            result[step], result[step + 1] = other_op, other_state
            result[step + 2], result[step + 3] = op, state
    if is_vit:
        result[STEM_TYPE], result[STEM_POOL], result[KS] = 0, 0, 3
    elif result[STEM_TYPE] == 1:
        result[STEM_POOL] = 0
    if result[FC_LAYERS] == 1:
        result[FC_DIM] = 0
    return result


@kernel()
def _mix(value: np.uint64) -> np.uint64:
    # Finaliser of splitmix64 (Steele, Lea and Flood, OOPSLA 2014).
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@kernel()
def canonical_key(vector: Vector) -> tuple[np.uint64, np.uint64]:
    """Two words, equal for two valid vectors when their fingerprints are.

    Different networks collide with probability 2^-128 a pair; the hash is not meant to resist an adversary.
    """
    high, low = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xD1B54A32D192ED03)
    for value in canonical(vector):
        word = np.uint64(value)
        high = _mix((high ^ word) + np.uint64(0x9E3779B97F4A7C15))
        low = _mix((low + word) ^ (low << np.uint64(17)) ^ np.uint64(0xA0761D6478BD642F))
    return high, low

"""Random numbers that any worker can reproduce: one Philox stream per (dataset version, split, index).

The words are those of `numpy.random.Philox(key=[version << 32 | stream, index]).random_raw()`, that is
Philox4x64-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011), computed here so that
compiled code needs no Python object per graph. Every draw takes one word.
"""

from __future__ import annotations

import numba
import numpy as np
from numba import boolean, float64, int64, uint64

from deepnets_bench.compiler.jit import kernel

_MASK = np.uint64(0xFFFFFFFF)
_32 = np.uint64(32)
_M0, _M1 = np.uint64(0xD2E7470EE14C6C93), np.uint64(0xCA5A826395121157)
_W0, _W1 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBB67AE8584CAA73B)

# State of a stream, uint64: the two words of the key, the counter, words used of the block, the block.
_COUNTER, _USED, _BLOCK = 2, 3, 4


@numba.njit(cache=True, inline="always")
def _multiply(a, b):  # type: ignore[no-untyped-def]
    """High and low word of the 128-bit product."""
    a_low, a_high, b_low, b_high = a & _MASK, a >> _32, b & _MASK, b >> _32
    middle = a_high * b_low + ((a_low * b_low) >> _32)
    cross = a_low * b_high + (middle & _MASK)
    return a_high * b_high + (middle >> _32) + (cross >> _32), a * b


@kernel()
def open_stream(high, low):  # type: ignore[no-untyped-def]
    """The stream with the given key (two uint64)."""
    stream = np.zeros(8, np.uint64)
    stream[0], stream[1] = high, low
    stream[_USED] = 4
    return stream


@kernel(uint64(uint64[::1]))
def next_word(stream):  # type: ignore[no-untyped-def]
    """The next uint64."""
    if stream[_USED] == 4:
        stream[_COUNTER] += np.uint64(1)
        k0, k1 = stream[0], stream[1]
        c0, c1, c2, c3 = stream[_COUNTER], np.uint64(0), np.uint64(0), np.uint64(0)
        for _ in range(10):
            high0, low0 = _multiply(_M0, c0)
            high1, low1 = _multiply(_M1, c2)
            c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
            k0 += _W0
            k1 += _W1
        stream[_BLOCK], stream[_BLOCK + 1], stream[_BLOCK + 2], stream[_BLOCK + 3] = c0, c1, c2, c3
        stream[_USED] = 0
    word = stream[_BLOCK + np.int64(stream[_USED])]
    stream[_USED] += np.uint64(1)
    return word


@kernel(int64(uint64[::1], int64, int64))
def integer(stream, low, high):  # type: ignore[no-untyped-def]
    """Uniform in low..high: the top 32 bits of a word scaled to the range (bias below range / 2^32)."""
    return low + np.int64(((next_word(stream) >> _32) * np.uint64(high - low + 1)) >> _32)


@kernel(boolean(uint64[::1], float64))
def chance(stream, probability):  # type: ignore[no-untyped-def]
    """True with the given probability: the top 53 bits of a word as a fraction below it."""
    return np.float64(next_word(stream) >> np.uint64(11)) * 2.0**-53 < probability

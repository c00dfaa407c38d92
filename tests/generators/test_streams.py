"""Random streams: NumPy's Philox, word for word, and unbiased draws."""

from __future__ import annotations

import numpy as np
import pytest

from deepnets_bench.generators.streams import chance, integer, next_word, open_stream


@pytest.mark.parametrize("key", [(0, 0), (1 << 32 | 24, 999_999), (2**64 - 1, 2**63)])
def test_words_are_numpys(key: tuple[int, int]) -> None:
    stream = open_stream(*map(np.uint64, key))
    expected = np.random.Philox(key=key).random_raw(50)
    assert [next_word(stream) for _ in expected] == expected.tolist()


def test_integers_take_the_top_of_a_word() -> None:
    stream = open_stream(np.uint64(3), np.uint64(4))
    words = np.random.Philox(key=(3, 4)).random_raw(1000)
    drawn = [integer(stream, 5, 11) for _ in words]
    assert drawn == [5 + (int(word >> 32) * 7 >> 32) for word in words.tolist()]
    assert set(drawn) == set(range(5, 12))


def test_chance_is_a_fraction_of_a_word() -> None:
    stream = open_stream(np.uint64(3), np.uint64(4))
    words = np.random.Philox(key=(3, 4)).random_raw(1000)
    assert [chance(stream, 0.2) for _ in words] == [(word >> 11) / 2**53 < 0.2 for word in words.tolist()]

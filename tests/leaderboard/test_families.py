"""Holm, compact letters and rank intervals, by hand."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepnets_bench.leaderboard.families import (
    all_pairs,
    corrected,
    holm,
    letters,
    rank_intervals,
    reference_pairs,
)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == pytest.approx([1.0, 1.0])
    assert holm([]).size == 0
    assert holm([[0.01, 0.04], [0.04, 0.01]]) == pytest.approx(np.array([[0.02, 0.04], [0.04, 0.02]]))


def test_a_claim_needs_the_paired_test_too() -> None:
    assert corrected([0.001, 0.001], [0.01, 0.2]) == pytest.approx([0.01, 0.2])
    assert corrected([0.02, 0.03], [0.001, 0.001]) == pytest.approx([0.04, 0.04])


def test_pairs() -> None:
    names = ["gat", "mlp", "gin", "ghn2"]
    assert len(all_pairs(names)) == 6
    assert reference_pairs(names, ["mlp", "ghn2"]) == [
        *(("gat", "mlp"), ("gin", "mlp"), ("ghn2", "mlp")),
        *(("gat", "ghn2"), ("gin", "ghn2")),
    ]
    assert reference_pairs(["gat", "gin"], ["mlp", "ghn2"]) == [], "absent references drop out"


def test_letters_by_hand() -> None:
    assert letters("abc", []) == {"a": "a", "b": "a", "c": "a"}
    assert letters("abc", [("a", "b"), ("a", "c"), ("b", "c")]) == {"a": "a", "b": "b", "c": "c"}
    assert letters("abc", [("a", "c")]) == {"a": "a", "b": "ab", "c": "b"}


def test_letters_without_an_order() -> None:
    # The middle two differ, the outer two do not: no sorted runs can say so.
    found = letters("abcd", [("b", "c")])
    assert found == {"a": "ab", "b": "a", "c": "b", "d": "ab"}


@given(st.lists(st.booleans(), max_size=21))
def test_two_share_a_letter_exactly_when_they_do_not_differ(flags: list[bool]) -> None:
    n = next(n for n in range(1, 9) if n * (n - 1) // 2 >= len(flags))
    names = [f"g{i}" for i in range(n)]
    pairs = list(combinations(names, 2))
    different = {pair for pair, flag in zip(pairs, flags, strict=False) if flag}
    found = letters(names, different)
    assert all(found.values()), "every GNN has a letter"
    for pair in pairs:
        assert bool(set(found[pair[0]]) & set(found[pair[1]])) == (pair not in different)


def test_rank_intervals_by_hand() -> None:
    # a beats c and d, b beats d
    found = rank_intervals("abcd", [("a", "c"), ("a", "d"), ("b", "d")])
    assert found == {"a": (1, 2), "b": (1, 3), "c": (2, 4), "d": (3, 4)}
    assert rank_intervals("ab", []) == {"a": (1, 2), "b": (1, 2)}

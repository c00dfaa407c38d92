"""Holm, compact letters and rank intervals, by hand."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepnets_bench.leaderboard import anova
from deepnets_bench.leaderboard.families import (
    all_pairs,
    corrected,
    letters,
    rank_intervals,
    reference_pairs,
)

# Of this table (tests/leaderboard/test_anova.py) the moderated p-values are 0.00749, 0.01613, 0.37390 and the
# paired ones 0.03775, 0.05719, 0.42265.
TABLE = np.array([[2.0, 2.0, 5.0], [2.0, 2.0, 8.0], [2.0, 5.0, 8.0]])
PAIRS = np.array([[2, 0], [2, 1], [1, 0]])


def test_corrected_by_hand() -> None:
    (found,) = corrected([(TABLE, PAIRS)])
    # 3 × 0.00749 and 2 × 0.01613 are below the paired ones; in the last step two GNNs are left.
    assert found == pytest.approx(np.array([0.03775, 0.05719, 0.42265]), abs=1e-5)


def test_steps_of_holm() -> None:
    random = np.random.default_rng(9)
    table = random.normal([0.0, 0.0, 0.9], 1, size=(10, 3))
    tests = anova.pair_tests(table, PAIRS)
    assert (tests.p_paired < tests.p_moderated * [3, 2, 1]).all(), "so that the paired tests do not count"
    first, second, third = tests.p_moderated
    assert first < second < third
    last = anova.pair_tests(table[:, :2], np.array([[1, 0]])).p_moderated[0]
    assert corrected([(table, PAIRS)])[0] == pytest.approx(
        np.array([3 * first, 2 * second, max(last, third)])
    )


def test_tables_of_one_family_are_corrected_together_and_pooled_apart() -> None:
    quiet, noisy = TABLE, 1000 * TABLE[:, ::-1]
    alone, together = corrected([(quiet, PAIRS)])[0], corrected([(quiet, PAIRS), (noisy, PAIRS[:1])])
    assert [part.shape for part in together] == [(3,), (1,)]
    assert (together[0] >= alone).all()
    assert together[0][0] == pytest.approx(max(4 * 0.00749, 0.03775), abs=1e-5)


def test_the_last_gnns_are_not_lent_the_variance_of_those_told_apart() -> None:
    random = np.random.default_rng(5)
    means, noise = [*range(1000, 100, -100), 0, 0, 0], [1.0] * 9 + [2.0] * 3
    table = random.normal(means, noise, size=(200, 10, 12))
    pairs, last = np.array(all_pairs(range(12))), np.array(all_pairs(range(3)))
    (found,) = corrected([(table, pairs)])
    assert (found[:, :-3] < 1e-6).all()
    noisy = table[..., 9:]
    pooled, own = anova.pair_tests(table, last + 9), anova.pair_tests(noisy, last)
    expected = np.maximum(3 * own.p_moderated, np.maximum(pooled.p_moderated, pooled.p_paired)).min(axis=1)
    assert found[:, -3:].min(axis=1) == pytest.approx(np.minimum(expected, 1))
    assert np.median(own.se / pooled.se) > 1.03


def test_boards_side_by_side_are_boards_one_by_one() -> None:
    tables = np.random.default_rng(6).normal([0.0, 0.0, 1.0, 4.0, 9.0], 1, size=(20, 5, 5))
    pairs = np.array(all_pairs(range(5)))
    (side_by_side,) = corrected([(tables, pairs)])
    for table, found in zip(tables, side_by_side, strict=True):
        assert corrected([(table, pairs)])[0] == pytest.approx(found)


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

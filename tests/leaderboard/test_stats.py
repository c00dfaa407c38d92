"""Statistics against hand computation, scipy's definitions and simulated data of known truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import wilcoxon

from deepnets_bench.errors import BadInput
from deepnets_bench.leaderboard import stats
from deepnets_bench.leaderboard.aggregate import boards
from deepnets_bench.leaderboard.results import accuracy_summary, write_scores

from .conftest import failed_row, make_row


def test_holm_by_hand() -> None:
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert stats.holm([0.9, 0.8]) == [1.0, 1.0]
    assert stats.holm([]) == []


def test_comparison_by_hand() -> None:
    # differences of the seed means: +1, +2, +3, -4, 0 (hundredths): ranks 1, 2, 3, 4 -> effect (6 - 4) / 10
    a = np.array([[0.31, 0.32, 0.33, 0.26, 0.30], [0.31, 0.32, 0.33, 0.26, 0.30]])
    b = np.full((1, 5), 0.30)
    (result,) = stats.compare({"test": a, "wide": a}, {"test": b})
    assert (result.split, result.n) == ("test", 5)
    assert (result.wins, result.ties, result.losses) == (3, 1, 1)
    assert result.effect == pytest.approx(0.2)
    assert result.difference == pytest.approx(0.004)
    assert result.p_value == result.p_holm == pytest.approx(wilcoxon([1, 2, 3, -4]).pvalue)
    assert result.low < 0 < result.high
    assert not result.significant


def test_equal_methods_tie_everywhere() -> None:
    a = np.array([[0.1, 0.2, 0.3]])
    (result,) = stats.compare({"test": a}, {"test": a[[0, 0, 0]]})
    assert (result.wins, result.ties, result.losses, result.effect, result.p_holm) == (0, 3, 0, 0.0, 1.0)


def test_significance_needs_the_seeds_to_agree() -> None:
    random = np.random.default_rng(1)
    base = random.uniform(0.2, 0.6, size=60)
    noise = random.normal(0, 0.01, size=(3, 60))
    steady = base + noise + 0.05
    erratic = base + noise + np.array([[0.25], [-0.12], [0.02]])  # the same mean advantage, seeds disagree
    reference = np.stack([base, base, base])
    assert stats.compare({"test": steady}, {"test": reference})[0].significant
    result = stats.compare({"test": erratic}, {"test": reference})[0]
    assert result.p_holm < 0.001
    assert not result.significant


def test_methods_on_other_architectures_are_refused() -> None:
    with pytest.raises(BadInput, match="On split test one method has 3 architectures, the other 2"):
        stats.compare({"test": np.zeros((1, 3))}, {"test": np.zeros((1, 2))})
    with pytest.raises(BadInput, match="no split in common"):
        stats.compare({"test": np.zeros((1, 3))}, {"wide": np.zeros((1, 3))})


def test_interval_of_a_constant_is_a_point_and_is_reproducible() -> None:
    assert stats.bootstrap_interval(np.full((3, 4), 0.25)) == pytest.approx((0.25, 0.25))
    a = np.random.default_rng(0).uniform(size=(3, 50))
    assert stats.bootstrap_interval(a) == stats.bootstrap_interval(a)


def test_interval_width_matches_theory_for_one_seed() -> None:
    a = np.random.default_rng(0).normal(0.5, 0.1, size=(1, 400))
    low, high = stats.bootstrap_interval(a)
    expected = 2 * 1.96 * a.std() / np.sqrt(400)
    assert high - low == pytest.approx(expected, rel=0.08)
    assert (low + high) / 2 == pytest.approx(a.mean(), abs=1e-3)


def test_interval_widens_with_the_spread_of_seeds() -> None:
    a = np.random.default_rng(0).normal(0.5, 0.05, size=(1, 100))
    apart = np.concatenate([a - 0.1, a, a + 0.1])
    narrow, wide = stats.bootstrap_interval(np.concatenate([a, a, a])), stats.bootstrap_interval(apart)
    assert wide[1] - wide[0] > 3 * (narrow[1] - narrow[0])


def test_critical_difference_by_hand() -> None:
    # four methods, five architectures, always in the same order: ranks 1, 2, 3, 4; q_0.05(4, inf) = 3.633
    methods = {name: np.full(5, value) for name, value in {"a": 0.1, "b": 0.4, "c": 0.3, "d": 0.2}.items()}
    result = stats.critical_difference(methods)
    assert result.ranks == (("b", 1.0), ("c", 2.0), ("d", 3.0), ("a", 4.0))
    assert result.difference == pytest.approx(3.633 / np.sqrt(2) * np.sqrt(4 * 5 / (6 * 5)), abs=1e-3)
    assert result.groups == ((0, 2), (1, 3)), "rank distances up to 2.10 do not differ"
    assert result.p_value == pytest.approx(0.00182, abs=1e-5), "chi-square 15 with 3 degrees of freedom"


def test_letters_by_hand() -> None:
    methods = {name: np.full(5, value) for name, value in {"a": 0.1, "b": 0.4, "c": 0.3, "d": 0.2}.items()}
    assert stats.letters(stats.critical_difference(methods)) == {"b": "a", "c": "ab", "d": "ab", "a": "b"}
    apart = {name: np.full(99, value) for name, value in {"x": 0.1, "y": 0.2, "z": 0.3}.items()}
    assert stats.letters(stats.critical_difference(apart)) == {"z": "a", "y": "b", "x": "c"}


def test_no_pair_differs_when_friedman_finds_nothing() -> None:
    # twelve architectures where b leads, ten where a does: chi-square is small, and no pair may be told apart
    lead = np.array([0.0] * 12 + [1.0] * 10)
    result = stats.critical_difference({"a": lead, "b": 1 - lead, "c": np.full(22, 0.5)})
    assert result.p_value > 0.05
    assert result.groups == ((0, 2),)
    assert set(stats.letters(result).values()) == {"a"}


def test_critical_differences_by_split() -> None:
    one = np.linspace(0.1, 0.5, 6)[None]
    scores = {
        name: {"test": one + shift, "wide": one} for name, shift in (("a", 0.0), ("b", 0.1), ("c", 0.2))
    }
    scores["c"]["deep"] = one
    assert list(stats.critical_differences(scores)) == ["test", "wide"]
    assert [name for name, _ in stats.critical_differences(scores)["test"].ranks] == ["c", "b", "a"]
    scores["c"]["test"] = one[:, :3]
    assert list(stats.critical_differences(scores)) == ["wide"], "other architectures cannot be ranked"


def test_significant_pairs_need_both_tests() -> None:
    level = np.linspace(0.2, 0.4, 30)
    methods = {
        "low": np.stack([level, level + 0.001]),
        "unsteady": np.stack([level - 0.1, level + 0.3]),  # wins every pairing of means, not of seeds
        "high": np.stack([level + 0.1, level + 0.101]),
    }
    assert stats.significant_pairs(methods) == [("high", "low")]
    assert stats.significant_pairs({"low": methods["low"]}) == []


def test_critical_difference_of_equal_methods() -> None:
    result = stats.critical_difference({name: np.full(5, 0.5) for name in "abc"})
    assert result.p_value == 1.0
    assert result.groups == ((0, 2),)
    with pytest.raises(BadInput, match="needs 3 methods"):
        stats.critical_difference({"a": np.zeros(5), "b": np.zeros(5)})


def test_nemenyi_agrees_with_scikit_posthocs() -> None:
    posthocs = pytest.importorskip("scikit_posthocs", reason="part of the report extra")
    table = np.random.default_rng(3).normal(size=(40, 5)) + np.array([0, 0.2, 0.5, 0.9, 1.0])
    result = stats.critical_difference({str(i): table[:, i] for i in range(5)})
    p_values = posthocs.posthoc_nemenyi_friedman(table).to_numpy()
    ranks = {int(name): rank for name, rank in result.ranks}
    for i in range(5):
        for j in range(i):
            assert (abs(ranks[i] - ranks[j]) > result.difference) == (p_values[i, j] < 0.05)


def test_scores_are_loaded_by_seed_and_index(tmp_path: Path) -> None:
    rows = []
    for seed in (1, 0):
        scores = {"test": {2: 0.3 + seed / 10, 0: 0.1 + seed / 10}}
        name = write_scores(tmp_path, f"gat-{seed}", scores)
        rows.append(make_row(seed=seed, scores_file=name, n_split=2, **accuracy_summary(scores["test"])))
    rows.append(failed_row(seed=2))
    entry = boards(rows)[0].entries[0]
    assert stats.load_scores(entry, tmp_path)["test"] == pytest.approx(np.array([[0.1, 0.3], [0.2, 0.4]]))


def test_missing_scores_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="gat, seed 0, split test names no scores file"):
        stats.load_scores(boards([make_row()])[0].entries[0], tmp_path)
    name = write_scores(tmp_path, "gat", {"test": {0: 0.5}})
    with pytest.raises(BadInput, match="holds 1 scores of split test, 4 are needed"):
        stats.load_scores(boards([make_row(scores_file=name)])[0].entries[0], tmp_path)

"""The blocked analysis of variance: a table by hand, its two limits against scipy, and power."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special
from scipy import stats as scipy_stats

from deepnets_bench.leaderboard import anova

# GNN means 2, 3, 7; seed effects -1, 0, 1; residuals 1, 0, -1 in each row and column, whose squares add to 6.
TABLE = np.array([[2.0, 2.0, 5.0], [2.0, 2.0, 8.0], [2.0, 5.0, 8.0]])
PAIRS = np.array([[2, 0], [2, 1], [1, 0]])


def test_f_by_hand() -> None:
    # GNNs: 3 (4 + 1 + 9) / 2 = 21; residuals: 6 / 4 = 1.5; with 2 degrees of freedom p = (1 + 2 F / 4) ** -2
    found = anova.f_test(TABLE)
    assert anova.residual_variance(TABLE) == pytest.approx(1.5)
    assert (found.statistic, found.df_gnns, found.df_residual) == (pytest.approx(14), 2, 4)
    assert found.p_value == pytest.approx(1 / 64)


def test_pairs_by_hand() -> None:
    # Each GNN has residual squares 2: the variances agree wholly, so the pooled one counts alone, df = 4.
    # Paired differences: 3 6 6, 3 6 3, 0 0 3: means 5, 4, 1, variance 3, so that t is the same with df = 2.
    found = anova.pair_tests(TABLE, PAIRS)
    assert np.isinf(anova.prior_df(TABLE))
    assert found.difference == pytest.approx(np.array([5, 4, 1]))
    assert found.se == pytest.approx(np.ones(3))
    assert found.df == pytest.approx(np.full(3, 4.0))
    assert found.p_moderated == pytest.approx(np.array([0.00749, 0.01613, 0.37390]), abs=1e-5)
    assert found.p_paired == pytest.approx(np.array([0.03775, 0.05719, 0.42265]), abs=1e-5)


def test_two_gnns_are_the_paired_t_test() -> None:
    table = np.random.default_rng(0).normal(size=(5, 2))
    found = anova.pair_tests(table, np.array([[0, 1]]))
    expected = scipy_stats.ttest_rel(table[:, 0], table[:, 1])
    assert found.p_moderated[0] == pytest.approx(expected.pvalue)
    assert found.p_paired[0] == pytest.approx(expected.pvalue)
    interval = expected.confidence_interval(0.95)
    reach = special.stdtrit(found.df[0], 0.975) * found.se[0]
    assert (found.difference[0] - reach, found.difference[0] + reach) == pytest.approx(tuple(interval))
    assert anova.f_test(table).p_value == pytest.approx(expected.pvalue), "F = t squared"


def test_seed_effects_change_nothing() -> None:
    random = np.random.default_rng(1)
    table = random.normal(size=(4, 6))
    shifted = table + random.normal(0, 100, size=(4, 1))
    pairs = np.array([[0, 1], [3, 5]])
    before, after = anova.pair_tests(table, pairs), anova.pair_tests(shifted, pairs)
    assert after.difference == pytest.approx(before.difference)
    assert after.p_moderated == pytest.approx(before.p_moderated)
    assert after.p_paired == pytest.approx(before.p_paired)


def test_pooling_over_some_gnns_is_a_table_of_them_alone() -> None:
    table = np.random.default_rng(3).normal(size=(2, 4, 6)) * np.arange(1, 7)
    some, pairs = np.array([False, True, False, True, True, False]), np.array([[1, 3], [4, 1]])
    found = anova.pair_tests(table, pairs, np.stack([some, np.ones(6, bool)]))
    alone = anova.pair_tests(table[0][:, some], np.array([[0, 1], [2, 0]]))
    assert found.p_moderated[0] == pytest.approx(alone.p_moderated)
    assert found.p_moderated[1] == pytest.approx(anova.pair_tests(table[1], pairs).p_moderated)


def test_unequal_variances_lean_on_the_pair_itself() -> None:
    random = np.random.default_rng(2)
    equal = random.normal(size=(500, 10, 12))
    unequal = equal * np.geomspace(0.5, 3, 12)
    assert np.median(anova.prior_df(equal)) > 10
    assert np.median(anova.prior_df(unequal)) < 4
    pair = np.array([[0, 11]])
    by_pair = np.sqrt((0.5**2 + 3**2) / 10)
    assert np.median(anova.pair_tests(unequal, pair).se) == pytest.approx(by_pair, rel=0.15)


def test_inverse_trigamma() -> None:
    x = np.array([0.01, 0.3, 1.0, 7.0, 5e3])
    assert anova.inverse_trigamma(special.polygamma(1, x)) == pytest.approx(x, rel=1e-6)


def test_no_variance_at_all() -> None:
    table = np.array([[0.1, 0.1, 0.3]] * 3) + np.array([[0.0], [0.1], [0.2]])
    found = anova.pair_tests(table, np.array([[0, 1], [2, 0]]))
    assert found.p_moderated.tolist() == [1.0, 0.0]
    assert anova.f_test(table).p_value == 0.0
    assert anova.f_test(np.zeros((3, 3))).p_value == 1.0


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_detectable_difference_of_two_gnns_is_that_of_the_noncentral_t(seeds: int) -> None:
    difference = anova.detectable_difference(1.0, seeds, 2, 1)
    shift, limit = difference * np.sqrt(seeds / 2), scipy_stats.t.ppf(0.975, seeds - 1)
    power = scipy_stats.nct.sf(limit, seeds - 1, shift) + scipy_stats.nct.cdf(-limit, seeds - 1, shift)
    assert power == pytest.approx(0.8, abs=1e-3)


def test_detectable_difference() -> None:
    found = anova.detectable_difference(0.02, 5, 12, 66)
    # Pooled alone: t(0.05 / 66, 44 df) = 3.62, and 0.85 more for power 0.8, times sqrt(2 / 5)
    assert found / 0.02 == pytest.approx((3.62 + 0.85) * np.sqrt(2 / 5), rel=0.03)
    assert (
        anova.detectable_difference(0.02, 10, 12, 66)
        < found
        < anova.detectable_difference(0.02, 5, 12, 66, 4)
    )

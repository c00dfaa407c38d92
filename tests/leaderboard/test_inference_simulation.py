"""Simulated boards of known truth: false claims of a family, and the power that a table states.

Accuracies of single architectures are in points: architectures differ by 10 (standard deviation), each GNN
suits some of them better than others by 3, runs of a seed differ by 2 for all GNNs (blocks) and by 0.5 to 3
for one GNN (the residual), and each network by 2 in each run. The architectures of a split are fixed: a GNN's
advantages on single ones add up to nothing when it is no better on the split. The bound is that of a binomial
share: the nominal 5 % and three standard errors.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import product

import numpy as np
import pytest

from deepnets_bench.leaderboard import anova
from deepnets_bench.leaderboard.families import all_pairs, corrected, reference_pairs

ARCHITECTURES = 16


def residual_sds(pattern: str, gnns: int) -> anova.Array:
    """Residual standard deviation of each GNN in points; the references are the last two."""
    if pattern == "graded":
        return np.geomspace(0.5, 3, gnns)
    sds = np.full(gnns, 1.0 if pattern == "equal" else 0.5)
    if pattern == "one reference noisy":
        sds[-1] = 3
    if pattern == "half noisy":
        sds[gnns // 2 :] = 3
    if pattern == "few noisy":
        sds[-few(gnns) :] = 1.5
    return sds


def few(gnns: int) -> int:
    """Two to four of them."""
    return min(max(2, gnns // 4), 4)


def simulate(random: np.random.Generator, boards: int, seeds: int, sds: anova.Array) -> anova.Array:
    """Mean accuracies [boards, seeds, GNNs] of GNNs that are all equally good."""
    gnns = len(sds)
    suits = random.normal(0, 3, size=(boards, 1, gnns, ARCHITECTURES))
    accuracy = random.normal(0, 2, size=(boards, seeds, gnns, ARCHITECTURES))
    accuracy += random.normal(0, 10, size=(boards, 1, 1, ARCHITECTURES))
    accuracy += suits - suits.mean(axis=-1, keepdims=True)
    accuracy += random.normal(0, 2, size=(boards, seeds, 1, 1))
    accuracy += random.normal(size=(boards, seeds, gnns, 1)) * sds[:, None]
    means: anova.Array = accuracy.mean(axis=-1)
    return means


def false_claims(
    boards: int, gnns: int, seeds: int, pattern: str, references: bool, equal: int, key: int = 0
) -> float:
    """Share of boards with a false claim; all GNNs but the last `equal` ones lead, each by another margin."""
    random = np.random.default_rng([key, gnns, seeds])
    better = 100.0 * np.maximum(np.arange(gnns, 0, -1) - equal, 0)
    accuracy = simulate(random, boards, seeds, residual_sds(pattern, gnns)) + better
    names = [str(i) for i in range(gnns)]
    pairs = np.array(reference_pairs(names, names[-2:]) if references else all_pairs(names), dtype=int)
    null = better[pairs[:, 0]] == better[pairs[:, 1]]
    (p_values,) = corrected([(accuracy, pairs)])
    return float((p_values < anova.LEVEL)[:, null].any(axis=1).mean())


def cases(gnns: int) -> Iterator[tuple[str, bool, int]]:
    """Pattern of noise, against references or all pairs, how many GNNs are equal."""
    patterns = ("equal", "graded", "one reference noisy", "half noisy", "few noisy")
    return product(patterns, (True, False), sorted({gnns, max(2, gnns // 2), few(gnns)}))


@pytest.mark.parametrize("seeds", [3, 5, 10])
@pytest.mark.parametrize("gnns", [2, 4, 12, 26])
def test_false_claims_of_a_family_are_at_most_5_percent(gnns: int, seeds: int) -> None:
    boards = 100 if gnns == 26 else 1000
    bound = 0.05 + 3 * math.sqrt(0.05 * 0.95 / boards)
    for case in cases(gnns):
        assert false_claims(boards, gnns, seeds, *case) <= bound, case


@pytest.mark.stress
@pytest.mark.parametrize("seeds", [3, 4, 5, 10])
@pytest.mark.parametrize("gnns", [2, 3, 4, 6, 12, 26])
def test_false_claims_on_a_larger_grid(gnns: int, seeds: int) -> None:
    parts, boards = 10, 200 if gnns == 26 else 1000
    bound = 0.05 + 3 * math.sqrt(0.05 * 0.95 / (parts * boards))
    for pattern, references, equal in cases(gnns):
        rates = [false_claims(boards, gnns, seeds, pattern, references, equal, part) for part in range(parts)]
        print(f"{gnns} GNNs, {seeds} seeds, {pattern}, {references=}, {equal=}: {100 * np.mean(rates):.2f} %")
        assert np.mean(rates) <= bound, (pattern, references, equal)


def test_the_rule_is_not_merely_timid() -> None:
    """With two GNNs the test is exact, and it spends its 5 %."""
    rate = false_claims(8000, 2, 5, "graded", references=False, equal=2)
    assert rate == pytest.approx(0.05, abs=3 * math.sqrt(0.05 * 0.95 / 8000))


@pytest.mark.parametrize(("gnns", "seeds"), [(2, 3), (2, 10), (4, 5), (12, 5), (12, 10), (26, 5)])
def test_the_stated_difference_is_found_with_probability_0_8(gnns: int, seeds: int) -> None:
    """On boards of equal variances, each stating what it could have detected; the first step of Holm."""
    boards, tests = 120 if gnns > 2 else 2000, gnns * (gnns - 1) // 2
    accuracy = np.random.default_rng([gnns, seeds]).normal(size=(boards, seeds, gnns))

    def stated(residual_variance: float, prior: float) -> float:
        return anova.detectable_difference(math.sqrt(residual_variance), seeds, gnns, tests, prior)

    if gnns == 2:  # the pair's own residual decides its test too: the true residual is stated
        accuracy[:, :, 0] += stated(1.0, np.inf)
    else:
        variances, priors = anova.residual_variance(accuracy), anova.prior_df(accuracy)
        accuracy[:, :, 0] += np.array([stated(*pair) for pair in zip(variances, priors, strict=True)])[
            :, None
        ]
    found = anova.pair_tests(accuracy, np.array([[0, other] for other in range(1, gnns)]))
    power = (np.maximum(found.p_moderated * tests, found.p_paired) < anova.LEVEL).mean()
    assert power == pytest.approx(0.8, abs=3 * math.sqrt(0.8 * 0.2 / boards))

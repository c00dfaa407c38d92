"""Blocked analysis of variance of accuracies: the seed is the block, the run of a seed is the unit.

Model: accuracy [seed, GNN] = GNN + seed + residual. Every function takes arrays [..., seeds, GNNs] without
missing runs; leading axes are independent data sets, so that simulations use the code that tables use.
Accuracies are in any unit, results in the same one.

A pair is tested by a moderated t statistic. Its residual variance is its own, from the differences paired
by seed, shrunk towards the residual variance pooled over all GNNs; `prior_df` says how far (Smyth 2004,
"Linear models and empirical Bayes methods for assessing differential expression in microarray experiments").
Smyth's estimate of the prior degrees of freedom is replaced by a lower bound, because with few GNNs and
seeds the estimate itself is so uncertain that false claims exceed their rate. docs/statistics.md has the
simulations.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
LEVEL = 0.05
POWER = 0.8
MIN_SEEDS = 3  # fewer leave at most one degree of freedom to a pair: its test finds only absurd differences
_PRIOR_TAIL = 0.1  # the prior degrees of freedom are their lower 90 % bound, chosen by simulation
_ROUNDING = 1e-18  # a variance below it is that of rounding in the means of equal accuracies


@dataclass(frozen=True)
class FTest:
    """Do the GNNs differ at all? F = mean square of GNNs / mean square of residuals."""

    statistic: float
    df_gnns: int
    df_residual: int
    p_value: float


@dataclass(frozen=True)
class PairTests:
    """Tests of pairs of GNNs with `seeds` runs each, arrays [..., pairs]; p-values two-sided, not corrected.

    `variance` is the moderated residual variance of a pair, with `df` degrees of freedom; `own_variance` that
    of its differences paired by seed alone, with seeds - 1.
    """

    difference: Array
    variance: Array
    own_variance: Array
    df: Array
    seeds: int

    @property
    def se(self) -> Array:
        """The moderated standard error of `difference`."""
        se: Array = np.sqrt(2 * self.variance / self.seeds)
        return se

    @property
    def p_moderated(self) -> Array:
        """Of the moderated t-test."""
        return _p_value(self.difference, self.variance, self.seeds, self.df)

    @property
    def p_paired(self) -> Array:
        """Of the t-test paired by seed, exact whatever the variances of the GNNs."""
        return _p_value(self.difference, self.own_variance, self.seeds, self.seeds - 1)


def residuals(accuracy: Array, among: Mask | None = None) -> Array:
    """What neither GNN nor seed explains, [..., seeds, GNNs]; where `among` [..., GNNs] is false, 0.

    GNNs that are not `among` those that are asked for have no part in the means of seeds.
    """
    centred = accuracy - accuracy.mean(axis=-2, keepdims=True)
    chosen = np.ones(accuracy.shape[-1:], bool) if among is None else among[..., None, :]
    return np.where(chosen, centred - centred.mean(axis=-1, keepdims=True, where=chosen), 0)


def residual_variance(accuracy: Array, among: Mask | None = None) -> Array:
    """Mean square of the residuals [...], with (seeds - 1) (GNNs - 1) degrees of freedom."""
    df = (accuracy.shape[-2] - 1) * (_count(accuracy, among) - 1)
    return (residuals(accuracy, among) ** 2).sum(axis=(-2, -1)) / df


def f_test(accuracy: Array) -> FTest:
    """The F-test of one table [seeds, GNNs], which assumes equal residual variances."""
    seeds, gnns = accuracy.shape
    df, df_residual = gnns - 1, (seeds - 1) * (gnns - 1)
    between, within = seeds * accuracy.mean(axis=0).var(ddof=1), residual_variance(accuracy)
    if within <= _ROUNDING:
        statistic = 0.0 if between <= _ROUNDING else np.inf
    else:
        statistic = between / within
    return FTest(float(statistic), df, df_residual, float(special.fdtrc(df, df_residual, statistic)))


def prior_df(accuracy: Array, among: Mask | None = None) -> Array:
    """Degrees of freedom [...] that the pooled variance is worth beside a pair's own; infinite if all agree.

    Under Smyth's model the variances of GNNs scatter as scaled inverse chi-square with d0 degrees of
    freedom, and logarithms of residual variances with seeds - 1 degrees of freedom have variance
    trigamma((seeds - 1) / 2) + trigamma(d0 / 2). An upper 90 % bound of their variance (chi-square, degrees
    of freedom adjusted for kurtosis) gives a lower bound of d0. For the variance of a pair, the mean of two,
    it is 2 d0 - 4 (equal second moments); where variances differ so much that d0 is below 8 / 3, half of d0.
    """
    half, gnns = (accuracy.shape[-2] - 1) / 2, _count(accuracy, among)
    squares = (residuals(accuracy, among) ** 2).sum(axis=-2)
    chosen = np.True_ if among is None else among
    spread = np.log(np.maximum(squares, _ROUNDING)).var(axis=-1, ddof=1, where=chosen)
    by_chance = special.polygamma(1, half)
    kurtosis = special.polygamma(3, half) / by_chance**2
    df = (gnns - 1) / (1 + kurtosis / 2 * (gnns - 1) / gnns)
    bound = spread * df / special.chdtri(df, 1 - _PRIOR_TAIL)
    excess = np.maximum(bound - by_chance, 0)
    gnn_df = 2 * inverse_trigamma(np.maximum(excess, 1e-6))
    return np.where(excess > 1e-6, np.maximum(gnn_df / 2, 2 * gnn_df - 4), np.inf)


def inverse_trigamma(value: ArrayLike) -> Array:
    """x with trigamma(x) = value > 0, by Newton's method on 1 / trigamma (Smyth 2004, appendix)."""
    value = np.asarray(value, dtype=np.float64)
    x = 0.5 + 1 / value
    for _ in range(12):
        trigamma = special.polygamma(1, x)
        x = x + trigamma * (1 - trigamma / value) / special.polygamma(2, x)
    return x


def pair_tests(accuracy: Array, pairs: NDArray[np.intp], among: Mask | None = None) -> PairTests:
    """Tests of the columns `pairs` [pairs, 2], first minus second, of accuracies with at least two seeds.

    Variances are pooled over the GNNs `among` [..., GNNs], at least two, by default all; tests of pairs of
    others mean nothing.
    """
    seeds = accuracy.shape[-2]
    gnns = _count(accuracy, among)[..., None]
    first, second = pairs.T
    means, centred = accuracy.mean(axis=-2), accuracy - accuracy.mean(axis=-2, keepdims=True)
    products = np.swapaxes(centred, -1, -2) @ centred
    own_squares = np.diagonal(products, axis1=-2, axis2=-1)
    squares = own_squares[..., first] + own_squares[..., second] - 2 * products[..., first, second]
    own = np.maximum(squares / 2 / (seeds - 1), 0)
    difference = means[..., first] - means[..., second]
    weight, df = _weight_and_df(prior_df(accuracy, among)[..., None], seeds, gnns)
    variance = weight * residual_variance(accuracy, among)[..., None] + (1 - weight) * own
    return PairTests(difference, variance, own, np.broadcast_to(df, difference.shape), seeds)


def detectable_difference(
    residual_sd: float, seeds: int, gnns: int, tests: int, prior: float = np.inf
) -> float:
    """The true difference of a pair that is found with probability `POWER` in the first step of Holm.

    That step, the strictest, divides the level by the number of `tests` of the family. GNNs have equal
    residual variances `residual_sd` ** 2; `prior` is `prior_df`. With two GNNs this is the power of the
    noncentral t.
    """
    limit = _limits(seeds, gnns, tests, prior)
    low, high = 0.0, 1.0
    while _power(high, limit, seeds) < POWER:
        low, high = high, 2 * high
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (low, middle) if _power(middle, limit, seeds) > POWER else (middle, high)
    return residual_sd * high


def _power(difference: float, limit: Array, seeds: int) -> float:
    """Probability that a true difference, in residual standard deviations, is found."""
    shift = difference * np.sqrt(seeds / 2)
    return float((special.ndtr(shift - limit) + special.ndtr(-shift - limit)).mean())


def _limits(seeds: int, gnns: int, tests: int, prior: float) -> Array:
    """Where a difference becomes significant, in its standard errors, at quantiles of the residual variance.

    The residual variance has two independent parts, that of the pair and that of the other GNNs; averaged
    over both, the normal tail beyond these limits is the power.
    """
    df_pair, df_rest = seeds - 1, (seeds - 1) * (gnns - 2)
    paired = _mean_squares(df_pair, 300)[:, None]
    rest = _mean_squares(df_rest, 20) if df_rest else np.ones(1)
    pooled = (df_pair * paired + df_rest * rest) / (df_pair + df_rest)
    weight, df = _weight_and_df(prior, seeds, gnns)
    variance = weight * pooled + (1 - weight) * paired
    return np.maximum(
        special.stdtrit(df, 1 - LEVEL / tests / 2) * np.sqrt(variance),
        special.stdtrit(df_pair, 1 - LEVEL / 2) * np.sqrt(paired),
    )


def _mean_squares(df: int, count: int) -> Array:
    """Quantiles of a mean square with `df` degrees of freedom and expectation 1, at `count` equal
    probabilities."""
    return special.chdtri(df, (np.arange(count) + 0.5) / count) / df


def _count(accuracy: Array, among: Mask | None) -> NDArray[np.intp]:
    """How many GNNs are asked for, [...]."""
    return np.asarray(accuracy.shape[-1] if among is None else among.sum(axis=-1))


def _weight_and_df(prior: ArrayLike, seeds: int, gnns: ArrayLike) -> tuple[Array, Array]:
    """The weight of the pooled variance in that of a pair, and the degrees of freedom of both together."""
    own, prior = seeds - 1, np.asarray(prior, dtype=np.float64)
    weight = 1 / (1 + own / prior)
    return weight, np.minimum(prior + own, own * (np.asarray(gnns) - 1))


def _p_value(difference: Array, variance: Array, seeds: int, df: ArrayLike) -> Array:
    """Two-sided p-value of a difference of means; without any variance, 0 or, of equal means, 1."""
    sound = variance > _ROUNDING
    t = np.abs(difference) / np.sqrt(2 * np.where(sound, variance, 1) / seeds)
    p = 2 * special.stdtr(np.broadcast_to(df, t.shape), -t)
    return np.where(sound, p, np.where(np.abs(difference) > 1e-9, 0.0, 1.0))

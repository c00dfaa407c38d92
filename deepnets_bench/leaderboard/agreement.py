"""Agreement of ranks: Kendall's tau between two boards, and between halves of the seeds of one.

The GNNs are those of the boards, not a sample of others; what varies is the seeds. The interval of a tau
says what boards of these GNNs with as many other seeds would give: the middle 95 % of tau when the residual
noise of both boards (accuracy = GNN + seed + residual, `anova`) is drawn anew around their means, its
variance from the scaled inverse chi-square of its estimate. As the means carry noise already, it leans
towards 0: ranks may agree better than it says. docs/statistics.md has simulations.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike

from deepnets_bench.leaderboard import anova
from deepnets_bench.leaderboard.aggregate import OOD, out_of_distribution
from deepnets_bench.leaderboard.anova import Array
from deepnets_bench.leaderboard.inference import Analysis, Block

_DRAWS = 4000  # of the noise; more change no second digit
HALVINGS = 500  # ways to halve the seeds that are tried: all of them up to twelve seeds
_KEY = 0x746175  # of the generator: the same rows give the same interval


@dataclass(frozen=True)
class Halves:
    """Tau between the means of two halves of a board's seeds: mean, lowest and highest over the halvings.

    `halvings` is their number. Of an odd number of seeds one half has one more.
    """

    mean: float
    low: float
    high: float
    halvings: int


@dataclass(frozen=True)
class Agreement:
    """How well two boards agree on an endpoint or split about the GNNs `names` that both compare.

    `low` and `high` bound tau (95 %) and hold it; None where a board has fewer than `anova.MIN_SEEDS` seeds.
    `seeds` are the numbers of seeds. Of the pairs that both boards tell apart (Holm over all pairs of each),
    `same` have one order and `opposite` the other one; None where one of them tests nothing.
    """

    endpoint: str
    names: tuple[str, ...]
    seeds: tuple[int, int]
    tau: float
    low: float | None
    high: float | None
    same: int | None
    opposite: int | None


def kendall(x: ArrayLike, y: ArrayLike) -> Array:
    """Kendall's tau-b [...] of x and y [..., n], with n of at least 2; 0 where all of one are equal."""
    signs = [np.sign(v[..., :, None] - v[..., None, :]) for v in (np.asarray(x), np.asarray(y))]
    untied = [(sign**2).sum(axis=(-2, -1)) for sign in signs]
    total = (signs[0] * signs[1]).sum(axis=(-2, -1))
    return np.asarray(total / np.sqrt(np.maximum(untied[0] * untied[1], 1)))


def agreements(a: Mapping[str, Analysis], b: Mapping[str, Analysis]) -> list[Agreement]:
    """The agreement of two boards, given by their analyses, on each endpoint and split that both have.

    The mean over the out-of-distribution splits counts only where these are the same splits. Endpoints with
    fewer than two common GNNs are left out.
    """
    away = [out_of_distribution([key for key in found if key != OOD]) for found in (a, b)]
    shared = [key for key in a if key in b and (key != OOD or set(away[0]) == set(away[1]))]
    found = [agreement(a[key], b[key]) for key in shared]
    return [each for each in found if each is not None]


def agreement(a: Analysis, b: Analysis) -> Agreement | None:
    """The agreement of two boards on an endpoint; None where fewer than two GNNs are compared on both."""
    names = tuple(name for name in a.block.names if name in b.block.names)
    if len(names) < 2:
        return None
    means = [_means(analysis.block, names) for analysis in (a, b)]
    tau = float(kendall(*means))
    low = high = None
    if a.residual_sd is not None and b.residual_sd is not None:
        random = np.random.Generator(np.random.Philox(key=_KEY))
        drawn = [_redrawn(mean, found, random) for mean, found in zip(means, (a, b), strict=True)]
        bounds = np.quantile(kendall(*drawn), (anova.LEVEL / 2, 1 - anova.LEVEL / 2))
        low, high = min(tau, float(bounds[0])), max(tau, float(bounds[1]))
    same, opposite = _told_apart(a, b, names)
    seeds = len(a.block.seeds), len(b.block.seeds)
    return Agreement(a.endpoint, names, seeds, tau, low, high, same, opposite)


def halves(block: Block, names: Sequence[str] | None = None) -> Halves | None:
    """Agreement between halves of a board's seeds, of all its GNNs or of `names`.

    None of fewer than two seeds or GNNs.
    """
    columns = [block.names.index(name) for name in (block.names if names is None else names)]
    if len(block.seeds) < 2 or len(columns) < 2:
        return None
    accuracy = block.accuracy[:, columns]
    taus = [
        float(kendall(accuracy[list(half)].mean(axis=0), np.delete(accuracy, half, axis=0).mean(axis=0)))
        for half in _halvings(len(block.seeds))
    ]
    return Halves(math.fsum(taus) / len(taus), min(taus), max(taus), len(taus))


def _halvings(count: int) -> Iterator[tuple[int, ...]]:
    """The rows of one half: every way to halve `count` seeds once, or as many of them as are tried."""
    half = count // 2
    if math.comb(count, half) / (1 if 2 * half < count else 2) <= HALVINGS:
        for rows in combinations(range(count), half):
            if 2 * half < count or 0 in rows:  # of equal halves, the other one is not another way
                yield rows
        return
    random = np.random.Generator(np.random.Philox(key=_KEY))
    for _ in range(HALVINGS):
        yield tuple(random.permutation(count)[:half].tolist())


def _means(block: Block, names: Sequence[str]) -> Array:
    return np.array([math.fsum(block.of(name)) / len(block.seeds) for name in names])


def _redrawn(means: Array, analysis: Analysis, random: np.random.Generator) -> Array:
    """Means [draws, GNNs] with residual noise drawn anew, in each draw with another likely variance."""
    seeds, gnns = analysis.block.accuracy.shape
    df = (seeds - 1) * (gnns - 1)
    standard_error = (analysis.residual_sd or 0.0) / math.sqrt(seeds)
    scale = np.sqrt(df / random.chisquare(df, (_DRAWS, 1)))
    return means + standard_error * scale * random.standard_normal((_DRAWS, len(means)))


def _told_apart(a: Analysis, b: Analysis, names: Sequence[str]) -> tuple[int | None, int | None]:
    """Numbers of pairs that both tell apart: in the same order, and in opposite ones."""
    if a.pairs is None or b.pairs is None:
        return None, None
    claims = [
        {test.ordered for test in family.tests if test.significant and {test.a, test.b} <= set(names)}
        for family in (a.pairs, b.pairs)
    ]
    return len(claims[0] & claims[1]), len(claims[0] & {(worse, better) for better, worse in claims[1]})

"""Uncertainty and significance from per-architecture accuracies: intervals, paired tests, rankings.

Accuracies of a method on a split are an array [seeds, architectures]; the architectures are the same for all
methods, so comparisons are paired. Tests are scipy's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from string import ascii_letters

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from deepnets_bench.errors import BadInput
from deepnets_bench.leaderboard.aggregate import Entry, split_order
from deepnets_bench.leaderboard.results import read_scores

Array = NDArray[np.float64]
CONFIDENCE = 0.95
RESAMPLES = 4000


@dataclass(frozen=True)
class Comparison:
    """Method A against method B on one split, paired over architectures (seeds averaged).

    `difference` is mean accuracy A - B with its bootstrap interval over architectures and seeds. `p_value` is
    Wilcoxon's signed-rank test, two-sided; `p_holm` the same, corrected for the number of splits compared.
    `effect` is the matched-pairs rank-biserial correlation in [-1, 1] (Kerby 2014): 1 when A always wins.
    """

    split: str
    n: int
    mean_a: float
    mean_b: float
    difference: float
    low: float
    high: float
    wins: int
    ties: int
    losses: int
    effect: float
    p_value: float
    p_holm: float

    @property
    def significant(self) -> bool:
        """True when both hold: the corrected test rejects, and the interval over seeds too leaves out 0."""
        return self.p_holm < 1 - CONFIDENCE and not self.low <= 0 <= self.high


@dataclass(frozen=True)
class CriticalDifference:
    """Methods ranked over architectures: Friedman's test, then Nemenyi's critical difference (Demsar 2006).

    `ranks` is ordered best first. Two methods differ when their ranks are further apart than `difference`;
    `groups` are the maximal runs of methods that do not, as positions (first, last) in `ranks`: all of them
    when Friedman's test finds no difference at all.
    """

    ranks: tuple[tuple[str, float], ...]
    n: int
    p_value: float
    difference: float
    groups: tuple[tuple[int, int], ...]


def load_scores(entry: Entry, folder: Path) -> dict[str, Array]:
    """Accuracies {split: [seeds, architectures]} of a method's finished rows, from the files in `folder`.

    Architectures are in the order of their index. Raises BadInput for missing scores, or when seeds evaluated
    different architectures.
    """
    by_split: dict[str, list[dict[int, float]]] = {}
    for row in sorted(entry.rows, key=lambda row: row.seed):
        if row.status != "ok":
            continue
        if not row.scores_file:
            raise BadInput(
                f"The row of {entry.name}, seed {row.seed}, split {row.split} names no scores file."
            )
        scores = read_scores(folder / Path(row.scores_file).name).get(row.split, {})
        if len(scores) != row.n_evaluated:
            raise BadInput(
                f"{folder / row.scores_file} holds {len(scores)} scores of split {row.split}, "
                f"{row.n_evaluated} are needed."
            )
        by_split.setdefault(row.split, []).append(scores)
    arrays = {}
    for split, seeds in by_split.items():
        indices = sorted(seeds[0])
        if any(sorted(scores) != indices for scores in seeds):
            raise BadInput(f"The seeds of {entry.name} evaluated different architectures of split {split}.")
        arrays[split] = np.array([[scores[index] for index in indices] for scores in seeds])
    return arrays


def bootstrap_interval(a: Array, b: Array | None = None, seed: int = 0) -> tuple[float, float]:
    """Percentile interval of mean(a), or of mean(a) - mean(b), at `CONFIDENCE`.

    Arrays are [seeds, architectures]. Both are resampled with replacement, and independently of each other;
    `a` and `b` share the architectures drawn but not the seeds. With one seed the interval says nothing about
    other seeds.
    """
    random = np.random.default_rng(seed)
    architectures = _resample(random, a.shape[1])
    means = np.einsum("rs,sa,ra->r", _resample(random, a.shape[0]), a, architectures, optimize=True)
    if b is not None:
        means -= np.einsum("rs,sa,ra->r", _resample(random, b.shape[0]), b, architectures, optimize=True)
    tail = (1 - CONFIDENCE) / 2
    # Sums round differently on other processors, and a page should be the same wherever it is rendered.
    low, high = np.quantile(means, [tail, 1 - tail]).round(12)
    return float(low), float(high)


def _resample(random: np.random.Generator, size: int) -> Array:
    """Weights [RESAMPLES, size] of bootstrap samples; each row adds up to 1."""
    drawn = random.integers(size, size=(RESAMPLES, size)) + size * np.arange(RESAMPLES)[:, None]
    return np.bincount(drawn.ravel(), minlength=RESAMPLES * size).reshape(RESAMPLES, size) / size


def compare(a: Mapping[str, Array], b: Mapping[str, Array]) -> list[Comparison]:
    """Compare two methods on every split both have. Raises BadInput when they share none."""
    shared = split_order(set(a) & set(b))
    if not shared:
        raise BadInput("The two methods have no split in common on which both have a finished run.")
    raw = []
    for split in shared:
        if a[split].shape[1] != b[split].shape[1]:
            raise BadInput(
                f"On split {split} one method has {a[split].shape[1]} architectures, the other "
                f"{b[split].shape[1]}."
            )
        raw.append(_paired(a[split].mean(axis=0), b[split].mean(axis=0)))
    corrected = holm([p for *_, p in raw])
    comparisons = []
    for split, (wins, ties, losses, effect, p), p_holm in zip(shared, raw, corrected, strict=True):
        low, high = bootstrap_interval(a[split], b[split])
        mean_a, mean_b = float(a[split].mean()), float(b[split].mean())
        n = a[split].shape[1]
        comparisons.append(
            Comparison(
                split, n, mean_a, mean_b, mean_a - mean_b, low, high, wins, ties, losses, effect, p, p_holm
            )
        )
    return comparisons


def significant_pairs(methods: Mapping[str, Array]) -> list[tuple[str, str]]:
    """(better, worse) among methods {name: [seeds, architectures]} on one split, most certain first.

    Wilcoxon's test with Holm's correction over all pairs that share their architectures, and the bootstrap
    interval over architectures and seeds must leave out 0.
    """
    pairs = [(a, b) for a, b in combinations(methods, 2) if methods[a].shape[1] == methods[b].shape[1]]
    p_values = [_paired(methods[a].mean(axis=0), methods[b].mean(axis=0))[-1] for a, b in pairs]
    found = []
    for (a, b), p in sorted(zip(pairs, holm(p_values), strict=True), key=lambda item: item[1]):
        if p < 1 - CONFIDENCE:
            low, high = bootstrap_interval(methods[a], methods[b])
            if not low <= 0 <= high:
                found.append((a, b) if low > 0 else (b, a))
    return found


def _paired(a: Array, b: Array) -> tuple[int, int, int, float, float]:
    """Wins, ties, losses, rank-biserial effect and Wilcoxon's p-value of paired values."""
    difference = np.round(
        a - b, 12
    )  # equal accuracies must tie although seeds are averaged in floating point
    wins, losses = int((difference > 0).sum()), int((difference < 0).sum())
    ties = len(difference) - wins - losses
    if wins + losses == 0:
        return wins, ties, losses, 0.0, 1.0
    nonzero = difference[difference != 0]
    ranks = stats.rankdata(np.abs(nonzero))
    effect = float((ranks * np.sign(nonzero)).sum() / ranks.sum())
    return wins, ties, losses, effect, float(stats.wilcoxon(nonzero).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction: family-wise error over all `p_values`, in their order."""
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for position, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - position) * p_values[index]))
        corrected[index] = largest
    return corrected


def critical_difference(methods: Mapping[str, Array]) -> CriticalDifference:
    """Rank at least three methods, {name: [architectures]}, on the same architectures; higher is better."""
    names = list(methods)
    table = np.stack([methods[name] for name in names], axis=1)
    n, k = table.shape
    if k < 3 or n < 2:
        raise BadInput(f"Friedman's test needs 3 methods and 2 architectures; there are {k} and {n}.")
    ranks = stats.rankdata(-np.round(table, 12), axis=1).mean(axis=0)
    all_tied = not np.ptp(np.round(table, 12), axis=1).any()  # the statistic is then 0 / 0
    p = 1.0 if all_tied else float(stats.friedmanchisquare(*np.round(table.T, 12)).pvalue)
    difference = (
        stats.studentized_range.ppf(CONFIDENCE, k, np.inf) / math.sqrt(2) * math.sqrt(k * (k + 1) / (6 * n))
    )
    order = np.argsort(ranks, kind="stable")
    ranked = tuple((names[i], float(ranks[i])) for i in order)
    groups = _groups([r for _, r in ranked], difference if p < 1 - CONFIDENCE else math.inf)
    return CriticalDifference(ranked, n, p, float(difference), groups)


def critical_differences(scores: Mapping[str, Mapping[str, Array]]) -> dict[str, CriticalDifference]:
    """Ranks by split of methods {name: {split: [seeds, architectures]}}, seeds averaged.

    Splits with fewer than three methods, or on which methods differ in architectures, are left out.
    """
    found = {}
    for split in split_order({split for by_split in scores.values() for split in by_split}):
        means = {name: arrays[split].mean(axis=0) for name, arrays in scores.items() if split in arrays}
        if len(means) > 2 and len({len(values) for values in means.values()}) == 1:
            found[split] = critical_difference(means)
    return found


def letters(result: CriticalDifference) -> dict[str, str]:
    """Compact letters: two methods share one when they do not differ, for example {"a": "a", "b": "ab"}."""
    covered = {place for first, last in result.groups for place in range(first, last + 1)}
    alone = [(place, place) for place in range(len(result.ranks)) if place not in covered]
    shared: dict[str, str] = {name: "" for name, _ in result.ranks}
    for letter, (first, last) in zip(ascii_letters, sorted([*result.groups, *alone]), strict=False):
        for name, _ in result.ranks[first : last + 1]:
            shared[name] += letter
    return shared


def _groups(ranks: Sequence[float], difference: float) -> tuple[tuple[int, int], ...]:
    """Maximal runs of at least two sorted ranks that lie within `difference`."""
    runs: list[tuple[int, int]] = []
    for first, rank in enumerate(ranks):
        last = max(i for i, other in enumerate(ranks) if other - rank <= difference)
        if last > first and not (runs and runs[-1][1] >= last):
            runs.append((first, last))
    return tuple(runs)

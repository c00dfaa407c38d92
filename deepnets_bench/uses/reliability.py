"""Reliability of labels: how far they spread, and how well two trainings of an architecture agree."""

from __future__ import annotations

import itertools
import math
import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.stats import kendalltau

from deepnets_bench.leaderboard.table import Table
from deepnets_bench.uses.labels import PROPERTIES, Label, check_alike


@dataclass(frozen=True)
class Reliability:
    """Of one property on one split, over the architectures that all seeds have labelled.

    `tau` is Kendall's tau between two seeds, the mean over their pairs; `bound` what a predictor could reach
    (`noise_bound`); both None with one seed. `censored` is the share of labels that are.
    """

    split: str
    property: str
    architectures: int
    seeds: int
    low: float
    mean: float
    high: float
    censored: float
    tau: float | None
    bound: float | None


def reliability(labels: Sequence[Label]) -> list[Reliability]:
    """Every property of every split; trainings that failed are left out, with their architecture.

    Raises `BadInput` for labels of several tracks or recipes.
    """
    check_alike(labels)
    splits: dict[str, dict[int, dict[int, Label]]] = defaultdict(lambda: defaultdict(dict))
    for label in labels:
        splits[label.split][label.index][label.seed] = label
    found = []
    for split, architectures in splits.items():
        seeds = sorted({seed for by_seed in architectures.values() for seed in by_seed})
        whole = [
            by_seed
            for by_seed in architectures.values()
            if len(by_seed) == len(seeds) and not any(label.failure for label in by_seed.values())
        ]
        if whole:
            found += [_of_property(split, name, seeds, whole) for name in PROPERTIES]
    return found


def _of_property(
    split: str, name: str, seeds: Sequence[int], architectures: Sequence[dict[int, Label]]
) -> Reliability:
    columns = [[getattr(by_seed[seed], name) for by_seed in architectures] for seed in seeds]
    values = [value for column in columns for value in column]
    taus = [float(kendalltau(a, b).statistic) for a, b in itertools.combinations(columns, 2)]
    cut = name == "convergence"
    censored = (
        [not by_seed[seed].converged for by_seed in architectures for seed in seeds] if cut else [False]
    )
    tau = statistics.fmean(taus) if taus else None
    return Reliability(
        split,
        name,
        len(architectures),
        len(seeds),
        min(values),
        statistics.fmean(values),
        max(values),
        statistics.fmean(censored),
        tau,
        None if tau is None else noise_bound(tau, len(seeds)),
    )


def noise_bound(tau: float, seeds: int) -> float:
    """Kendall's tau of a predictor that knows every expected label, against the mean labels of some seeds.

    `tau` is that between two seeds; it is below the bound, because both seeds have noise. Under the normal
    model tau = 2/π·arcsin(ρ) (Kendall and Gibbons 1990, "Rank Correlation Methods", chapter 9). ρ between
    two seeds is the reliability of one label, S·ρ / (1 + (S − 1)·ρ) that of the mean of S (Spearman 1910,
    Brown 1910), and a mean correlates with what it estimates by the square root of its reliability.
    """
    rho = max(0.0, math.sin(math.pi / 2 * tau))
    of_mean = seeds * rho / (1 + (seeds - 1) * rho)
    return 2 / math.pi * math.asin(math.sqrt(of_mean))


def reliability_table(labels: Sequence[Label]) -> Table:
    """Spread and reliability of every property."""
    rows = [
        (
            f"{found.split}, {found.property}",
            str(found.architectures),
            str(found.seeds),
            f"{found.low:.3f}",
            f"{found.mean:.3f}",
            f"{found.high:.3f}",
            f"{found.censored:.0%}" if found.property == "convergence" else "",
            *("-" if value is None else f"{value:.3f}" for value in (found.tau, found.bound)),
        )
        for found in reliability(labels)
    ]
    failed = sum(bool(label.failure) for label in labels)
    notes = [
        "tau: Kendall's tau between the labels of two seeds. bound: that of a predictor that knows every "
        "expected label, against the means over the seeds (normal model).",
        "censored: trainings that never converged.",
    ]
    if failed:
        notes.append(f"{failed} trainings failed; their architectures are left out.")
    headers = ("property", "architectures", "seeds", "min", "mean", "max", "censored", "tau", "bound")
    return Table("Labels", headers, tuple(rows), tuple(notes))

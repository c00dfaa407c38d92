"""Proof of a search: the architectures it found and random ones, trained and measured alike."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.special import stdtrit

from deepnets_bench.harness.protocol.tracks import Track
from deepnets_bench.harness.randomness import Streams
from deepnets_bench.uses.labelling import LabelTask, run_labelling
from deepnets_bench.uses.labels import read_labels
from deepnets_bench.uses.properties.targets import SPEED
from deepnets_bench.uses.recipe import recipe_of
from deepnets_bench.uses.search import SPLIT
from deepnets_bench.uses.timing import TIMES, read_times, run_timing


@dataclass(frozen=True)
class Proof:
    """Means of a property over the architectures that were found and over random ones.

    `low` and `high` bound the difference of the means, found - random: 95 %, Welch's t over architectures,
    each the mean of its trainings. They hold for this hypernetwork and these labels.
    """

    name: str
    found: float
    random: float
    low: float
    high: float


def random_indices(count: int, top: int, without: Sequence[int]) -> list[int]:
    """`top` architectures of the first `count` at random, none of them among `without`."""
    order = Streams(("search",)).generator("random architectures", count).permutation(count)
    taken = set(without)
    return [int(index) for index in order if int(index) not in taken][:top]


def train_both(
    track: Track,
    data: Path,
    images: Path | None,
    found: Sequence[int],
    random: Sequence[int],
    seeds: Sequence[int],
    path: Path,
    *,
    workers: int = 1,
    executor: Executor | None = None,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> list[Proof]:
    """Train all of them with every seed, time them, and compare; rows go into the label file at `path`."""
    recipe = recipe_of(track.images.dataset)
    tasks = [
        LabelTask(track, data.absolute(), images and images.absolute(), recipe, SPLIT, index, seed)
        for seed in seeds
        for index in (*found, *random)
    ]
    run_labelling(tasks, path, workers=workers, executor=executor, report=report)
    run_timing(tasks, path.with_name(TIMES))
    labels = [label for label in read_labels(path) if label.seed in seeds and not label.failure]
    proofs = []
    for name in ("accuracy", "accuracy_noise", "convergence"):
        by_index: dict[int, list[float]] = {}
        for label in labels:
            by_index.setdefault(label.index, []).append(getattr(label, name))
        means = {index: float(np.mean(values)) for index, values in by_index.items()}
        proofs.append(compare(name, _of(found, means), _of(random, means)))
    times = {row.index: row.milliseconds for row in read_times(path.with_name(TIMES)) if row.split == SPLIT}
    return [*proofs, compare(SPEED, _of(found, times), _of(random, times))]


def compare(name: str, found: Sequence[float], random: Sequence[float]) -> Proof:
    """Welch's interval of the difference of two means (Welch 1947); infinite with one architecture."""
    a, b = np.asarray(found), np.asarray(random)
    difference = float(a.mean() - b.mean())
    if min(len(a), len(b)) < 2:
        return Proof(name, float(a.mean()), float(b.mean()), -math.inf, math.inf)
    parts = a.var(ddof=1) / len(a), b.var(ddof=1) / len(b)
    variance = sum(parts)
    if variance == 0:
        return Proof(name, float(a.mean()), float(b.mean()), difference, difference)
    df = variance**2 / (parts[0] ** 2 / (len(a) - 1) + parts[1] ** 2 / (len(b) - 1))
    reach = float(stdtrit(df, 0.975) * math.sqrt(variance))
    return Proof(name, float(a.mean()), float(b.mean()), difference - reach, difference + reach)


def _of(indices: Sequence[int], values: dict[int, float]) -> list[float]:
    return [values[index] for index in indices if index in values]

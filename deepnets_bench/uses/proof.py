"""Proof of a search: the architectures it found and random ones, trained and measured alike."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.special import stdtrit

from deepnets_bench.harness.protocol.tracks import Track
from deepnets_bench.harness.randomness import Streams
from deepnets_bench.uses.labelling import LabelTask, images_of, run_labelling
from deepnets_bench.uses.labels import PROPERTIES, Label, read_labels
from deepnets_bench.uses.properties.targets import SPEED
from deepnets_bench.uses.recipe import recipe_of
from deepnets_bench.uses.search import SPLIT
from deepnets_bench.uses.timing import TIMES, read_times, run_timing


@dataclass(frozen=True)
class Proof:
    """Means of a property over the architectures that were found and over random ones.

    `low` and `high` bound the difference of the means, found - random: 95 %, Welch's t over architectures,
    each the mean of its trainings. They hold for this hypernetwork and these labels. `failed` trainings of
    either side count with the accuracy of chance, and as never converged.
    """

    name: str
    found: float
    random: float
    low: float
    high: float
    failed: tuple[int, int] = (0, 0)  # of those that were found and of random ones


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
    labels = [label for label in read_labels(path) if label.split == SPLIT and label.seed in seeds]
    chance = 1 / images_of(track, images).num_classes
    times = {row.index: row.milliseconds for row in read_times(path.with_name(TIMES)) if row.split == SPLIT}
    speed = compare(SPEED, [times[index] for index in found], [times[index] for index in random])
    return [*compare_labels(labels, found, random, chance), speed]


def compare_labels(
    labels: Sequence[Label], found: Sequence[int], random: Sequence[int], chance: float
) -> list[Proof]:
    """Accuracy, accuracy under noise and convergence of two groups of architectures, all of them labelled.

    A training that failed is an outcome of its architecture: to leave it out would favour the side that fails
    more. It has the accuracy of `chance` and the convergence 1, as one that ends without converging.
    """
    failed = [sum(label.failure != "" for label in labels if label.index in of) for of in (found, random)]
    proofs = []
    for name in PROPERTIES:
        worst = 1.0 if name == "convergence" else chance
        by_index: dict[int, list[float]] = {}
        for label in labels:
            value = worst if label.failure else getattr(label, name)
            by_index.setdefault(label.index, []).append(value)
        means = {index: float(np.mean(values)) for index, values in by_index.items()}
        proof = compare(name, [means[index] for index in found], [means[index] for index in random])
        proofs.append(replace(proof, failed=(failed[0], failed[1])))
    return proofs


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

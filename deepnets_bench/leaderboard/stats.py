"""Comparison of two methods by the runs of their seeds, and the accuracies of single architectures from
files."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deepnets_bench.errors import BadInput
from deepnets_bench.leaderboard.aggregate import (
    OOD,
    REFERENCE_SPLIT,
    SELECTION_SPLIT,
    Entry,
    out_of_distribution,
    split_order,
)
from deepnets_bench.leaderboard.anova import Array
from deepnets_bench.leaderboard.inference import (
    Analysis,
    Runs,
    analyse,
    listed,
    mean_over_splits,
)
from deepnets_bench.leaderboard.scores import read_scores

Scores = dict[int, dict[int, float]]  # {seed: {architecture: accuracy}}


@dataclass(frozen=True)
class Comparison:
    """Method A against method B on one endpoint or split, paired over `seeds`; accuracies are fractions.

    `low` and `high` bound the mean difference A - B: 95 % t interval, not corrected. `p_value` is that of the
    paired t-test, two-sided; `p_holm` the same, corrected: `test` and `OOD` stand alone, all other splits
    are one family. `detectable` is the true difference found with probability 0.8 after correction. All
    five are None with fewer than 3 seeds.
    """

    split: str
    seeds: tuple[int, ...]
    mean_a: float
    mean_b: float
    difference: float
    low: float | None = None
    high: float | None = None
    p_value: float | None = None
    p_holm: float | None = None
    detectable: float | None = None

    @property
    def significant(self) -> bool:
        """True when the corrected test rejects at 5 %."""
        return self.p_holm is not None and self.p_holm < 0.05


def compare(a: Mapping[str, Array], b: Mapping[str, Array]) -> list[Comparison]:
    """Compare two methods given as {split: accuracies [seeds, architectures]} on every split both have.

    Rows of A and B are the same seeds in the same order, columns the same architectures. `val` is for
    development and left out. A row `OOD` follows `test` when there are two or more out-of-distribution
    splits, and both have all of them. Raises BadInput when there is no split in common, or a split with other
    seeds or architectures, and says what is missing.
    """
    shared = split_order(set(a) & set(b))
    if not shared:
        raise BadInput(
            f"The two methods have no split in common: A has {', '.join(split_order(a)) or 'none'}, "
            f"B has {', '.join(split_order(b)) or 'none'}."
        )
    arrays = {split: (np.asarray(a[split], float), np.asarray(b[split], float)) for split in shared}
    for split, (first, second) in arrays.items():
        _check_shapes(split, first, second)

    def by_seed(method: int) -> dict[str, dict[int, float]]:
        return {split: dict(enumerate(pair[method].mean(axis=1).tolist())) for split, pair in arrays.items()}

    return compare_runs(by_seed(0), by_seed(1), set(a) | set(b))


def compare_runs(
    a: Mapping[str, Mapping[int, float]],
    b: Mapping[str, Mapping[int, float]],
    splits: Collection[str],
    names: tuple[str, str] = ("A", "B"),
) -> list[Comparison]:
    """Compare two methods {split: {seed: mean accuracy}} on the seeds that both have, on the splits both
    have, but for `val`.

    `OOD` is the mean over the out-of-distribution ones of `splits`, of seeds for which both have them all.
    Splits without a common seed are left out; BadInput when none has one, with what each of the `names` has.
    """
    common = {
        split: {"A": {s: a[split][s] for s in seeds}, "B": {s: b[split][s] for s in seeds}}
        for split in split_order(set(a) & set(b) - {SELECTION_SPLIT})
        if (seeds := sorted(set(a[split]) & set(b[split])))
    }
    if not common:
        raise BadInput(_no_common_seed(*zip(names, (a, b), strict=True)))
    away = out_of_distribution(split_order(splits))
    means = {name: mean_over_splits([common.get(split, {}).get(name, {}) for split in away]) for name in "AB"}
    families: list[dict[str, Runs]] = (
        [{REFERENCE_SPLIT: common.pop(REFERENCE_SPLIT)}] if REFERENCE_SPLIT in common else []
    )
    if len(away) > 1 and means["A"]:
        families.append({OOD: means})
    families.append(dict(common))
    return [
        _comparison(analysis, family[split])
        for family in families
        for split, analysis in analyse(family).items()
    ]


def _comparison(analysis: Analysis, runs: Runs) -> Comparison:
    seeds = tuple(sorted(runs["A"]))
    mean_a, mean_b = (float(np.mean([runs[name][seed] for seed in seeds])) for name in "AB")
    plain = Comparison(analysis.endpoint, seeds, mean_a, mean_b, mean_a - mean_b)
    if analysis.pairs is None:
        return plain
    (test,) = analysis.pairs.tests
    low, high = (test.low, test.high) if test.a == "A" else (-test.high, -test.low)
    return Comparison(
        plain.split, seeds, mean_a, mean_b, mean_a - mean_b,
        low, high, test.p_value, test.p_holm, analysis.pairs.detectable,
    )  # fmt: skip


def _check_shapes(split: str, first: Array, second: Array) -> None:
    for array in (first, second):
        if array.ndim != 2 or 0 in array.shape:
            raise BadInput(
                f"On split {split}, accuracies of shape {array.shape} are not [seeds, architectures]."
            )
        if not np.isfinite(array).all():
            raise BadInput(f"On split {split}, an accuracy is not a finite number.")
    for axis, what in enumerate(("seed", "architecture")):
        n_a, n_b = first.shape[axis], second.shape[axis]
        if n_a != n_b:
            lacking, longer = ("A", "B") if n_a < n_b else ("B", "A")
            raise BadInput(
                f"On split {split}, A has {n_a} {what}s and B has {n_b}: {lacking} lacks {abs(n_a - n_b)}. "
                f"Give the same {what}s of both in the same order, without those that only {longer} has."
            )


def _no_common_seed(*methods: tuple[str, Mapping[str, Mapping[int, float]]]) -> str:
    held = [
        f"{name} has "
        + ("; ".join(f"{split}: seed {listed(list(runs[split]))}" for split in split_order(runs)) or "none")
        for name, runs in methods
    ]
    (a, _), (b, _) = methods
    return f"{a} and {b} have no finished seed in common on any split. {'. '.join(held)}."


def load_runs(entry: Entry, folder: Path) -> dict[str, Scores]:
    """Accuracies {split: {seed: {architecture: accuracy}}} of a method's finished rows, from files in
    `folder`.

    Raises BadInput for missing scores.
    """
    by_split: dict[str, Scores] = {}
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
        by_split.setdefault(row.split, {})[row.seed] = scores
    return by_split


def load_scores(entry: Entry, folder: Path) -> dict[str, Array]:
    """`load_runs` as arrays [seeds, architectures], architectures in the order of their index.

    Raises BadInput for missing scores, or when seeds evaluated different architectures.
    """
    arrays = {}
    for split, by_seed in load_runs(entry, folder).items():
        indices = sorted(next(iter(by_seed.values())))
        if any(sorted(scores) != indices for scores in by_seed.values()):
            raise BadInput(f"The seeds of {entry.name} evaluated different architectures of split {split}.")
        arrays[split] = np.array([[scores[index] for index in indices] for scores in by_seed.values()])
    return arrays


def compare_entries(a: Entry, b: Entry, splits: Collection[str], folder: Path) -> list[Comparison]:
    """Compare two methods of a board with these `splits` on the seeds both finished.

    The scores are in `folder`.
    Raises BadInput when they have no seed in common, or evaluated other architectures, and says which are
    missing.
    """
    runs_a, runs_b = load_runs(a, folder), load_runs(b, folder)
    for split in split_order(set(runs_a) & set(runs_b)):
        for seed in sorted(set(runs_a[split]) & set(runs_b[split])):
            _check_architectures(
                f"split {split}, seed {seed}", (a.name, runs_a[split][seed]), (b.name, runs_b[split][seed])
            )
    return compare_runs(_means(runs_a), _means(runs_b), splits, (a.name, b.name))


def _means(runs: Mapping[str, Scores]) -> dict[str, dict[int, float]]:
    return {
        split: {seed: float(np.mean(list(scores.values()))) for seed, scores in by_seed.items()}
        for split, by_seed in runs.items()
    }


def _check_architectures(where: str, *methods: tuple[str, Mapping[int, float]]) -> None:
    both = set(methods[0][1]) | set(methods[1][1])
    for name, scores in methods:
        if missing := sorted(both - set(scores)):
            shown = listed(missing[:10]) + (f" and {len(missing) - 10} more" if len(missing) > 10 else "")
            raise BadInput(f"On {where}, {name} lacks architecture {shown}: evaluate both on the same ones.")

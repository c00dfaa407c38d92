"""What a board may claim: which GNNs differ on which endpoint, by tests whose unit is the run of a seed.

Endpoints: accuracy on `test` (primary), its mean over the out-of-distribution splits (secondary), and single
out-of-distribution splits, corrected over pairs and splits together. On each, one family of tests compares
every GNN with the reference GNNs (primary), another all pairs (secondary); Holm's correction holds within a
family.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from deepnets_bench.leaderboard import anova
from deepnets_bench.leaderboard.aggregate import OOD, REFERENCE_SPLIT, Board, Entry, out_of_distribution
from deepnets_bench.leaderboard.families import (
    all_pairs,
    corrected,
    letters,
    rank_intervals,
    reference_pairs,
)

REFERENCES = ("mlp", "ghn2")
Runs = Mapping[str, Mapping[int, float]]  # {GNN: {seed: accuracy}}


@dataclass(frozen=True)
class PairTest:
    """GNN `a` against GNN `b`: mean difference of accuracy, its 95 % t interval (not corrected), and
    p-values.

    `p_value` is the larger one of the moderated and the paired test, `p_holm` that of its family.
    """

    a: str
    b: str
    difference: float
    low: float
    high: float
    p_value: float
    p_holm: float

    @property
    def significant(self) -> bool:
        """True when the corrected test rejects at 5 %."""
        return self.p_holm < anova.LEVEL

    @property
    def ordered(self) -> tuple[str, str]:
        """(better, worse) by the difference."""
        return (self.a, self.b) if self.difference > 0 else (self.b, self.a)


@dataclass(frozen=True)
class Family:
    """Tests that are corrected together; `size` counts those on other splits too.

    `detectable` is the difference found with probability 0.8 in the first step of Holm's correction.
    """

    tests: tuple[PairTest, ...]
    size: int
    detectable: float


@dataclass(frozen=True)
class Block:
    """The runs that are compared: the largest complete table of GNNs and seeds, GNNs best first.

    `left_out` says of every other GNN which of these seeds it lacks.
    """

    names: tuple[str, ...]
    seeds: tuple[int, ...]
    accuracy: anova.Array  # [seeds, GNNs]
    left_out: Mapping[str, str]

    def of(self, name: str) -> list[float]:
        """Accuracy of a GNN by seed; nothing of one that is left out."""
        return self.accuracy[:, self.names.index(name)].tolist() if name in self.names else []


@dataclass(frozen=True)
class Analysis:
    """The verdict on one endpoint or split. Without a test (`reason` says why) all else but `block` is
    empty."""

    endpoint: str
    block: Block
    reason: str = ""
    residual_sd: float | None = None
    f_test: anova.FTest | None = None
    references: Family | None = None
    pairs: Family | None = None
    letters: Mapping[str, str] | None = None
    rank_intervals: Mapping[str, tuple[int, int]] | None = None


def analyse_board(board: Board, references: Sequence[str] = REFERENCES) -> dict[str, Analysis]:
    """{endpoint or split: analysis} in the order test, OOD, single splits; `val` is for development, never
    tested."""
    away = out_of_distribution(board.splits)
    runs = {split: {e.name: _by_seed(e, split) for e in board.entries} for split in board.splits}
    found: dict[str, Analysis] = {}
    if REFERENCE_SPLIT in runs:
        found |= analyse({REFERENCE_SPLIT: runs[REFERENCE_SPLIT]}, references)
    if away:
        means = {e.name: mean_over_splits([_by_seed(e, split) for split in away]) for e in board.entries}
        found |= analyse({OOD: means}, references)
        found |= analyse({split: runs[split] for split in away}, references)
    return found


def mean_over_splits(by_split: Sequence[Mapping[int, float]]) -> dict[int, float]:
    """Mean accuracy of the seeds that are in all of [{seed: accuracy}]."""
    seeds = set.intersection(*(set(by_seed) for by_seed in by_split)) if by_split else set()
    return {seed: math.fsum(by_seed[seed] for by_seed in by_split) / len(by_split) for seed in sorted(seeds)}


def analyse(endpoints: Mapping[str, Runs], references: Sequence[str] = REFERENCES) -> dict[str, Analysis]:
    """Analyse {endpoint: runs}; the tests of all these endpoints are one family (of each kind)."""
    blocks = {endpoint: largest_block(runs) for endpoint, runs in endpoints.items()}
    tested = {endpoint: block for endpoint, block in blocks.items() if not _no_test(block)}
    kinds = {
        "references": _families(tested, {e: reference_pairs(b.names, references) for e, b in tested.items()}),
        "pairs": _families(tested, {e: all_pairs(b.names) for e, b in tested.items()}),
    }
    found = {}
    for endpoint, block in blocks.items():
        if endpoint not in tested:
            found[endpoint] = Analysis(endpoint, block, reason=_no_test(block))
            continue
        pairs = kinds["pairs"][endpoint]
        claims = [test.ordered for test in pairs.tests if test.significant]
        found[endpoint] = Analysis(
            endpoint,
            block,
            residual_sd=float(np.sqrt(anova.residual_variance(block.accuracy))),
            f_test=anova.f_test(block.accuracy),
            references=kinds["references"].get(endpoint),
            pairs=pairs,
            letters=letters(block.names, claims),
            rank_intervals=rank_intervals(block.names, claims),
        )
    return found


def largest_block(runs: Runs) -> Block:
    """The complete table with the most runs, of at least two GNNs; of equal ones, that with more GNNs.

    Tables of fewer than `anova.MIN_SEEDS` seeds are taken only where there is no larger one.
    """
    sets = {name: frozenset(by_seed) for name, by_seed in runs.items()}
    candidates = {seeds for seeds in sets.values() if seeds}
    for seeds in sets.values():
        candidates |= {common for other in candidates if (common := seeds & other)}

    def worth(seeds: frozenset[int]) -> tuple[bool, int, int, list[int]]:
        count = sum(seeds <= own for own in sets.values())
        enough = count > 1 and len(seeds) >= anova.MIN_SEEDS
        return enough, count * len(seeds), count, sorted(-seed for seed in seeds)

    chosen = max(candidates, key=worth, default=frozenset())
    order = tuple(sorted(chosen))
    names = [name for name, own in sets.items() if chosen and chosen <= own]
    names.sort(key=lambda name: (-math.fsum(runs[name][seed] for seed in order), name))
    accuracy = np.array([[runs[name][seed] for name in names] for seed in order], dtype=np.float64)
    left_out = {
        name: "no finished seed" if not own else f"lacks seed {listed(chosen - own)}"
        for name, own in sets.items()
        if name not in names
    }
    return Block(tuple(names), order, accuracy, left_out)


def listed(seeds: Sequence[int] | frozenset[int]) -> str:
    """Seeds for a sentence: "0, 1, 2"."""
    return ", ".join(map(str, sorted(seeds)))


def _no_test(block: Block) -> str:
    """Why nothing can be tested, empty when it can."""
    if len(block.names) < 2:
        return "No test: fewer than two GNNs have a finished seed in common."
    if len(block.seeds) < anova.MIN_SEEDS:
        common = listed(block.seeds)
        return f"No test: the GNNs have seed {common} in common, and a test needs {anova.MIN_SEEDS} seeds."
    return ""


def _families(
    blocks: Mapping[str, Block], pairs: Mapping[str, Sequence[tuple[str, str]]]
) -> dict[str, Family]:
    """The family's tests by endpoint, corrected over all endpoints together."""
    columns = {
        endpoint: np.array([[blocks[endpoint].names.index(name) for name in pair] for pair in chosen])
        for endpoint, chosen in pairs.items()
        if chosen
    }
    p_holm = corrected([(blocks[endpoint].accuracy, of) for endpoint, of in columns.items()])
    size = sum(map(len, columns.values()))
    families = {}
    for (endpoint, of), held in zip(columns.items(), p_holm, strict=True):
        accuracy = blocks[endpoint].accuracy
        tests = anova.pair_tests(accuracy, of)
        reach = special.stdtrit(tests.df, 1 - anova.LEVEL / 2) * tests.se
        p_values = np.maximum(tests.p_moderated, tests.p_paired)
        made = tuple(
            PairTest(a, b, float(d), float(d - r), float(d + r), float(p), float(h))
            for (a, b), d, r, p, h in zip(
                pairs[endpoint], tests.difference, reach, p_values, held, strict=True
            )
        )
        residual_sd = float(np.sqrt(anova.residual_variance(accuracy)))
        seeds, gnns = accuracy.shape
        prior = float(anova.prior_df(accuracy))
        detectable = anova.detectable_difference(residual_sd, seeds, gnns, size, prior)
        families[endpoint] = Family(made, size, detectable)
    return families


def _by_seed(entry: Entry, split: str) -> Mapping[int, float]:
    score = entry.scores.get(split)
    return score.by_seed if score else {}

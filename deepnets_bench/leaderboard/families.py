"""Families of tests: Holm's correction, and all-pairs results as letters and as rank intervals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from itertools import combinations
from string import ascii_letters

import numpy as np
from numpy.typing import NDArray

from deepnets_bench.leaderboard import anova
from deepnets_bench.leaderboard.anova import Array

Pairs = NDArray[np.intp]


def corrected(tables: Sequence[tuple[Array, Pairs]]) -> list[Array]:
    """Corrected p-values [..., pairs] of one family of tests.

    Each table of accuracies [..., seeds, GNNs] comes with the `pairs` [pairs, 2] that are tested. The
    moderated tests are corrected by Holm's steps (Holm 1979), with one change: a step pools the variances
    of those GNNs of a table that have a pair left at this step, as the quiet ones that are told apart by
    then would lend the noisy ones a variance that is not theirs. A p-value is no less than the
    uncorrected ones of both tests; the paired one holds whatever the variances of the two GNNs.
    """
    if not tables:
        return []
    tests = [anova.pair_tests(accuracy, pairs) for accuracy, pairs in tables]
    p_values = np.concatenate([found.p_moderated for found in tests], axis=-1)
    least = np.maximum(p_values, np.concatenate([found.p_paired for found in tests], axis=-1))
    left, result, reached = np.ones(least.shape, bool), np.ones(least.shape), np.zeros((*least.shape[:-1], 1))
    ends = np.cumsum([len(pairs) for _, pairs in tables])[:-1]
    parts = zip(np.split(left, ends, axis=-1), np.split(p_values, ends, axis=-1), strict=True)
    steps = [_Steps(*table, *part) for table, part in zip(tables, parts, strict=True)]
    for count in range(least.shape[-1], 0, -1):
        candidates = np.where(left, np.maximum(count * p_values, least), np.inf)
        taken = candidates.argmin(axis=-1, keepdims=True)
        reached = np.minimum(np.maximum(reached, np.take_along_axis(candidates, taken, axis=-1)), 1)
        if (reached == 1).all():
            break
        np.put_along_axis(result, taken, reached, axis=-1)
        np.put_along_axis(left, taken, False, axis=-1)
        for table in steps:
            table.pool()
    return np.split(result, ends, axis=-1)


class _Steps:
    """A table on its way through `corrected`: pairs that are `left`, `p_values` of their moderated tests.

    Both are views of those of the whole family: what `corrected` takes is gone here, and `pool` writes there.
    """

    def __init__(self, accuracy: Array, pairs: Pairs, left: anova.Mask, p_values: Array) -> None:
        self.accuracy, self.pairs, self.left, self.p_values = accuracy, pairs, left, p_values
        self.has = (pairs[..., None] == np.arange(accuracy.shape[-1])).any(axis=1).astype(np.float32)
        self.gnns = np.ones((*left.shape[:-1], accuracy.shape[-1]), bool)

    def pool(self) -> None:
        """Test anew, where GNNs have no pair left since the last time."""
        gnns = self.left @ self.has > 0
        fewer = (gnns != self.gnns).any(axis=-1) & gnns.any(axis=-1)
        if fewer.any():
            self.gnns[fewer] = gnns[fewer]
            self.p_values[fewer] = anova.pair_tests(self.accuracy[fewer], self.pairs, gnns[fewer]).p_moderated


def all_pairs(names: Sequence[str]) -> list[tuple[str, str]]:
    """Every pair once, in the order of `names`."""
    return list(combinations(names, 2))


def reference_pairs(names: Sequence[str], references: Sequence[str]) -> list[tuple[str, str]]:
    """(GNN, reference) for every GNN and every reference among `names`; two references are compared once."""
    present = [name for name in references if name in names]
    pairs = []
    for position, reference in enumerate(present):
        done = {*present[:position], reference}
        pairs += [(name, reference) for name in names if name not in done]
    return pairs


def rank_intervals(names: Sequence[str], better: Iterable[tuple[str, str]]) -> dict[str, tuple[int, int]]:
    """[1 + significant losses, number of GNNs - significant wins] from pairs (better, worse)."""
    low, high = dict.fromkeys(names, 1), dict.fromkeys(names, len(names))
    for winner, loser in better:
        low[loser] += 1
        high[winner] -= 1
    return {name: (low[name], high[name]) for name in names}


def letters(names: Sequence[str], different: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Compact letter display: two GNNs share a letter exactly when they are not among the `different` pairs.

    Insert and absorb (Piepho 2004, "An algorithm for a letter-based representation of all-pairwise
    comparisons"), which needs no transitivity. Letters follow `names`, best first. Raises nothing: after z
    follow A to Z, then (a1), (b1) and so on.
    """
    columns: list[Set[str]] = [frozenset(names)]
    for pair in different:
        split = [column - {name} for column in columns if set(pair) <= column for name in pair]
        kept = [column for column in columns if not set(pair) <= column]
        columns = _absorb([*kept, *split])
    place: Mapping[str, int] = {name: position for position, name in enumerate(names)}
    columns.sort(key=lambda column: sorted(place[name] for name in column))
    return {name: "".join(_letter(i) for i, column in enumerate(columns) if name in column) for name in names}


def _absorb(columns: Iterable[Set[str]]) -> list[Set[str]]:
    """The columns that are in no other, each once."""
    once = list(dict.fromkeys(columns))
    return [column for column in once if not any(column < other for other in once)]


def _letter(position: int) -> str:
    extra, place = divmod(position, len(ascii_letters))
    return ascii_letters[place] if not extra else f"({ascii_letters[place]}{extra})"

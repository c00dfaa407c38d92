"""Families of tests: Holm's correction, and all-pairs results as letters and as rank intervals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from itertools import combinations
from string import ascii_letters

import numpy as np
from numpy.typing import ArrayLike

from deepnets_bench.leaderboard.anova import Array


def holm(p_values: ArrayLike) -> Array:
    """Holm's step-down correction (Holm 1979) over the last axis: family-wise error in the strong sense."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, axis=-1, kind="stable")
    stepwise = np.take_along_axis(p, order, axis=-1) * np.arange(p.shape[-1], 0, -1)
    corrected = np.empty_like(p)
    np.put_along_axis(corrected, order, np.minimum(np.maximum.accumulate(stepwise, axis=-1), 1.0), axis=-1)
    return corrected


def corrected(p_moderated: ArrayLike, p_paired: ArrayLike) -> Array:
    """Corrected p-values [..., tests] of a family: Holm of the moderated tests, and no less than the paired
    ones.

    The paired test, uncorrected, holds whatever the variances of the two GNNs; it stops claims about a GNN
    whose variance is far above the pooled one.
    """
    return np.maximum(holm(p_moderated), np.asarray(p_paired))


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
    follow A to Z, then aa, ab and so on in brackets.
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

"""Gains of fine-tuning: predicted against other initial weights, paired by seed, over models and for each."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from scipy.special import stdtrit

from deepnets_bench.errors import BadInput
from deepnets_bench.leaderboard.table import Table
from deepnets_bench.uses.finetuning_rows import FineTuneRow

_LEVEL = 0.05
ALL = "all models"


def compared(inits: Sequence[str], predicted: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs to be compared: predicted weights with all others; of one kind, the first with the rest."""
    first = [init for init in inits if init in predicted]
    others = [init for init in inits if init not in predicted]
    if not first or not others:
        return [(inits[0], init) for init in inits[1:]]
    return [(init, against) for init in first for against in others]


def gain_table(rows: Sequence[FineTuneRow], against: str, init: str = "predicted") -> Table:
    """Accuracy of `init` minus that of `against`: mean over seeds and its 95 % t interval, in points.

    The unit is the seed: its shots and random weights. A seed counts where it has all models of its number
    of shots. Trainings that failed are left out, and named in a note. Raises `BadInput` where the two have no
    seed in common.
    """
    failed = [row for row in rows if row.failure and row.init in (init, against)]
    cells = tuple(_rows(rows, against, init))
    if not cells and not failed:
        raise BadInput(f"No model was fine-tuned from {init} and from {against} weights with the same seed.")
    notes = (
        f"Accuracy on test images in %, mean over seeds; difference {init} - {against} in points, paired by "
        "seed: 95 % t interval, for each row alone (not corrected).",
        "The unit is the seed (its shots and random weights); it does not cover other trained hypernetworks.",
        *_failures(failed),
    )
    headers = ("model", "shots", "seeds", init, against, "difference [95 %]")
    return Table(f"Fine-tuning · {init} against {against}", headers, cells, notes)


def _failures(failed: Sequence[FineTuneRow]) -> Iterator[str]:
    """A note that counts and names trainings without an accuracy."""
    if failed:
        named = "; ".join(
            f"{row.model} from {row.init}, {row.shots} shots, seed {row.seed} ({row.failure})"
            for row in failed
        )
        count = "1 training" if len(failed) == 1 else f"{len(failed)} trainings"
        yield f"{count} failed and left out, with the seed's other one: {named}."


def _rows(rows: Sequence[FineTuneRow], against: str, init: str) -> Iterator[tuple[str, ...]]:
    accuracy = {row.key: row.accuracy for row in rows if row.accuracy is not None}
    models = list(dict.fromkeys(row.model for row in rows))
    for shots in sorted({row.shots for row in rows}):
        seeds = sorted({row.seed for row in rows if row.shots == shots})
        table: dict[str, dict[int, tuple[float, float]]] = {}
        for model in models:
            pairs = {
                seed: (accuracy[model, init, shots, seed], accuracy[model, against, shots, seed])
                for seed in seeds
                if (model, init, shots, seed) in accuracy and (model, against, shots, seed) in accuracy
            }
            if pairs:
                table[model] = pairs
        whole = [seed for seed in seeds if table and all(seed in pairs for pairs in table.values())]
        if whole:
            over = {seed: _mean([pairs[seed] for pairs in table.values()]) for seed in whole}
            yield (ALL, str(shots), *_cells(over))
        for model, pairs in table.items():
            yield (model, str(shots), *_cells(pairs))


def _mean(pairs: Sequence[tuple[float, float]]) -> tuple[float, float]:
    a, b = zip(*pairs, strict=True)
    return math.fsum(a) / len(a), math.fsum(b) / len(b)


def _cells(pairs: dict[int, tuple[float, float]]) -> tuple[str, str, str, str]:
    a, b = (np.array(column) for column in zip(*pairs.values(), strict=True))
    low, high = interval(a - b)
    gap = f"{100 * (a - b).mean():+.1f}"
    shown = f"{gap} [{100 * low:+.1f}, {100 * high:+.1f}]" if len(a) > 1 else gap
    return str(len(a)), f"{100 * a.mean():.1f}", f"{100 * b.mean():.1f}", shown


def interval(differences: np.ndarray) -> tuple[float, float]:
    """95 % t interval of a mean; infinite for one value."""
    n = len(differences)
    if n < 2:
        return -math.inf, math.inf
    reach = float(stdtrit(n - 1, 1 - _LEVEL / 2) * differences.std(ddof=1) / math.sqrt(n))
    return float(differences.mean()) - reach, float(differences.mean()) + reach

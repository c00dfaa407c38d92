"""Lines to hold accuracies against: chance and untrained hypernetworks; `uses` adds what SGD reaches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from deepnets_bench.leaderboard.aggregate import OOD, UNTRAINED, Board, out_of_distribution
from deepnets_bench.leaderboard.inference import mean_over_splits


@dataclass(frozen=True)
class Level:
    """A line: mean {split or OOD: accuracy}, a fraction, and what a reader has to know of it."""

    name: str
    accuracy: Mapping[str, float]
    note: str = ""


def chance_level(board: Board, chance: float) -> Level:
    """The accuracy of guessing, the same on every split."""
    keys = (*board.splits, *([OOD] if out_of_distribution(board.splits) else []))
    return Level("chance", dict.fromkeys(keys, chance))


def untrained_levels(board: Board) -> list[Level]:
    """The untrained controls of a board."""
    away = out_of_distribution(board.splits)
    found = []
    for entry in board.controls:
        if entry.gnn.startswith(UNTRAINED):
            means = {split: score.mean for split, score in entry.scores.items() if score.mean is not None}
            over = mean_over_splits([entry.scores[split].by_seed for split in away if split in entry.scores])
            if away and set(away) <= set(means) and over:
                means[OOD] = sum(over.values()) / len(over)
            found.append(Level(f"untrained {entry.name.removeprefix(UNTRAINED)}", means))
    return found

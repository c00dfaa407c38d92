"""Lines to hold accuracies against: chance, networks that SGD trained, and untrained hypernetworks."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from deepnets_bench.errors import BadInput
from deepnets_bench.leaderboard.aggregate import OOD, UNTRAINED, Board
from deepnets_bench.leaderboard.inference import mean_over_splits, out_of_distribution
from deepnets_bench.system.files import reading

TRAINED = "trained.csv"  # beside the results: labels of networks that were trained themselves
_COLUMNS = ("track_digest", "split", "index", "seed", "accuracy")


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


def trained_level(board: Board, path: Path) -> Level | None:
    """What training each network by itself reaches: the labels in a file (`deepnets-bench label --out`).

    The mean over architectures of their means over seeds; trainings that failed are left out, and the note
    counts them. Labels of another protocol than the board's rows are left out; None without any of it. Raises
    `BadInput` for a file that is none of labels, or holds a training twice.
    """
    labels = [label for label in _labels(path, board) if label.split in board.splits]
    by_split: dict[str, dict[int, list[float]]] = {}
    for label in labels:
        if label.accuracy is not None:
            by_split.setdefault(label.split, {}).setdefault(label.index, []).append(label.accuracy)
    if not by_split:
        return None
    splits = [split for split in board.splits if split in by_split]
    means = {split: fmean(map(fmean, by_split[split].values())) for split in splits}
    away = out_of_distribution(board.splits)
    if away and set(away) <= set(means):
        means[OOD] = fmean(means[split] for split in away)
    seeds, failed = len({label.seed for label in labels}), sum(label.accuracy is None for label in labels)
    counts = ", ".join(f"{split} {len(by_split[split])}" for split in splits)
    note = (
        f"trained by SGD: every network by itself, {seeds} seed{'' if seeds == 1 else 's'}; mean over "
        f"architectures ({counts})" + (f", without {failed} failed trainings." if failed else ".")
    )
    return Level("trained by SGD", means, note)


@dataclass(frozen=True)
class _Label:
    split: str
    index: int
    seed: int
    accuracy: float | None  # None: it failed


def _labels(path: Path, board: Board) -> list[_Label]:
    """Those of the protocol of a board's rows."""
    digests = {row.track_digest for entry in board.entries for row in entry.rows}
    with reading(path, "a CSV file of labels"), open(path, newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file, strict=True)
        missing = [name for name in _COLUMNS if name not in (reader.fieldnames or ())]
        if missing:
            raise BadInput(f"{path} is no file of labels: it lacks {', '.join(missing)}.")
        found: dict[tuple[str, int, int], _Label] = {}
        for row in reader:
            if row["track_digest"] not in digests:
                continue
            label = _Label(row["split"], int(row["index"]), int(row["seed"]), _fraction(row["accuracy"]))
            key = label.split, label.index, label.seed
            if key in found:
                raise BadInput(f"{path} holds {label.split}/{label.index} with seed {label.seed} twice.")
            found[key] = label
        return list(found.values())


def _fraction(text: str) -> float | None:
    if not text:
        return None
    value = float(text)
    if not 0 <= value <= 1:
        raise ValueError(f"{text} is not an accuracy")
    return value

"""What training each network by itself reaches, as a line to hold the accuracies of a board against."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean

from deepnets_bench.leaderboard.aggregate import OOD, Board, out_of_distribution
from deepnets_bench.leaderboard.levels import Level
from deepnets_bench.uses.labels import read_labels

TRAINED = "trained.csv"  # beside the results: labels of networks that SGD trained


def trained_level(board: Board, path: Path) -> Level | None:
    """The accuracies of the labels in a file, as `deepnets-bench label --out` writes them.

    The mean over architectures of their means over seeds; trainings that failed are left out, and the note
    counts them. Labels of another protocol than the board's rows are left out; None without any of it. Raises
    what `read_labels` does.
    """
    digests = {row.track_digest for entry in board.entries for row in entry.rows}
    labels = [
        label for label in read_labels(path) if label.track_digest in digests and label.split in board.splits
    ]
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

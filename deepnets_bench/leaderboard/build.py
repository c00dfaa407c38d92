"""The files of a published leaderboard, all rendered from one board: tidy CSV, Markdown and LaTeX."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from deepnets_bench.errors import BadInput
from deepnets_bench.leaderboard.aggregate import COSTS, Board
from deepnets_bench.leaderboard.reference import reference_tables
from deepnets_bench.leaderboard.report import (
    Table,
    cost_table,
    interval_table,
    rank_table,
    ranking_table,
    to_latex,
    to_markdown,
)
from deepnets_bench.leaderboard.results import safe_text
from deepnets_bench.leaderboard.stats import Array, bootstrap_interval, critical_differences, load_scores


@dataclass(frozen=True)
class Evidence:
    """Accuracies {method: {split: [seeds, architectures]}}, their intervals, and notes on what is lacking."""

    scores: Mapping[str, Mapping[str, Array]]
    intervals: Mapping[str, Mapping[str, tuple[float, float]]]
    notes: tuple[str, ...] = ()


def gather(board: Board, folder: Path) -> Evidence:
    """Load the scores in `folder` behind a board; a method whose scores are missing is named, not dropped."""
    scores: dict[str, dict[str, Array]] = {}
    notes = []
    for entry in board.entries:
        try:
            scores[entry.name] = load_scores(entry, folder)
        except BadInput as error:
            notes.append(f"No intervals for {entry.name}: {error}")
    intervals = {
        name: {split: bootstrap_interval(values) for split, values in by_split.items()}
        for name, by_split in scores.items()
    }
    return Evidence(scores, intervals, tuple(notes))


def tables(board: Board, evidence: Evidence, note: str | None) -> list[Table]:
    """All tables of a board, in reading order."""
    return [
        ranking_table(board, note),
        interval_table(board, evidence.intervals),
        *([rank_table(board, differences)] if (differences := critical_differences(evidence.scores)) else []),
        cost_table(board),
        *reference_tables(board.track),
    ]


def markdown(board: Board, evidence: Evidence, note: str | None) -> str:
    """A page that GitHub renders."""
    faults = "".join(f"- {text}\n" for text in evidence.notes)
    return "\n".join(to_markdown(table) for table in tables(board, evidence, note)) + faults


def latex(board: Board, evidence: Evidence, note: str | None) -> str:
    """Tables that compile in a document with `\\usepackage{booktabs,graphicx}`."""
    return "\n".join(to_latex(table) for table in tables(board, evidence, note))


def tidy_csv(board: Board, evidence: Evidence, note: str | None) -> str:
    """One row a method and split, numbers unrounded and as fractions; a missing number is empty."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    columns = (
        "track track_version comparable gnn gnn_options average_rank split n_seeds accuracy_mean accuracy_std"
    )
    columns += " accuracy_sem accuracy_low accuracy_high gap_mean gap_std n_seeds_reproduced"
    writer.writerow([*columns.split(), *COSTS])
    for entry in board.entries:
        for split, score in entry.scores.items():
            low, high = evidence.intervals.get(entry.name, {}).get(split, (None, None))
            writer.writerow(
                [
                    safe_text(board.track),
                    board.track_version,
                    str(board.comparable).lower(),
                    safe_text(entry.gnn),
                    entry.gnn_options,
                    entry.average_rank,
                    split,
                    len(score.by_seed),
                    *(score.mean, score.std, score.sem, low, high, score.gap, score.gap_std),
                    len(entry.reproduced_seeds),
                    *(_number(entry.costs[key]) for key in COSTS),
                ]
            )
    return buffer.getvalue()


def _number(value: float | None) -> float | None:
    """Whole numbers without a decimal point."""
    return int(value) if value is not None and value.is_integer() else value


FILES: dict[str, tuple[str, Callable[[Board, Evidence, str | None], str]]] = {
    "csv": ("leaderboard.csv", tidy_csv),
    "markdown": ("README.md", markdown),
    "latex": ("leaderboard.tex", latex),
}

"""The leaderboard as one static HTML page that works offline: tables, charts and data in a single file."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from deepnets_bench.errors import BadInput
from deepnets_bench.leaderboard.aggregate import COSTS, METRICS, Board, Entry
from deepnets_bench.leaderboard.agreement_tables import halves_table
from deepnets_bench.leaderboard.anova import Array
from deepnets_bench.leaderboard.inference import Analysis
from deepnets_bench.leaderboard.levels import Level, untrained_levels
from deepnets_bench.leaderboard.page_views import views
from deepnets_bench.leaderboard.published_order import order_tables
from deepnets_bench.leaderboard.reference import beside
from deepnets_bench.leaderboard.report import WALL_CLOCK, provenance, ranking_table
from deepnets_bench.leaderboard.results import run_folders
from deepnets_bench.leaderboard.stats import load_scores
from deepnets_bench.leaderboard.table import Table
from deepnets_bench.leaderboard.templates import template
from deepnets_bench.leaderboard.verdict import letters_of, rank_of, sentences

CURVES = {
    "val_accuracy": "validation accuracy (%)",
    "train_accuracy": "training accuracy (%)",
    "loss": "training loss",
}
_COSTS = ("cpu_seconds", "gnn_params", "ghn_params", "train_seconds")  # of the chart, the first one shown


def render(
    board: Board,
    analyses: Mapping[str, Analysis],
    folder: Path,
    note: str | None,
    levels: Sequence[Level] = (),
) -> str:
    """The whole page. `folder` holds `scores/` and the learning curves in `runs/`.

    `levels` are lines to hold accuracies against, beside the board's own untrained hypernetworks.
    A method whose scores are missing is named and has no scatter plot. Raises MissingExtra without Jinja2.
    """
    page = template("page.html.j2")
    scores, faults = _scores(board, folder / "scores")
    return page.render(
        title=ranking_table(board, note, analyses).title,
        notes=dict.fromkeys(
            [*board.notes, *faults, *(level.note for level in levels if level.note), provenance(board)]
        ),
        wall_clock=WALL_CLOCK,
        views=views(board, analyses, levels),
        sections=sections(board, analyses),
        splits=board.splits,
        endpoints=list(analyses),
        names=[entry.name for entry in board.entries],
        curves=CURVES,
        data=_script_json(page_data(board, analyses, scores, folder, levels)),
    )


def sections(board: Board, analyses: Mapping[str, Analysis]) -> list[Table]:
    """The tables below the charts: the published order, agreement of halves, published figures."""
    return [*order_tables(board, analyses), halves_table(board, analyses), *beside(board.track)]


def _scores(board: Board, folder: Path) -> tuple[dict[str, dict[str, Array]], list[str]]:
    """Accuracies {method: {split: [seeds, architectures]}} in `folder`, and a sentence on each that is
    missing."""
    scores, faults = {}, []
    for entry in board.entries:
        try:
            scores[entry.name] = load_scores(entry, folder)
        except BadInput as error:
            faults.append(f"No scatter plot of {entry.name}: {error}")
    return scores, faults


def page_data(
    board: Board,
    analyses: Mapping[str, Analysis],
    scores: Mapping[str, Mapping[str, Array]],
    folder: Path,
    levels: Sequence[Level] = (),
) -> dict[str, Any]:
    """What the charts draw, as plain values; accuracies are fractions."""
    by_split = {
        split: {name: arrays[split].mean(axis=0) for name, arrays in scores.items() if split in arrays}
        for split in board.splits
    }
    return {
        "splits": board.splits,
        "costs": [asdict(METRICS[key]) for key in _COSTS],
        "levels": [asdict(level) for level in (*levels, *untrained_levels(board))],
        "methods": [
            {
                "name": entry.name,
                "seeds": len(entry.seeds),
                "accuracy": {split: entry.value(split) for split in board.splits},
                "costs": {key: entry.costs[key] for key in COSTS},
                "scores": {
                    split: [round(float(v), 5) for v in means[entry.name]]
                    for split, means in by_split.items()
                    if entry.name in means
                },
                "curve": _mean_curve(entry, folder),
            }
            for entry in board.entries
        ],
        "analyses": {key: _runs(analysis) for key, analysis in analyses.items()},
    }


def _runs(analysis: Analysis) -> dict[str, Any]:
    """What was compared on a split: every run, letters and rank intervals, GNNs best first, and all pairs."""
    pairs: dict[str, dict[str, dict[str, Any]]] = {}
    for test in analysis.pairs.tests if analysis.pairs else ():
        pairs.setdefault(test.a, {})[test.b] = asdict(test) | {"significant": test.significant}
    gnns = [
        {
            "name": name,
            "runs": [round(value, 6) for value in column],
            "letters": letters_of(name, analysis),
            "rank": rank_of(name, analysis),
        }
        for name, column in zip(analysis.block.names, analysis.block.accuracy.T.tolist(), strict=True)
    ]
    note = " ".join(sentences(analysis))
    return {"seeds": analysis.block.seeds, "gnns": gnns, "pairs": pairs, "note": note}


def _mean_curve(entry: Entry, folder: Path) -> dict[str, list[list[float]]]:
    """{column: [[step, mean over seeds], ...]} of the learning curves of a method's finished runs."""
    collected: dict[str, dict[int, list[float]]] = {column: {} for column in CURVES}
    for config_hash in sorted({row.config_hash for row in entry.rows if row.status == "ok"}):
        for path in (run / "curve.csv" for run in run_folders(folder, config_hash)):
            if not path.exists():
                continue
            with open(path, newline="", encoding="utf-8") as file:
                for row in csv.DictReader(file):
                    for column, by_step in collected.items():
                        if row.get(column):
                            by_step.setdefault(int(row["step"]), []).append(float(row[column]))
    return {
        column: [[step, round(sum(values) / len(values), 5)] for step, values in sorted(by_step.items())]
        for column, by_step in collected.items()
        if by_step
    }


def _script_json(data: Mapping[str, Any]) -> str:
    """JSON that no name can break out of: the script element ends only where we end it."""
    text = json.dumps(data, allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")

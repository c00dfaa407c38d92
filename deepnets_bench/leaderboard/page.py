"""The leaderboard as one static HTML page that works offline: tables, charts and data in a single file."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from deepnets_bench.errors import BadInput, MissingExtra
from deepnets_bench.leaderboard.aggregate import COSTS, METRICS, Board, Entry, mean, sort_entries
from deepnets_bench.leaderboard.anova import Array
from deepnets_bench.leaderboard.inference import Analysis
from deepnets_bench.leaderboard.reference import reference_tables
from deepnets_bench.leaderboard.report import WALL_CLOCK, provenance, ranking_table
from deepnets_bench.leaderboard.stats import load_scores
from deepnets_bench.leaderboard.verdict import endpoints, letters_of, rank_of, sentences, verdict_table

CURVES = {
    "val_accuracy": "validation accuracy (%)",
    "train_accuracy": "training accuracy (%)",
    "loss": "training loss",
}


@dataclass(frozen=True)
class Cell:
    """Text to show and the number to sort by."""

    text: str
    value: float | str | None


@dataclass(frozen=True)
class View:
    """One sortable table of the page; `headers` are (text, whether higher is better)."""

    key: str
    title: str
    headers: tuple[tuple[str, bool | None], ...]
    rows: tuple[tuple[Cell, ...], ...]


def render(board: Board, analyses: Mapping[str, Analysis], folder: Path, note: str | None) -> str:
    """The whole page. `folder` holds `scores/` and the learning curves in `runs/`.

    A method whose scores are missing is named and has no scatter plot. Raises MissingExtra without Jinja2.
    """
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError:
        raise MissingExtra("The HTML leaderboard", "report") from None
    environment = Environment(
        loader=PackageLoader("deepnets_bench.leaderboard", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    ranking, verdict = ranking_table(board, note, analyses), verdict_table(board, analyses)
    scores, faults = _scores(board, folder / "scores")
    return environment.get_template("page.html.j2").render(
        title=ranking.title,
        notes=dict.fromkeys([*ranking.notes, *verdict.notes, *faults, provenance(board)]),
        wall_clock=WALL_CLOCK,
        views=views(board, analyses),
        references=reference_tables(board.track),
        splits=board.splits,
        endpoints=list(analyses),
        names=[entry.name for entry in board.entries],
        curves=CURVES,
        data=_script_json(page_data(board, analyses, scores, folder)),
    )


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


def views(board: Board, analyses: Mapping[str, Analysis]) -> list[View]:
    """The tables: the verdict on the endpoints, all splits, each split by itself, and cost."""
    accuracy, gap, rank = METRICS["accuracy"], METRICS["gap"], METRICS["average_rank"]
    text = [tuple(Cell(cell, cell) for cell in row) for row in ranking_table(board, None, analyses).rows]
    overview = tuple(
        (
            cells[0],
            Cell(cells[1].text, len(entry.seeds)),
            Cell(cells[2].text, entry.average_rank),
            *(
                Cell(cell.text.replace(" (", "\n("), entry.value(split))
                for cell, split in zip(cells[3:], board.splits, strict=True)
            ),
        )
        for cells, entry in zip(text, board.entries, strict=True)
    )
    headers = (
        ("GNN", None),
        ("seeds", None),
        (rank.header, False),
        *((split, True) for split in board.splits),
    )
    found = [View("all", "all splits", headers, overview)]
    if verdict := _verdict_view(board, analyses):
        found.insert(0, verdict)
    for split in board.splits:
        best_first = sort_entries(board.entries, split, board.splits)
        rows = tuple(_split_row(entry, split, analyses.get(split)) for entry in best_first)
        split_headers = (
            *(("GNN", None), ("seeds", None), (accuracy.header, True)),
            *(("letters", None), ("rank", False), (gap.header, True), ("not finished", None)),
        )
        found.append(View(split, split, split_headers, rows))
    costs = tuple(
        (
            Cell(entry.name, entry.name),
            *(Cell(METRICS[key].text(entry.costs[key]), entry.costs[key]) for key in COSTS),
        )
        for entry in board.entries
    )
    cost_headers = (("GNN", None), *((METRICS[key].header, METRICS[key].higher_is_better) for key in COSTS))
    return [*found, View("cost", "cost", cost_headers, costs)]


def _verdict_view(board: Board, analyses: Mapping[str, Analysis]) -> View | None:
    """The verdict table; None of a board without endpoints."""
    table = verdict_table(board, analyses)
    ends = endpoints(analyses)
    rows = []
    for entry, (name, *cells) in zip(board.entries, table.rows, strict=True):
        values: list[float | str | None] = []
        for end in ends:
            accuracy, ranks = mean(end.block.of(entry.name)), (end.rank_intervals or {}).get(entry.name)
            letters = letters_of(entry.name, end)
            values += [
                accuracy,
                len(end.block.seeds) if accuracy is not None else None,
                None if letters == "–" else letters,
                sum(ranks) / 2 if ranks else None,
            ]
        rows.append((Cell(name, name), *map(Cell, cells, values)))
    better = (None, *(True, None, None, False) * len(ends))
    headers = tuple(zip(table.headers, better, strict=True))
    return View("verdict", "what the seeds say", headers, tuple(rows)) if ends else None


def _split_row(entry: Entry, split: str, analysis: Analysis | None) -> tuple[Cell, ...]:
    accuracy, gap = METRICS["accuracy"], METRICS["gap"]
    name, score = Cell(entry.name, entry.name), entry.scores.get(split)
    if score is None:
        return (name, Cell("0", 0), *[Cell("–", None)] * 4, Cell("", ""))
    letters = letters_of(entry.name, analysis)
    ranks = (analysis.rank_intervals or {}).get(entry.name) if analysis else None
    return (
        name,
        Cell(str(len(score.by_seed)), len(score.by_seed)),
        Cell(accuracy.text(score.mean, score.std), score.mean),
        Cell(letters, None if letters == "–" else letters),
        Cell(rank_of(entry.name, analysis), sum(ranks) / 2 if ranks else None),
        Cell(gap.text(score.gap, score.gap_std), score.gap),
        Cell("; ".join(score.problems), "; ".join(score.problems)),
    )


def page_data(
    board: Board,
    analyses: Mapping[str, Analysis],
    scores: Mapping[str, Mapping[str, Array]],
    folder: Path,
) -> dict[str, Any]:
    """What the charts draw, as plain values; accuracies are fractions."""
    by_split = {
        split: {name: arrays[split].mean(axis=0) for name, arrays in scores.items() if split in arrays}
        for split in board.splits
    }
    return {
        "splits": board.splits,
        "costs": [asdict(METRICS[key]) for key in ("gnn_params", "ghn_params", "train_seconds")],
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
                "curve": _mean_curve(entry, folder / "runs"),
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
        for path in sorted(folder.glob(f"*-{config_hash[:8]}/curve.csv")):
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

"""The files of a published leaderboard, all rendered from one board: tidy CSV, Markdown and LaTeX."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping

from deepnets_bench.leaderboard.aggregate import COSTS, Board
from deepnets_bench.leaderboard.agreement_tables import halves_table
from deepnets_bench.leaderboard.controls import control_tables
from deepnets_bench.leaderboard.inference import Analysis
from deepnets_bench.leaderboard.published_order import order_tables
from deepnets_bench.leaderboard.reference import beside, reference_tables
from deepnets_bench.leaderboard.report import cost_table, ranking_table
from deepnets_bench.leaderboard.results import safe_text
from deepnets_bench.leaderboard.table import Table, to_latex, to_markdown
from deepnets_bench.leaderboard.verdict import verdict_table

Analyses = Mapping[str, Analysis]


def tables(board: Board, analyses: Analyses, note: str | None, cost: bool = True) -> list[Table]:
    """All tables of a board, in reading order; that of costs where asked for."""
    return [*_measured(board, analyses, note, cost), *reference_tables(board.track)]


def page_tables(board: Board, analyses: Analyses, note: str | None) -> list[Table]:
    """The tables of a page: all of a board, agreement of halves, and published figures beside them."""
    halves = halves_table(board, analyses)
    measured = _measured(board, analyses, note, cost=True)
    return [*measured, *([halves] if halves.rows else []), *beside(board.track)]


def _measured(board: Board, analyses: Analyses, note: str | None, cost: bool) -> list[Table]:
    return [
        ranking_table(board, note, analyses),
        verdict_table(board, analyses),
        *control_tables(board),
        *order_tables(board, analyses),
        *([cost_table(board)] if cost else []),
    ]


def markdown(board: Board, analyses: Analyses, note: str | None) -> str:
    """A page that GitHub renders."""
    return "\n".join(to_markdown(table) for table in page_tables(board, analyses, note))


def latex(board: Board, analyses: Analyses, note: str | None) -> str:
    """Tables that compile in a document with `\\usepackage{booktabs,graphicx}`."""
    return "\n".join(to_latex(table) for table in page_tables(board, analyses, note))


def tidy_csv(board: Board, analyses: Analyses, note: str | None) -> str:
    """One row a method and split, numbers unrounded and as fractions; what is missing or not tested is
    empty."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    columns = (
        "track track_version comparable gnn gnn_options average_rank split n_seeds accuracy_mean accuracy_std"
    )
    columns += " accuracy_sem letters rank_low rank_high gap_mean gap_std n_seeds_reproduced"
    writer.writerow([*columns.split(), *COSTS])
    for entry in board.entries:
        for split, score in entry.scores.items():
            analysis = analyses.get(split)
            letters = (analysis.letters or {}).get(entry.name) if analysis else None
            ranks = (analysis.rank_intervals or {}).get(entry.name) if analysis else None
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
                    *(score.mean, score.std, score.sem, letters, *(ranks or (None, None))),
                    *(score.gap, score.gap_std),
                    len(entry.reproduced_seeds),
                    *(_number(entry.costs[key]) for key in COSTS),
                ]
            )
    return buffer.getvalue()


def _number(value: float | None) -> float | None:
    """Whole numbers without a decimal point."""
    return int(value) if value is not None and value.is_integer() else value


FILES: dict[str, tuple[str, Callable[[Board, Analyses, str | None], str]]] = {
    "csv": ("leaderboard.csv", tidy_csv),
    "markdown": ("README.md", markdown),
    "latex": ("leaderboard.tex", latex),
}

"""The tables of the HTML page: sortable rows of GNNs, and below them, unranked, rows of other kinds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from deepnets_bench.leaderboard.aggregate import (
    COSTS,
    METRICS,
    SELECTION_SPLIT,
    Board,
    Entry,
    mean,
    sort_entries,
)
from deepnets_bench.leaderboard.controls import control_tables
from deepnets_bench.leaderboard.inference import Analysis
from deepnets_bench.leaderboard.levels import Level
from deepnets_bench.leaderboard.report import WALL_CLOCK, provenance, ranking_table
from deepnets_bench.leaderboard.verdict import (
    LETTERS,
    RANKS,
    endpoints,
    letters_of,
    rank_of,
    sentences,
    verdict_table,
)

_NEVER_TESTED = f"{SELECTION_SPLIT} is for development: choices are made on it, so nothing on it is tested."


@dataclass(frozen=True)
class Cell:
    """Text to show and the number to sort by."""

    text: str
    value: float | str | None


Row = tuple[Cell, ...]


@dataclass(frozen=True)
class View:
    """One table of the page; `headers` are (text, whether higher is better).

    `rows` are those of the GNNs, `others` of what is not ranked (controls, levels); `notes` stand under it.
    """

    key: str
    title: str
    headers: tuple[tuple[str, bool | None], ...]
    rows: tuple[Row, ...]
    others: tuple[Row, ...] = ()
    notes: tuple[str, ...] = ()


def views(board: Board, analyses: Mapping[str, Analysis], levels: Sequence[Level] = ()) -> list[View]:
    """The tables: the verdict on the endpoints, all splits, each split by itself, controls, and cost.

    `levels` are lines of their own below the GNNs, beside the controls.
    """
    splits = [_split_view(board, split, analyses.get(split), levels) for split in board.splits]
    verdict = _verdict_view(board, analyses)
    return [
        *([verdict] if verdict else []),
        _overview(board, analyses, levels),
        *splits,
        *_control_views(board),
        _cost_view(board),
    ]


def _overview(board: Board, analyses: Mapping[str, Analysis], levels: Sequence[Level]) -> View:
    rank, table = METRICS["average_rank"], ranking_table(board, None, analyses)
    text = [tuple(Cell(cell, cell) for cell in row) for row in table.rows]
    rows = tuple(
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
    others = [
        (
            Cell(name, name),
            Cell(seeds, seeds),
            Cell("–", None),
            *(_accuracy(accuracy.get(split), None) for split in board.splits),
        )
        for name, seeds, accuracy, _ in _others(board, levels)
    ]
    headers = (
        ("GNN", None),
        ("seeds", None),
        (rank.header, False),
        *((split, True) for split in board.splits),
    )
    notes = tuple(note for note in table.notes if note not in board.notes)
    return View("all", "all splits", headers, rows, tuple(others), notes)


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
    return View("verdict", "what the seeds say", headers, tuple(rows), notes=table.notes) if ends else None


def _split_view(board: Board, split: str, analysis: Analysis | None, levels: Sequence[Level]) -> View:
    accuracy, gap = METRICS["accuracy"], METRICS["gap"]
    best_first = sort_entries(board.entries, split, board.splits)
    headers = (
        *(("GNN", None), ("seeds", None), (accuracy.header, True)),
        *(("letters", None), ("rank", False), (gap.header, True), ("not finished", None)),
    )
    others = tuple(
        (
            Cell(name, name),
            Cell(seeds, seeds),
            _accuracy(means.get(split), stds.get(split)),
            *[Cell("–", None)] * 3,
            Cell("", ""),
        )
        for name, seeds, means, stds in _others(board, levels)
    )
    notes: tuple[str, ...] = (_NEVER_TESTED,)
    if analysis is not None:
        notes = (*((LETTERS, RANKS) if analysis.letters else ()), *sentences(analysis))
    rows = tuple(_split_row(entry, split, analysis) for entry in best_first)
    return View(split, split, headers, rows, others, notes)


def _split_row(entry: Entry, split: str, analysis: Analysis | None) -> Row:
    gap = METRICS["gap"]
    name, score = Cell(entry.name, entry.name), entry.scores.get(split)
    if score is None:
        return (name, Cell("0", 0), *[Cell("–", None)] * 4, Cell("", ""))
    letters = letters_of(entry.name, analysis)
    ranks = (analysis.rank_intervals or {}).get(entry.name) if analysis else None
    return (
        name,
        Cell(str(len(score.by_seed)), len(score.by_seed)),
        _accuracy(score.mean, score.std),
        Cell(letters, None if letters == "–" else letters),
        Cell(rank_of(entry.name, analysis), sum(ranks) / 2 if ranks else None),
        Cell(gap.text(score.gap, score.gap_std), score.gap),
        Cell("; ".join(score.problems), "; ".join(score.problems)),
    )


def _control_views(board: Board) -> list[View]:
    """The controls with their differences from the GNNs that they are variants of."""
    return [
        View(
            "controls",
            "controls",
            tuple((header, None) for header in table.headers),
            (),
            tuple(tuple(Cell(cell.replace(" (", "\n("), cell) for cell in row) for row in table.rows),
            table.notes,
        )
        for table in control_tables(board)
    ]


def _cost_view(board: Board) -> View:
    def row(entry: Entry) -> Row:
        costs = (Cell(METRICS[key].text(entry.costs[key]), entry.costs[key]) for key in COSTS)
        return (Cell(entry.name, entry.name), *costs)

    headers = (("GNN", None), *((METRICS[key].header, METRICS[key].higher_is_better) for key in COSTS))
    rows, others = (tuple(map(row, entries)) for entries in (board.entries, board.controls))
    return View("cost", "cost", headers, rows, others, (provenance(board), WALL_CLOCK))


def _others(
    board: Board, levels: Sequence[Level]
) -> list[tuple[str, str, Mapping[str, float | None], Mapping[str, float | None]]]:
    """(name, seeds, {split: accuracy}, {split: std over seeds}) of the controls, and of levels."""
    found: list[tuple[str, str, Mapping[str, float | None], Mapping[str, float | None]]] = [
        (
            entry.name,
            str(len(entry.seeds)),
            {split: score.mean for split, score in entry.scores.items()},
            {split: score.std for split, score in entry.scores.items()},
        )
        for entry in board.controls
    ]
    return found + [(level.name, "–", level.accuracy, {}) for level in levels]


def _accuracy(value: float | None, std: float | None) -> Cell:
    return Cell(METRICS["accuracy"].text(value, std), value)

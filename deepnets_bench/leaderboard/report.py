"""A board as tables: the ranking, costs, reproductions. Nothing is bold: letters say what may be claimed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from deepnets_bench.leaderboard.aggregate import (
    COSTS,
    METRICS,
    REFERENCE_SPLIT,
    SELECTION_SPLIT,
    Board,
    Entry,
    method_name,
)
from deepnets_bench.leaderboard.reproduction import TOLERANCE, Reproduction
from deepnets_bench.leaderboard.table import Table
from deepnets_bench.leaderboard.verdict import detectable_notes, letters_of

if TYPE_CHECKING:
    from deepnets_bench.leaderboard.inference import Analysis

EXPLANATION = (
    "Accuracy in %: mean over seeds ± standard deviation over seeds (ddof=1). "
    f"In brackets: gap to {REFERENCE_SPLIT} in percentage points. "
    f"avg rank: mean of the ranks on all splits but {SELECTION_SPLIT}, which is for development."
)

WALL_CLOCK = (
    "CPU time: training and evaluation, all threads; a frame's own training is not in it. Other times are "
    "wall-clock: they depend on the machine and on what else ran on it."
)


def ranking_table(board: Board, note: str | None, analyses: Mapping[str, Analysis]) -> Table:
    """The ranking: seeds, average rank, and on every split accuracy, gap to the reference split and letters.

    `note` is what the track says of all its numbers, for example "early training"; it joins the title.
    `analyses` are those of `inference.analyse_board`.
    """
    rank = METRICS["average_rank"]
    headers = ("GNN", "seeds", rank.header, *board.splits)
    rows: list[tuple[str, ...]] = []
    for entry in board.entries:
        cells = [_split_cell(entry, split, analyses.get(split)) for split in board.splits]
        rows.append((entry.label, str(len(entry.seeds)), rank.text(entry.average_rank), *cells))
    title = f"{board.title} · {note}" if note else board.title
    tested = [analyses[split] for split in board.splits if split in analyses]
    notes = (EXPLANATION, *detectable_notes(tested), *board.notes, *_problems(board))
    return Table(title, headers, tuple(rows), notes)


def cost_table(board: Board) -> Table:
    """Parameters, steps, time and memory of each method: mean over seeds."""
    headers = ("GNN", *(METRICS[key].header for key in COSTS))
    rows = tuple((e.name, *(METRICS[key].text(e.costs[key]) for key in COSTS)) for e in board.entries)
    return Table(f"{board.title} · cost, mean over seeds", headers, rows, (provenance(board), WALL_CLOCK))


def provenance(board: Board) -> str:
    """On which machines, with which versions and when the finished rows of a board were made."""
    finished = [
        row for entry in (*board.entries, *board.controls) for row in entry.rows if row.status == "ok"
    ]
    return made_with(
        (row.device for row in finished),
        (row.package_version for row in finished),
        (row.torch_version for row in finished),
        (row.utc_time for row in finished),
    )


def made_with(
    devices: Iterable[str], packages: Iterable[str], torches: Iterable[str], times: Iterable[str]
) -> str:
    """A sentence on machines, versions and days."""

    def named(values: Iterable[str]) -> str:
        return ", ".join(sorted(set(values) - {""})) or "not recorded"

    days = sorted({time[:10] for time in times}) or ["–"]
    return (
        f"Machine: {named(devices)}. deepnets-bench {named(packages)}, torch {named(torches)}; "
        f"{' to '.join(dict.fromkeys((days[0], days[-1])))}."
    )


def reproduction_table(found: Sequence[Reproduction]) -> Table:
    """Original rows beside those that repeat them."""
    accuracy, gap = METRICS["accuracy"], METRICS["gap"]
    rows = tuple(
        (
            method_name(pair.original.gnn, pair.original.gnn_options),
            str(pair.original.seed),
            pair.original.split,
            accuracy.text(pair.original.accuracy_mean),
            accuracy.text(pair.again.accuracy_mean),
            gap.text(pair.difference),
        )
        for pair in found
    )
    headers = ("GNN", "seed", "split", "original", "again", "difference")
    note = f"Accuracy in %. Reproduced: a difference of at most {gap.text(TOLERANCE)[1:]} percentage points."
    return Table("Reproduced rows", headers, rows, (note,))


def _problems(board: Board) -> list[str]:
    """A sentence for each run that could not be averaged, and each reason, with the splits it is about."""
    found: dict[tuple[str, str], list[str]] = {}
    for entry in board.entries:
        for split in board.splits:
            for problem in entry.scores[split].problems if split in entry.scores else ():
                found.setdefault((entry.name, problem), []).append(split)
    return [f"{name}, {', '.join(splits)}: {problem}." for (name, problem), splits in found.items()]


def _split_cell(entry: Entry, split: str, analysis: Analysis | None) -> str:
    score = entry.scores.get(split)
    if score is None:
        return "–"
    if score.mean is None:
        return "failed"
    text = METRICS["accuracy"].text(score.mean, score.std)
    if score.gap is not None:
        text += f" ({METRICS['gap'].text(score.gap)})"
    if score.problems:
        text += "*"
    letters = letters_of(entry.name, analysis)
    return text if letters == "–" else f"{text} {letters}"

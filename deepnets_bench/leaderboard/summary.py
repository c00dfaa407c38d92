"""Several tracks beside each other: does an order of GNNs early in training hold in a long one?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from deepnets_bench.errors import BadInput
from deepnets_bench.leaderboard.aggregate import (
    METRICS,
    REFERENCE_SPLIT,
    SELECTION_SPLIT,
    Board,
    Entry,
    average_ranks,
    mean,
    out_of_distribution,
    sample_std,
)
from deepnets_bench.leaderboard.inference import Analysis, mean_over_splits
from deepnets_bench.leaderboard.report import provenance, ranking_table
from deepnets_bench.leaderboard.table import Table, to_markdown
from deepnets_bench.leaderboard.verdict import verdict_table
from deepnets_bench.system.files import write_atomically
from deepnets_bench.system.locks import writable

START, END = "<!-- leaderboard summary: generated -->", "<!-- end of leaderboard summary -->"


def side_by_side(boards: Sequence[Board], labels: Mapping[str, str | None]) -> Table:
    """The methods that are on all `boards`, best first on the last one; ranks are among these methods.

    `labels` is {track: what it says of all its numbers}. Raises BadInput when no method is on all boards.
    """
    names = [e.name for e in boards[-1].entries if all(_entry(board, e.name) for board in boards)]
    if not names:
        raise BadInput(f"No method is on all of {', '.join(board.title for board in boards)}.")
    columns = [_columns(board, names) for board in boards]
    last_ranks = columns[-1][0]
    names.sort(key=lambda name: (last_ranks.get(name) is None, last_ranks.get(name), name))
    rank, accuracy = METRICS["average_rank"], METRICS["accuracy"]
    rows = []
    for name in names:
        cells = []
        for ranks, numbers in columns:
            cells.append(rank.text(ranks.get(name)))
            cells += [accuracy.text(*pair) for pair in numbers[name]]
        rows.append((name, *cells))
    headers = [
        header
        for board in boards
        for header in (f"{board.track}: {rank.header}", SELECTION_SPLIT, REFERENCE_SPLIT, "OOD")
    ]
    lengths = " and ".join(
        f"{board.track} ({labels[board.track]})" for board in boards if labels[board.track]
    )
    notes = (
        "Accuracy in %: mean over seeds ± standard deviation over seeds (ddof=1), no ± with one seed. "
        f"OOD: mean over all splits but {SELECTION_SPLIT} and {REFERENCE_SPLIT}. "
        f"avg rank: among these {len(names)} GNNs, mean of the ranks on all splits but {SELECTION_SPLIT}. "
        "Which of these differences the seeds support, the tables of each track say.",
        *([f"Ranks of a short training are ranks early in training: compare {lengths}."] if lengths else []),
    )
    title = " beside ".join(board.title for board in boards)
    return Table(title, ("GNN", *headers), tuple(rows), notes)


def summary(
    boards: Sequence[Board],
    analyses: Sequence[Mapping[str, Analysis]],
    labels: Mapping[str, str | None],
) -> list[Table]:
    """The tables of a summary: the tracks beside each other when there are several, then each by itself."""
    tables = [side_by_side(boards, labels)] if len(boards) > 1 else []
    for board, found in zip(boards, analyses, strict=True):
        ranking, verdict = ranking_table(board, labels[board.track], found), verdict_table(board, found)
        tables += [ranking, replace(verdict, notes=(*verdict.notes, provenance(board)))]
    return tables


def write_into(page: Path, tables: Sequence[Table]) -> None:
    """Replace what stands between the markers `START` and `END` of a Markdown page. BadInput without them."""
    with writable(page):
        text = page.read_text(encoding="utf-8")
    before, start, rest = text.partition(START)
    _, end, after = rest.partition(END)
    if not (start and end):
        raise BadInput(f"{page} needs the lines '{START}' and '{END}', between which the tables go.")
    generated = "\n".join(to_markdown(table, level=3) for table in tables)
    with writable(page):
        write_atomically(page, f"{before}{START}\n\n{generated}\n{END}{after}".encode())


def _entry(board: Board, name: str) -> Entry | None:
    return next((entry for entry in board.entries if entry.name == name), None)


def _columns(
    board: Board, names: Sequence[str]
) -> tuple[dict[str, float], dict[str, list[tuple[float | None, float | None]]]]:
    """Ranks among `names`; and of each name (mean, std) of the accuracy on val, on test and out of them."""
    entries = {entry.name: entry for entry in board.entries if entry.name in names}
    scored = [split for split in board.splits if split != SELECTION_SPLIT]
    values = {name: {split: entry.value(split) for split in scored} for name, entry in entries.items()}
    complete = {
        name: {split: value for split, value in by_split.items() if value is not None}
        for name, by_split in values.items()
        if None not in by_split.values()
    }
    away = out_of_distribution(board.splits)
    numbers = {}
    for name, entry in entries.items():
        by_split = [entry.scores[split].by_seed for split in away if split in entry.scores]
        comparable = len(by_split) == len(away)  # a mean over other splits is another quantity
        means = list(mean_over_splits(by_split).values()) if comparable else []
        stated = [entry.scores.get(split) for split in (SELECTION_SPLIT, REFERENCE_SPLIT)]
        numbers[name] = [
            *((score.mean, score.std) if score else (None, None) for score in stated),
            (mean(means), sample_std(means)),
        ]
    return average_ranks(complete), numbers

"""Agreements of ranks as tables: of two boards, of the halves of one, of candidates with a reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from deepnets_bench.leaderboard.aggregate import REFERENCE_SPLIT, Board
from deepnets_bench.leaderboard.agreement import HALVINGS, Agreement, Halves, agreement, agreements, halves
from deepnets_bench.leaderboard.inference import Analysis
from deepnets_bench.leaderboard.table import Table

INTERVAL = (
    "Kendall's tau-b of the means over seeds; in brackets 95 %: what boards of these GNNs with as many other "
    "seeds would give, by the residuals of both. It leans towards 0 (docs/statistics.md)."
)
TOLD_APART = (
    "same, opposite: of the pairs that both boards tell apart (Holm over all pairs of each), how many have "
    "the same order and how many opposite ones; these claims are about the GNNs, not these seeds."
)
_WAYS = f"all ways to halve them (of more than {HALVINGS}, over {HALVINGS} drawn ones)"
HALVES = (
    "Halves: tau between the means of two halves of a board's seeds, mean over "
    f"{_WAYS}, in brackets from the lowest to the highest: how well half a board "
    "agrees with itself."
)


def agreement_table(boards: tuple[Board, Board], analyses: tuple[Mapping[str, Analysis], ...]) -> Table:
    """Two boards on every endpoint and split that both have."""
    rows = []
    for found in agreements(*analyses):
        own = (halves(of[found.endpoint].block, found.names) for of in analyses)
        rows.append((found.endpoint, str(len(found.names)), *_cells(found), *map(halves_text, own)))
    a, b = (board.title for board in boards)
    headers = ("endpoint", "GNNs", "tau [95 %]", "same", "opposite", "halves of A", "halves of B")
    notes = [INTERVAL, TOLD_APART, HALVES, *_alone(boards, analyses)]
    return Table(f"Agreement of ranks · A = {a}, B = {b}", headers, tuple(rows), tuple(notes))


def halves_table(board: Board, analyses: Mapping[str, Analysis]) -> Table:
    """The halves of the seeds of one board, on every endpoint and split with two seeds or more."""
    rows = []
    for key, analysis in analyses.items():
        if found := halves(analysis.block):
            block = analysis.block
            size = f"{len(block.names)} × {len(block.seeds)}"
            rows.append((key, size, f"{found.mean:.2f}", f"{found.low:.2f} to {found.high:.2f}"))
    note = (
        "Kendall's tau-b between the means of two halves of the seeds: mean over "
        f"{_WAYS}, and the lowest and the highest one."
    )
    few = () if rows else ("No two GNNs have two seeds in common.",)
    headers = ("endpoint", "GNNs × seeds", "tau", "from, to")
    return Table(f"{board.title} · agreement of halves of the seeds", headers, tuple(rows), (note, *few))


def reference_table(reference: str, board: Analysis, candidates: Mapping[str, Analysis]) -> Table:
    """Each candidate protocol beside a reference, on the reference split; `board` is the reference's."""
    rows, notes = [], [f"Accuracy on {REFERENCE_SPLIT}. {INTERVAL}", TOLD_APART]
    for name, analysis in candidates.items():
        if found := agreement(analysis, board):
            sizes = " and ".join(map(str, found.seeds))
            rows.append((name, str(len(found.names)), sizes, *_cells(found)))
        else:
            notes.append(f"{name}: fewer than two GNNs in common with {reference}.")
    headers = ("candidate", "GNNs", "seeds", "tau [95 %]", "same", "opposite")
    return Table(f"Agreement of ranks with {reference}", headers, tuple(rows), tuple(notes))


def halves_text(found: Halves | None) -> str:
    """For example "0.71 (0.33 to 1.00)"; a dash where a board has no halves."""
    return "–" if found is None else f"{found.mean:.2f} ({found.low:.2f} to {found.high:.2f})"


def _cells(found: Agreement) -> tuple[str, str, str]:
    tau = f"{found.tau:.2f}"
    if found.low is not None and found.high is not None:
        tau += f" [{found.low:.2f}, {found.high:.2f}]"
    if found.same is None or found.opposite is None:
        return tau, "–", "–"
    return tau, str(found.same), str(found.opposite)


def _alone(boards: Sequence[Board], analyses: Sequence[Mapping[str, Analysis]]) -> list[str]:
    """A sentence for each board on its GNNs that the other one lacks, and on what has no interval."""
    notes = []
    names = [{entry.name for entry in board.entries} for board in boards]
    for board, own, other in zip(boards, names, reversed(names), strict=True):
        if only := sorted(own - other):
            notes.append(f"On {board.title} alone, not compared: {', '.join(only)}.")
    for board, found in zip(boards, analyses, strict=True):
        if any(analysis.residual_sd is None for analysis in found.values()):
            notes.append(f"No interval where {board.title} has no three seeds in common.")
    return notes

"""The tables of a pilot: what each candidate protocol separates and costs, and the bias of frames."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from deepnets_bench.errors import BadInput
from deepnets_bench.leaderboard.admission import group_by, stack_name, stack_of
from deepnets_bench.leaderboard.aggregate import METRICS, REFERENCE_SPLIT, Board, cpu_seconds, mean
from deepnets_bench.leaderboard.inference import Block, largest_block, listed
from deepnets_bench.leaderboard.pilot import FrameBias, Interval, Separation, frame_bias, separation
from deepnets_bench.leaderboard.table import Table

TITLE = "Pilot"
NOTES = (
    f"Accuracy on {REFERENCE_SPLIT} in %, seed as block; D = σ²(GNN) / σ²(residual); cost = 9 / D × CPU "
    "minutes of a job (training and evaluation, the frame's training not counted). In brackets: 90 % "
    "intervals.",
    "Admissible: the interval of D lies above 0.",
)


@dataclass(frozen=True)
class Candidate:
    """A candidate protocol: its complete table of GNNs and seeds, what it separates, CPU minutes of a job.

    `whole` says whether all its runs are there. Of two protocols the one with the lower `complexity` (does it
    average weights; how many frames has it) is the simpler one. `stacks` computed its rows; `notes` are
    sentences on them.
    """

    name: str
    block: Block
    found: Separation
    minutes: float
    whole: bool
    complexity: tuple[bool, int]
    stacks: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()

    @property
    def cost(self) -> float:
        """Cost of a verdict in CPU minutes."""
        return self.found.cost(self.minutes)

    @property
    def cost_interval(self) -> Interval:
        """Its interval."""
        return self.found.cost_interval(self.minutes)


def candidate(name: str, board: Board, *, runs: int, complexity: tuple[bool, int]) -> Candidate | None:
    """What the rows of a board say, of which there should be `runs`; None where no two GNNs have two seeds in
    common."""
    block = largest_block(_runs(board))
    if len(block.names) < 2 or len(block.seeds) < 2:
        return None
    found, minutes = separation(100 * block.accuracy), cpu_minutes(board)
    notes = [*board.notes, *(f"{gnn} is left out: {why}." for gnn, why in block.left_out.items())]
    if found.residual_sd == 0:
        notes.append("its seeds differ by no residual at all, so that they are copies, and no candidate.")
    if math.isnan(minutes):
        notes.append("CPU seconds are not recorded, so that it has no cost, and cannot be chosen.")
    rows = [row for entry in board.entries for row in entry.rows]
    if any(row.git_commit.endswith("-dirty") for row in rows):
        notes.append("rows were made by code that was not committed.")
    return Candidate(
        name,
        block,
        found,
        minutes,
        len(block.names) * len(block.seeds) == runs,
        complexity,
        frozenset(stack_name(stack_of(row)) for row in rows),
        tuple(notes),
    )


def chosen(candidates: Sequence[Candidate]) -> Candidate | None:
    """The choice by criteria 1 to 3 of docs/protocol.md, of the admissible candidates with all their runs.

    The cheapest verdict counts; where intervals of the cost overlap with its own, the simplest of these
    protocols, and the cheapest of equally simple ones. None where none is admissible.
    """
    found = [each for each in candidates if each.whole and each.found.admissible and each.minutes > 0]
    if not found:
        return None
    low, high = min(found, key=lambda each: each.cost).cost_interval
    near = [each for each in found if each.cost_interval[0] <= high and each.cost_interval[1] >= low]
    return min(near, key=lambda each: (each.complexity, each.cost))


def cpu_minutes(board: Board) -> float:
    """Mean CPU minutes of a finished job: training, and evaluation on all splits."""
    rows = [row for entry in board.entries for row in entry.rows if row.status == "ok"]
    jobs = group_by(rows, lambda row: row.config_hash).values()
    seconds = [spent for job in jobs if (spent := cpu_seconds(job)) is not None]
    return statistics.fmean(seconds) / 60 if seconds else math.nan


def pilot_table(candidates: Sequence[Candidate], absent: Sequence[str] = ()) -> Table:
    """One row for each candidate, in the order given; `absent` are the names of those without a table."""
    rows = []
    notes = list(NOTES)
    for each in candidates:
        found, block = each.found, each.block
        rows.append(
            (
                each.name,
                f"{len(block.names)} × {len(block.seeds)}",
                f"{found.gnn_sd:.2f}",
                f"{found.residual_sd:.2f}",
                f"{found.pair_sd:.2f}",
                _with(found.d, found.d_interval),
                f"{found.reliability:.2f}",
                f"{each.minutes:.1f}",
                _with(each.cost, each.cost_interval),
                "yes" if found.admissible else "no",
            )
        )
        notes += [f"{each.name}: {note}" for note in each.notes]
    if len(stacks := sorted(set().union(*(each.stacks for each in candidates)))) > 1:
        notes.append(f"Not one stack, so that costs and residuals may differ by it: {'; '.join(stacks)}.")
    choice = chosen(candidates)
    missing = [*(each.name for each in candidates if not each.whole), *absent]
    notes.append(
        f"Criteria 1 to 3 choose {choice.name if choice else 'none'} among those with all their runs"
        + (f" (without them: {', '.join(missing)})." if missing else ".")
    )
    headers = ("candidate", "GNNs × seeds", "σ(GNN)", "σ(residual)", "√2σ", "D", "reliability", "CPU min")
    return Table(TITLE, (*headers, "cost of a verdict", "admissible"), tuple(rows), tuple(notes))


def gnn_table(candidates: Sequence[Candidate]) -> Table:
    """Mean ± own standard deviation over seeds of each GNN under each candidate."""
    names = list(dict.fromkeys(name for each in candidates for name in each.block.names))
    rows = []
    for name in names:
        cells = []
        for each in candidates:
            values = each.block.of(name)
            std = dict(zip(each.block.names, each.found.own_sds, strict=True)).get(name)
            cells.append(METRICS["accuracy"].text(mean(values), None if std is None else std / 100))
        rows.append((name, *cells))
    note = (
        "Accuracy in %: mean ± standard deviation over seeds (ddof=1), in the order of the first candidate."
    )
    return Table("Each GNN", ("GNN", *(each.name for each in candidates)), tuple(rows), (note,))


@dataclass(frozen=True)
class FrameBoard:
    """A board whose runs start from frames that `shapers` have shaped."""

    name: str
    board: Board
    shapers: frozenset[str]


def bias_table(boards: Sequence[FrameBoard]) -> Table | None:
    """The bias of frames between boards that differ by them alone, over the GNNs and seeds that all have.

    None where runs are missing. Raises `BadInput` where no GNN has shaped the frame of one board alone.
    """
    runs = [_runs(each.board) for each in boards]
    names = [name for name in runs[0] if all(name in found for found in runs)]
    seeds = set.intersection(*(set(found[name]) for found in runs for name in names)) if names else set()
    if len(boards) < 2 or len(names) < 2 or len(seeds) < 2:
        return None
    order = sorted(seeds)
    accuracy = np.array([[[found[name][seed] for name in names] for seed in order] for found in runs])
    own = np.array([[name in each.shapers for name in names] for each in boards])
    try:
        found = frame_bias(100 * accuracy, own)
    except ValueError as error:
        raise BadInput(f"Bias of frames: {error}.") from error
    rows = tuple(
        (
            each.name,
            *(f"{100 * value:.1f}{'*' * bool(mine)}" for value, mine in zip(cells, marks, strict=True)),
        )
        for each, cells, marks in zip(boards, accuracy.mean(axis=1), own, strict=True)
    )
    return Table("Bias of frames", ("frame", *names), rows, _bias_notes(found, order))


def _bias_notes(found: FrameBias, seeds: Sequence[int]) -> tuple[str, ...]:
    low, high = found.advantage_interval
    accepted = "within" if low >= -1 and high <= 1 else "not within"
    return (
        f"Mean accuracy on {REFERENCE_SPLIT} in %, seeds {listed(seeds)}; * in its own frame.",
        f"σ(GNN × frame) {found.interaction_sd:.2f}, σ(residual) {found.residual_sd:.2f} points.",
        f"Own-frame advantage {found.advantage:+.2f} points, 90 % interval {low:+.2f} to {high:+.2f}: "
        f"{accepted} ±1 point.",
    )


def _runs(board: Board) -> dict[str, Mapping[int, float]]:
    return {
        entry.name: entry.scores[REFERENCE_SPLIT].by_seed
        for entry in board.entries
        if REFERENCE_SPLIT in entry.scores
    }


def _with(value: float, interval: Interval) -> str:
    return f"{_number(value)} ({' to '.join(map(_number, interval))})"


def _number(value: float) -> str:
    return "∞" if math.isinf(value) else f"{value:.1f}"

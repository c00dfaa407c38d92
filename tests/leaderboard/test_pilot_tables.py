"""The tables of a pilot from rows."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from deepnets_bench.errors import BadInput
from deepnets_bench.leaderboard.aggregate import boards
from deepnets_bench.leaderboard.pilot import Separation
from deepnets_bench.leaderboard.pilot_tables import (
    Candidate,
    FrameBoard,
    bias_table,
    candidate,
    chosen,
    gnn_table,
    pilot_table,
)
from tests.leaderboard.conftest import make_row
from tests.leaderboard.test_pilot import WARM

GNNS = ("mlp", "ghn1", "ghn2", "gat")


def board(table: np.ndarray, names: tuple[str, ...] = GNNS, **fields: object):
    rows = [
        make_row(gnn=gnn, seed=100 + seed, split=split, accuracy_mean=value / 100,
                 train_cpu_seconds=540.0, eval_cpu_seconds=30.0, **fields)
        for seed, row in enumerate(table)
        for gnn, value in zip(names, row, strict=True)
        for split in ("val", "test")
    ]  # fmt: skip
    return boards(rows)[0]


def test_a_candidate_by_the_published_trial() -> None:
    found = candidate("warm", board(WARM), runs=8, complexity=(False, 1))
    assert found.minutes == pytest.approx(10)  # 540 s of training, and 30 s on each of two splits
    table = pilot_table([found])
    assert table.rows[0][:6] == ("warm", "4 × 2", "2.80", "0.54", "0.77", "26.6 (2.4 to 250.9)")
    assert table.rows[0][6:] == ("0.98", "10.0", "3.4 (0.4 to 37.2)", "yes")
    assert gnn_table([found]).rows[0] == ("gat", "71.1 ± 0.8")


def test_a_gnn_without_all_seeds_is_left_out_and_named() -> None:
    rows = [row for entry in board(WARM).entries for row in entry.rows]
    short = [row for row in rows if (row.gnn, row.seed) != ("gat", 101)]
    found = candidate("warm", boards(short)[0], runs=8, complexity=(False, 1))
    assert found.block.names == ("ghn2", "ghn1", "mlp")
    assert "warm: gat is left out: lacks seed 101." in pilot_table([found]).notes
    assert not found.whole
    one_seed = boards([row for row in rows if row.seed == 100])[0]
    assert candidate("warm", one_seed, runs=8, complexity=(False, 1)) is None


def protocol(
    name: str, d: float, low: float, high: float, *, minutes: float = 9.0, frames: int = 1, whole: bool = True
) -> Candidate:
    """With 9 minutes a job its cost is 81 / d."""
    found = Separation(1.0, 1.0, d, (low, high), 3, (1.0, 1.0))
    return Candidate(name, board(WARM), found, minutes, whole, (False, frames))  # type: ignore[arg-type]


def test_the_choice_by_the_criteria() -> None:
    half = protocol("half", 9.0, 4.5, 18.0)  # costs 9, from 4.5 to 18
    dear = protocol("scratch", 1.0, 0.5, 4.0, frames=0)  # 20 to 162: beyond
    near = protocol("scratch", 1.0, 0.5, 4.5, frames=0)  # 18 to 162: they meet, and it is the simpler one
    assert chosen([dear, half]) is half
    assert chosen([half, near]) is near
    assert chosen([half, protocol("scratch", 1.0, 0.5, 4.5, frames=0, whole=False)]) is half, "not all runs"
    assert chosen([protocol("scratch", 4.0, -0.1, 9.0, frames=0), half]) is half, "not admissible"
    assert chosen([protocol("twice", 10.0, 5.0, 20.0, minutes=18), half]) is half, (
        "equally simple: the cheapest"
    )
    assert chosen([protocol("a seed", 18.0, 9.0, 36.0, frames=3), half]) is half, "dearer, and yet simpler"
    assert chosen([protocol("noise", -0.1, -0.2, 0.1)]) is None


def test_the_report_names_the_choice_and_who_is_missing() -> None:
    warm = candidate("warm", board(WARM), runs=8, complexity=(False, 1))
    other = candidate("other", board(WARM), runs=30, complexity=(False, 0))
    notes = pilot_table([warm, other]).notes
    assert "Criteria 1 to 3 choose warm among those with all their runs (without them: other)." in notes
    assert pilot_table([other], ["scratch"]).notes[-1] == (
        "Criteria 1 to 3 choose none among those with all their runs (without them: other, scratch)."
    )
    assert "Criteria 1 to 3 choose warm among those with all their runs." in pilot_table([warm]).notes


def test_seeds_that_are_copies_are_no_candidate() -> None:
    copies = candidate(
        "copies", board(np.array([[60.0, 61.0, 62.0, 63.0]] * 3)), runs=12, complexity=(False, 0)
    )
    assert not copies.found.admissible
    assert copies.found.reliability == 1.0
    table = pilot_table([copies])
    assert table.rows[0][-1] == "no"
    assert (
        "copies: its seeds differ by no residual at all, so that they are copies, and no candidate."
        in table.notes
    )


def test_without_cpu_seconds_there_is_no_cost_and_no_choice() -> None:
    silent = board(WARM)
    rows = [row.model_copy(update={"train_cpu_seconds": None}) for e in silent.entries for row in e.rows]
    unknown = candidate("unknown", boards(rows)[0], runs=8, complexity=(False, 0))
    known = candidate("known", board(WARM), runs=8, complexity=(False, 1))
    notes = pilot_table([unknown, known]).notes
    assert "unknown: CPU seconds are not recorded, so that it has no cost, and cannot be chosen." in notes
    assert chosen([unknown, known]) is chosen([known, unknown]) is known
    half = [row.model_copy(update={"eval_cpu_seconds": None}) for e in silent.entries for row in e.rows]
    assert np.isnan(candidate("half", boards(half)[0], runs=8, complexity=(False, 0)).minutes)


def test_candidates_of_several_stacks_or_of_uncommitted_code_are_named() -> None:
    old = candidate("old", board(WARM, torch_version="2.9.0"), runs=8, complexity=(False, 1))
    new = candidate("new", board(WARM, git_commit="a" * 40 + "-dirty"), runs=8, complexity=(False, 1))
    notes = pilot_table([old, new]).notes
    assert any(note.startswith("Not one stack") and "torch 2.9.0" in note for note in notes)
    assert "new: rows were made by code that was not committed." in notes
    assert not any("Not one stack" in note for note in pilot_table([new]).notes)


def test_the_bias_of_frames() -> None:
    gnns = ("mlp", "gat")
    of_mlp = board(np.array([[64.3, 71.7], [64.2, 70.5]]), gnns)
    of_gat = board(np.array([[59.2, 71.3], [59.2, 71.3]]), gnns)
    frames = [FrameBoard("one", of_mlp, frozenset({"mlp"})), FrameBoard("two", of_gat, frozenset({"gat"}))]
    table = bias_table(frames)
    assert table.rows == (("one", "71.1", "64.2*"), ("two", "71.3*", "59.2"))
    # Leads 6.85 and 12.1: half the difference is 2.625. Residuals ±0.275 in the first frame, else none.
    assert table.notes[2].startswith("Own-frame advantage +2.62 points, 90 % interval +1.")
    assert table.notes[2].endswith("not within ±1 point.")
    assert bias_table(frames[:1]) is None
    assert bias_table([frames[0], FrameBoard("three", board(WARM), frozenset({"ghn1"}))]) is not None
    with pytest.raises(BadInput, match="Bias of frames: all GNNs, or none, have shaped"):
        bias_table([dataclasses.replace(each, shapers=frozenset(gnns)) for each in frames])

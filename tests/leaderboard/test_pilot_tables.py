"""The tables of a pilot from rows."""

from __future__ import annotations

import numpy as np
import pytest

from deepnets_bench.leaderboard.aggregate import boards
from deepnets_bench.leaderboard.pilot_tables import bias_table, candidate, gnn_table, pilot_table
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
    found = candidate("warm", board(WARM))
    assert found.minutes == pytest.approx(10)  # 540 s of training, and 30 s on each of two splits
    table = pilot_table([found])
    assert table.rows[0][:6] == ("warm", "4 × 2", "2.80", "0.54", "0.77", "26.6 (2.4 to 250.9)")
    assert table.rows[0][6:] == ("0.98", "10.0", "3.4 (0.4 to 37.2)", "yes")
    assert gnn_table([found]).rows[0] == ("gat", "71.1 ± 0.8")


def test_a_gnn_without_all_seeds_is_left_out_and_named() -> None:
    rows = [row for entry in board(WARM).entries for row in entry.rows]
    short = [row for row in rows if (row.gnn, row.seed) != ("gat", 101)]
    found = candidate("warm", boards(short)[0])
    assert found.block.names == ("ghn2", "ghn1", "mlp")
    assert "warm: gat is left out: lacks seed 101." in pilot_table([found]).notes
    assert candidate("warm", boards([row for row in rows if row.seed == 100])[0]) is None


def test_the_bias_of_frames() -> None:
    shaped = {"mlp": np.array([[64.3, 71.7], [64.2, 70.5]]), "gat": np.array([[59.2, 71.3], [59.2, 71.3]])}
    table = bias_table({gnn: board(values, ("mlp", "gat")) for gnn, values in shaped.items()})
    assert table.rows == (("frame of mlp", "64.2", "71.1"), ("frame of gat", "59.2", "71.3"))
    # Leads 6.85 and 12.1: half the difference is 2.625. Residuals ±0.275 in the first frame, else none.
    assert table.notes[2].startswith("Own-frame advantage +2.62 points, 90 % interval +1.")
    assert table.notes[2].endswith("not within ±1 point.")
    assert bias_table({"mlp": board(shaped["mlp"], ("mlp", "gat"))}) is None

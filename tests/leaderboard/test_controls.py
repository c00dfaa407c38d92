"""Controls stand in a table of their own, each with its difference from its GNN, and change no rank."""

from __future__ import annotations

import math

import pytest

from deepnets_bench.gnn import registry
from deepnets_bench.leaderboard.aggregate import CONTROL, UNTRAINED, boards, find_entry
from deepnets_bench.leaderboard.build import markdown
from deepnets_bench.leaderboard.controls import control_tables, half_width
from deepnets_bench.leaderboard.inference import analyse_board
from tests.leaderboard.conftest import make_row


def runs(gnn: str, accuracies: tuple[float, ...], **fields: object) -> list:
    return [
        make_row(gnn=gnn, seed=seed, accuracy_mean=accuracy, **fields)
        for seed, accuracy in enumerate(accuracies)
    ]


ROWS = [
    *runs("gat", (0.50, 0.54, 0.58)),
    *runs("mlp", (0.40, 0.41, 0.42)),
    *runs("control:same:gat", (0.51, 0.56, 0.57)),
    *runs("control:shuffled:gat", (0.40, 0.44)),
    *runs("control:matched:gat", (0.6,), gnn_options='{"params": 20000}', gnn_params=19_500),
    *runs("control:same:gin", (0.3,)),
]


def test_the_two_packages_agree_on_the_name_of_controls() -> None:
    assert (CONTROL, UNTRAINED) == (registry.CONTROL, registry.UNTRAINED)


def test_controls_change_nothing_of_the_ranking() -> None:
    (board,), (plain,) = boards(ROWS), boards(ROWS[:6])
    assert board.entries == plain.entries
    assert [entry.name for entry in board.entries] == ["gat", "mlp"]
    assert analyse_board(board)["test"].pairs == analyse_board(plain)["test"].pairs
    assert find_entry(board, "control:same:gat").seeds == (0, 1, 2)


def test_the_table_by_hand() -> None:
    # differences of same: 1, 2, -1: mean 2/3, std sqrt(7/3); t(0.975, 2) = 4.3027
    (board,) = boards(ROWS)
    (table,) = control_tables(board)
    assert table.headers == ("control", "seeds", "GNN parameters (k)", "test")
    assert table.rows == (
        ('control:matched:gat {"params": 20000}', "1", "19.5", "60.0 (+10.0)"),
        ("control:same:gat", "3", "4.0", "54.7 (+0.7 ± 3.8)"),
        ("control:same:gin", "1", "4.0", "30.0"),
        ("control:shuffled:gat", "2", "4.0", "42.0 (-10.0)"),
    )
    assert half_width([0.01, 0.02, -0.01]) == pytest.approx(
        4.3027 * math.sqrt(7 / 3) / 100 / math.sqrt(3), rel=1e-4
    )
    assert control_tables(boards(ROWS[:6])[0]) == []
    assert "· controls" in markdown(board, analyse_board(board), None)

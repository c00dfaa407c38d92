"""Lines to hold accuracies against, by hand."""

from __future__ import annotations

import pytest

from deepnets_bench.leaderboard.aggregate import Board, boards
from deepnets_bench.leaderboard.levels import chance_level, untrained_levels

from .conftest import make_row


@pytest.fixture
def board() -> Board:
    return boards(
        [
            make_row(gnn=gnn, seed=seed, split=split, accuracy_mean=accuracy)
            for gnn, accuracy in (("mlp", 0.5), ("control:untrained:mlp", 0.11))
            for seed in (0, 1)
            for split in ("test", "wide")
        ]
    )[0]


def test_chance_and_untrained(board: Board) -> None:
    chance, (untrained,) = chance_level(board, 0.1), untrained_levels(board)
    assert (chance.name, chance.accuracy) == ("chance", {"test": 0.1, "wide": 0.1, "OOD": 0.1})
    assert untrained.name == "untrained mlp"
    assert untrained.accuracy == pytest.approx({"test": 0.11, "wide": 0.11, "OOD": 0.11})

"""Lines to hold accuracies against, by hand; a file that is none of labels is refused in one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from deepnets_bench.errors import BadInput, CorruptFile
from deepnets_bench.leaderboard.aggregate import Board, boards
from deepnets_bench.leaderboard.levels import TRAINED, chance_level, trained_level, untrained_levels

from .conftest import make_row

HEADER = "split,index,seed,accuracy,track,track_version\n"
LABELS = f"""{HEADER}test,0,0,0.8,digits,1
test,0,1,0.9,digits,1
test,1,0,,digits,1
wide,0,0,0.7,digits,1
wide,0,0,0.1,digits,2
wide,0,0,0.1,mnist,1
deep,0,0,0.1,digits,1
"""


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


def labels(folder: Path, text: str) -> Path:
    (folder / TRAINED).write_text(text)
    return folder / TRAINED


def test_chance_and_untrained(board: Board) -> None:
    chance, (untrained,) = chance_level(board, 0.1), untrained_levels(board)
    assert (chance.name, chance.accuracy) == ("chance", {"test": 0.1, "wide": 0.1, "OOD": 0.1})
    assert untrained.name == "untrained mlp"
    assert untrained.accuracy == pytest.approx({"test": 0.11, "wide": 0.11, "OOD": 0.11})


def test_networks_that_were_trained_themselves(board: Board, tmp_path: Path) -> None:
    level = trained_level(board, labels(tmp_path, LABELS))
    assert level is not None
    assert level.accuracy == pytest.approx({"test": 0.85, "wide": 0.7, "OOD": 0.7})
    assert level.note == (
        "trained by SGD: every network by itself, 2 seeds; mean over the first architectures of a split "
        "(test 1, wide 1)."
    )


def test_only_labels_of_the_boards_version_count(board: Board, tmp_path: Path) -> None:
    assert trained_level(board, labels(tmp_path, f"{HEADER}test,0,0,0.8,digits,2\n")) is None


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("split,accuracy\n", BadInput, "is no file of labels: it lacks track, track_version, index, seed."),
        (f"{HEADER}test,0,0,1.8,digits,1\n", CorruptFile, "1.8 is not an accuracy"),
        (f"{HEADER}test,0,0,nan,digits,1\n", CorruptFile, "nan is not an accuracy"),
        (f"{HEADER}test,0,0,high,digits,1\n", CorruptFile, "could not convert string to float"),
    ],
)
def test_a_faulty_file_is_one_sentence(
    board: Board, tmp_path: Path, text: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        trained_level(board, labels(tmp_path, text))

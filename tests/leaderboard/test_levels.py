"""Lines to hold accuracies against, by hand; a file that is none of labels is refused in one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from deepnets_bench.errors import BadInput, CorruptFile
from deepnets_bench.leaderboard.aggregate import Board, boards
from deepnets_bench.leaderboard.levels import TRAINED, chance_level, trained_level, untrained_levels

from .conftest import make_row

HEADER = "split,index,seed,accuracy,track_digest\n"
THIS, OTHER = "7" * 16, "8" * 16
LABELS = f"""{HEADER}test,0,0,0.7,{THIS}
test,0,1,0.9,{THIS}
test,1,0,0.4,{THIS}
test,1,1,,{THIS}
wide,0,0,0.7,{THIS}
wide,1,0,0.1,{OTHER}
deep,0,0,0.1,{THIS}
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
    assert level.accuracy == pytest.approx({"test": 0.6, "wide": 0.7, "OOD": 0.7})
    assert level.note == (
        "trained by SGD: every network by itself, 2 seeds; mean over architectures (test 2, wide 1), "
        "without 1 failed trainings."
    )


def test_only_labels_of_the_boards_protocol_count(board: Board, tmp_path: Path) -> None:
    assert trained_level(board, labels(tmp_path, f"{HEADER}test,0,0,0.8,{OTHER}\n")) is None


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("split,accuracy\n", BadInput, "is no file of labels: it lacks track_digest, index, seed."),
        (f"{HEADER}test,0,0,1.8,{THIS}\n", CorruptFile, "1.8 is not an accuracy"),
        (f"{HEADER}test,0,0,nan,{THIS}\n", CorruptFile, "nan is not an accuracy"),
        (HEADER + 2 * f"test,3,1,0.8,{THIS}\n", BadInput, "holds test/3 with seed 1 twice"),
        (f"{HEADER}test,0,0,high,{THIS}\n", CorruptFile, "could not convert string to float"),
    ],
)
def test_a_faulty_file_is_one_sentence(
    board: Board, tmp_path: Path, text: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        trained_level(board, labels(tmp_path, text))

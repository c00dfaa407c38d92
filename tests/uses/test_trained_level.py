"""What SGD reaches, by hand; a file that is none of labels is refused in one sentence, on the page too."""

from __future__ import annotations

from pathlib import Path

import pytest

import deepnets_bench as dnb
from deepnets_bench.errors import BadInput
from deepnets_bench.leaderboard.aggregate import Board, boards
from deepnets_bench.leaderboard.results import append_rows
from deepnets_bench.uses.labels import append_labels
from deepnets_bench.uses.trained_level import TRAINED, trained_level
from tests.leaderboard.conftest import make_row
from tests.uses.test_labels import label

THIS, OTHER = "7" * 16, "8" * 16
FAILED = dict.fromkeys(("accuracy", "accuracy_noise", "convergence", "converged")) | {
    "failure": "the loss is nan"
}
ROWS = [
    make_row(gnn="mlp", seed=seed, split=split, accuracy_mean=0.5)
    for seed in (0, 1)
    for split in ("test", "wide")
]


@pytest.fixture
def board() -> Board:
    return boards(ROWS)[0]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    append_labels(
        tmp_path / TRAINED,
        [
            label("test", 0, 0, accuracy=0.7, track_digest=THIS),
            label("test", 0, 1, accuracy=0.9, track_digest=THIS),
            label("test", 1, 0, accuracy=0.4, track_digest=THIS),
            label("test", 1, 1, track_digest=THIS, **FAILED),
            label("wide", 0, 0, accuracy=0.7, track_digest=THIS),
            label("wide", 1, 0, accuracy=0.1, track_digest=OTHER),
            label("deep", 0, 0, accuracy=0.1, track_digest=THIS),
        ],
    )
    return tmp_path / TRAINED


def test_networks_that_were_trained_themselves(board: Board, path: Path) -> None:
    level = trained_level(board, path)
    assert level is not None
    assert level.accuracy == pytest.approx({"test": 0.6, "wide": 0.7, "OOD": 0.7})
    assert level.note == (
        "trained by SGD: every network by itself, 2 seeds; mean over architectures (test 2, wide 1), "
        "without 1 failed trainings."
    )


def test_only_labels_of_the_boards_protocol_count(board: Board, tmp_path: Path) -> None:
    append_labels(tmp_path / TRAINED, [label("test", accuracy=0.8, track_digest=OTHER)])
    assert trained_level(board, tmp_path / TRAINED) is None


def test_the_page_of_a_board_has_it(path: Path) -> None:
    append_rows(path.with_name("results.csv"), ROWS)
    assert "trained by SGD: every network by itself, 2 seeds" in dnb.Leaderboard(path.parent).to_html()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("track_digest,", "", "is no file of labels: it lacks track_digest."),
        (",0.7,", ",1.8,", "accuracy: Input should be less than or equal to 1"),
        (",0.7,", ",nan,", "accuracy: Input should be"),
        (",0.7,", ",high,", "accuracy: Input should be a valid number"),
        ("test,0,f0,1,", "test,0,f0,0,", "holds test/0 with seed 0 2 times"),
    ],
)
def test_a_faulty_file_is_one_sentence(board: Board, path: Path, old: str, new: str, message: str) -> None:
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(BadInput, match=message):
        trained_level(board, path)

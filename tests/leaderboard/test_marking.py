"""A row is marked as reproduced only by another, complete run that agrees with it; nothing is overwritten."""

from __future__ import annotations

from pathlib import Path

import pytest

from deepnets_bench.errors import BadInput
from deepnets_bench.leaderboard.aggregate import select_board
from deepnets_bench.leaderboard.marking import reproduce
from deepnets_bench.leaderboard.results import ResultRow, accuracy_summary, append_rows, read_rows
from deepnets_bench.leaderboard.scores import read_scores, write_scores
from deepnets_bench.leaderboard.stats import load_scores
from deepnets_bench.leaderboard.validate import validate

from .conftest import make_row

SCORES = {"test": {0: 0.5, 1: 0.25}, "wide": {0: 0.1, 1: 0.3}}


def run(folder: Path, when: str, shift: float = 0.0, splits: tuple[str, ...] = ("test", "wide")) -> Path:
    """The results of one run of gat, accuracies higher by `shift`."""
    scores = {split: {i: value + shift for i, value in SCORES[split].items()} for split in splits}
    name = write_scores(folder / "scores", "gat", scores)
    rows = [
        make_row(split=split, n_split=2, scores_file=name, utc_time=when, **accuracy_summary(values))
        for split, values in scores.items()
    ]
    append_rows(folder / "results.csv", rows)
    return folder / "results.csv"


@pytest.fixture
def board(tmp_path: Path) -> Path:
    return run(tmp_path / "board", "2026-11-23T10:00:00Z")


def rows_of(path: Path) -> list[ResultRow]:
    return read_rows(path)


def test_an_agreeing_run_is_appended_under_a_name(board: Path, tmp_path: Path) -> None:
    before = board.read_bytes()
    again = run(tmp_path / "mine", "2026-12-01T10:00:00Z", shift=0.005)
    found = reproduce(board, again, "Ada")
    assert [pair.difference for pair in found] == pytest.approx([0.005, 0.005])
    assert board.read_bytes().startswith(before), "raw results are append-only"
    new = rows_of(board)[2:]
    assert [(row.split, row.reproduced_by, row.scores_file) for row in new] == [
        ("test", "Ada", "gat-2.csv"),
        ("wide", "Ada", "gat-2.csv"),
    ]
    assert read_scores(board.parent / "scores" / "gat-2.csv")["test"] == {0: 0.505, 1: 0.255}
    assert validate(board) == []
    (entry,) = select_board(rows_of(board), "digits").entries
    assert entry.reproduced_seeds == (0,)
    assert entry.label == "gat (reproduced 1/1)"
    assert entry.scores["test"].mean == pytest.approx(0.375), "the original counts"
    assert load_scores(entry, board.parent / "scores")["test"].shape == (1, 2)
    with pytest.raises(BadInput, match="already marked as reproduced by Ada"):
        reproduce(board, again, "Ada")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"shift": 0.031},
            "Not reproduced: gat, seed 0, split test has 40.60% where the original",
        ),
        ({"splits": ("test",)}, "The new run of gat, seed 0 has no finished row of wide"),
        ({"when": "2026-11-23T10:00:00Z"}, "are copies of the originals"),
    ],
)
def test_any_other_run_is_refused(
    board: Path, tmp_path: Path, changes: dict[str, object], sentence: str
) -> None:
    again = run(tmp_path / "mine", **({"when": "2026-12-01T10:00:00Z"} | changes))  # type: ignore[arg-type]
    before = board.read_bytes()
    with pytest.raises(BadInput, match=sentence):
        reproduce(board, again, "Ada")
    assert board.read_bytes() == before
    assert [path.name for path in (board.parent / "scores").glob("*.csv")] == ["gat.csv"]


def test_an_empty_name_is_refused(board: Path) -> None:
    with pytest.raises(BadInput, match="Say by whom"):
        reproduce(board, board, " ")


def test_other_work_reproduces_nothing(board: Path, tmp_path: Path) -> None:
    append_rows(tmp_path / "other.csv", [make_row(config_hash="another")])
    with pytest.raises(BadInput, match=r"No finished row of .*other.csv repeats one of"):
        reproduce(board, tmp_path / "other.csv", "Ada")


def test_scores_that_do_not_add_up_are_refused(board: Path, tmp_path: Path) -> None:
    again = run(tmp_path / "mine", "2026-12-01T10:00:00Z")
    scores = again.parent / "scores" / "gat.csv"
    scores.write_text(scores.read_text().replace("test,0,0.5", "test,0,0.6"))
    with pytest.raises(
        BadInput, match=r"has faults, the first: row 2, column accuracy_mean: 0.375 is stated"
    ):
        reproduce(board, again, "Ada")


@pytest.mark.parametrize("by", ["Ann\nLee", "  Ann Lee ", "=Ann()", "-Ann"])
def test_a_name_is_written_as_every_text_of_a_row_is(board: Path, tmp_path: Path, by: str) -> None:
    again = run(tmp_path / "mine", "2026-12-01T10:00:00Z")
    reproduce(board, again, by)
    (name,) = {row.reproduced_by for row in rows_of(board)} - {""}
    assert name == ("'" + by if by[0] in "=-" else "Ann Lee")
    assert validate(board) == []
    with pytest.raises(BadInput, match="already marked as reproduced by"):
        reproduce(board, again, by)


@pytest.mark.parametrize("by", ["", " ", "\x01", "\n"])
def test_an_empty_name_marks_nothing(board: Path, tmp_path: Path, by: str) -> None:
    with pytest.raises(BadInput, match="an empty name marks nothing"):
        reproduce(board, run(tmp_path / "mine", "2026-12-01T10:00:00Z"), by)

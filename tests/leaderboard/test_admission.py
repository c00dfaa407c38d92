"""Small boards by hand: what is averaged together, what is left out, and what the board says of it."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from deepnets_bench.leaderboard.admission import Calibration
from deepnets_bench.leaderboard.aggregate import Board, boards, select_board
from deepnets_bench.leaderboard.results import ResultRow

from .conftest import changed, failed_row, make_row

CALIBRATION = Calibration(gnn="mlp", seed=0, tolerance=0.001)
LATER = "2026-11-24T10:00:00Z"


def method(gnn: str, accuracies: dict[str, tuple[float, ...]], **fields: object) -> list[ResultRow]:
    """Finished rows of a method from its accuracies {split: by seed}."""
    return [
        make_row(gnn=gnn, split=split, seed=seed, accuracy_mean=accuracy, **fields)
        for split, by_seed in accuracies.items()
        for seed, accuracy in enumerate(by_seed)
    ]


def means(board: Board) -> dict[str, dict[str, float | None]]:
    return {
        entry.name: {split: score.mean for split, score in entry.scores.items()} for entry in board.entries
    }


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"track_digest": "8" * 16}, f"track_digest is {'8' * 16}, not {'7' * 16}"),
        ({"dataset_fingerprint": "e" * 16}, f"dataset_fingerprint is {'e' * 16}, not {'d' * 16}"),
        ({"metric": "top5"}, "metric is top5, not top1"),
        ({"precision": "bf16"}, "precision is bf16, not 32"),
    ],
)
def test_rows_of_another_protocol_are_never_averaged_with_the_others(
    fields: dict[str, object], reason: str
) -> None:
    rows = method("gat", {"test": (0.4, 0.6)})
    others = method("gat", {"test": (0.9,)}, **fields, utc_time=LATER)
    (board,) = boards([*others, *rows])
    assert means(board) == {"gat": {"test": pytest.approx(0.5)}}
    assert board.notes == (f"1 row left out (gat seed 0): {reason}.",)


def test_seeds_may_start_from_frames_of_their_own() -> None:
    """Which one belongs to a seed is part of the track's digest."""
    rows = [
        make_row(gnn=gnn, seed=seed, accuracy_mean=0.4 + seed / 10, frame_digest=frame * 16)
        for gnn in ("gat", "mlp")
        for seed, frame in enumerate("abc")
    ]
    (board,) = boards(rows)
    assert means(board) == {gnn: {"test": pytest.approx(0.5)} for gnn in ("gat", "mlp")}
    assert board.notes == ()


def test_of_two_equal_protocols_the_newer_one_counts() -> None:
    rows = [
        *method("gat", {"test": (0.4,)}),
        *method("gat", {"test": (0.9,)}, precision="bf16", utc_time=LATER),
    ]
    (board,) = boards(rows)
    assert means(board) == {"gat": {"test": 0.9}}
    assert board.notes == ("1 row left out (gat seed 0): precision is 32, not bf16.",)


def test_a_method_never_mixes_two_sources() -> None:
    before = method("mine", {"test": (0.2, 0.3, 0.4), "wide": (0.1, 0.1, 0.1)})
    edited = method("mine", {"test": (0.6, 0.8)}, gnn_digest="8" * 16, utc_time=LATER)
    other = method("gat", {"test": (0.5,)}, gnn_digest="6" * 64)
    (board,) = boards([*before, *edited, *other])
    assert means(board) == {"mine": {"test": pytest.approx(0.7)}, "gat": {"test": 0.5}}
    assert board.notes[0] == (
        f"6 rows left out (mine seed 0, 1, 2): gnn_digest is {'9' * 16}, not {'8' * 16}."
    )


def test_a_failed_run_of_a_newer_source_leaves_the_finished_one() -> None:
    before = method("mine", {"test": (0.2,)})
    died = failed_row(gnn="mine", seed=1, gnn_digest="8" * 16, utc_time=LATER)
    (board,) = boards([*before, died])
    assert means(board) == {"mine": {"test": 0.2}}
    assert board.entries[0].scores["test"].problems == ()
    assert board.notes == (f"1 row left out (mine seed 1): gnn_digest is {'8' * 16}, not {'9' * 16}.",)


def two_stacks(*shifts: float) -> list[ResultRow]:
    """mlp and gat with torch 2.15.0, gin with 2.14.1, and mlp there too, shifted on test and wide."""
    rows = method("mlp", {"test": (0.50, 0.52), "wide": (0.30, 0.32)})
    rows += method("gat", {"test": (0.60,), "wide": (0.40,)})
    older = method("gin", {"test": (0.70,), "wide": (0.20,)}, torch_version="2.14.1", utc_time=LATER)
    calibration = [
        make_row(gnn="mlp", split=split, accuracy_mean=mean + shift, torch_version="2.14.1")
        for split, mean, shift in zip(("test", "wide"), (0.50, 0.30), shifts, strict=False)
    ]
    return [*rows, *older, *calibration]


NAMES = "torch 2.14.1 with deepnets-bench 0.1.0", "torch 2.15.0 with deepnets-bench 0.1.0"


def test_another_stack_is_admitted_when_calibration_rows_agree() -> None:
    (board,) = boards(two_stacks(0.0005, -0.001), CALIBRATION)  # exactly the tolerance on wide
    assert means(board)["gin"] == {"test": 0.70, "wide": 0.20}
    assert board.notes[0] == (
        f"{NAMES[0]} stands beside {NAMES[1]}: mlp seed 0 differs by at most 0.10 pp, 0.1 are permitted."
    )


@pytest.mark.parametrize(
    ("shifts", "calibration", "fault"),
    [
        ((0.0, 0.002), CALIBRATION, "mlp seed 0 differs by 0.20 pp on wide, 0.1 are permitted"),
        ((0.0,), CALIBRATION, "the former has no finished row of mlp seed 0 on wide"),
        ((), CALIBRATION, "the former has no finished row of mlp seed 0 on test"),
        (
            (0.0, 0.0),
            CALIBRATION.model_copy(update={"seed": 2}),
            "the former has no finished row of mlp seed 2 on test",
        ),
        ((0.0, 0.0), None, "the track states no calibration"),
    ],
)
def test_another_stack_is_left_out_otherwise(
    shifts: tuple[float, ...], calibration: Calibration | None, fault: str
) -> None:
    (board,) = boards(two_stacks(*shifts), calibration)
    assert means(board) == {
        "gat": {"test": 0.60, "wide": 0.40},
        "mlp": {"test": pytest.approx(0.51), "wide": pytest.approx(0.31)},
    }
    count, which = 2 + len(shifts), "gin seed 0; mlp seed 0" if shifts else "gin seed 0"
    assert board.notes[0] == (
        f"{count} rows left out ({which}): {NAMES[0]} is not shown to agree with {NAMES[1]}: {fault}."
    )


def test_another_version_of_the_package_is_another_stack() -> None:
    rows = [changed(row, package_version="0.2.0") for row in method("gin", {"test": (0.7,)})]
    (board,) = boards([*method("mlp", {"test": (0.5, 0.5)}), *rows], CALIBRATION)
    assert list(means(board)) == ["mlp"]
    assert "torch 2.15.0 with deepnets-bench 0.2.0 is not shown to agree" in board.notes[0]


def test_unfinished_rows_belong_to_every_stack() -> None:
    died = failed_row(gnn="gat", seed=1, torch_version="2.14.1")
    (board,) = boards([*method("gat", {"test": (0.5,)}), died])
    assert board.entries[0].scores["test"].problems == ("seed 1 failed: out of memory",)
    assert board.notes == ()


def test_the_selected_board_admits_by_the_calibration_too() -> None:
    rows = two_stacks(0.0, 0.0)
    assert len(select_board(rows, "digits", calibration=CALIBRATION).entries) == 3
    assert len(select_board(rows, "digits").entries) == 2


@pytest.mark.parametrize(
    "fields", [{"tolerance": -0.1}, {"tolerance": 1.5}, {"seed": "0"}, {"gnns": ["mlp"]}]
)
def test_a_calibration_is_checked(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Calibration(**({"gnn": "mlp", "seed": 0, "tolerance": 0.1} | fields))  # type: ignore[arg-type]

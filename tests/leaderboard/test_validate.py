"""Every kind of fault in a submission is found, and only the faults."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from deepnets_bench.leaderboard.admission import Calibration
from deepnets_bench.leaderboard.results import ResultRow, accuracy_summary, append_rows
from deepnets_bench.leaderboard.scores import write_scores
from deepnets_bench.leaderboard.validate import Protocol, validate

from .conftest import changed, failed_row, make_row

VALUES = {"track_digest": "7" * 16, "metric": "top1", "steps": 1000, "precision": "32", "threads": 1}
PROTOCOL = Protocol("digits", 1, seeds=(0, 1), splits={"test": 3, "wide": 2}, values=VALUES)
SCORES = {"test": {0: 0.5, 1: 0.25, 2: 0.75}, "wide": {0: 0.1, 1: 0.3}}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "results.csv"


def submission(path: Path, seeds: tuple[int, ...] = (0, 1), gnn: str = "gat") -> list[ResultRow]:
    """The complete rows of one method, their scores written beside `path`."""
    rows = []
    for seed in seeds:
        name = write_scores(path.parent / "scores", f"{gnn}-{seed}", SCORES)
        for split, scores in SCORES.items():
            fields = {"seed": seed, "split": split, "n_split": len(scores), "scores_file": name, "gnn": gnn}
            rows.append(make_row(**fields, **accuracy_summary(scores)))
    return rows


def test_a_sound_submission_has_no_faults(path: Path) -> None:
    append_rows(path, submission(path))
    append_rows(path, submission(path, seeds=(0, 1, 2), gnn="mine"))  # more seeds are welcome
    append_rows(path, [failed_row(gnn="gat", seed=1, split="wide", n_split=2)])  # it was finished before
    assert validate(path, PROTOCOL) == []


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"track": "cifar10"}, "row 5, column track: 'cifar10' is not 'digits'"),
        ({"track_version": 2}, "row 5, column track_version: 2 is newer than version 1, the newest"),
        ({"split": "deep"}, "row 5, column split: 'deep' is not one of test, wide"),
        (
            {"dataset_fingerprint": "e" * 16},
            f"row 5, column dataset_fingerprint: '{'e' * 16}' differs from '{'d' * 16}' of row 2",
        ),
        ({"dataset_fingerprint": ""}, "row 5, column dataset_fingerprint: it is empty"),
        ({"scores_file": ""}, "row 5, column scores_file: '' is not the name of a file in scores/"),
        ({"scores_file": "../gat-1.csv"}, "row 5, column scores_file: '../gat-1.csv' is not the name"),
        ({"scores_file": "other.csv"}, "row 5, column scores_file: Cannot read "),
        ({"accuracy_mean": 0.21}, "row 5, column accuracy_mean: 0.21 is stated, 0.2 follows from gat-1.csv"),
        ({"accuracy_max_index": 0}, "row 5, column accuracy_max_index: 0 is stated, 1 follows"),
        ({"seed": 0}, "row 5: repeats row 3 (gat, seed 0, split wide)"),
        ({"seed": 7}, "gat, seed 1: no finished row of wide"),
        ({"comparable": False}, "gat, seed 1: no finished row of wide"),
        (
            {"track_digest": "8" * 16},
            f"row 5, column track_digest: '{'8' * 16}', but '{'7' * 16}' is the track's",
        ),
        ({"track_digest": "7E+15"}, "row 5, column track_digest: '7E+15' is not 16 hexadecimal digits"),
        ({"gnn_digest": "9" * 15}, f"row 5, column gnn_digest: '{'9' * 15}' is not 16 hexadecimal digits"),
        (
            {"dataset_fingerprint": "d1"},
            "row 5, column dataset_fingerprint: 'd1' is not 16 hexadecimal digits",
        ),
        (
            {"frame_digest": "none"},
            "row 5, column frame_digest: 'none' is not 16 hexadecimal digits or empty",
        ),
        ({"config_hash": "c0"}, "row 5, column config_hash: 'c0' is not 16 hexadecimal digits"),
        ({"config_hash": "0" * 16}, f"row 5, column config_hash: '{'0' * 16}' is stated, "),
        ({"git_commit": "1234567"}, "row 5, column git_commit: '1234567' is not a commit's 40 hexadecimal"),
        ({"utc_time": "2026-11-31T10:00:00Z"}, "row 5, column utc_time: '2026-11-31T10:00:00Z' is no date"),
        ({"steps": 100}, "row 5, column steps: 100, but 1000 is the track's"),
        ({"steps": None}, "row 5, column steps: None, but 1000 is the track's"),
        ({"threads": 4}, "row 5, column threads: 4, but 1 is the track's"),
        ({"precision": "bf16"}, "row 5, column precision: 'bf16', but '32' is the track's"),
        ({"metric": "top5"}, "row 5, column metric: 'top5', but 'top1' is the track's"),
        ({"gnn_params": 100_001}, "row 5, column gnn_params: 100001 is more than 100000 in ghn_params"),
        ({"ghn_params": 10_000}, "row 5, column ghn_params: 10000 differs from 100000 of row 4, which comes"),
        ({"accuracy_max_index": 2}, "row 5, column accuracy_max_index: 2 is not below n_split 2"),
    ],
)
def test_each_fault_is_named(path: Path, fields: dict[str, object], fault: str) -> None:
    rows = submission(path)
    rows[-1] = changed(rows[-1], **fields)
    append_rows(path, rows)
    assert any(found.startswith(fault) for found in validate(path, PROTOCOL)), validate(path, PROTOCOL)


def test_an_untrained_control_has_no_steps(path: Path) -> None:
    rows = [changed(row, gnn="control:untrained:gat", steps=0) for row in submission(path)]
    append_rows(path, rows)
    assert validate(path, PROTOCOL) == []
    path.unlink()
    append_rows(path, [changed(row, steps=1000) for row in rows])
    assert "row 2, column steps: 1000, but 0 is the track's" in validate(path, PROTOCOL)


def test_counts_must_be_those_of_the_track(path: Path) -> None:
    append_rows(path, submission(path))
    faults = validate(path, Protocol("digits", 1, seeds=(0, 1), splits={"test": 3, "wide": 50}))
    assert [fault.split(":")[0] for fault in faults] == ["row 3, column n_split", "row 5, column n_split"]


def test_a_missing_seed_and_a_failed_row_are_incomplete(path: Path) -> None:
    rows = submission(path)
    append_rows(path, [*rows[:3], failed_row(seed=1, split="wide", n_split=2)])
    assert validate(path, PROTOCOL) == ["gat, seed 1: no finished row of wide"]


def test_a_reproduction_is_not_a_repeat(path: Path) -> None:
    rows = submission(path)
    append_rows(path, [*rows, *(changed(row, reproduced_by="CI") for row in rows)])
    assert validate(path, PROTOCOL) == []


def test_a_reproduction_needs_an_original_and_its_accuracy(path: Path) -> None:
    rows = submission(path, seeds=(0, 1))
    name = write_scores(path.parent / "scores", "again", {"test": {0: 0.5, 1: 0.25, 2: 1.0}})
    summary = accuracy_summary({0: 0.5, 1: 0.25, 2: 1.0})
    far = changed(rows[0], reproduced_by="CI", scores_file=name, **summary)
    orphan = changed(rows[1], reproduced_by="CI", gnn_digest="8" * 16)
    append_rows(path, [*rows, far, orphan])
    assert validate(path, PROTOCOL) == [
        f"row 6, column accuracy_mean: {far.accuracy_mean} is further than 0.03 from 0.5, which it claims to "
        "reproduce",
        "row 7, column reproduced_by: there is no original row of this configuration",
    ]


def test_a_reproduction_does_not_complete_an_entry(path: Path) -> None:
    rows = submission(path)
    append_rows(path, [*rows[:3], changed(rows[3], reproduced_by="CI")])
    assert "gat, seed 1: no finished row of wide" in validate(path, PROTOCOL)


def test_a_seed_beyond_the_protocol_must_be_whole(path: Path) -> None:
    append_rows(path, [*submission(path), *submission(path, seeds=(7,))[:1]])
    assert validate(path, PROTOCOL) == ["gat, seed 7: no finished row of wide"]
    unfinished = Protocol("digits", 1, seeds=(), splits=PROTOCOL.splits)
    assert validate(path, unfinished) == ["gat, seed 7: no finished row of wide"]


def test_a_board_in_the_making_may_lack_seeds(path: Path) -> None:
    append_rows(path, submission(path, seeds=(0,)))
    assert validate(path, PROTOCOL) == ["gat, seed 1: no finished row of test, wide"]
    assert validate(path, Protocol("digits", 1, seeds=(), splits=PROTOCOL.splits)) == []


def test_rows_of_an_older_version_are_history(path: Path) -> None:
    old = [changed(row, track_version=1) for row in submission(path, seeds=(0,))]
    append_rows(path, old)
    assert validate(path, Protocol("digits", 2, seeds=(0, 1), splits={"test": 9})) == []


@pytest.mark.parametrize(
    "column",
    ["track_digest", "gnn_digest", "dataset_fingerprint", "config_hash", "gnn", "gnn_options", "seed"],
)
def test_a_digit_changed_in_what_a_hash_covers_is_found(path: Path, column: str) -> None:
    row = submission(path)[1]
    value = {"gnn": "gin", "gnn_options": '{"heads": 8}', "seed": 3}.get(column, "1" + "7" * 15)
    append_rows(path, [row.model_copy(update={column: value})])
    (fault,) = validate(path)
    assert fault.startswith("row 2, column config_hash: ")


def test_a_job_that_was_unfinished_is_run_again(path: Path) -> None:
    first = submission(path, seeds=(0,))
    died = failed_row(seed=1, split="wide", n_split=2)
    partial = changed(first[1], status="partial", n_split=2, **accuracy_summary({0: 0.1}))
    rest = submission(path, seeds=(1,))[:1]
    again = [changed(row, utc_time="2026-11-24T10:00:00Z") for row in submission(path)]
    append_rows(path, [first[0], partial, *rest, died])
    scores = path.parent / "scores" / "gat-0.csv"
    assert [fault for fault in validate(path, PROTOCOL) if scores.name not in fault] == [
        "gat, seed 0: no finished row of wide",
        "gat, seed 1: no finished row of wide",
    ]
    append_rows(path, again)
    assert [fault for fault in validate(path, PROTOCOL) if scores.name not in fault] == []
    append_rows(path, [changed(again[0], utc_time="2026-11-25T10:00:00Z")])
    assert "row 10: repeats row 6 (gat, seed 0, split test)" in validate(path, PROTOCOL)


def test_seeds_of_two_sources_do_not_make_an_entry(path: Path) -> None:
    rows = submission(path)
    edited = [changed(row, gnn_digest="8" * 16, utc_time="2026-11-24T10:00:00Z") for row in rows[2:]]
    append_rows(path, [*rows[:2], *edited])
    assert validate(path, PROTOCOL) == ["gat, seed 0: no finished row of test, wide"]


def test_another_stack_needs_calibration_rows(path: Path) -> None:
    rows = submission(path)
    other = [changed(row, torch_version="2.14.1") for row in submission(path, gnn="gin")]
    append_rows(path, [*rows, *rows_of_mlp(path, "2.15.0"), *other])
    protocol = replace(PROTOCOL, seeds=(), calibration=Calibration(gnn="mlp", seed=0, tolerance=0.001))
    assert validate(path, protocol) == [
        "row 8, column torch_version: torch 2.14.1 with deepnets-bench 0.1.0 is not shown to agree with "
        "torch 2.15.0 with deepnets-bench 0.1.0: the former has no finished row of mlp seed 0 on test"
    ]
    append_rows(path, rows_of_mlp(path, "2.14.1"))
    assert validate(path, protocol) == []


def rows_of_mlp(path: Path, torch_version: str) -> list[ResultRow]:
    return [
        changed(row, torch_version=torch_version, utc_time=f"2026-11-23T{torch_version[2:4]}:00:00Z")
        for row in submission(path, seeds=(0,), gnn="mlp")
    ]


def test_a_half_copied_file_is_a_fault(path: Path) -> None:
    append_rows(path, submission(path))
    path.write_bytes(path.read_bytes()[:-30])
    assert validate(path, PROTOCOL) == [
        "row 5: the line is cut off; a run died while writing, or a copy is incomplete",
        "gat, seed 1: no finished row of wide",
    ]


def test_an_empty_file_is_a_fault(path: Path) -> None:
    path.write_text("")
    assert validate(path) == ["the file holds no rows"]


def test_schema_faults_come_with_the_others(path: Path) -> None:
    append_rows(path, submission(path))
    path.write_text(path.read_text().replace(",1000,", ",often,", 1))
    faults = validate(path, PROTOCOL)
    assert faults[0].startswith("row 2, column steps: 'often' is refused")
    assert faults[1] == "gat, seed 0: no finished row of test"


def test_each_seed_starts_from_its_frame(path: Path) -> None:
    frames = ("a" * 16, "b" * 16)
    protocol = replace(PROTOCOL, frame_digest=lambda seed: frames[seed % 2])
    rows = [row.model_copy(update={"frame_digest": frames[row.seed]}) for row in submission(path)]
    append_rows(path, [changed(row) for row in rows])
    assert validate(path, protocol) == []
    other = [changed(row, frame_digest="c" * 16) for row in submission(path, gnn="mine")]
    append_rows(path, other)
    faults = validate(path, protocol)
    assert f"row 6, column frame_digest: '{'c' * 16}', but '{'a' * 16}' is the track's" in faults

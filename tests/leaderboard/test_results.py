"""The result row, its append-only file, and the per-architecture scores beside it."""

from __future__ import annotations

import codecs
import csv
import io
import json
import math
import multiprocessing
import os
import resource
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ValidationError

from deepnets_bench.errors import BadInput, CorruptFile
from deepnets_bench.leaderboard import results
from deepnets_bench.leaderboard.results import (
    COLUMNS,
    ResultRow,
    accuracy_summary,
    append_rows,
    check_rows,
    read_results,
    read_rows,
)
from deepnets_bench.leaderboard.scores import read_scores, write_scores
from deepnets_bench.system import locks

from .conftest import failed_row, make_row


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "leaderboards" / "digits" / "results.csv"


def test_rows_survive_the_file_unchanged(path: Path) -> None:
    rows = [
        make_row(accuracy_mean=1 / 3, gnn_options={"heads": 4, "act": 'é\n,"'}, reason='a "b", c'),
        failed_row(split="wide", git_commit="0badc0de"),
        make_row(n_evaluated=1, n_split=1, accuracy_std=None, accuracy_sem=None, comparable=False),
    ]
    append_rows(path, rows[:1])
    append_rows(path, rows[1:])
    assert read_rows(path) == rows


def test_the_frame_has_numbers_and_nan(path: Path) -> None:
    append_rows(path, [make_row(accuracy_mean=0.25), failed_row(seed=1)])
    frame = read_results(path)
    assert tuple(frame.columns) == COLUMNS
    assert frame["accuracy_mean"].tolist()[0] == 0.25
    assert math.isnan(frame["accuracy_mean"].tolist()[1])
    assert frame["accuracy_max"].dtype == float


def test_an_empty_append_makes_no_file(path: Path) -> None:
    append_rows(path, [])
    assert not path.exists()


def test_summary_by_hand() -> None:
    summary = accuracy_summary({7: 0.2, 3: 0.6, 5: 0.6, 9: 0.6})
    assert summary["accuracy_mean"] == pytest.approx(0.5)
    assert summary["accuracy_std"] == pytest.approx(0.2)
    assert summary["accuracy_sem"] == pytest.approx(0.1)
    assert summary["accuracy_max"] == 0.6
    assert summary["accuracy_max_index"] == 3, "the lowest index among equals"
    assert summary["n_evaluated"] == 4
    assert accuracy_summary({0: 0.5})["accuracy_std"] is None
    assert accuracy_summary({}) == {"n_evaluated": 0}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"accuracy_mean": 1.2}, "less than or equal to 1"),
        ({"accuracy_mean": math.nan}, "finite"),
        ({"accuracy_mean": None}, "needs accuracy_mean"),
        ({"accuracy_mean": 0.9, "accuracy_max": 0.8}, "above accuracy_max"),
        ({"accuracy_sem": 0.2}, "is not accuracy_std"),
        ({"accuracy_std": None}, "are needed"),
        ({"n_evaluated": 3}, "n_evaluated is 3 of 4"),
        ({"n_evaluated": 5}, "more than the split"),
        ({"status": "partial"}, "all 4 architectures"),
        ({"status": "failed", "reason": "x"}, "must not carry an accuracy"),
        ({"status": "done"}, "'ok', 'failed', 'timeout' or 'partial'"),
        ({"gnn": ""}, "must not be empty"),
        ({"gnn_options": "[1]", "config_hash": "c0"}, "JSON object"),
        ({"utc_time": "yesterday"}, "match pattern"),
        ({"accuracy": 0.5}, "Extra inputs"),
        ({"train_seconds": -1.0}, "greater than or equal to 0"),
        ({"eval_cpu_seconds": -1.0}, "greater than or equal to 0"),
        ({"gnn_digest": ""}, "status 'ok' needs gnn_digest"),
        ({"track_digest": ""}, "must not be empty"),
        ({"metric": "accuracy"}, "match pattern"),
        ({"precision": "16"}, "'32', 'bf16' or 'fp16'"),
        ({"threads": 0}, "greater than or equal to 1"),
        ({"tuning_trials": -1}, "greater than or equal to 0"),
    ],
)
def test_an_impossible_row_cannot_be_made(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        make_row(**changes)


def test_a_failed_row_needs_a_reason() -> None:
    with pytest.raises(ValidationError, match="needs a reason"):
        failed_row(reason="")


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@cmd", "\t=1", "\n=1", "  =1"])
def test_formulas_are_neutralised_once(text: str, path: Path) -> None:
    row = make_row(gnn=text, reason=text)
    assert row.gnn.startswith("'")
    assert "\n" not in row.gnn
    append_rows(path, [row])
    assert read_rows(path) == [row]


def test_options_have_one_spelling() -> None:
    row = make_row(gnn_options={"b": 1, "a": [2]})
    assert row.gnn_options == make_row(gnn_options='{"a":[2],  "b":1}').gnn_options
    assert json.loads(row.gnn_options) == {"a": [2], "b": 1}


def _append_job(path: Path, job: int, calls: int) -> None:
    for call in range(calls):
        append_rows(path, [make_row(seed=job, steps=call, split=split) for split in ("test", "wide")])


def test_processes_append_at_once_and_lose_nothing(path: Path) -> None:
    jobs, calls = 8, 100  # each appends two rows at a time
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_append_job, args=(path, job, calls)) for job in range(jobs)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    rows = read_rows(path)
    assert len(rows) == jobs * calls * 2
    for first, second in zip(rows[::2], rows[1::2], strict=True):
        assert (first.seed, first.steps) == (second.seed, second.steps), "rows of one call are contiguous"
    for job in range(jobs):
        assert [row.steps for row in rows if row.seed == job][::2] == list(range(calls))


def test_a_line_cut_off_anywhere_is_dropped_and_repaired(path: Path) -> None:
    first, second = make_row(seed=1), make_row(seed=2, reason="é, quoted")
    append_rows(path, [first])
    whole = path.read_bytes()
    line = results._line(second)
    for cut in range(1, len(line)):
        path.write_bytes(whole + line[:cut])
        with pytest.warns(UserWarning, match="cut off by a crash and is ignored"):
            assert read_rows(path) == [first], cut
    with pytest.warns(UserWarning, match="cut off by a crash and is removed"):
        append_rows(path, [second])
    assert read_rows(path) == [first, second]


def test_a_row_that_only_lacks_its_newline_is_kept(path: Path) -> None:
    append_rows(path, [make_row(seed=1)])
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    assert [row.seed for row in read_rows(path)] == [1]
    append_rows(path, [make_row(seed=2)])
    assert [row.seed for row in read_rows(path)] == [1, 2]


@pytest.mark.parametrize("content", [b"", b"track,tra"])
def test_a_file_that_crashed_at_its_header_is_started_again(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    if content:
        with pytest.warns(UserWarning, match="cut off"):
            append_rows(path, [make_row()])
    else:
        append_rows(path, [make_row()])
    assert read_rows(path) == [make_row()]


def _append_with_little_space(path: Path, size: int, sentences: multiprocessing.Queue[str]) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    try:
        append_rows(path, [make_row(seed=2)])
    except BadInput as error:
        sentences.put(str(error))


def test_a_write_that_fails_half_way_leaves_the_file_as_it_was(path: Path) -> None:
    append_rows(path, [make_row(seed=1)])
    before = path.read_bytes()
    context = multiprocessing.get_context("fork")
    sentences = context.Queue()
    process = context.Process(target=_append_with_little_space, args=(path, len(before) + 50, sentences))
    process.start()
    assert sentences.get(timeout=60) == f"Cannot write {path}: File too large."
    process.join(60)
    assert path.read_bytes() == before
    assert not list(path.parent.glob("*.tmp")) + list(path.parent.glob(".*.tmp"))


def test_a_file_keeps_its_permissions_and_one_that_may_not_be_written_its_contents(path: Path) -> None:
    append_rows(path, [make_row(seed=1)])
    path.chmod(0o664)
    append_rows(path, [make_row(seed=2)])
    assert stat.S_IMODE(path.stat().st_mode) == 0o664
    path.chmod(0o444)
    if os.access(path, os.W_OK):
        pytest.skip("this user may write everything")
    before = path.read_bytes()
    with pytest.raises(BadInput, match=r"Cannot write .*results.csv: Permission denied"):
        append_rows(path, [make_row(seed=3)])
    assert path.read_bytes() == before


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda p: edit(p, "accuracy_mean", "Accuracy"), "column 17 is 'Accuracy', not 'accuracy_mean'"),
        (lambda p: edit(p, ",utc_time", ""), "it has 42 columns, 43 are needed"),
        (lambda p: edit(p, ",0.125,", ",0.125%,"), "row 3, column accuracy_mean: '0.125%' is refused"),
        (lambda p: edit(p, ",0.125,", ",nan,"), "row 3, column accuracy_mean: 'nan' is refused"),
        (lambda p: edit(p, ",0.125,", ",12.5,"), "row 3, column accuracy_mean: '12.5' is refused"),
        (lambda p: edit(p, ",0.125,", ",,"), "row 3, status 'ok' needs accuracy_mean"),
        (lambda p: edit(p, ",0.125,", ","), "row 3: 42 columns where 43 are needed"),
        (lambda p: edit(p, ",0.125,", ",\n0.125,"), "row 3: .* There are 1 more"),
        (lambda p: edit(p, ",0.125,", ',"0.125,'), "row 3: not a line of CSV"),
        (
            lambda p: p.write_bytes(b"\x89HDF\r\n\x1a\n" + p.read_bytes()),
            "not a results file of this version",
        ),
        (lambda p: p.write_bytes(p.read_bytes().replace(b"0.125", b"\xff\xfe")), "row 3: .*utf-8"),
    ],
)
def test_an_edited_file_is_refused_with_row_and_column(
    path: Path, damage: Callable[[Path], None], sentence: str
) -> None:
    append_rows(path, [make_row(seed=1), make_row(seed=2, accuracy_mean=0.125), make_row(seed=3)])
    damage(path)
    with pytest.raises(CorruptFile, match=sentence):
        read_results(path)


def test_every_fault_is_listed(path: Path) -> None:
    append_rows(path, [make_row(seed=1), make_row(seed=2), make_row(seed=3)])
    edit(path, ",0.05,", ",0.5,")
    edit(path, ",1000,", ",many,")
    rows, faults = check_rows(path)
    assert rows == []
    assert [fault.split(" is refused")[0] for fault in faults] == [
        f"row {number}, column steps: 'many'" for number in (2, 3, 4)
    ]


def test_appending_to_a_foreign_file_changes_nothing(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.write_text("name,score\nmine,0.5\n")
    with pytest.raises(CorruptFile, match="column 1 is 'name', not 'track'"):
        append_rows(path, [make_row()])
    assert path.read_text() == "name,score\nmine,0.5\n"


def test_a_file_of_an_earlier_version_is_refused_and_kept(path: Path) -> None:
    append_rows(path, [make_row()])
    header, line = path.read_text().splitlines()
    added = {
        *("track_digest", "gnn_digest", "frame_digest", "tuning_trials", "metric", "precision", "threads"),
        *("train_cpu_seconds", "eval_cpu_seconds"),
    }
    names = [name for name in header.split(",") if name not in added]
    cells = [cell for name, cell in zip(COLUMNS, line.split(","), strict=True) if name not in added]
    assert len(names) == 34, "the columns that files had before"
    earlier = "\n".join([",".join(names), ",".join(cells), ""])
    path.write_text(earlier)
    sentence = r"results.csv is of an earlier version of deepnets-bench, .* are not converted: move it away"
    for use in (read_rows, lambda path: append_rows(path, [make_row()])):
        with pytest.raises(CorruptFile, match=sentence):
            use(path)
    assert path.read_text() == earlier


def as_spreadsheet(data: bytes, *, bom: bool = True, quote: bool = True) -> bytes:
    """The file as a spreadsheet saves it: byte order mark, quotes, CRLF, TRUE."""
    out = io.StringIO()
    rows = list(csv.reader(io.StringIO(data.decode())))
    cells = [["TRUE" if cell == "true" else cell for cell in row] for row in rows]
    csv.writer(out, quoting=csv.QUOTE_ALL if quote else csv.QUOTE_MINIMAL, lineterminator="\r\n").writerows(
        cells
    )
    return (codecs.BOM_UTF8 if bom else b"") + out.getvalue().encode()


@pytest.mark.parametrize("bom", [False, True])
@pytest.mark.parametrize("quote", [False, True])
@pytest.mark.parametrize("ended", [False, True])
def test_a_file_saved_by_a_spreadsheet_is_read_and_appended_to(
    path: Path, bom: bool, quote: bool, ended: bool
) -> None:
    rows = [make_row(seed=1, gnn_options={"act": 'é, "x"'}), failed_row(seed=2, reason="a; b, c")]
    append_rows(path, rows)
    saved = as_spreadsheet(path.read_bytes(), bom=bom, quote=quote)
    path.write_bytes(saved if ended else saved.removesuffix(b"\r\n"))
    assert read_rows(path) == rows
    append_rows(path, [make_row(seed=3)])
    assert read_rows(path) == [*rows, make_row(seed=3)]
    lines = path.read_bytes().splitlines(keepends=True)
    assert lines[0] == (",".join(COLUMNS) + "\n").encode()
    assert b"\r" not in b"".join(lines)


def test_a_spreadsheet_of_another_dialect_is_refused(path: Path) -> None:
    append_rows(path, [make_row()])
    path.write_text(path.read_text().replace(",", ";"))
    with pytest.raises(CorruptFile, match=r"column 1 is 'track;track_version;.*, not 'track'"):
        read_rows(path)


def test_scores_saved_by_a_spreadsheet_are_read(tmp_path: Path) -> None:
    name = write_scores(tmp_path, "job", {"test": {0: 0.5, 1: 0.25}})
    path = tmp_path / name
    path.write_bytes(as_spreadsheet(path.read_bytes()))
    assert read_scores(path) == {"test": {0: 0.5, 1: 0.25}}


def test_a_missing_file_says_how_to_make_one(path: Path) -> None:
    with pytest.raises(BadInput, match=r"There is no .*results.csv: nothing has been run into"):
        read_rows(path)


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="Cannot write"):
        append_rows(tmp_path / "file" / "results.csv", [make_row()])


def test_a_lock_that_is_never_released_is_reported(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "LOCK_SECONDS", 0.1)
    with locks.locked(path), pytest.raises(Exception, match=r"Another process has locked .*results.csv"):
        append_rows(path, [make_row()])


def test_scores_round_trip_and_are_never_overwritten(tmp_path: Path) -> None:
    scores = {"test": {1: 0.5, 0: 1 / 3}, "wide": {0: 0.0}}
    name = write_scores(tmp_path / "scores", "./mine.py:Net seed 0", scores)
    assert name == "mine.py-Net-seed-0.csv"
    assert read_scores(tmp_path / "scores" / name) == scores
    assert (tmp_path / "scores" / name).read_text().splitlines()[:2] == [
        "split,index,accuracy",
        f"test,0,{1 / 3}",
    ]
    assert write_scores(tmp_path / "scores", "./mine.py:Net seed 0", scores) == name, "equal: nothing to do"
    other = write_scores(tmp_path / "scores", "./mine.py:Net seed 0", {"test": {0: 0.5}})
    assert other == "mine.py-Net-seed-0-2.csv"
    assert read_scores(tmp_path / "scores" / name) == scores
    assert sorted(p.name for p in (tmp_path / "scores").glob("*.csv")) == sorted([name, other])


def test_scores_outside_the_unit_interval_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="Accuracy nan of architecture 3 of 'test'"):
        write_scores(tmp_path, "job", {"test": {3: math.nan}})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "line", ["test,0,1.5", "test,0", "test,x,0.5", "test,0,0.5,7", "test,1,0.5", "test,-1,0.5"]
)
def test_faulty_scores_name_the_row(tmp_path: Path, line: str) -> None:
    (tmp_path / "s.csv").write_text(f"split,index,accuracy\ntest,1,0.25\n{line}\n")
    with pytest.raises(CorruptFile, match="row 3"):
        read_scores(tmp_path / "s.csv")


def test_half_copied_scores_are_refused(tmp_path: Path) -> None:
    name = write_scores(tmp_path, "job", {"test": {0: 0.125, 1: 0.375}})
    whole = (tmp_path / name).read_text()
    (tmp_path / name).write_text(whole[:-2])  # 0.37 is a number too
    with pytest.raises(CorruptFile, match="row 3: the line is cut off"):
        read_scores(tmp_path / name)


def test_a_row_is_immutable() -> None:
    row: ResultRow = make_row()
    with pytest.raises(ValidationError, match="frozen"):
        row.seed = 3


def test_a_writer_killed_at_any_moment_leaves_a_readable_file(path: Path) -> None:
    context = multiprocessing.get_context("fork")
    for _ in range(3):
        writer = context.Process(target=_append_job, args=(path, 0, 100_000))
        writer.start()
        before = len(read_rows(path)) if path.exists() else 0
        while not path.exists() or len(read_rows(path)) <= before:
            time.sleep(0.01)
        writer.kill()
        writer.join()
        append_rows(path, [make_row(seed=9)])  # the lock died with its owner
    assert [row.seed for row in read_rows(path)].count(9) == 3
    assert not list(path.parent.glob(".*.tmp")), "what a killed writer leaves is removed by the next one"

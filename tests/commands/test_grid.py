"""`grid report` on rows that are written by hand: candidates beside a reference."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from deepnets_bench.cli import app
from deepnets_bench.errors import BadInput, UnknownName
from deepnets_bench.harness.protocol.tracks import load_track
from deepnets_bench.leaderboard.results import append_rows, read_rows
from tests.leaderboard.conftest import make_row

GRID = """
gnns = ["mlp", "ghn2", "gat"]
seeds = [100, 101, 102]
reference = "long"

[[boards]]
track = "digits"
out = "short"

[[boards]]
track = "digits"
out = "long"
"""
LEVELS = {"short": {"mlp": 0.3, "ghn2": 0.5, "gat": 0.4}, "long": {"mlp": 0.5, "ghn2": 0.6, "gat": 0.7}}


DIGITS = load_track("digits")


def write(folder: Path, levels: dict[str, float], seeds: Sequence[int] = (0, 1, 2), **fields: Any) -> None:
    own = {"train_cpu_seconds": 60.0, "eval_cpu_seconds": 1.0, "track_digest": DIGITS.fingerprint(), **fields}
    rows = [
        make_row(
            track_version=DIGITS.version, gnn=gnn, seed=100 + seed, split=split,
            accuracy_mean=level + 0.01 * seed + 0.001 * ((seed + place) % 3), **own,
        )
        for place, (gnn, level) in enumerate(levels.items())
        for seed in seeds
        for split in ("val", "test")
    ]  # fmt: skip
    append_rows(folder / "results.csv", rows)


def report(grid: Path) -> str:
    result = CliRunner().invoke(app, ["grid", "report", str(grid)])
    assert result.exit_code == 0, result.output
    return result.output


def test_the_ranks_of_candidates_beside_those_of_a_reference(tmp_path: Path) -> None:
    grid = tmp_path / "grid.toml"
    grid.write_text(GRID)
    write(tmp_path / "short", LEVELS["short"])
    alone = CliRunner().invoke(app, ["grid", "report", str(grid)])
    assert alone.exit_code == 0, alone.output
    assert "Agreement of ranks" not in alone.output
    assert "long has no results yet" in alone.output
    write(tmp_path / "long", LEVELS["long"])
    result = CliRunner().invoke(app, ["grid", "report", str(grid)])
    assert result.exit_code == 0, result.output
    assert "| short | 3 × 3 |" in result.output
    assert "| long | 3 × 3 |" not in result.output, "it is no candidate"
    assert "## Agreement of ranks with long" in result.output
    # mlp is last on both, ghn2 and gat change places: two pairs agree, one does not.
    assert r"| short | 3 | 3 and 3 | 0.33 \[0.33, 0.33\] | 2 | 1 |" in result.output


@pytest.mark.parametrize("fields", [{"comparable": False}, {"track_digest": "0" * 16}])
def test_rows_of_another_protocol_are_no_candidate(tmp_path: Path, fields: dict[str, Any]) -> None:
    grid = tmp_path / "grid.toml"
    grid.write_text(GRID)
    write(tmp_path / "long", LEVELS["long"])
    write(tmp_path / "short", LEVELS["short"], **fields)
    result = CliRunner().invoke(app, ["grid", "report", str(grid)])
    assert "short: 18 rows are not of this protocol, and left out." in result.output
    assert isinstance(result.exception, BadInput), "the reference alone is no candidate"


def test_what_is_not_admitted_is_named(tmp_path: Path) -> None:
    grid = tmp_path / "grid.toml"
    grid.write_text(GRID)
    write(tmp_path / "short", {name: LEVELS["short"][name] for name in ("mlp", "ghn2")})
    write(tmp_path / "short", {"gat": 0.4}, torch_version="2.9.0")
    output = report(grid)
    assert "| short | 2 × 3 |" in output
    assert "short: 6 rows left out (gat seed 100, 101, 102): torch 2.9.0 with" in output
    assert "choose none" in output


def test_a_folder_filled_in_steps_is_one_board(tmp_path: Path) -> None:
    grid = tmp_path / "grid.toml"
    step = '\n[[boards]]\ntrack = "digits"\nout = "{}"\nseeds = [{}]\n'
    head = GRID.split("[[boards]]")[0]
    grid.write_text(
        head
        + "".join(
            step.format(*each)
            for each in (("short", 100), ("short", "101, 102"), ("long", 100), ("long", "101, 102"))
        )
    )
    for name, levels in LEVELS.items():
        write(tmp_path / name, levels)
    output = report(grid)
    assert "| short | 3 × 3 |" in output
    assert "Criteria 1 to 3 choose short among those with all their runs.\n" in output
    assert r"| short | 3 | 3 and 3 | 0.33 \[0.33, 0.33\] | 2 | 1 |" in output
    grid.write_text(grid.read_text().replace('track = "digits"', 'track = "digits-full"', 1))
    result = CliRunner().invoke(app, ["grid", "report", str(grid)])
    assert isinstance(result.exception, BadInput)
    assert "board short is filled by several tracks" in str(result.exception)


def test_a_board_without_the_split_of_reference(tmp_path: Path) -> None:
    grid = tmp_path / "grid.toml"
    grid.write_text(GRID)
    write(tmp_path / "short", LEVELS["short"])
    write(tmp_path / "long", LEVELS["long"])
    rows = [row for row in read_rows(tmp_path / "long" / "results.csv") if row.split == "val"]
    (tmp_path / "long" / "results.csv").unlink()
    append_rows(tmp_path / "long" / "results.csv", rows)
    assert "| short | 3 × 3 |" in report(grid)


def test_a_reference_that_is_no_board_is_refused(tmp_path: Path) -> None:
    grid = tmp_path / "grid.toml"
    grid.write_text(GRID.replace('"long"', '"longer"', 1))
    result = CliRunner().invoke(app, ["grid", "report", str(grid)])
    assert isinstance(result.exception, UnknownName)
    assert "Unknown board 'longer'" in str(result.exception)
    assert "Did you mean 'long'?" in str(result.exception)


@pytest.mark.parametrize("place", ["short", "short/results.csv"])
def test_two_boards_by_folder_or_file(tmp_path: Path, place: str) -> None:
    for name, levels in LEVELS.items():
        write(tmp_path / name, levels)
    result = CliRunner().invoke(app, ["leaderboard", "agree", str(tmp_path / place), str(tmp_path / "long")])
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    title = f"digits v{DIGITS.version}"
    assert lines[0] == f"Agreement of ranks · A = {title}, B = {title}"
    tau, halves = "0.33 [0.33, 0.33]", "1.00 (1.00 to 1.00)"
    assert " ".join(lines[2].split()) == f"test 3 {tau} 2 1 {halves} {halves}"
    alone = CliRunner().invoke(app, ["leaderboard", "agree", str(tmp_path / place)])
    assert alone.output.splitlines()[2].split() == ["test", "3", "×", "3", "1.00", "1.00", "to", "1.00"]


def test_agreement_as_json(tmp_path: Path) -> None:
    for name, levels in LEVELS.items():
        write(tmp_path / name, levels)
    boards = [str(tmp_path / name) for name in LEVELS]
    (row,) = json.loads(CliRunner().invoke(app, ["leaderboard", "agree", *boards, "--format", "json"]).output)
    assert list(row) == ["endpoint", "names", "seeds", "tau", "low", "high", "same", "opposite"]
    assert (row["endpoint"], row["seeds"], row["same"], row["opposite"]) == ("test", [3, 3], 2, 1)
    (row,) = json.loads(
        CliRunner().invoke(app, ["leaderboard", "agree", boards[0], "--format", "json"]).output
    )
    assert row == {"endpoint": "test", "mean": 1.0, "low": 1.0, "high": 1.0, "halvings": 3}

"""`grid report` on rows that are written by hand: candidates beside a reference."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deepnets_bench.cli import app
from deepnets_bench.errors import UnknownName
from deepnets_bench.leaderboard.results import append_rows
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


def write(folder: Path, levels: dict[str, float]) -> None:
    rows = [
        make_row(
            track_version=3, gnn=gnn, seed=100 + seed, split=split,
            train_cpu_seconds=60.0, eval_cpu_seconds=1.0,
            accuracy_mean=level + 0.01 * seed + 0.001 * ((seed + place) % 3),
        )
        for place, (gnn, level) in enumerate(levels.items())
        for seed in (0, 1, 2)
        for split in ("val", "test")
    ]  # fmt: skip
    append_rows(folder / "results.csv", rows)


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
    assert lines[0] == "Agreement of ranks · A = digits v3, B = digits v3"
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

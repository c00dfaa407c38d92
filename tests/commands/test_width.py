"""What the commands print fits in a terminal of 80 columns, and nothing is cut."""

from __future__ import annotations

import pytest
import typer.main
from typer.testing import CliRunner

from deepnets_bench.cli import app
from deepnets_bench.gnn import catalogue
from deepnets_bench.harness.protocol.tracks import track_names

NARROW = {"COLUMNS": "80"}


def every_command(command: object, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The words that name a group or command, from the whole program down."""
    inner = getattr(command, "commands", {})
    return [path, *(found for name, one in inner.items() for found in every_command(one, (*path, name)))]


COMMANDS = every_command(typer.main.get_command(app))


def shown(*arguments: str) -> list[str]:
    done = CliRunner().invoke(app, list(arguments), env=NARROW)
    assert done.exit_code == 0, done.output
    return done.output.splitlines()


def test_every_command_is_found() -> None:
    assert {(), ("run",), ("doctor",), ("leaderboard", "show"), ("gnn", "list")} <= set(COMMANDS)
    assert len(COMMANDS) > 20


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_help_is_neither_cut_nor_too_wide(path: tuple[str, ...]) -> None:
    lines = shown(*path, "--help")
    assert [line for line in lines if "…" in line or len(line) > 80] == []


def test_a_gnn_has_a_line() -> None:
    names = [spec.name for spec in catalogue()[0]]
    lines = shown("gnn", "list")
    assert [line.split()[0] for line in lines[1 : len(names) + 1]] == names
    assert lines[len(names) + 1] == ""
    assert [line for line in lines if "…" in line or len(line) > 80] == []


def test_papers_are_wrapped() -> None:
    lines = shown("gnn", "list", "--verbose")
    assert all(len(line) <= 80 for line in lines)
    text = " ".join(" ".join(lines).split())
    assert all(" ".join(spec.source.split()) in text for spec in catalogue()[0])


def test_tracks_are_wrapped() -> None:
    lines = shown("track", "list")
    assert all(len(line) <= 80 for line in lines)
    assert [line.split()[0] for line in lines if not line.startswith(" ")] == list(track_names())


def test_a_wide_terminal_is_used() -> None:
    done = CliRunner().invoke(app, ["gnn", "list", "--verbose"], env={"COLUMNS": "200"})
    assert max(map(len, done.output.splitlines())) > 80

"""No option is dropped without a word: lists take several values, all others one."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from deepnets_bench.cli import app
from deepnets_bench.commands.options import listed, listed_gnns, listed_seeds, whole_numbers
from deepnets_bench.data.manifest import no_finished_split
from deepnets_bench.errors import BadInput
from deepnets_bench.generators.generation import generate


def test_lists_are_given_with_commas_by_repeating_or_both():
    assert listed(["val,test", " wide", "val"]) == ["val", "test", "wide"]
    assert listed(None) == []
    assert listed_seeds(["0,1", "3", "1"]) == [0, 1, 3]
    assert listed_seeds(["all"]) == "all"
    assert listed_seeds(None) is None
    for wrong in (["0", "all"], ["-1"], ["0.5"]):
        with pytest.raises(BadInput, match="Seeds are whole numbers"):
            listed_seeds(wrong)
    for wrong in (["all"], ["x"], []):
        with pytest.raises(
            BadInput, match=r"Shots are whole numbers separated by commas, such as 0,1,2, not '"
        ):
            whole_numbers(wrong, "Shots")


@pytest.mark.parametrize("values", [["0,,1"], ["0,1,"], [",0"], ["0", ""], [","]])
def test_an_empty_item_of_a_list_is_refused(values):
    for read in (listed, listed_gnns, listed_seeds):
        with pytest.raises(BadInput, match="has an empty item; write one comma between two items"):
            read(values)


def test_an_existing_file_is_taken_whole(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a,b").mkdir()
    for name in ("a,b/mine,v2.py", "a.py"):
        Path(name).write_text("")
    assert listed_gnns(["gat,./a,b/mine,v2.py:MyGNN,a.py,gin", "gat", "./a,b/mine,v2.py"]) == [
        "gat",
        "./a,b/mine,v2.py:MyGNN",
        "a.py",
        "gin",
        "./a,b/mine,v2.py",
    ]
    assert listed_gnns(["none,x.py,gat"]) == ["none", "x.py", "gat"]


def commands(group: typer.core.TyperGroup, path: tuple[str, ...] = ()):
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


COMMANDS = dict(commands(typer.main.get_command(app)))
LISTS = {
    ("generate",): {"split"},
    ("run",): {"gnn", "seeds", "gnn_option"},
    ("eval",): {"split"},
    ("predict",): {"model_option"},
    ("train",): {"seeds"},
    ("label",): {"split", "seeds"},
    ("properties", "direct"): {"gnn", "gnn_option", "seeds"},
    ("properties", "baselines"): {"seeds"},
    ("search",): {"seeds"},
    ("finetune",): {"model", "shots", "init", "seeds"},
    ("embed",): {"split"},
    ("gnn", "check"): {"option"},
    ("leaderboard", "build"): {"formats"},
}


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_help_has_a_line_a_paragraph_which_any_terminal_wraps(path):
    help_ = COMMANDS[path].help
    assert help_
    assert "\n" not in help_.replace("\n\n", "")


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_an_option_that_is_no_list_is_refused_twice(path):
    options = [param for param in COMMANDS[path].params if param.param_type_name == "option"]
    assert {option.name for option in options if option.multiple} == LISTS.get(path, set())
    for option in options:
        if not option.multiple and option.name != "help":
            given = [option.opts[0]] if option.is_flag else [option.opts[0], "1"]
            outcome = CliRunner().invoke(app, [*path, *given, *given])
            assert isinstance(outcome.exception, BadInput), option.name
            assert f"{option.opts[0]} is given 2 times" in str(outcome.exception)


def test_commands_that_messages_advise_are_accepted(tmp_path):
    """The advice for a folder without splits, and for a new GNN, in a folder whose name has a space."""
    folder = tmp_path / "my data"
    advised = str(no_finished_split(folder, "val")).split("; ")[1].removesuffix(" makes one.")
    assert shlex.split(advised) == ["deepnets-bench", "generate", "--split", "val", "--out", str(folder)]
    outcome = CliRunner().invoke(app, [*shlex.split(advised)[1:], "--num", "3"])
    assert outcome.exit_code == 0, outcome.output

    generate(["test"], folder, 3)
    held = str(no_finished_split(folder, "tset"))
    assert "no finished split 'tset', but test, val; deepnets-bench generate --split SPLIT" in held

    outcome = CliRunner().invoke(app, ["gnn", "new", str(folder / "mine.py")])
    advised = outcome.output.replace("\n", "").partition("Next: deepnets-bench ")[2]
    assert shlex.split(advised) == ["gnn", "check", str(folder / "mine.py")]
    main = [sys.executable, "-m", "deepnets_bench"]
    done = subprocess.run([*main, *shlex.split(advised)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "ok    mixed precision" in done.stdout

"""The command `train`: it trains as labels are made, from initial weights of any kind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deepnets_bench.cli import app
from deepnets_bench.errors import BadInput
from deepnets_bench.generators import sample
from deepnets_bench.harness.protocol.tracks import track_text
from deepnets_bench.uses.labelling import label_one, label_tasks
from deepnets_bench.uses.recipe import recipe_of


@pytest.fixture
def track(tmp_path: Path) -> Path:
    """`digits` under another name, with few test images."""
    path = tmp_path / "small.toml"
    text = track_text("digits").replace('name = "digits"', 'name = "small"')
    path.write_text(text.replace("max_images = 359", "max_images = 64"))
    return path


def run(*arguments: str) -> str:
    return CliRunner().invoke(app, ["train", *arguments], catch_exceptions=False).output


def test_a_network_is_trained_as_labels_are_made(track, tmp_path):
    from deepnets_bench.harness.protocol.tracks import load_track

    shown = run(
        "test/1", "--track", str(track), "--seeds", "1", "--epochs", "1", "--out", str(tmp_path / "out")
    )
    assert "under noise" in shown
    result = json.loads((tmp_path / "out/seed-1/result.json").read_text())
    recipe = recipe_of("digits", epochs=1)
    label = label_one(label_tasks(load_track(str(track)), ["test"], 2, [1], recipe, tmp_path / "data")[1])
    assert (result["accuracy"], result["accuracy_noise"]) == (label.accuracy, label.accuracy_noise)
    assert (result["convergence"], result["converged"]) == (label.convergence, label.converged)
    assert result["parameters"] == label.parameters


def test_what_cannot_be_trained_is_said_in_a_sentence(track, tmp_path):
    out = ["--track", str(track), "--epochs", "1", "--out", str(tmp_path / "out")]
    with pytest.raises(BadInput, match="is none of these"):
        run("test/x", *out)
    with pytest.raises(BadInput, match="not 'xavier'"):
        run("test/1", "--init", "xavier", *out)
    with pytest.raises(BadInput, match="fewer than 5000 shots"):
        run("test/1", "--shots", "5000", *out)
    with pytest.raises(BadInput, match="Seeds are whole numbers"):
        run("test/1", "--seeds", "a", *out)


def test_a_folder_is_for_one_width_source_and_regularisation(track, tmp_path):
    out = ["--track", str(track), "--epochs", "1", "--out", str(tmp_path / "out")]
    source = tmp_path / "mine.json"
    source.write_text(json.dumps(sample("test", 1).to_dict()))
    run(str(source), "--auxiliary", "0.4", "--drop-path", "0.2", *out)
    assert json.loads((tmp_path / "out/seed-0/result.json").read_text())["recipe"]["auxiliary"] == 0.4
    for arguments, message in (
        (["--width", "12", "--auxiliary", "0.4", "--drop-path", "0.2"], "another width"),
        (["--drop-path", "0.2"], "another recipe"),
    ):
        with pytest.raises(BadInput, match=message):
            run(str(source), *arguments, *out)
    source.write_text(json.dumps(sample("test", 2).to_dict()))
    with pytest.raises(BadInput, match="another source"):
        run(str(source), "--auxiliary", "0.4", "--drop-path", "0.2", *out)


def test_what_cannot_be_trained_is_refused_before_anything_is_left(track, tmp_path):
    out = ["--track", str(track), "--epochs", "1", "--out", str(tmp_path / "out")]
    with pytest.raises(BadInput, match="for architectures made of cells"):
        run("resnet50", "--auxiliary", "0.4", *out)
    (tmp_path / "net.py").write_text(
        "from torch import nn\nnet = lambda: nn.Sequential(nn.Flatten(), nn.Linear(768, 5))\n"
    )
    with pytest.raises(BadInput, match="tells 5 classes apart"):
        run(f"{tmp_path / 'net.py'}:net", *out)
    assert not list((tmp_path / "out").rglob("training.json"))

"""`predict` through the real command, on small networks."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from deepnets_bench.ghn.model import GHN
from tests.commands.conftest import Run
from tests.ghn.networks import BARE

MODELS = """
import torch
from torch import nn

def small():
    body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8))
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))

def other_classes():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 7))

def text():
    return nn.Embedding(10, 8)

def fails():
    raise ValueError("no such variant")

def number():
    return 3
"""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("ghn") / "ghn.safetensors"
    GHN.from_config({"hid": 8, "max_shape": (8, 8, 3, 3)}).save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with a Python file of models."""
    (tmp_path / "my_models.py").write_text(MODELS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "my_models", raising=False)
    return tmp_path


def test_torchvision_model(run: Run, checkpoint: Path, folder: Path) -> None:
    models = pytest.importorskip("torchvision").models
    code, output, errors = run(
        "predict", "torchvision:resnet18", "--ghn", checkpoint, "--out", "r.safetensors"
    )
    assert (code, errors) == (0, "")
    assert "torchvision:resnet18: 53 nodes, 62 parameters (11,181,642 values) predicted in" in output
    assert "more channels than the 8×8 that the decoder predicts" in output
    resnet = models.resnet18(num_classes=10)
    loaded = resnet.load_state_dict(load_file("r.safetensors"), strict=False)
    assert not loaded.unexpected_keys
    assert all("running_" in key or "num_batches" in key for key in loaded.missing_keys)
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []


def test_function_of_the_user_and_the_rest_named(run: Run, checkpoint: Path, folder: Path) -> None:
    code, output, _ = run("predict", "my_models:small", "--ghn", checkpoint, "--out", "s.safetensors")
    assert code == 0
    assert "left 2: enters through operation 'group_norm'" in output
    assert "(1.weight, 1.bias)" in output
    assert load_file("s.safetensors").keys() == {"0.weight", "0.bias", "4.weight", "4.bias"}


def test_architecture_file_as_the_hypernetwork_predicts_it(run: Run, checkpoint: Path, folder: Path) -> None:
    Path("arch.json").write_text(json.dumps(BARE.to_dict()))
    arguments = ("--ghn", checkpoint, "--out", "a.safetensors", "--width", 8, "--image-size", 16)
    code, _, errors = run("predict", "arch.json", *arguments)
    assert (code, errors) == (0, "")
    expected = GHN.load(checkpoint).predict(BARE, width=8, image_size=16)
    torch.testing.assert_close(load_file("a.safetensors"), expected)


def test_a_file_is_replaced_only_by_force(run: Run, checkpoint: Path, folder: Path) -> None:
    out = folder / "s.safetensors"
    out.write_text("mine")
    arguments = ("predict", "my_models:small", "--ghn", checkpoint, "--out", out)
    code, _, errors = run(*arguments)
    assert code == 2
    assert "exists already; give --force" in errors
    assert out.read_text() == "mine"
    assert run(*arguments, "--force")[0] == 0
    assert "0.weight" in load_file(out)


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        ("torchvision:resnet19", "Unknown torchvision model 'resnet19'. Did you mean 'resnet1"),
        ("my_models:smal", "Unknown function 'smal' in my_models. Did you mean 'small'?"),
        ("no_such_package:net", "'no_such_package' cannot be imported (ModuleNotFoundError"),
        ("my_models:fails", "my_models:fails() failed: ValueError: no such variant."),
        ("my_models:number", "my_models:number() returned int, not a torch.nn.Module."),
        ("my_models:text", "Embedding could not be traced on images"),
        ("my_models:other_classes", "classifiers of 10 classes, but 3.weight has 7 outputs"),
        ("no-such-file.json", "no-such-file.json' is neither"),
    ],
)
def test_unusable_models(run: Run, checkpoint: Path, folder: Path, model: str, sentence: str) -> None:
    if model.startswith("torchvision"):
        pytest.importorskip("torchvision")
    code, output, errors = run("predict", model, "--ghn", checkpoint, "--out", "x.safetensors")
    assert (code, output) == (2, "")
    assert sentence in errors
    assert errors.count("\n") == 1
    assert not Path("x.safetensors").exists()


def test_unusable_files(run: Run, checkpoint: Path, folder: Path) -> None:
    for ghn, out, sentence in (
        ("missing.safetensors", "x.safetensors", "Cannot read missing.safetensors"),
        ("my_models.py", "x.safetensors", "my_models.py"),
        (checkpoint, "x.pt", "must end in .safetensors"),
        (checkpoint, "no/x.safetensors", "There is no folder no."),
    ):
        code, _, errors = run("predict", "my_models:small", "--ghn", ghn, "--out", out)
        assert code == 2
        assert sentence in errors
        assert errors.count("\n") == 1


def test_without_torchvision(
    run: Run, checkpoint: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    code, _, errors = run("predict", "torchvision:resnet18", "--ghn", checkpoint, "--out", "x.safetensors")
    assert code == 2
    assert "pip install 'deepnets-bench[vision]'" in errors

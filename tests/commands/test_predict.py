"""`predict` through the real command, on small networks."""

from __future__ import annotations

import copy
import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import deepnets_bench as dnb
from deepnets_bench.commands.predict import calibration_images
from deepnets_bench.ghn.model import GHN
from deepnets_bench.gnn.importing import inherited_path
from tests.commands.conftest import Run
from tests.ghn.networks import BARE

MODELS = """
import torch
from torch import nn

def small():
    body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8))
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))

def normed(channels=8, norm=True):
    norms = [nn.BatchNorm2d(channels)] if norm else []
    return nn.Sequential(nn.Conv2d(3, channels, 3), *norms, *small()[2:4], nn.Linear(channels, 10))

instance = nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))

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
        ("no_such_package:net", "'no_such_package' cannot be imported: ModuleNotFoundError"),
        ("my_models:fails", "my_models:fails() failed: ValueError: no such variant."),
        ("my_models:number", "my_models:number() returned int, not a torch.nn.Module."),
        ("my_models:text", "Embedding could not be traced on images"),
        ("my_models:other_classes", "classifiers of 10 classes, but 3.weight has 7 outputs"),
        ("no-such-file.json", "no-such-file.json' is none of these: torchvision:NAME"),
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


def test_file_of_the_user_finds_its_neighbours(run: Run, checkpoint: Path, folder: Path) -> None:
    (folder / "nets").mkdir()
    (folder / "nets" / "neighbour_of_net.py").write_text("CLASSES = 10\n")
    (folder / "nets" / "net.py").write_text(
        "from torch import nn\nfrom neighbour_of_net import CLASSES\nfrom my_models import small\n"
        "def net(inputs=3072):\n    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, CLASSES))\n"
    )
    path = inherited_path()  # what users' folders come after
    arguments = ("--ghn", checkpoint, "--out", "n.safetensors", "--force")
    for model in ("./nets/net.py:net", folder / "nets" / "net.py:net", "my_models:instance"):
        code, output, errors = run("predict", model, *arguments)
        assert (code, errors) == (0, "")
        assert f"{model}: 3 nodes, 2 parameters (30,730 values) predicted in" in output
    assert sys.path[: len(path)] == path
    code, _, errors = run("predict", "./nets/net.py:net", *arguments, "--model-option", "inputs=12")
    assert code == 2
    assert "could not be traced on images of shape (3, 32, 32)" in errors
    small = ("--model-option", "inputs=12", "--image-size", 2)
    code, output, _ = run("predict", "./nets/net.py:net", *arguments, *small)
    assert code == 0
    assert "(130 values)" in output


@pytest.mark.parametrize(
    ("model", "options", "sentence"),
    [
        ("./none.py:net", (), "There is no file none.py."),
        ("./my_models.py", (), "Which function of ./my_models.py? Write ./my_models.py:function."),
        ("./my_models.py:smal", (), "Unknown function 'smal' in ./my_models.py. Did you mean 'small'?"),
        ("./broken.py:net", (), "'broken.py' cannot be imported: SyntaxError"),
        ("nets/net:net", (), "'nets/net' is no Python file; MODEL is torchvision:NAME, a file ./file.py:"),
        ("./my_models.py:normed", ("width=3",), "Unknown option 'width' of ./my_models.py:normed. Choices:"),
        ("./my_models.py:normed", ("channels",), "An option is written name=value, not 'channels'."),
        ("resnet50", ("channels=3",), "resnet50 is an architecture, which takes no --model-option."),
        ("torchvision:resnet18", ("depth=3",), "torchvision:resnet18 cannot be built: TypeError"),
    ],
)
def test_unusable_files_and_options(
    run: Run, checkpoint: Path, folder: Path, model: str, options: tuple[str, ...], sentence: str
) -> None:
    if model.startswith("torchvision"):
        pytest.importorskip("torchvision")
    (folder / "broken.py").write_text("def net(:\n")
    given = [word for option in options for word in ("--model-option", option)]
    code, output, errors = run("predict", model, "--ghn", checkpoint, "--out", "x.safetensors", *given)
    assert (code, output) == (2, "")
    assert sentence in errors
    assert errors.count("\n") == 1


def test_classifier_of_another_size_is_skipped(run: Run, checkpoint: Path, folder: Path) -> None:
    arguments = ("--ghn", checkpoint, "--out", "c.safetensors")
    code, _, errors = run("predict", "my_models:other_classes", *arguments)
    assert code == 2
    assert "--classifier skip" in errors
    code, output, _ = run("predict", "my_models:other_classes", *arguments, "--classifier", "skip")
    assert code == 0
    assert "left 2: classifier, skipped as asked (3.weight, 3.bias)" in output
    assert load_file("c.safetensors").keys() == {"0.weight", "0.bias"}
    code, _, errors = run("predict", "my_models:small", *arguments, "--classifier", "skp", "--force")
    assert code == 2
    assert "Unknown classifier 'skp'. Did you mean 'skip'?" in errors


def test_norms_without_statistics_of_images_are_pointed_out(run: Run, checkpoint: Path, folder: Path) -> None:
    arguments = ("--ghn", checkpoint, "--out", "n.safetensors", "--force")
    _, output, _ = run("predict", "my_models:normed", *arguments)
    assert "note: 1 norm keeps its running statistics (mean 0 and variance 1" in output
    assert "--calibrate IMAGES or deepnets_bench.recalibrate(module, loader)" in output
    _, output, _ = run("predict", "my_models:normed", *arguments, "--model-option", "norm=False")
    assert "running statistics" not in output
    assert "deepnets_bench.recalibrate" in run("predict", "--help")[1]


def test_calibration_on_a_folder_of_images(run: Run, checkpoint: Path, folder: Path) -> None:
    pytest.importorskip("torchvision")
    random = np.random.default_rng(0)
    for i in range(70):
        path = folder / "images" / f"class{i % 2}" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (40, 36, 3), np.uint8)).save(path)
    arguments = ("--ghn", checkpoint, "--out", "n.safetensors", "--force")
    code, output, errors = run("predict", "my_models:normed", *arguments, "--calibrate", "images")
    assert (code, errors) == (0, "")
    assert "running statistics of 1 norm(s) re-estimated on 70 images" in output
    assert "note: 1 norm keeps" not in output
    state = load_file("n.safetensors")
    module = importlib.import_module("my_models").normed()
    assert not module.load_state_dict(state, strict=False).unexpected_keys
    assert not torch.equal(state["1.running_mean"], torch.zeros(8))
    expected = dnb.recalibrate(copy.deepcopy(module), calibration_images(Path("images"), 32).batches(64))
    torch.testing.assert_close(state["1.running_var"], expected[1].running_var)
    for images, sentence in (("none", "There is no folder none."), (folder / "empty", "holds no images.")):
        (folder / "empty").mkdir(exist_ok=True)
        code, _, errors = run("predict", "my_models:normed", *arguments, "--calibrate", images)
        assert code == 2
        assert sentence in errors


def test_dense_prediction_of_torchvision(run: Run, checkpoint: Path, folder: Path) -> None:
    pytest.importorskip("torchvision")
    model = ("torchvision:lraspp_mobilenet_v3_large", "--model-option", "num_classes=21")
    code, output, errors = run("predict", *model, "--ghn", checkpoint, "--out", "d.safetensors")
    assert (code, errors) == (0, "")
    assert "left" not in output

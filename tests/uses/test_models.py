"""Models by name, as they are trained: each its own module, of the size at which its track evaluates it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from deepnets_bench.data.shards import open_split
from deepnets_bench.errors import BadInput
from deepnets_bench.generators import generate, sample
from deepnets_bench.harness.protocol.tracks import load_track
from deepnets_bench.uses.models import build_for, check_trainable, width_for
from tests.harness.conftest import tiny_track

SOURCE = """
from torch import nn

shared = nn.Sequential(nn.Flatten(), nn.Linear(768, 10))
net = lambda: shared
few = lambda: nn.Sequential(nn.Flatten(), nn.Linear(768, 5))
large = lambda: nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))
empty = lambda: nn.Sequential(nn.Flatten())
normed = lambda: nn.Sequential(nn.Flatten(), nn.utils.weight_norm(nn.Linear(768, 10)))
"""


@pytest.fixture
def source(tmp_path: Path) -> str:
    """A file with modules."""
    (tmp_path / "net.py").write_text(SOURCE)
    return str(tmp_path / "net.py")


def test_a_training_leaves_nothing_in_the_module_of_the_next(source):
    first = build_for(f"{source}:net", tiny_track(), 10)
    before = first[1].weight.detach().clone()
    with torch.no_grad():
        first[1].weight.add_(1)
    assert torch.equal(build_for(f"{source}:net", tiny_track(), 10)[1].weight, before)


def test_a_module_that_is_there_already_is_not_trained(source):
    with pytest.raises(BadInput, match="shared is a module, with the same weights for every seed"):
        build_for(f"{source}:shared", tiny_track(), 10)


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_weights_that_are_computed_of_others_train(source):
    module = build_for(f"{source}:normed", tiny_track(), 10)
    module(torch.ones(1, 3, 16, 16)).sum().backward()
    assert module[1].weight_g.grad is not None


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("few", "few tells 5 classes apart, and the images have 10"),
        ("large", "large cannot take images of 16×16 pixels: RuntimeError"),
        ("empty", "empty has no parameters to train"),
    ],
)
def test_what_cannot_be_trained_on_the_images_is_refused(source, name, message):
    module = build_for(f"{source}:{name}", tiny_track(), 10)
    with pytest.raises(BadInput, match=message):
        check_trainable(module, f"{source}:{name}", 16, 10)


def test_torchvision_models_that_are_too_large_are_refused():
    pytest.importorskip("torchvision", reason="needs the extra 'vision'")
    for name in ("squeezenet1_0", "vit_b_16"):
        module = build_for(f"torchvision:{name}", tiny_track(), 10)
        with pytest.raises(BadInput, match=f"{name} cannot take images of 16×16 pixels"):
            check_trainable(module, f"torchvision:{name}", 16, 10)


def test_widths_are_those_of_labels(tmp_path):
    named = ("test/1", "wide/1", "mine.json", "vit")
    assert [width_for(model, tiny_track()) for model in named] == [8, 32, 8, 8]
    with pytest.raises(BadInput, match="number of a graph must be"):
        width_for(f"test/{1 << 64}", tiny_track())
    stored = load_track("cifar10")
    for split in ("test", "wide", "predefined"):
        generate([split], tmp_path, 2 if split != "predefined" else None, workers=1)
    for model, split, index in (
        ("test/1", "test", 1), ("wide/1", "wide", 1), ("resnet50", "predefined", 0), ("vit", "predefined", 1)
    ):  # fmt: skip
        assert width_for(model, stored) == open_split(tmp_path, split)[index].width[0]
    assert width_for("mine.json", stored) == 32
    module = build_for("wide/1", tiny_track(), 10)
    assert (
        sum(p.numel() for p in module.parameters())
        == sample("wide", 1).program(width=32, image_size=16, num_classes=10, fc_dim=16).num_params
    )

"""Models by name, as they are trained: each its own module, of the size at which its track evaluates it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from deepnets_bench.errors import BadInput
from deepnets_bench.uses.models import build_for
from tests.harness.conftest import tiny_track

SOURCE = """
from torch import nn

shared = nn.Sequential(nn.Flatten(), nn.Linear(768, 10))
net = lambda: shared
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

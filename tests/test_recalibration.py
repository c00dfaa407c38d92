"""Running statistics of norms: the mean over batches, and everything else as it was."""

from __future__ import annotations

from collections import namedtuple
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import deepnets_bench as dnb
from deepnets_bench.errors import BadInput
from tests.ghn.networks import BARE


def network() -> nn.Module:
    layers = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, momentum=0.3), nn.ReLU(), nn.Dropout(0.9)]
    return nn.Sequential(*layers, nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, 10))


def batches(count: int = 3) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [5 + 3 * torch.randn(6, 3, 8, 8, generator=generator) for _ in range(count)]


def test_statistics_are_means_over_batches() -> None:
    module = network()
    module[1].running_mean.fill_(100.0)  # of other parameters
    assert dnb.recalibrate(module, batches()) is module
    values = [module[0](images) for images in batches()]
    mean = torch.stack([v.mean((0, 2, 3)) for v in values]).mean(0)
    var = torch.stack([v.transpose(0, 1).flatten(1).var(1) for v in values]).mean(0)
    torch.testing.assert_close(module[1].running_mean, mean)
    torch.testing.assert_close(module[1].running_var, var)
    module.eval()
    assert module[:6](batches(1)[0]).std() < 2  # normalised


def test_modes_momenta_and_parameters_are_as_before() -> None:
    module = network()
    module[5].eval()
    modes = [m.training for m in module.modules()]
    parameters = [p.detach().clone() for p in module.parameters()]
    count = module[1].num_batches_tracked.clone()
    dnb.recalibrate(module, batches())
    assert [m.training for m in module.modules()] == modes
    assert (module[1].momentum, module[5].momentum) == (0.3, 0.1)
    assert all(torch.equal(p, q) for p, q in zip(module.parameters(), parameters, strict=True))
    assert module[1].num_batches_tracked >= count
    assert all(p.grad is None and p.requires_grad for p in module.parameters())


def test_one_batch_equals_training_mode() -> None:
    module, (images,) = network(), batches(1)
    module[3] = nn.Identity()
    expected = module.train()(images)
    dnb.recalibrate(module, [images])
    torch.testing.assert_close(module.eval()(images), expected, rtol=0.05, atol=0.05)


Pair = namedtuple("Pair", "images labels")


@pytest.mark.parametrize(
    "loader",
    [
        DataLoader(TensorDataset(torch.cat(batches()), torch.zeros(18)), batch_size=6),
        [(images, torch.zeros(6)) for images in batches()],
        [Pair(images, None) for images in batches()],
        [{"pixel_values": images, "labels": None} for images in batches()],
        (images.double() for images in batches()),
    ],
)
def test_loaders(loader: Any) -> None:
    torch.manual_seed(0)
    module, expected = network(), network()
    expected.load_state_dict(module.state_dict())
    dnb.recalibrate(module, loader)
    dnb.recalibrate(expected, batches())
    torch.testing.assert_close(module.state_dict(), expected.state_dict())


def test_networks_of_our_own() -> None:
    arch = dnb.Architecture.from_dict({**BARE.to_dict(), "norm": "bn-track"})
    module = arch.build(width=8, image_size=16)
    norms = [name for name, _ in module.named_buffers() if name.endswith("running_var")]
    images = [torch.rand(8, 3, 16, 16) for _ in range(2)]
    dnb.recalibrate(module, images[:1])
    expected = module.train()(images[0])
    torch.testing.assert_close(module.eval()(images[0]), expected, rtol=0.1, atol=0.05)
    assert norms


def test_norms_without_statistics_or_out_of_reach() -> None:
    frozen = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False))
    assert dnb.recalibrate(frozen, batches()) is frozen
    assert dnb.recalibrate(nn.Conv2d(3, 4, 3), batches())

    class Auxiliary(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            return self[1](self[0](x))

    module = Auxiliary(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.BatchNorm2d(7))
    module[2].running_mean.fill_(5)
    dnb.recalibrate(module, batches())
    assert torch.equal(module[2].running_mean, torch.full((7,), 5.0))
    assert torch.equal(module[2].running_var, torch.ones(7))


@pytest.mark.parametrize(
    ("loader", "sentence"),
    [
        ([], "There are no batches"),
        ([torch.zeros(6, 3, 8, 8), "cat.png"], "Batch 2 holds a str where floating-point images"),
        ([torch.zeros(6, 3, 8, 8, dtype=torch.uint8)], r"Batch 1 holds a tensor of torch\.uint8 where"),
        ([torch.zeros(6, 1, 8, 8)], r"Sequential cannot take batch 1 of shape \[6, 1, 8, 8\] \(RuntimeError"),
        ([torch.full((6, 3, 8, 8), float("nan"))], "Running statistics are not finite"),
    ],
)
def test_bad_batches_change_nothing(loader: Any, sentence: str) -> None:
    module = network()
    before = {name: value.clone() for name, value in module.state_dict().items() if "batches" not in name}
    with pytest.raises(BadInput, match=sentence) as caught:
        dnb.recalibrate(module, loader)
    assert "\n" not in str(caught.value)
    assert all(torch.equal(before[name], module.state_dict()[name]) for name in before)
    assert module.training
    assert (module[1].momentum, module[5].momentum) == (0.3, 0.1)

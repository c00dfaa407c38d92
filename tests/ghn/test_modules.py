"""Initialising foreign modules in place: what is filled, what stays, and what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from deepnets_bench.errors import BadInput
from deepnets_bench.ghn import modules
from deepnets_bench.ghn.model import GHN
from deepnets_bench.ghn.shapes import MAX_CHANNELS
from deepnets_bench.reasons import CLASS_TOKEN, LAYER_SCALE


@pytest.fixture(scope="module")
def ghn() -> GHN:
    torch.manual_seed(0)
    return GHN.from_config({"hid": 8, "max_shape": (8, 8, 5, 5)})


def head(channels: int, classes: int = 10) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes)]


def network() -> nn.Module:
    """Kernels that fit, that repeat with a rest, that are stretched; a depthwise one; a linear layer."""
    layers = [
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.Conv2d(8, 20, 5, padding=2),
        nn.Conv2d(20, 20, 7, padding=3, groups=20, bias=False),
        nn.Conv2d(20, 18, 1),
        *head(18, 12),
        nn.ReLU(),
        nn.Linear(12, 10),
    ]
    return nn.Sequential(*layers)


class Transformer(nn.Module):
    """Patches, class token, position embedding, layer scale, norms without bias or named in another way."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 8, 8)
        self.token = nn.Parameter(torch.zeros(1, 1, 8))
        self.positions = nn.Parameter(torch.zeros(1, 17, 8))
        self.norm = nn.LayerNorm(8, bias=False)
        self.gain = nn.Parameter(torch.full((8,), 5.0))
        self.shift = nn.Parameter(torch.full((8,), 5.0))
        self.scale = nn.Parameter(torch.full((8,), 0.5))
        self.fc = nn.Linear(8, 8)
        self.head = nn.Linear(8, 10)

    def forward(self, images: Tensor) -> Tensor:
        x = self.patches(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.positions
        x = x + self.scale * self.fc(self.norm(x))
        x = nn.functional.layer_norm(x, (8,), self.gain, self.shift)
        return self.head(x[:, 0])


def test_in_place_equals_new_tensors(ghn: GHN) -> None:
    module = network()
    params, report = modules.predict(ghn, module, (3, 32, 32))
    before = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
    assert ghn.initialize(module) == report
    assert report.predicted == list(params) == [name for name, _ in module.named_parameters()]
    assert report.left == {}
    for name, parameter in module.named_parameters():
        torch.testing.assert_close(parameter.detach(), params[name], msg=name)
        assert not torch.equal(parameter, before[name])
    assert module(torch.randn(2, 3, 32, 32)).isfinite().all()


def test_what_exceeds_the_decoder_is_noted(ghn: GHN) -> None:
    notes = ghn.initialize(network()).notes
    assert len(notes) == 2
    # Not those of the first convolution and norm, nor the bias of the classifier, which has its own decoder.
    assert notes[0].startswith("8 of 13 parameters have more channels than the 8×8 that the decoder predicts")
    assert notes[1].startswith("1 of 13 parameters have larger windows than the decoder's 5×5")
    assert GHN.from_config("ghn2").initialize(nn.Sequential(nn.Conv2d(3, 8, 3), *head(8))).notes == []


def test_wider_than_the_vocabulary(ghn: GHN) -> None:
    module = nn.Sequential(nn.Conv2d(3, MAX_CHANNELS + 8, 1), *head(MAX_CHANNELS + 8))
    report = ghn.initialize(module)
    assert report.left == {}
    assert f"3 of 4 parameters have more than {MAX_CHANNELS} channels" in report.notes[0]
    weight = module[0].weight
    torch.testing.assert_close(weight[:8], weight[-8:])
    assert module(torch.randn(1, 3, 4, 4)).isfinite().all()


def test_transformer(ghn: GHN) -> None:
    module = Transformer()
    report = ghn.initialize(module)
    assert report.left == {
        "token": CLASS_TOKEN,
        "scale": LAYER_SCALE,
        "shift": "bias of a norm, not named as its weight is",
    }
    assert set(report.predicted) == {name for name, _ in module.named_parameters()} - set(report.left)
    assert torch.equal(module.scale, torch.full((8,), 0.5))
    assert torch.equal(module.shift, torch.full((8,), 5.0))
    # Sixteen positions behind one random row for the class token.
    assert module.positions[0].std(1).min() > 0
    assert module(torch.randn(2, 3, 32, 32)).isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtype_layout_and_freezing_are_kept(ghn: GHN, dtype: torch.dtype) -> None:
    reference, module = network(), network().to(dtype).to(memory_format=torch.channels_last)
    module[0].requires_grad_(False)
    tensors = dict(module.named_parameters())
    ghn.initialize(reference)
    report = ghn.initialize(module)
    assert "0.weight" in report.predicted
    for (name, parameter), wanted in zip(module.named_parameters(), reference.parameters(), strict=True):
        assert parameter is tensors[name]
        assert parameter.dtype == dtype
        assert parameter.requires_grad == (not name.startswith("0."))
        torch.testing.assert_close(parameter.detach(), wanted.detach().to(dtype), msg=name)
    assert module[2].weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_modules_on_a_gpu_stay_there(ghn: GHN) -> None:
    reference, module = network(), network().cuda()
    ghn.initialize(reference)
    ghn.initialize(module)
    for parameter, wanted in zip(module.parameters(), reference.parameters(), strict=True):
        assert parameter.is_cuda
        torch.testing.assert_close(parameter.detach().cpu(), wanted.detach())


def branching() -> nn.Module:
    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x) if x.mean() > 0 else x

    return Branching()


@pytest.mark.parametrize(
    ("module", "sentence"),
    [
        (nn.Sequential(nn.Conv2d(3, 8, 3), *head(8, 7)), r"10 classes, but 3\.weight has 7 outputs"),
        (nn.Sequential(nn.Conv2d(3, 8, 3), *head(8)).to("meta"), r"'0\.weight' is on the meta device"),
        (nn.Sequential(nn.Flatten(), nn.ReLU()), "has no parameters"),
        (nn.Conv2d(3, 8, 1, dtype=torch.complex64), "torch.complex64"),
        (nn.LSTM(3, 8), "could not be traced on images"),
        (branching(), "reads the values"),
    ],
    ids=["classes", "meta", "empty", "complex", "not-images", "control-flow"],
)
def test_unusable_modules_are_left_as_they_were(ghn: GHN, module: nn.Module, sentence: str) -> None:
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with pytest.raises(BadInput, match=sentence) as caught:
        ghn.initialize(module)
    assert "\n" not in str(caught.value)
    if "meta" not in sentence:
        assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_modules_on_the_meta_device_are_predicted_into_new_tensors(ghn: GHN) -> None:
    with torch.device("meta"):
        module = network()
    params, report = modules.predict(ghn, module, (3, 32, 32))
    assert list(params) == report.predicted
    module.to_empty(device="cpu").load_state_dict(params, strict=False)
    assert all(p.isfinite().all() for p in module.parameters())

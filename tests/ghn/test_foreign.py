"""Initialising foreign modules in place: what is filled, what stays, and what is refused."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from deepnets_bench.errors import BadInput
from deepnets_bench.ghn import foreign
from deepnets_bench.ghn.model import GHN
from deepnets_bench.ghn.shapes import MAX_CHANNELS
from deepnets_bench.graphs.tracing.reasons import CLASS_TOKEN, LAYER_SCALE


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
    params, report = foreign.predict(ghn, module, (3, 32, 32))
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
    params, report = foreign.predict(ghn, module, (3, 32, 32))
    assert list(params) == report.predicted
    module.to_empty(device="cpu").load_state_dict(params, strict=False)
    assert all(p.isfinite().all() for p in module.parameters())


def dense(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), *layers)


@pytest.mark.parametrize("classifier", ["predict", "skip"])
@pytest.mark.parametrize(
    "module",
    [
        dense(nn.Conv2d(8, 16, 3)),
        dense(nn.Conv2d(8, 3, 3, padding=1)),
        dense(nn.Conv2d(8, 10, 1)),
        dense(nn.MaxPool2d(2), nn.Conv2d(8, 4, 3), nn.Upsample(scale_factor=2)),
        dense(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 48), nn.Unflatten(1, (3, 4, 4))),
    ],
    ids=["body", "autoencoder", "segmentation", "upsampled", "decoder"],
)
def test_networks_without_classifier_are_predicted_whole(
    ghn: GHN, module: nn.Module, classifier: str
) -> None:
    before = dict(module.named_parameters())
    module = copy.deepcopy(module)
    report = ghn.initialize(module, classifier=classifier)
    assert report.left == {}
    assert report.predicted == list(before)
    assert not any(torch.equal(parameter, before[name]) for name, parameter in module.named_parameters())


@pytest.mark.parametrize("classes", [10, 37])
def test_skipped_classifiers_keep_their_values(ghn: GHN, classes: int) -> None:
    torch.manual_seed(0)
    module = dense(*head(8, classes))
    before = module[4].weight.detach().clone(), module[4].bias.detach().clone()
    params, expected = foreign.predict(ghn, module, None, "skip")
    report = ghn.initialize(module, classifier="skip")
    assert report == expected
    assert list(params) == report.predicted == ["0.weight", "0.bias"]
    assert report.left == dict.fromkeys(("4.weight", "4.bias"), "classifier, skipped as asked")
    assert torch.equal(module[4].weight, before[0])
    assert torch.equal(module[4].bias, before[1])
    if classes == 10:
        whole = dense(*head(8))
        ghn.initialize(whole)
        assert torch.equal(module[0].weight, whole[0].weight)


def test_another_number_of_classes_says_what_to_do(ghn: GHN) -> None:
    with pytest.raises(BadInput, match=r"classifier='skip' \(--classifier skip\) predicts everything but"):
        ghn.initialize(dense(*head(8, 37)))
    with pytest.raises(BadInput, match="Unknown classifier 'none'"):
        ghn.initialize(dense(*head(8, 37)), classifier="none")


def test_convolution_in_the_place_of_a_classifier(ghn: GHN) -> None:
    """SqueezeNet: of another number of classes, it is a convolution as any other."""

    def squeezenet(classes: int) -> nn.Module:
        return dense(nn.Conv2d(8, classes, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    assert ghn.initialize(squeezenet(10)).notes == []
    report = ghn.initialize(squeezenet(7))
    assert report.left == {}
    assert report.notes[0].startswith("2.weight has 7 outputs, not the 10 of")
    report = ghn.initialize(squeezenet(7), classifier="skip")
    assert report.left.keys() == {"2.weight", "2.bias"}


def reparametrised(function: Any) -> nn.Module:
    torch.manual_seed(1)
    return dense(function(nn.Conv2d(8, 8, 3)), *head(8))


def linear(function: Any) -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(3072, 8), function(nn.Linear(8, 8)), nn.Linear(8, 10))


class Symmetric(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.triu() + x.triu(1).mT


class Invertible(Symmetric):
    def right_inverse(self, x: Tensor) -> Tensor:
        return x.triu()


def symmetric(part: nn.Module) -> Any:
    return lambda layer: parametrize.register_parametrization(layer, "weight", part)


@pytest.mark.parametrize("function", [parametrizations.weight_norm, nn.utils.weight_norm])
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_weight_norm_computes_the_predicted_weight(ghn: GHN, function: Any) -> None:
    plain, module = reparametrised(lambda conv: conv), reparametrised(function)
    ghn.initialize(plain)
    report = ghn.initialize(module)
    assert report.left == {}
    assert set(report.predicted) == {name for name, _ in module.named_parameters()}
    torch.testing.assert_close(module[2].weight.detach(), plain[2].weight.detach())
    images = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(module(images), plain(images))


@pytest.mark.parametrize("function", [parametrizations.spectral_norm, nn.utils.spectral_norm])
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_spectral_norm_follows_the_predicted_weight(ghn: GHN, function: Any) -> None:
    plain, module = reparametrised(lambda conv: conv), reparametrised(function)
    ghn.initialize(plain)
    ghn.initialize(module)
    module.eval()
    module(torch.randn(2, 3, 8, 8))
    weight = plain[2].weight.detach()
    expected = weight / torch.linalg.matrix_norm(weight.flatten(1), ord=2)
    torch.testing.assert_close(module[2].weight.detach(), expected, rtol=0.02, atol=1e-3)


def test_orthogonal_weights_stay_orthogonal(ghn: GHN) -> None:
    module = linear(parametrizations.orthogonal)
    assert ghn.initialize(module).left == {}
    weight = module[2].weight.detach()
    torch.testing.assert_close(weight @ weight.T, torch.eye(8), atol=1e-5, rtol=0)


def test_what_cannot_be_assigned_is_left(ghn: GHN) -> None:
    name = "2.parametrizations.weight.original"
    for function, reason in (
        (symmetric(Symmetric()), "parametrization Symmetric has no right_inverse"),
        (
            lambda layer: parametrizations.orthogonal(layer, "weight", "cayley", use_trivialization=False),
            "parametrization _Orthogonal cannot be inverted",
        ),
    ):
        module = linear(function)
        before = module[2].weight.detach().clone()
        report = ghn.initialize(module)
        assert list(report.left) == [name]
        assert reason in report.left[name]
        assert name not in report.predicted
        assert torch.equal(module[2].weight, before)
        params, expected = foreign.predict(ghn, linear(function), None)
        assert expected == report
        assert list(params) == report.predicted
    module, plain = linear(symmetric(Invertible())), linear(lambda layer: layer)
    assert ghn.initialize(module).left == {}
    ghn.initialize(plain)
    assert torch.equal(module[2].weight.triu(), plain[2].weight.triu())


@pytest.mark.parametrize(
    "function", [parametrizations.weight_norm, parametrizations.spectral_norm, nn.utils.spectral_norm]
)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_predicted_state_of_parametrizations_loads(ghn: GHN, function: Any) -> None:
    module, other = reparametrised(function).eval(), reparametrised(function).eval()
    ghn.initialize(module)
    params, _ = foreign.predict(ghn, other, None)
    assert not other.load_state_dict(params, strict=False).unexpected_keys
    images = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(other(images), module(images), rtol=0.02, atol=1e-3)


def test_parametrised_modules_on_the_meta_device(ghn: GHN) -> None:
    with torch.device("meta"):
        normed, spectral = (
            reparametrised(function)
            for function in (parametrizations.weight_norm, parametrizations.spectral_norm)
        )
    params, report = foreign.predict(ghn, normed, None)
    assert report.left == {}
    assert params["2.parametrizations.weight.original1"].isfinite().all()
    _, report = foreign.predict(ghn, spectral, None)
    assert "buffers on the meta device" in report.left["2.parametrizations.weight.original"]
    with pytest.raises(BadInput, match=r"'0\.weight' is on the meta device"):
        ghn.initialize(normed)


def test_shared_weights_are_predicted_once(ghn: GHN) -> None:
    module = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), *head(3))
    module[1].weight = module[0].weight
    report = ghn.initialize(module)
    assert report.left == {}
    assert report.predicted == ["0.weight", "0.bias", "1.bias", "4.weight", "4.bias"]
    assert module[1].weight is module[0].weight


def test_the_published_call(ghn: GHN) -> None:
    reference, module = network(), network()
    ghn.initialize(reference)
    assert ghn(module) is module
    torch.testing.assert_close(module[0].weight, reference[0].weight)
    with pytest.warns(UserWarning, match="2 parameters are no part of the graph"):
        ghn(dense(nn.GroupNorm(2, 8), *head(8)))
    with pytest.raises(BadInput, match=r"with a GraphBatch or one torch\.nn\.Module, not with list"):
        ghn([module])  # type: ignore[call-overload]
    imagenet = GHN.from_config({"hid": 8, "max_shape": (8, 8, 3, 3), "num_classes": 1000})
    assert imagenet.input_shape == (3, 224, 224)
    assert ghn.input_shape == (3, 32, 32)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("name", ["ghn1", "ghn2", "mlp", "ghn3-t"])
def test_hypernetworks_of_another_precision(name: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    ghn, module = GHN.from_config(name), network()
    expected, _ = foreign.predict(ghn, module, None)
    params, _ = foreign.predict(ghn.to(dtype), module, None)
    scale = max(value.abs().max() for value in expected.values())
    for key, value in params.items():
        assert value.dtype == dtype
        assert (value.float() - expected[key]).abs().max() < 0.1 * scale
    ghn.initialize(module)
    assert module[0].weight.dtype == torch.float32

"""Network: against modules written out by hand, on given parameters, its statistics, and what it refuses."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deepnets_bench.architecture import Architecture, Genotype
from deepnets_bench.compiler import instructions as ir
from deepnets_bench.compiler.primitives import BN, LN
from deepnets_bench.errors import BadInput
from deepnets_bench.networks.network import Network, execute
from deepnets_bench.networks.operations import _ACTIVATIONS, _Part
from tests.ghn.networks import ATTENTION, BARE, CONVOLUTIONS

C, SIZE = 16, 16


def build(arch: Architecture, size: int = SIZE) -> Network:
    torch.manual_seed(0)
    return arch.build(width=C, image_size=size, num_classes=10)


def images(batch: int = 4, size: int = SIZE) -> Tensor:
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(1))


class ByHand(nn.Module):
    """The layers of one network, read from the other's parameters by name; batch statistics."""

    def __init__(self, params: dict[str, Tensor]) -> None:
        super().__init__()
        self.params = params

    def conv(self, x: Tensor, name: str, stride: int = 1, padding: int = 0, dilation: int = 1) -> Tensor:
        weight = self.params[name + ".weight"]
        groups = x.shape[1] if weight.shape[1] == 1 else 1
        return F.conv2d(x, weight, None, stride, padding, dilation, groups)

    def bn(self, x: Tensor, name: str) -> Tensor:
        mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), keepdim=True, unbiased=False)
        weight, bias = (self.params[f"{name}.{kind}"].view(1, -1, 1, 1) for kind in ("weight", "bias"))
        return (x - mean) / (var + 1e-5).sqrt() * weight + bias

    def linear(self, x: Tensor, name: str) -> Tensor:
        bias = self.params.get(name + ".bias")
        return F.linear(x, self.params[name + ".weight"], bias)

    def stem(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x, "stem.0", 1, 1), "stem.1")

    def preprocess(self, x: Tensor, cell: int, which: int) -> Tensor:
        prefix = f"cells.{cell}.preprocess{which}.op."
        return self.bn(self.conv(x.relu(), prefix + "1"), prefix + "2")

    def inputs(self, s0: Tensor, s1: Tensor, cell: int, reduced: bool) -> tuple[Tensor, Tensor]:
        """What the operations of a cell read; after a reduction s0 is twice as large as s1."""
        first = f"cells.{cell}.preprocess0."
        a = self.factorized_reduce(s0, first) if reduced else self.preprocess(s0, cell, 0)
        return a, self.preprocess(s1, cell, 1)

    def factorized_reduce(self, x: Tensor, prefix: str) -> Tensor:
        x = x.relu()
        halves = [self.conv(x, prefix + "conv_1", 2), self.conv(x[:, :, 1:, 1:], prefix + "conv_2", 2)]
        return self.bn(torch.cat(halves, 1), prefix + "bn")

    def sep_conv(self, x: Tensor, prefix: str, stride: int) -> Tensor:
        prefix += "op."
        x = self.conv(x.relu(), prefix + "1", stride, 1)
        x = self.bn(self.conv(x, prefix + "2"), prefix + "3")
        x = self.conv(x.relu(), prefix + "5", 1, 1)
        return self.bn(self.conv(x, prefix + "6"), prefix + "7")

    def dil_conv(self, x: Tensor, prefix: str, stride: int) -> Tensor:
        prefix += "op."
        x = self.conv(x.relu(), prefix + "1", stride, 4, 2)
        return self.bn(self.conv(x, prefix + "2"), prefix + "3")

    def cse(self, x: Tensor, prefix: str, stride: int) -> Tensor:
        gate = self.linear(self.linear(x.mean((2, 3)), prefix + "fc1").relu(), prefix + "fc2")
        gate = gate * (gate + 3).clamp(0, 6) / 6
        return (x * gate[:, :, None, None])[:, :, ::stride, ::stride]

    def msa(self, x: Tensor, prefix: str) -> Tensor:
        def layer_norm(x: Tensor, name: str) -> Tensor:
            weight, bias = self.params[f"{prefix}{name}.weight"], self.params[f"{prefix}{name}.bias"]
            return F.layer_norm(x, weight.shape, weight, bias)

        batch, channels, height, width = x.shape
        tokens = x.flatten(2).transpose(1, 2)
        qkv = self.linear(layer_norm(tokens, "ln1"), prefix + "to_qkv").chunk(3, -1)
        heads = []
        for head in zip(*(part.chunk(8, -1) for part in qkv), strict=True):
            q, k, v = head
            heads.append((q @ k.transpose(1, 2) / q.shape[-1] ** 0.5).softmax(-1) @ v)
        tokens = tokens + self.linear(torch.cat(heads, -1), prefix + "to_out.0")
        hidden = F.gelu(self.linear(layer_norm(tokens, "ln2"), prefix + "ff.net.0"))
        tokens = tokens + self.linear(hidden, prefix + "ff.net.3")
        return tokens.transpose(1, 2).reshape(batch, channels, height, width)


class Convolutional(ByHand):
    """Six cells; 2 and 4 reduce. Normal: sep_conv + skip; reduce: dil_conv_5x5 + skip (factorized)."""

    def forward(self, x: Tensor) -> Tensor:
        s0 = s1 = self.stem(x)
        reduced = False
        for cell in range(6):
            reduces = cell in (2, 4)
            ops = f"cells.{cell}._ops."
            a, b = self.inputs(s0, s1, cell, reduced)
            if reduces:
                state = self.dil_conv(b, ops + "0.", 2) + self.factorized_reduce(a, ops + "1.")
            else:
                state = self.sep_conv(b, ops + "0.", 1) + a
            s0, s1, reduced = s1, state, reduces
        return self.linear(s1.mean((2, 3)), "classifier.0")


CONVOLUTIONAL = Architecture(
    Genotype(
        (("sep_conv_3x3", 1), ("skip_connect", 0)),
        (2,),
        (("dil_conv_5x5", 1), ("skip_connect", 0)),
        (2,),
    ),
    n_cells=6,
    norm="bnorm",
)


class Gated(ByHand):
    """Four cells; 1 and 2 reduce by pooling. Normal: cse + 1×1 convolution; reduce: cse + max_pool."""

    def forward(self, x: Tensor) -> Tensor:
        s0 = s1 = self.stem(x)
        reduced = False
        for cell in range(4):
            reduces = cell in (1, 2)
            ops = f"cells.{cell}._ops."
            a, b = self.inputs(s0, s1, cell, reduced)
            other = F.max_pool2d(a, 3, 2, 1) if reduces else None
            if other is None:
                other = self.bn(self.conv(a.relu(), ops + "1.op.1"), ops + "1.op.2")
            state = self.cse(b, ops + "0.", 2 if reduces else 1) + other
            s0, s1, reduced = s1, state, reduces
        return self.linear(s1.mean((2, 3)), "classifier.0")


GATED = Architecture(
    Genotype((("cse", 1), ("conv_1x1", 0)), (2,), (("cse", 1), ("max_pool_3x3", 0)), (2,)),
    n_cells=4,
    norm="bnorm",
)


class Transformer(ByHand):
    """Three cells of attention with a skip connection; cells 1 and 2 would reduce, but not in a ViT."""

    def forward(self, x: Tensor) -> Tensor:
        s0 = s1 = self.conv(x, "stem0", 3, 1) + self.params["pos_enc.weight"]
        for cell in range(4):
            ops = f"cells.{cell}._ops."
            if cell in (1, 2):
                state = F.avg_pool2d(s1, 3, 1, 1, count_include_pad=False) + s0
            else:
                state = self.msa(s1, ops + "0.") + s0
            s0, s1 = s1, state
        return self.linear(s1.mean((2, 3)), "classifier.0")


TRANSFORMER = Architecture(
    Genotype((("msa", 1), ("skip_connect", 0)), (2,), (("avg_pool_3x3", 1), ("skip_connect", 0)), (2,)),
    n_cells=4,
    norm="bnorm",
    C_mult=1,
    preproc=False,
)
HAND_WRITTEN = [(CONVOLUTIONAL, Convolutional), (GATED, Gated), (TRANSFORMER, Transformer)]
ALL = [CONVOLUTIONS, ATTENTION, BARE, *(arch for arch, _ in HAND_WRITTEN)]


@pytest.mark.parametrize(("arch", "module"), HAND_WRITTEN, ids=lambda value: getattr(value, "__name__", ""))
def test_equals_a_module_written_by_hand(arch: Architecture, module: type[ByHand]) -> None:
    network = build(arch).double()
    params = {name: torch.randn_like(p) * p.std().clamp(min=0.1) for name, p in network.named_parameters()}
    x = images().double()
    torch.testing.assert_close(network.run(x, params), module(params)(x))


@pytest.mark.parametrize("arch", ALL)
def test_run_is_forward_and_repeats_itself(arch: Architecture) -> None:
    network = build(arch).eval()
    x, params = images(), dict(network.named_parameters())
    logits = network(x)
    # Dropout follows the module's mode; `bnorm` uses batch statistics in both.
    assert torch.equal(network.run(x, params), logits)
    assert torch.equal(network.run(x, params), logits)
    assert torch.equal(network.run(x.contiguous(memory_format=torch.channels_last), params), logits)


@pytest.mark.parametrize("arch", ALL)
def test_gradients_reach_the_live_parameters_alone(arch: Architecture) -> None:
    network = build(arch).eval()
    graph = arch.graph(width=C, image_size=SIZE, num_classes=10)
    live = {name for name in graph.param_name if name is not None}
    for op, name in zip(graph.op, graph.param_name, strict=True):
        if op in (BN, LN):
            live.add(str(name).removesuffix("weight") + "bias")
    F.cross_entropy(network(images(8)), torch.arange(8)).backward()
    reached = {name for name, p in network.named_parameters() if p.grad is not None}
    assert reached == live
    assert all(p.grad.isfinite().all() for p in network.parameters() if p.grad is not None)


def test_dead_parameters_exist_and_get_no_gradient() -> None:
    """With `none` as the only reader of the previous cell, whole cells are dead."""
    genotype = Genotype((("none", 1), ("conv_3x3", 0)), (2,), (("none", 1), ("max_pool_3x3", 0)), (2,))
    network = build(replace(BARE, genotype=genotype))
    network(images()).sum().backward()
    dead = [name for name, p in network.named_parameters() if p.grad is None]
    assert dead
    assert "classifier.0.weight" not in dead
    live = {name: p for name, p in network.named_parameters() if name not in dead}
    assert torch.equal(network.run(images(), live), network(images()))


def gradients(network: Network, x: Tensor, fast: bool, dtype: torch.dtype | None = None) -> list[Tensor]:
    """Logits, and the gradients of all parameters; under autocast to `dtype` if given."""
    params = {name: p.detach().clone().requires_grad_() for name, p in network.named_parameters()}
    with torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None):
        logits = execute(network.steps, x, params, training=False, fast=fast)
    F.cross_entropy(logits.float(), torch.arange(len(x)) % 10).backward()
    return [logits.detach(), *(p.grad for p in params.values() if p.grad is not None)]


@pytest.mark.parametrize("arch", ALL)
def test_fast_equals_plain_up_to_rounding(arch: Architecture) -> None:
    network, x = build(arch), images(8)
    plain, fast = gradients(network, x, False), gradients(network, x, True)
    torch.testing.assert_close(fast[0], plain[0], rtol=1e-5, atol=1e-5)
    assert len(plain) == len(fast)
    for a, b in zip(plain, fast, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_fast_shares_activations_and_is_on_under_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    network, x = build(CONVOLUTIONAL), images(2)
    rectified: list[Tensor] = []
    monkeypatch.setattr(F, "relu", lambda x: rectified.append(x) or torch.relu(x))
    monkeypatch.setitem(_ACTIVATIONS, ir.RELU, F.relu)
    counts = []
    for fast, dtype in ((False, None), (True, None), (False, torch.bfloat16)):
        rectified.clear()
        gradients(network, x, fast, dtype)
        counts.append(len(rectified))
        again = len(rectified) - len({id(x) for x in rectified})
        assert (again > 0) == (not fast and dtype is None)
    assert counts[0] > counts[1] == counts[2]


@pytest.mark.parametrize(("first", "step"), [(1, 1), (0, 2), (1, 2)])
def test_gradient_of_a_part_is_that_of_the_slice(first: int, step: int) -> None:
    x = images().requires_grad_()
    sliced = x[:, :, first::step, first::step]
    grad = torch.randn(sliced.shape)
    (expected,) = torch.autograd.grad(sliced, x, grad)
    part = _Part.apply(x, first, step)
    assert torch.equal(part, sliced)
    (actual,) = torch.autograd.grad(part, x, grad)
    assert torch.equal(actual, expected)
    assert actual.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("arch", ALL)
def test_bfloat16_autocast_is_close(arch: Architecture) -> None:
    network = build(arch).eval()
    expected = gradients(network, images(16), False)
    lowered = gradients(network, images(16), False, torch.bfloat16)
    assert all(tensor.isfinite().all() for tensor in lowered)
    assert (lowered[0].float() - expected[0]).norm() < 0.1 * expected[0].norm()
    angle = [torch.cat([grad.flatten() for grad in grads[1:]]) for grads in (expected, lowered)]
    # Rounding grows on the way through a network: plain autocast of PyTorch comes no closer.
    assert F.cosine_similarity(*angle, 0) > 0.9


def test_dropout_is_active_in_training_only() -> None:
    network = build(CONVOLUTIONS)  # two linear layers with dropout between them
    assert not torch.equal(network(images()), network(images()))
    network.eval()
    assert torch.equal(network(images()), network(images()))


def test_running_statistics_change_in_forward_and_in_training_only() -> None:
    network = build(replace(CONVOLUTIONAL, norm="bn-track"))

    def statistics() -> list[Tensor]:
        return [buffer.clone() for buffer in network.buffers()]

    def changed(before: list[Tensor]) -> bool:
        return any(not torch.equal(a, b) for a, b in zip(before, network.buffers(), strict=True))

    before = statistics()
    network.run(images(), dict(network.named_parameters()))
    network.eval()(images())
    assert not changed(before)
    network.train()
    network(images())
    assert changed(before)
    mean = dict(network.named_buffers())["stem.1.running_mean"]
    first = F.conv2d(images(), network.get_parameter("stem.0.weight"), padding=1)
    torch.testing.assert_close(mean, 0.1 * first.mean((0, 2, 3)))
    # In evaluation mode the statistics take the place of the batch's own.
    network.eval()
    torch.testing.assert_close(network(images())[:1], network(images()[:1]), rtol=1e-4, atol=1e-5)
    assert not list(build(CONVOLUTIONAL).buffers())


def test_missing_parameter_is_named() -> None:
    network = build(BARE)
    params = dict(network.named_parameters())
    del params["classifier.0.bias"]
    with pytest.raises(BadInput, match=r"The parameters lack 'classifier\.0\.bias'\."):
        network.run(images(), params)


FLAT = replace(CONVOLUTIONAL, glob_avg=False)


@pytest.mark.parametrize(
    ("arch", "shape", "sentence"),
    [
        (BARE, (3, 16, 16), r"\[batch, 3, size, size\], not \[3, 16, 16\]"),
        (BARE, (2, 1, 16, 16), r"not \[2, 1, 16, 16\]"),
        (BARE, (2, 3, 16, 24), r"not \[2, 3, 16, 24\]"),
        (BARE, (0, 3, 16, 16), r"not \[0, 3, 16, 16\]"),
        (FLAT, (2, 3, 32, 32), "Images of 32×32 do not fit this network"),
        (TRANSFORMER, (2, 3, 32, 32), "Images of 32×32 do not fit this network"),
        (CONVOLUTIONAL, (2, 3, 1, 1), "Images of 1×1 do not fit this network"),
    ],
)
def test_images_that_do_not_fit(arch: Architecture, shape: tuple[int, ...], sentence: str) -> None:
    with pytest.raises(BadInput, match=sentence):
        build(arch)(torch.zeros(shape))


def test_integer_images_are_refused() -> None:
    with pytest.raises(BadInput, match=r"floating-point, not torch\.uint8"):
        build(BARE)(torch.zeros(2, 3, 16, 16, dtype=torch.uint8))


def test_a_global_average_takes_images_of_any_size() -> None:
    assert build(CONVOLUTIONAL)(images(size=24)).shape == (4, 10)

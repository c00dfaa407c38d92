"""Depthwise convolution: output and gradients of PyTorch's, and where it applies."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from deepnets_bench.networks.depthwise import depthwise_conv2d, is_fast

Geometry = tuple[int, tuple[int, int], int]  # stride, padding, dilation

# kernel, geometry; the third makes the image smaller, the fourth larger
CASES = [
    ((3, 3), (1, (1, 1), 1)),
    ((5, 5), (1, (4, 4), 2)),
    ((3, 5), (1, (0, 1), 1)),
    ((3, 3), (1, (2, 2), 1)),
    ((5, 5), (1, (2, 2), 1)),
    ((3, 3), (2, (1, 1), 1)),
    ((3, 3), (2, (2, 2), 2)),
    ((5, 5), (2, (4, 4), 2)),
    ((3, 5), (3, (0, 1), 1)),
]
SIZES = [(11, 9), (4, 4), (3, 2), (2, 2), (1, 1)]  # kernels that are larger than the image among them


def has_room(size: tuple[int, int], kernel: tuple[int, int], geometry: Geometry) -> bool:
    _, padding, dilation = geometry
    return all(
        n + 2 * pad > dilation * (taps - 1) for n, pad, taps in zip(size, padding, kernel, strict=True)
    )


def run(x: Tensor, weight: Tensor, geometry: Geometry, grad: Tensor) -> list[Tensor]:
    x, weight = x.clone().requires_grad_(), weight.clone().requires_grad_()
    if x.dtype == torch.float64:
        output = F.conv2d(x, weight, None, *geometry, x.shape[1])
    else:
        output = depthwise_conv2d(x, weight, *geometry)
    return [output, *torch.autograd.grad(output, (x, weight), grad.to(output.dtype))]


@pytest.mark.parametrize(
    ("size", "kernel", "geometry"),
    [(size, *case) for size in SIZES for case in CASES if has_room(size, *case)],
)
@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.02)])
def test_equals_the_convolution_in_float64(
    size: tuple[int, int],
    kernel: tuple[int, int],
    geometry: Geometry,
    memory_format: torch.memory_format,
    dtype: torch.dtype,
    tolerance: float,
) -> None:
    torch.manual_seed(0)
    x = torch.randn(6, 20, *size).to(dtype, memory_format=memory_format)
    weight = torch.randn(20, 1, *kernel).to(dtype)
    shape = F.conv2d(x, weight, None, *geometry, 20).shape[2:]
    grad = torch.randn(6, 40, *shape).to(dtype)[:, 10:30]  # as the gradient of a part of a concatenation
    expected = run(x.double(), weight.double(), geometry, grad)
    for actual, wanted in zip(run(x, weight, geometry, grad), expected, strict=True):
        assert actual.dtype == dtype
        assert actual.shape == wanted.shape
        assert (actual.double() - wanted).norm() < tolerance * wanted.norm()


def test_hand_computed() -> None:
    x = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]).expand(1, 2, 2, 2).contiguous()
    weight = torch.zeros(2, 1, 3, 3)
    weight[:, 0, 0, 1] = torch.tensor([1.0, 10.0])  # the pixel above
    grad = torch.tensor([[[[1.0, 0.0], [0.0, 1.0]]]]).expand(1, 2, 2, 2)
    output, grad_x, grad_weight = run(x, weight, (1, (1, 1), 1), grad)
    assert output[0].tolist() == [[[0, 0], [1, 2]], [[0, 0], [10, 20]]]
    assert grad_x[0].tolist() == [[[0, 1], [0, 0]], [[0, 10], [0, 0]]]
    # x at (0, 0) plus x at (1, 1) around: each tap sums x where its shift meets a pixel with a gradient.
    assert grad_weight[0, 0].tolist() == [[1, 2, 0], [3, 5, 2], [0, 3, 4]]


@pytest.mark.parametrize("size", [2, 8])
def test_autocast_lowers_it_whatever_the_size(size: int) -> None:
    x, weight = torch.randn(2, 4, size, size, requires_grad=True), torch.randn(4, 1, 5, 5)
    with torch.autocast("cpu", torch.bfloat16):
        output = depthwise_conv2d(x, weight, 1, (2, 2), 1)
    assert output.dtype == torch.bfloat16
    assert torch.autograd.grad(output.float().sum(), x)[0].dtype == torch.float32


def test_gradients_that_nobody_needs_are_not_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deepnets_bench.networks.depthwise._add_taps", None)
    x = torch.randn(1, 2, 4, 4, requires_grad=True)
    depthwise_conv2d(x, torch.ones(2, 1, 1, 1), 1, (0, 0), 1).sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, torch.ones_like(x))


@pytest.mark.parametrize(
    ("channels", "weight", "stride", "dilation", "groups", "dtype", "applies"),
    [
        (8, (8, 1, 5, 5), (1, 1), 1, 8, torch.float32, True),
        (8, (8, 1, 3, 3), (1, 1), 2, 8, torch.float32, True),
        (8, (8, 1, 3, 3), (1, 1), 1, 8, torch.float32, False),
        (8, (8, 1, 5, 5), (2, 2), 2, 8, torch.float32, True),
        (8, (8, 1, 5, 5), (1, 2), 2, 8, torch.float32, False),
        (8, (8, 1, 5, 5), (1, 1), 1, 8, torch.float64, False),
        (8, (8, 4, 5, 5), (1, 1), 1, 2, torch.float32, False),
        (8, (16, 1, 5, 5), (1, 1), 1, 8, torch.float32, False),
        (1, (1, 1, 5, 5), (1, 1), 1, 1, torch.float32, False),
    ],
)
def test_where_it_applies(
    channels: int,
    weight: tuple[int, ...],
    stride: tuple[int, int],
    dilation: int,
    groups: int,
    dtype: torch.dtype,
    applies: bool,
) -> None:
    x = torch.zeros(1, channels, 4, 4, dtype=dtype)
    assert is_fast(x, torch.zeros(weight, dtype=dtype), stride, dilation, groups) == applies

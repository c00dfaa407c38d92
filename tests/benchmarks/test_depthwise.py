"""Depthwise convolutions of 128 images, forward and backward: ours beside PyTorch's.

Run with `pytest tests/benchmarks/test_depthwise.py --benchmark-only`.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from pytest_benchmark.fixture import BenchmarkFixture

from deepnets_bench.networks.depthwise import depthwise_conv2d

CASES = {  # channels, pixels a side, kernel, stride, dilation
    "3x3 (not taken)": (16, 16, 3, 1, 1),
    "3x3 dilated": (16, 16, 3, 1, 2),
    "5x5 strided": (16, 16, 5, 2, 1),
    "5x5 dilated strided": (32, 8, 5, 2, 2),
    "5x5 dilated, 2x2 pixels": (64, 2, 5, 1, 2),
    "5x5 dilated, 3x3 pixels": (64, 3, 5, 1, 2),
}


@pytest.mark.parametrize("way", ["pytorch", "ours"])
@pytest.mark.parametrize("case", CASES)
def test_forward_and_backward(benchmark: BenchmarkFixture, case: str, way: str) -> None:
    channels, size, kernel, stride, dilation = CASES[case]
    padding = (kernel // 2 * dilation, kernel // 2 * dilation)
    x = torch.randn(128, channels, size, size).contiguous(memory_format=torch.channels_last).requires_grad_()
    weight = torch.randn(channels, 1, kernel, kernel, requires_grad=True)

    def run() -> None:
        if way == "ours":
            output = depthwise_conv2d(x, weight, stride, padding, dilation)
        else:
            output = F.conv2d(x, weight, None, stride, padding, dilation, channels)
        torch.autograd.grad(output, (x, weight), torch.ones_like(output))

    benchmark.group = case
    benchmark.pedantic(run, rounds=10, warmup_rounds=2)

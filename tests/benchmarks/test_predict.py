"""Time to initialise networks of torchvision: graph and prediction, on one thread.

Run with `pytest tests/benchmarks/test_predict.py --benchmark-only`. The clock counts this process's CPU
time, so that other work on the machine does not show; the first round, which maps memory, is not counted.
"""

from __future__ import annotations

import time

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import nn

from deepnets_bench.ghn import foreign
from deepnets_bench.ghn.model import GHN
from deepnets_bench.graphs.tracing.trace import trace

torchvision = pytest.importorskip("torchvision", reason="the networks are torchvision's")

MODELS = ("resnet50", "resnet101", "resnet152", "wide_resnet101_2", "vit_b_16")
IMAGE = (3, 224, 224)
pytestmark = pytest.mark.benchmark(timer=time.process_time, warmup=False)


@pytest.fixture(scope="module", params=MODELS)
def module(request: pytest.FixtureRequest) -> nn.Module:
    with torch.device("meta"):
        module = torchvision.models.get_model(request.param, weights=None)
    return module.to_empty(device="cpu")


@pytest.fixture(scope="module")
def ghn() -> GHN:
    torch.manual_seed(0)
    return GHN.from_config("ghn2", num_classes=1000)


def test_trace(benchmark: BenchmarkFixture, module: nn.Module) -> None:
    traced = benchmark.pedantic(trace, (module, IMAGE), warmup_rounds=1, rounds=3)
    benchmark.extra_info["nodes"] = len(traced.op)


def test_initialize(benchmark: BenchmarkFixture, module: nn.Module, ghn: GHN) -> None:
    report = benchmark.pedantic(ghn.initialize, (module, IMAGE), warmup_rounds=1, rounds=3)
    benchmark.extra_info["values"] = sum(p.numel() for p in module.parameters())
    assert len(report.left) <= 1


def test_predict_new_tensors(benchmark: BenchmarkFixture, module: nn.Module, ghn: GHN) -> None:
    params, _ = benchmark.pedantic(foreign.predict, (ghn, module, IMAGE), warmup_rounds=1, rounds=3)
    assert params

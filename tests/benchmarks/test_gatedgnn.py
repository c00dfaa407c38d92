"""Time of GatedGNN, forward and backward on one thread: compiled, level by level, and the oracle.

Run with `pytest tests/benchmarks/test_gatedgnn.py --benchmark-only --benchmark-group-by=param:size`. The
clock counts this process's CPU time, so that other work on the machine does not show.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from deepnets_bench.ghn.gated.module import GatedGNN
from tests.ghn import oracle

DIM = 32
IMPLEMENTATIONS = {"compiled": GatedGNN.forward, "by_level": GatedGNN.by_level, "oracle": oracle.gated}
# name: (graphs, fewest nodes, most nodes); training graphs have 194 nodes on average
BATCHES = {"1": (1, 194, 195), "8": (8, 130, 260), "32": (32, 130, 260), "8-deep": (8, 350, 700)}


@pytest.mark.benchmark(timer=time.process_time)
@pytest.mark.parametrize("size", BATCHES)
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_forward_and_backward(benchmark: BenchmarkFixture, implementation: str, size: str) -> None:
    graphs, fewest, most = BATCHES[size]
    rng = np.random.default_rng(0)
    sizes = rng.integers(fewest, most, graphs)
    batch = oracle.make_batch([oracle.random_graph(rng, int(n)) for n in sizes])
    torch.manual_seed(0)
    gnn, x = GatedGNN(DIM), torch.randn(len(batch.batch), DIM)
    run = IMPLEMENTATIONS[implementation]
    benchmark.extra_info |= {"nodes": len(batch.batch), "virtual_edges": len(batch.distance)}
    benchmark.pedantic(step, (run, gnn, x, batch), warmup_rounds=1, rounds=2 if run is oracle.gated else 10)


def step(run: Callable[..., Tensor], gnn: GatedGNN, x: Tensor, batch: SimpleNamespace) -> None:
    vars(batch).pop("_gated_schedule", None)  # a training step sees every batch once
    run(gnn, x, batch).square().mean().backward()

"""Graphs loaded per second with their virtual edges, on one thread, in CPU time.

Run with `pytest tests/benchmarks/test_loading.py --benchmark-only`; `graphs_per_second` is in the JSON that
`--benchmark-json` writes, and is the number of graphs over the table's seconds.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch.utils.data import DataLoader

from deepnets_bench import DeepNets1M, GraphBatch
from deepnets_bench.generators import generate

pytestmark = pytest.mark.benchmark(timer=time.process_time)

GRAPHS = 1000


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    generate("train", root, num=4 * GRAPHS, shard_size=500)
    torch.set_num_threads(1)
    return root


@pytest.mark.parametrize("virtual_edges", [50, None])
@pytest.mark.parametrize("order", ["sequential", "random"])
def test_items(benchmark: BenchmarkFixture, root: Path, order: str, virtual_edges: int | None) -> None:
    dataset = DeepNets1M(root, "train", virtual_edges=virtual_edges)
    chosen = np.arange(len(dataset))
    if order == "random":
        chosen = np.random.default_rng(0).permutation(chosen)
    nodes = benchmark.pedantic(load, (dataset, chosen[:GRAPHS].tolist()), warmup_rounds=1, rounds=5)
    benchmark.extra_info["graphs_per_second"] = GRAPHS / benchmark.stats["min"]
    assert nodes > 100 * GRAPHS


def load(dataset: DeepNets1M, indices: list[int]) -> int:
    return sum(dataset[i].num_nodes for i in indices)


def test_collating(benchmark: BenchmarkFixture, root: Path) -> None:
    dataset = DeepNets1M(root, "train")
    items = [dataset[i] for i in range(8)]
    assert benchmark(DeepNets1M.collate, items).num_graphs == 8


def test_batches_of_prepared_graphs(benchmark: BenchmarkFixture, root: Path) -> None:
    dataset = DeepNets1M(root, "train")
    graphs = [dataset[i].graphs[0] for i in range(8)]
    assert benchmark(GraphBatch.from_graphs, graphs).num_graphs == 8


@pytest.mark.benchmark(timer=time.perf_counter)
@pytest.mark.parametrize("workers", [1, 2])
def test_workers(benchmark: BenchmarkFixture, root: Path, workers: int) -> None:
    """Wall time of a pass over the first graphs in batches of 8, the workers already started.

    On a machine with other work this says little: wall time then measures the others.
    """
    loader = DataLoader(
        DeepNets1M(root, "train")[:GRAPHS],
        batch_size=8,
        num_workers=workers,
        collate_fn=DeepNets1M.collate,
        persistent_workers=True,
    )
    graphs = benchmark.pedantic(lambda: sum(b.num_graphs for b in loader), warmup_rounds=1, rounds=2)
    benchmark.extra_info["graphs_per_second"] = graphs / benchmark.stats["min"]
    assert graphs == GRAPHS


def test_opening(benchmark: BenchmarkFixture, root: Path) -> None:
    assert len(benchmark(DeepNets1M, root, "train")) == 4 * GRAPHS

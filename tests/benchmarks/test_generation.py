"""Graphs made, written, read and verified per second, on one core.

Run with `pytest tests/benchmarks/test_generation.py --benchmark-only`; the table's OPS times the number of
graphs in a round (`extra_info`) is graphs per second.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from deepnets_bench.data.shards import ShardReader, open_split, write_shard
from deepnets_bench.data.verification import verify
from deepnets_bench.generators import generate
from deepnets_bench.generators.columns import sampled_columns
from deepnets_bench.generators.recipes import DATASET_VERSION, SPLITS

GRAPHS = 2000


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    generate("train", root, num=GRAPHS, shard_size=500)
    return root


@pytest.mark.parametrize("split", ["train", "deep", "dense", "search"])
def test_sampling_and_assembly(benchmark: BenchmarkFixture, split: str) -> None:
    columns = benchmark(sampled_columns, SPLITS[split], 0, GRAPHS, DATASET_VERSION)
    benchmark.extra_info["graphs"] = GRAPHS
    assert len(columns["key"]) == GRAPHS


def test_writing(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    columns = sampled_columns(SPLITS["train"], 0, GRAPHS, DATASET_VERSION)
    entry = benchmark(write_shard, tmp_path, "train", 0, columns, DATASET_VERSION)
    benchmark.extra_info.update(graphs=GRAPHS, bytes_a_graph=entry.bytes / GRAPHS)
    assert entry.bytes < 700 * GRAPHS


@pytest.mark.parametrize("order", ["sequential", "random"])
def test_reading(benchmark: BenchmarkFixture, order: str, root: Path) -> None:
    reader = open_split(root, "train")
    indices = np.arange(GRAPHS) if order == "sequential" else np.random.default_rng(0).permutation(GRAPHS)
    benchmark.extra_info["graphs"] = GRAPHS
    assert benchmark(read, reader, indices) > 100 * GRAPHS


def test_verifying(benchmark: BenchmarkFixture, root: Path) -> None:
    benchmark.extra_info["graphs"] = GRAPHS
    assert not benchmark(verify, root).problems


def read(reader: ShardReader, indices: np.ndarray) -> int:
    return sum(reader[int(i)].num_nodes for i in indices)

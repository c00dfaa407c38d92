"""The splits of DeepNets-1M: their recipes and their generation into shards (no torch)."""

from deepnets_bench.errors import Interrupted
from deepnets_bench.generators.generation import SHARD_SIZE, generate
from deepnets_bench.generators.recipes import DATASET_VERSION, PREDEFINED, SPLIT_NAMES, SPLITS, sample

__all__ = [
    "DATASET_VERSION",
    "PREDEFINED",
    "SHARD_SIZE",
    "SPLITS",
    "SPLIT_NAMES",
    "Interrupted",
    "generate",
    "sample",
]

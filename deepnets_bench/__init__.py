"""DeepNets-1M on your own machine, and a fair benchmark of graph neural networks on it.

Names are imported on first use, so that `import deepnets_bench` stays light (no torch).
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the names of _EXPORTS again, for type checkers and editors
    from deepnets_bench.architecture import Architecture as Architecture
    from deepnets_bench.architecture import Genotype as Genotype
    from deepnets_bench.benchmark import Benchmark as Benchmark
    from deepnets_bench.board import Leaderboard as Leaderboard
    from deepnets_bench.compiler.primitives import CELL_OPS as CELL_OPS
    from deepnets_bench.compiler.primitives import PRIMITIVES as PRIMITIVES
    from deepnets_bench.compiler.program import Program as Program
    from deepnets_bench.data.dataset import DeepNets1M as DeepNets1M
    from deepnets_bench.data.dataset import GraphBatch as GraphBatch
    from deepnets_bench.data.dataset import MetaBatchSampler as MetaBatchSampler
    from deepnets_bench.errors import BadInput as BadInput
    from deepnets_bench.errors import CorruptFile as CorruptFile
    from deepnets_bench.errors import DeepNetsError as DeepNetsError
    from deepnets_bench.errors import MissingExtra as MissingExtra
    from deepnets_bench.errors import RunFailed as RunFailed
    from deepnets_bench.errors import UnknownName as UnknownName
    from deepnets_bench.ghn.model import GHN as GHN
    from deepnets_bench.gnn import GNNSpec as GNNSpec
    from deepnets_bench.graphs.graph import ComputationGraph as ComputationGraph
    from deepnets_bench.harness.protocol.tracks import Track as Track
    from deepnets_bench.networks.network import Network as Network
    from deepnets_bench.networks.recalibration import recalibrate as recalibrate

_EXPORTS = {
    "Benchmark": "benchmark",
    "Leaderboard": "board",
    "Track": "harness.protocol.tracks",
    "Architecture": "architecture",
    "Genotype": "architecture",
    "ComputationGraph": "graphs.graph",
    "Network": "networks.network",
    "Program": "compiler.program",
    "PRIMITIVES": "compiler.primitives",
    "CELL_OPS": "compiler.primitives",
    "DeepNets1M": "data.dataset",
    "GraphBatch": "data.dataset",
    "MetaBatchSampler": "data.dataset",
    "GHN": "ghn.model",
    "recalibrate": "networks.recalibration",
    "GNNSpec": "gnn",
    "BadInput": "errors",
    "CorruptFile": "errors",
    "DeepNetsError": "errors",
    "MissingExtra": "errors",
    "RunFailed": "errors",
    "UnknownName": "errors",
}

try:
    __version__ = version("deepnets-bench")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"

__all__ = [*_EXPORTS, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'deepnets_bench' has no attribute '{name}'")
    value = getattr(import_module(f"deepnets_bench.{_EXPORTS[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)

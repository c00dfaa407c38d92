"""DeepNets-1M on your own machine, and a fair benchmark of graph neural networks on it.

Names are imported on first use, so that `import deepnets_bench` stays light (no torch).
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

_EXPORTS = {
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
    "DeepNetsError": "errors",
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

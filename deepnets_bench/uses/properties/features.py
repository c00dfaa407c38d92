"""Features of graphs that need no learning: counts of primitives, lengths of paths, degrees."""

from __future__ import annotations

import numpy as np

from deepnets_bench.compiler.primitives import PRIMITIVES
from deepnets_bench.graphs.graph import ComputationGraph

_QUANTILES = (0.1, 0.5, 0.9)
FEATURES = (
    *(f"count of {name}" for name in PRIMITIVES),
    "nodes", "edges", "depth", "cells", "mean level", "parameters",
    *(f"{what}, {q:.0%} quantile" for what in ("distance", "in-degree", "out-degree") for q in _QUANTILES),
    "mean distance", "largest in-degree", "largest out-degree",
)  # fmt: skip


def graph_features(graph: ComputationGraph, virtual_edges: int = 50) -> np.ndarray:
    """float64 [len(FEATURES)]; distances are those of paths up to `virtual_edges`."""
    nodes = graph.num_nodes
    degrees = [np.bincount(graph.edge_index[side], minlength=nodes) for side in (1, 0)]
    distance = graph.shortest_paths(virtual_edges)[1]
    counts = np.bincount(graph.op, minlength=len(PRIMITIVES))
    size = graph.shape.astype(np.float64).clip(min=1).prod(1)[graph.shape[:, 0] > 0].sum()
    quantiles = [np.quantile(values, q) for values in (distance, *degrees) for q in _QUANTILES]
    return np.array(
        [
            *counts,
            nodes,
            graph.num_edges,
            graph.level.max() + 1,
            graph.cell.max() + 1,
            graph.level.mean(),
            size,
            *quantiles,
            distance.mean(),
            degrees[0].max(),
            degrees[1].max(),
        ],
        dtype=np.float64,
    )

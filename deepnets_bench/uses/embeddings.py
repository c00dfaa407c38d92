"""Embeddings: the node states of an architecture in a hypernetwork, after its layer norm, and their mean."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from torch import Tensor

from deepnets_bench.data.dataset import GraphBatch
from deepnets_bench.graphs.graph import ComputationGraph
from deepnets_bench.harness.randomness import EVALUATION, GNN_EVALUATION

if TYPE_CHECKING:
    from deepnets_bench.ghn.model import GHN

_BATCH = 32
_Found = TypeVar("_Found")


def mean_embeddings(ghn: GHN, graphs: Sequence[ComputationGraph], batch_size: int = _BATCH) -> np.ndarray:
    """float32 [graphs, hid]: states of `GHN.node_states`, averaged over the nodes of each graph.

    As for figure 4 of https://arxiv.org/abs/2110.13100. What a GNN draws is the same for every batch. Raises
    `NotFinite` as `GHN.node_states` does.
    """

    def mean(batch: GraphBatch, states: Tensor) -> Tensor:
        sums = torch.zeros(batch.num_graphs, states.shape[1], device=states.device)
        sums.index_add_(0, batch.batch, states)
        return sums / batch.ptr.diff()[:, None]

    found = _by_batch(ghn, graphs, batch_size, mean)
    return torch.cat(found).float().cpu().numpy() if found else np.zeros((0, 0), np.float32)


def node_embeddings(
    ghn: GHN, graphs: Sequence[ComputationGraph], batch_size: int = _BATCH
) -> list[np.ndarray]:
    """float32 [nodes, hid] of each graph: states of `GHN.node_states`, whose means are `mean_embeddings`."""

    def parts(batch: GraphBatch, states: Tensor) -> tuple[Tensor, ...]:
        return states.float().cpu().split(batch.ptr.diff().tolist())

    return [part.numpy() for batch in _by_batch(ghn, graphs, batch_size, parts) for part in batch]


def _by_batch(
    ghn: GHN,
    graphs: Sequence[ComputationGraph],
    batch_size: int,
    use: Callable[[GraphBatch, Tensor], _Found],
) -> list[_Found]:
    """What `use` makes of each batch and the states of its nodes; the hypernetwork keeps its mode."""
    device = ghn.embed.weight.device
    was_training = ghn.training
    ghn.eval()
    found = []
    try:
        for first in range(0, len(graphs), batch_size):
            part = graphs[first : first + batch_size]
            batch = GraphBatch.from_graphs(part, ghn.virtual_edges).to(device)
            with torch.inference_mode(), EVALUATION.seeded(device, GNN_EVALUATION, "embeddings"):
                found.append(use(batch, ghn.node_states(batch)))
    finally:
        ghn.train(was_training)
    return found

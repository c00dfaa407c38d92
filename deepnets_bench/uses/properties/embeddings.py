"""Embeddings: the mean node state of an architecture in a hypernetwork, after its layer norm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from deepnets_bench.data.dataset import GraphBatch
from deepnets_bench.graphs.graph import ComputationGraph
from deepnets_bench.harness.randomness import EVALUATION, GNN_EVALUATION

if TYPE_CHECKING:
    from deepnets_bench.ghn.model import GHN

_BATCH = 32


def mean_embeddings(ghn: GHN, graphs: Sequence[ComputationGraph], batch_size: int = _BATCH) -> np.ndarray:
    """float32 [graphs, hid]: states of `GHN.node_states`, averaged over the nodes of each graph.

    https://arxiv.org/abs/2110.13100, section 4.3. What a GNN draws is the same for every batch. Raises
    `NotFinite` as `GHN.node_states` does.
    """
    device = ghn.embed.weight.device
    was_training = ghn.training
    ghn.eval()
    found = []
    try:
        with torch.inference_mode(), EVALUATION.seeded(device, GNN_EVALUATION, "embeddings"):
            for first in range(0, len(graphs), batch_size):
                batch = GraphBatch.from_graphs(graphs[first : first + batch_size], ghn.virtual_edges).to(
                    device
                )
                states = ghn.node_states(batch)
                sums = torch.zeros(batch.num_graphs, states.shape[1], device=device)
                sums.index_add_(0, batch.batch, states)
                found.append(sums / batch.ptr.diff()[:, None])
    finally:
        ghn.train(was_training)
    return torch.cat(found).float().cpu().numpy() if found else np.zeros((0, 0), np.float32)

"""Direct mode: a GNN trained on labels, between the node features of a hypernetwork and a mean over nodes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from scipy.stats import norm, rankdata
from torch import Tensor, nn

from deepnets_bench.compiler.primitives import PRIMITIVES
from deepnets_bench.data.dataset import GraphBatch
from deepnets_bench.errors import NotFinite
from deepnets_bench.ghn.shapes import ShapeEncoder
from deepnets_bench.gnn import GNNIdentity
from deepnets_bench.gnn.contract import check_output
from deepnets_bench.graphs.graph import ComputationGraph
from deepnets_bench.harness.randomness import (
    FRAME_WEIGHTS,
    GNN_EVALUATION,
    GNN_TRAINING,
    GNN_WEIGHTS,
    Streams,
)
from deepnets_bench.uses.properties.protocol import PROTOCOL, Protocol

_CPU = torch.device("cpu")
_ORDER = "order of labelled architectures"  # (epoch)
_CLASSES = 10  # a size of the shape encoder's vocabulary
_TEST_BATCH = 32


class PropertyNetwork(nn.Module):
    """Node features as in the hypernetwork, a GNN, layer norm, mean over nodes, and a linear layer."""

    def __init__(
        self, gnn: GNNIdentity, outputs: int, streams: Streams, protocol: Protocol = PROTOCOL
    ) -> None:
        super().__init__()
        dim = protocol.hid
        with streams.seeded(_CPU, FRAME_WEIGHTS):
            self.embed = nn.Embedding(len(PRIMITIVES), dim)
            self.shape_enc = ShapeEncoder(dim, _CLASSES, max(protocol.max_shape[2:]))
            self.ln = nn.LayerNorm(dim)
            self.out = nn.Linear(dim, outputs)
        with streams.seeded(_CPU, GNN_WEIGHTS):
            self.gnn = gnn.build(dim)
        self.name = gnn.name

    def forward(self, batch: GraphBatch) -> Tensor:
        """Predictions [graphs, outputs]."""
        x = self.embed(batch.op) + self.shape_enc(batch.shape)
        states = self.gnn(x, batch)
        check_output(self.name, x, states)
        states = self.ln(states)
        sums = states.new_zeros(batch.num_graphs, states.shape[1]).index_add(0, batch.batch, states)
        predicted: Tensor = self.out(sums / batch.ptr.diff()[:, None])
        return predicted


def predict_directly(
    gnn: GNNIdentity,
    graphs: Sequence[ComputationGraph],
    targets: Mapping[str, np.ndarray],
    test: Sequence[ComputationGraph],
    seed: int,
    protocol: Protocol = PROTOCOL,
) -> dict[str, np.ndarray]:
    """Train on graphs and their targets, and predict those of `test`: scores, higher for higher values.

    All properties are learnt together, as normal scores of their ranks, by mean squared error with AdamW
    and a cosine schedule. Two GNNs with one seed share all initial weights but their own, and the order of
    architectures. What a GNN draws is the same for every batch of `test`. Raises `NotFinite` where the loss
    is not finite.
    """
    streams = Streams((protocol.name, protocol.version, seed))
    wanted = torch.from_numpy(np.stack([_normal_scores(values) for values in targets.values()], 1)).float()
    network = PropertyNetwork(gnn, len(targets), streams, protocol)
    optimiser = torch.optim.AdamW(network.parameters(), protocol.lr, weight_decay=protocol.weight_decay)
    size = min(protocol.batch_size, len(graphs))
    # As in the hypernetwork: pairs of nodes cost a fifth of a step, and other GNNs do not look at them.
    cutoff = protocol.virtual_edges if gnn.edges in ("virtual", "undeclared") else 1
    for step in range(protocol.steps):
        for group in optimiser.param_groups:
            group["lr"] = protocol.lr * 0.5 * (1 + math.cos(math.pi * step / protocol.steps))
        rows = _rows(len(graphs), step, size, streams)
        batch = GraphBatch.from_graphs([graphs[row] for row in rows], cutoff)
        optimiser.zero_grad(set_to_none=True)
        with streams.seeded(_CPU, GNN_TRAINING, step):
            loss = (network(batch) - wanted[rows]).square().mean()
        if not math.isfinite(loss.item()):
            raise NotFinite(f"The loss of GNN '{gnn.name}' is {loss.item()} at step {step + 1}.")
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), protocol.clip_grad_norm)
        optimiser.step()
    network.eval()
    found = []
    for first in range(0, len(test), _TEST_BATCH):
        batch = GraphBatch.from_graphs(test[first : first + _TEST_BATCH], cutoff)
        with torch.inference_mode(), streams.seeded(_CPU, GNN_EVALUATION):
            found.append(network(batch))
    predicted = torch.cat(found).double().numpy()
    return {name: predicted[:, column] for column, name in enumerate(targets)}


def _rows(count: int, step: int, size: int, streams: Streams) -> np.ndarray:
    """Architectures of a step: each epoch passes through a new permutation, without its incomplete end."""
    epoch, position = divmod(step, count // size)
    order = streams.generator(_ORDER, epoch).permutation(count)
    return order[position * size : (position + 1) * size]


def _normal_scores(values: np.ndarray) -> np.ndarray:
    """Quantiles of the normal distribution at the ranks, ties shared."""
    scores: np.ndarray = norm.ppf((rankdata(values) - 0.5) / len(values))
    return scores

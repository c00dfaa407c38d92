"""DAGNN: nodes updated in topological order, each attending to its updated predecessors."""

import torch
from torch import Tensor, nn
from torch_geometric.utils import softmax

from deepnets_bench.data.dataset import GraphBatch


class DAGNN(nn.Module):
    """Sees dataflow edges: half the layer runs along them, half against them, each with its own weights."""

    edges = "both"
    source = "Thost & Chen, Directed Acyclic Graph Neural Networks, 2021, section 2 (arXiv:2101.07965)"

    def __init__(self, dim: int, layers: int = 1) -> None:
        super().__init__()
        self.sweeps = nn.ModuleList(_Sweep(dim) for _ in range(2 * layers))
        self.joins = nn.ModuleList(nn.Linear(2 * dim, dim) for _ in range(layers))

    def forward(self, x: Tensor, batch: GraphBatch) -> Tensor:
        source, target = batch.edge_index
        for layer, join in enumerate(self.joins):
            along = self.sweeps[2 * layer](x, source, target, batch.level)
            against = self.sweeps[2 * layer + 1](x, target, source, batch.level.max() - batch.level)
            x = x + join(torch.cat([along, against], dim=1))
        return x


class _Sweep(nn.Module):
    """One pass in order of level: h_v = GRU(x_v, sum of h_u weighted by attention over predecessors u).

    The paper scores a predecessor by w1·x_v + w2·h_u; the first term is the same for all of them and
    cancels in the softmax, so it is left out.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.score = nn.Linear(dim, 1, bias=False)
        self.gru = nn.GRUCell(dim, dim)

    def forward(self, x: Tensor, source: Tensor, target: Tensor, level: Tensor) -> Tensor:
        n_levels = int(level.max()) + 1
        nodes = level.argsort(stable=True).split(level.bincount(minlength=n_levels).tolist())
        edges = level[target].argsort(stable=True)
        edges_of = edges.split(level[target].bincount(minlength=n_levels).tolist())
        place = torch.empty_like(level)  # of a node within its level
        states: list[Tensor] = []
        first = torch.empty_like(level)  # row of a node in the states so far
        done = 0
        for here, into in zip(nodes, edges_of, strict=True):
            place[here] = torch.arange(len(here), device=x.device)
            first[here] = place[here] + done
            done += len(here)
            message = torch.zeros_like(x[here])
            if len(into):
                h = torch.cat(states)[first[source[into]]]
                row = place[target[into]]
                attention = softmax(self.score(h), row, num_nodes=len(here))
                message = message.index_add(0, row, attention * h)
            states.append(self.gru(x[here], message))
        return torch.cat(states)[first]

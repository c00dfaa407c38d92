"""GIN on DGL: an MLP on the sum of a node and its neighbours, on edges in both directions."""

import dgl
from dgl.nn import GINConv
from torch import Tensor, nn

from deepnets_bench.gnn.layers import ResidualStack


class GIN(nn.Module):
    """Sees dataflow edges in both directions and cannot tell the two apart; the MLP has no BatchNorm."""

    edges = "both"
    source = "Xu et al., How Powerful are Graph Neural Networks?, 2019, update rule of GIN (arXiv:1810.00826)"

    def __init__(self, dim: int, layers: int = 4) -> None:
        super().__init__()
        self.stack = ResidualStack(dim, layers, lambda: GINConv(_mlp(dim), learn_eps=True))

    def forward(self, g: dgl.DGLGraph, x: Tensor) -> Tensor:
        return self.stack(x, lambda conv, h: conv(g, h))


def _mlp(dim: int) -> nn.Module:
    return nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim))

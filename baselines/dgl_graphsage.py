"""GraphSAGE on DGL: a node beside the mean of its neighbours, on edges in both directions."""

import dgl
from dgl.nn import SAGEConv
from torch import Tensor, nn

from deepnets_bench.gnn.layers import ResidualStack


class GraphSAGE(nn.Module):
    """Sees dataflow edges in both directions and cannot tell the two apart; all neighbours, none sampled."""

    edges = "both"
    source = (
        "Hamilton et al., Inductive Representation Learning on Large Graphs, 2017, mean aggregator "
        "(arXiv:1706.02216)"
    )

    def __init__(self, dim: int, layers: int = 4) -> None:
        super().__init__()
        self.stack = ResidualStack(dim, layers, lambda: SAGEConv(dim, dim, "mean"))

    def forward(self, g: dgl.DGLGraph, x: Tensor) -> Tensor:
        return self.stack(x, lambda conv, h: conv(g, h))

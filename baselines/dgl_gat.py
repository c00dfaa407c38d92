"""GAT on DGL: attention over neighbours, on edges in both directions."""

import dgl
from dgl.nn import GATConv
from torch import Tensor, nn

from deepnets_bench.gnn.layers import ResidualStack


class GAT(nn.Module):
    """Sees dataflow edges in both directions and, DGL's layer taking no edge features, not which is which."""

    edges = "both"
    source = (
        "Veličković et al., Graph Attention Networks, 2018, attentional layer, heads concatenated "
        "(arXiv:1710.10903)"
    )

    def __init__(self, dim: int, layers: int = 4, heads: int = 4) -> None:
        super().__init__()
        self.stack = ResidualStack(dim, layers, lambda: GATConv(dim, dim // heads, heads))

    def forward(self, g: dgl.DGLGraph, x: Tensor) -> Tensor:
        g = dgl.add_self_loop(g)  # the paper's neighbourhood holds the node itself
        return self.stack(x, lambda conv, h: conv(g, h).flatten(1))

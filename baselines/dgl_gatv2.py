"""GATv2 on DGL: attention whose ranking of neighbours depends on the node, on edges in both directions."""

import dgl
from dgl.nn import GATv2Conv
from torch import Tensor, nn

from deepnets_bench.gnn.layers import ResidualStack


class GATv2(nn.Module):
    """Sees dataflow edges in both directions and, DGL's layer taking no edge features, not which is which."""

    edges = "both"
    source = (
        "Brody et al., How Attentive are Graph Attention Networks?, 2022, dynamic scoring function "
        "(arXiv:2105.14491)"
    )

    def __init__(self, dim: int, layers: int = 4, heads: int = 4) -> None:
        super().__init__()
        self.stack = ResidualStack(dim, layers, lambda: GATv2Conv(dim, dim // heads, heads))

    def forward(self, g: dgl.DGLGraph, x: Tensor) -> Tensor:
        g = dgl.add_self_loop(g)  # as in GAT, the neighbourhood holds the node itself
        return self.stack(x, lambda conv, h: conv(g, h).flatten(1))

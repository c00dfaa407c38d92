"""GCN on DGL: the mean of neighbours with symmetric degree normalisation, on edges in both directions."""

import dgl
from dgl.nn import GraphConv
from torch import Tensor, nn

from deepnets_bench.gnn.layers import ResidualStack


class GCN(nn.Module):
    """Sees dataflow edges in both directions and cannot tell the two apart."""

    edges = "both"
    source = (
        "Kipf & Welling, Semi-Supervised Classification with Graph Convolutional Networks, 2017, "
        "layer-wise propagation rule (arXiv:1609.02907)"
    )

    def __init__(self, dim: int, layers: int = 4) -> None:
        super().__init__()
        self.stack = ResidualStack(dim, layers, lambda: GraphConv(dim, dim))

    def forward(self, g: dgl.DGLGraph, x: Tensor) -> Tensor:
        g = dgl.add_self_loop(g)  # GraphConv leaves them out; the paper's A + I has them
        return self.stack(x, lambda conv, h: conv(g, h))

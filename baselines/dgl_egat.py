"""EGAT on DGL: attention from the features of both nodes and of the edge, on edges in both directions."""

import dgl
from dgl.nn import EGATConv
from torch import Tensor, nn

from deepnets_bench.gnn import EDGE_DIM
from deepnets_bench.gnn.layers import ResidualStack


class EGAT(nn.Module):
    """Sees dataflow edges in both directions with the direction of each; edge states are not carried on."""

    edges = "both"
    source = (
        "Kamiński et al., Rossmann-toolbox: a deep learning-based protocol for the prediction and design "
        "of cofactor specificity in Rossmann fold proteins, 2021, supplement (EGAT)"
    )

    def __init__(self, dim: int, layers: int = 4, heads: int = 4) -> None:
        super().__init__()
        self.stack = ResidualStack(
            dim, layers, lambda: EGATConv(dim, EDGE_DIM, dim // heads, dim // heads, heads)
        )

    def forward(self, g: dgl.DGLGraph, x: Tensor) -> Tensor:
        return self.stack(x, lambda conv, h: conv(g, h, g.edata["attr"])[0].flatten(1))

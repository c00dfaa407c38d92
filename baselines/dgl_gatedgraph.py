"""Gated graph network on DGL: one gated unit at every step, a message matrix per direction of edges."""

import dgl
from dgl.nn import GatedGraphConv
from torch import Tensor, nn


class GatedGraph(nn.Module):
    """Sees dataflow edges in both directions, the direction as edge type; its GRU is its own residual."""

    edges = "both"
    source = "Li et al., Gated Graph Sequence Neural Networks, 2016, propagation model (arXiv:1511.05493)"

    def __init__(self, dim: int, steps: int = 4) -> None:
        super().__init__()
        self.conv = GatedGraphConv(dim, dim, steps, n_etypes=2)

    def forward(self, g: dgl.DGLGraph, x: Tensor) -> Tensor:
        out: Tensor = self.conv(g, x, g.edata["type"])
        return out

"""Gated graph network: the same gated unit at every step, messages from neighbours in both directions."""

from torch import Tensor, nn
from torch_geometric.nn import GatedGraphConv


class GatedGraph(nn.Module):
    """Sees dataflow edges in both directions and cannot tell the two apart; its GRU is its own residual."""

    edges = "both"
    source = "Li et al., Gated Graph Sequence Neural Networks, 2016, propagation model (arXiv:1511.05493)"

    def __init__(self, dim: int, steps: int = 4) -> None:
        super().__init__()
        self.conv = GatedGraphConv(dim, steps)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        out: Tensor = self.conv(x, edge_index)
        return out

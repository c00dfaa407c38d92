"""GCN: the mean of neighbours with symmetric degree normalisation, on edges in both directions."""

from torch import Tensor, nn
from torch_geometric.nn import GCNConv

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
        self.stack = ResidualStack(dim, layers, lambda: GCNConv(dim, dim))

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.stack(x, lambda conv, h: conv(h, edge_index))

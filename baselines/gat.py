"""GAT: attention over neighbours, on edges in both directions with the direction as edge feature."""

from torch import Tensor, nn
from torch_geometric.nn import GATConv

from deepnets_bench.gnn import EDGE_DIM
from deepnets_bench.gnn.layers import ResidualStack


class GAT(nn.Module):
    """Sees dataflow edges in both directions; attention scores know the direction of each."""

    edges = "both"
    source = (
        "Veličković et al., Graph Attention Networks, 2018, attentional layer, heads concatenated "
        "(arXiv:1710.10903)"
    )

    def __init__(self, dim: int, layers: int = 4, heads: int = 4) -> None:
        super().__init__()
        self.stack = ResidualStack(
            dim, layers, lambda: GATConv(dim, dim // heads, heads=heads, edge_dim=EDGE_DIM)
        )

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor) -> Tensor:
        return self.stack(x, lambda conv, h: conv(h, edge_index, edge_attr))

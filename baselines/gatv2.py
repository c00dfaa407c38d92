"""GATv2: attention whose ranking of neighbours depends on the node, on edges in both directions."""

from torch import Tensor, nn
from torch_geometric.nn import GATv2Conv

from deepnets_bench.gnn import EDGE_DIM
from deepnets_bench.gnn.layers import ResidualStack


class GATv2(nn.Module):
    """Sees dataflow edges in both directions, the direction of each as edge feature."""

    edges = "both"
    source = (
        "Brody et al., How Attentive are Graph Attention Networks?, 2022, dynamic scoring function "
        "(arXiv:2105.14491)"
    )

    def __init__(self, dim: int, layers: int = 4, heads: int = 4) -> None:
        super().__init__()
        self.stack = ResidualStack(
            dim, layers, lambda: GATv2Conv(dim, dim // heads, heads=heads, edge_dim=EDGE_DIM)
        )

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor) -> Tensor:
        return self.stack(x, lambda conv, h: conv(h, edge_index, edge_attr))

"""Graph transformer layer of UniMP: dot-product attention over neighbours with a gated residual."""

from torch import Tensor, nn
from torch_geometric.nn import TransformerConv as _Conv

from deepnets_bench.gnn import EDGE_DIM
from deepnets_bench.gnn.layers import ResidualStack


class TransformerConv(nn.Module):
    """Sees dataflow edges in both directions, the direction of each as edge feature."""

    edges = "both"
    source = (
        "Shi et al., Masked Label Prediction: Unified Message Passing Model for Semi-Supervised "
        "Classification, 2020, graph transformer layer (arXiv:2009.03509)"
    )

    def __init__(self, dim: int, layers: int = 4, heads: int = 4) -> None:
        super().__init__()
        self.stack = ResidualStack(
            dim, layers, lambda: _Conv(dim, dim // heads, heads=heads, beta=True, edge_dim=EDGE_DIM)
        )

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor) -> Tensor:
        return self.stack(x, lambda conv, h: conv(h, edge_index, edge_attr))

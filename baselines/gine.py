"""GINE: an MLP on the sum of a node and its neighbours, each joined with the edge's direction."""

from torch import Tensor, nn
from torch_geometric.nn import GINEConv

from deepnets_bench.gnn import EDGE_DIM
from deepnets_bench.gnn.layers import ResidualStack


class GINE(nn.Module):
    """Sees dataflow edges in both directions, the direction of each as edge feature."""

    edges = "both"
    source = (
        "Hu et al., Strategies for Pre-training Graph Neural Networks, 2020, GIN with edge features "
        "(arXiv:1905.12265)"
    )

    def __init__(self, dim: int, layers: int = 4) -> None:
        super().__init__()
        self.stack = ResidualStack(
            dim, layers, lambda: GINEConv(_mlp(dim), train_eps=True, edge_dim=EDGE_DIM)
        )

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor) -> Tensor:
        return self.stack(x, lambda conv, h: conv(h, edge_index, edge_attr))


def _mlp(dim: int) -> nn.Module:
    return nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim))

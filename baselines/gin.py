"""GIN: an MLP on the sum of a node and its neighbours, on edges in both directions."""

from torch import Tensor, nn
from torch_geometric.nn import GINConv

from deepnets_bench.gnn.layers import ResidualStack


class GIN(nn.Module):
    """Sees dataflow edges in both directions and cannot tell the two apart; the MLP has no BatchNorm."""

    edges = "both"
    source = "Xu et al., How Powerful are Graph Neural Networks?, 2019, update rule of GIN (arXiv:1810.00826)"

    def __init__(self, dim: int, layers: int = 4) -> None:
        super().__init__()
        self.stack = ResidualStack(dim, layers, lambda: GINConv(_mlp(dim), train_eps=True))

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.stack(x, lambda conv, h: conv(h, edge_index))


def _mlp(dim: int) -> nn.Module:
    return nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim))

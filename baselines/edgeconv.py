"""EdgeConv: the maximum over neighbours of an MLP of the node and its difference to each."""

from torch import Tensor, nn
from torch_geometric.nn import EdgeConv as _Conv

from deepnets_bench.gnn.layers import ResidualStack


class EdgeConv(nn.Module):
    """Sees dataflow edges in both directions and cannot tell the two apart."""

    edges = "both"
    source = (
        "Wang et al., Dynamic Graph CNN for Learning on Point Clouds, 2019, asymmetric edge function with"
        " maximum (arXiv:1801.07829)"
    )

    def __init__(self, dim: int, layers: int = 4) -> None:
        super().__init__()
        self.stack = ResidualStack(dim, layers, lambda: _Conv(_mlp(dim)))

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.stack(x, lambda conv, h: conv(h, edge_index))


def _mlp(dim: int) -> nn.Module:
    return nn.Sequential(nn.Linear(2 * dim, dim), nn.ReLU(), nn.Linear(dim, dim))

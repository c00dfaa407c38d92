"""GEN: the layer of DeeperGCN, a learned softmax over messages, on edges in both directions."""

from torch import Tensor, nn
from torch_geometric.nn import GENConv

from deepnets_bench.gnn import EDGE_DIM
from deepnets_bench.gnn.layers import ResidualStack


class GEN(nn.Module):
    """Sees dataflow edges in both directions, the direction of each as edge feature."""

    edges = "both"
    source = (
        "Li et al., DeeperGCN: All You Need to Train Deeper GCNs, 2020, softmax aggregation "
        "(arXiv:2006.07739)"
    )

    def __init__(self, dim: int, layers: int = 4) -> None:
        super().__init__()
        self.stack = ResidualStack(
            dim,
            layers,
            lambda: GENConv(dim, dim, aggr="softmax", learn_t=True, norm="layer", edge_dim=EDGE_DIM),
        )

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor) -> Tensor:
        return self.stack(x, lambda conv, h: conv(h, edge_index, edge_attr))

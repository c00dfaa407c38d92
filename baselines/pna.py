"""PNA: mean, minimum, maximum and standard deviation of neighbours, each at three degree scalings."""

import torch
from torch import Tensor, nn
from torch_geometric.nn import PNAConv

from deepnets_bench.gnn import EDGE_DIM
from deepnets_bench.gnn.layers import ResidualStack

# Nodes of each degree, 0 to 8, in the first 1,000 training architectures: what the scalers are relative to.
DEGREES = (0, 2286, 138856, 21161, 13707, 2605, 263, 56, 6)


class PNA(nn.Module):
    """Sees dataflow edges in both directions, the direction of each as edge feature."""

    edges = "both"
    source = (
        "Corso et al., Principal Neighbourhood Aggregation for Graph Nets, 2020, aggregators times degree"
        " scalers (arXiv:2004.05718)"
    )

    def __init__(self, dim: int, layers: int = 4) -> None:
        super().__init__()
        self.stack = ResidualStack(
            dim,
            layers,
            lambda: PNAConv(
                dim,
                dim,
                aggregators=["mean", "min", "max", "std"],
                scalers=["identity", "amplification", "attenuation"],
                deg=torch.tensor(DEGREES),
                edge_dim=EDGE_DIM,
            ),
        )

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor) -> Tensor:
        return self.stack(x, lambda conv, h: conv(h, edge_index, edge_attr))

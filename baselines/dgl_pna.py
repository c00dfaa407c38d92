"""PNA on DGL: mean, minimum, maximum and deviation of neighbours, each at three degree scalings."""

import dgl
from dgl.nn import PNAConv
from torch import Tensor, nn

from deepnets_bench.gnn import EDGE_DIM
from deepnets_bench.gnn.layers import ResidualStack

# Mean of log(degree + 1) over the nodes of the first 1,000 training architectures.
DELTA = 1.178


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
                delta=DELTA,
                edge_feat_size=EDGE_DIM,
                residual=False,
            ),
        )

    def forward(self, g: dgl.DGLGraph, x: Tensor) -> Tensor:
        return self.stack(x, lambda conv, h: conv(g, h, g.edata["attr"]))

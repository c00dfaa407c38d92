"""GPS: message passing on edges and attention between all nodes of a graph, side by side in each layer."""

import torch_geometric.transforms as T
from torch import Tensor, nn
from torch_geometric.nn import GINEConv, GPSConv

from deepnets_bench.gnn import EDGE_DIM

WALK = 16  # steps


class GPS(nn.Module):
    """Sees dataflow edges in both directions with the direction of each; attention knows no edges.

    What it knows of places in the graph are the probabilities that a random walk over undirected edges is
    back after 1 to 16 steps, projected and added to the node states.
    """

    edges = "both"
    # Along the edges of a directed acyclic graph no walk returns.
    transform = T.Compose([T.ToUndirected(), T.AddRandomWalkPE(WALK)])
    source = (
        "Rampášek et al., Recipe for a General, Powerful, Scalable Graph Transformer, 2022, GPS layer "
        "with random-walk encodings (arXiv:2205.12454)"
    )

    def __init__(self, dim: int, layers: int = 3, heads: int = 4) -> None:
        super().__init__()
        self.encode = nn.Linear(WALK, dim)
        self.layers = nn.ModuleList(
            # GPS brings its own residuals; its BatchNorm is replaced because it would mix graphs.
            GPSConv(
                dim,
                GINEConv(_mlp(dim), edge_dim=EDGE_DIM),
                heads=heads,
                norm="layer_norm",
                norm_kwargs={"mode": "node"},
            )
            for _ in range(layers)
        )

    def forward(
        self, x: Tensor, edge_index: Tensor, edge_attr: Tensor, batch: Tensor, random_walk_pe: Tensor
    ) -> Tensor:
        x = x + self.encode(random_walk_pe)
        for layer in self.layers:
            x = layer(x, edge_index, batch, edge_attr=edge_attr)
        return x


def _mlp(dim: int) -> nn.Module:
    return nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim))

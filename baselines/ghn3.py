"""Graphormer of GHN-3: attention between all nodes, biased by their distances in both directions."""

from torch import Tensor, nn

from deepnets_bench.data.dataset import GraphBatch
from deepnets_bench.ghn.graphormer import Graphormer


class GHN3(nn.Module):
    """Sees directed distances up to the track's cutoff, and with them the direction; the edges by degree.

    GHN-3 as published has decoders of its own as well (and an initialisation for them); here they stay
    those of the track, as for every GNN. The sizes are those of GHN-3-T.
    """

    edges = "virtual"
    source = (
        "Knyazev et al., Can We Scale Transformers to Predict Parameters of Diverse ImageNet Models?, "
        "2023, GHN-3's Graphormer layers (arXiv:2303.04143)"
    )

    def __init__(self, dim: int, layers: int = 3, heads: int = 8) -> None:
        super().__init__()
        self.layers = Graphormer(dim, layers, heads)

    def forward(self, x: Tensor, batch: GraphBatch) -> Tensor:
        states: Tensor = self.layers(x, batch)
        return states

"""GatedGNN of GHN-2: GHN-1's with messages along virtual edges, weighted by 1/distance."""

from deepnets_bench.ghn.gated.module import GatedGNN


class GHN2(GatedGNN):
    """Sees dataflow and virtual edges with their distance in both directions, one direction a sweep."""

    edges = "virtual"
    source = (
        "Knyazev et al., Parameter Prediction for Unseen Deep Architectures, 2021, eq. 4 (arXiv:2110.13100)"
    )

    def __init__(self, dim: int) -> None:
        super().__init__(dim, virtual_edges=True)

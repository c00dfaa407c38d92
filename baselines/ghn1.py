"""GatedGNN of GHN-1: a gated unit updates nodes in topological order, forward then backward."""

from deepnets_bench.ghn.gated.module import GatedGNN


class GHN1(GatedGNN):
    """Sees dataflow edges in both directions, one direction a sweep, with the same weights in both."""

    edges = "both"
    source = (
        "Zhang et al., Graph HyperNetworks for Neural Architecture Search, 2019, in the form of "
        "Knyazev et al. 2021 without virtual edges (arXiv:2110.13100)"
    )

    def __init__(self, dim: int) -> None:
        super().__init__(dim, virtual_edges=False)

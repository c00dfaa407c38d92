"""MLP: each node on its own; what a GHN reaches without message passing."""

from deepnets_bench.ghn.gated.module import NodeMLP


class MLP(NodeMLP):
    """Sees no edges."""

    edges = "none"
    source = (
        "Knyazev et al., Parameter Prediction for Unseen Deep Architectures, 2021, MLP baseline "
        "(arXiv:2110.13100)"
    )

    def __init__(self, dim: int) -> None:
        super().__init__(dim)

"""The frame that message-passing baselines share, so that a table compares layers, not tricks."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from deepnets_bench.errors import BadInput


class ResidualStack(nn.Module):
    """`layers` pre-norm residual blocks, x ← x + layer(ReLU(LayerNorm(x))) (Li et al. 2020, "res+").

    `make` builds one layer; `call(layer, h)` runs it. LayerNorm, not BatchNorm: a node's state must not
    depend on the other graphs of a batch.
    """

    __call__: Callable[..., Tensor]

    def __init__(self, dim: int, layers: int, make: Callable[[], nn.Module]) -> None:
        super().__init__()
        if layers < 1:
            raise BadInput(f"layers must be a positive whole number, not {layers}.")
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(layers))
        self.layers = nn.ModuleList(make() for _ in range(layers))

    def forward(self, x: Tensor, call: Callable[[nn.Module, Tensor], Tensor]) -> Tensor:
        for norm, layer in zip(self.norms, self.layers, strict=True):
            x = x + call(layer, norm(x).relu())
        return x

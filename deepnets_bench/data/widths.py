"""Widths of training networks: large architectures get few channels, small ones are drawn from many."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from deepnets_bench.compiler import instructions as ir
from deepnets_bench.errors import BadInput


class WidthRule(BaseModel):
    """Widths and hidden sizes an architecture may get; the first rule of a list that matches is used.

    A rule matches when any of its conditions holds, and always when it has none.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    over_params: int | None = None  # parameters at the reference width
    over_cells: int | None = None
    flatten: bool = False  # no global average pooling in front of the classifier
    large_conv: bool = False  # a 5×5 or 7×7 convolution in a cell
    widths: tuple[int, ...] = Field(min_length=1)  # channels of the first cell
    fc_dims: tuple[int, ...] = Field(min_length=1)  # hidden units of the classifier
    narrow: int = 0  # up to this width ...
    narrow_fc_dims: tuple[int, ...] = ()  # ... the hidden units are drawn from here instead

    @property
    def unconditional(self) -> bool:
        """True for the rule that every architecture matches."""
        return self.over_params is None and self.over_cells is None and not (self.flatten or self.large_conv)

    def matches(self, code: Sequence[int], params: int) -> bool:
        """Does the rule apply to an encoded architecture with `params` parameters at the reference width?"""
        return (
            self.unconditional
            or (self.over_params is not None and params > self.over_params)
            or (self.over_cells is not None and code[ir.N_CELLS] > self.over_cells)
            or (self.flatten and not code[ir.POOL_HEAD])
            or (self.large_conv and _has_large_conv(code))
        )

    def draw(self, random: np.random.Generator) -> tuple[int, int]:
        """A (width, fc_dim), both uniform."""
        width = self.widths[int(random.integers(len(self.widths)))]
        fc_dims = self.narrow_fc_dims if width <= self.narrow and self.narrow_fc_dims else self.fc_dims
        return width, fc_dims[int(random.integers(len(fc_dims)))]


def width_rule(code: Sequence[int], params: int, rules: Sequence[WidthRule]) -> WidthRule:
    """The first rule that matches an architecture (the integers of `architecture.encode`), or `BadInput`."""
    for rule in rules:
        if rule.matches(code, params):
            return rule
    raise BadInput("No width rule matches: the last rule must have no condition.")


def draw_sizes(
    code: np.ndarray, params: int, rules: Sequence[WidthRule], random: np.random.Generator
) -> tuple[int, int]:
    """(width, fc_dim) of a training network: by the first rule that matches its encoded architecture.

    `params` are its parameters at the reference width. Raises `BadInput` where no rule matches.
    """
    return width_rule(code.tolist(), params, rules).draw(random)


def _has_large_conv(code: Sequence[int]) -> bool:
    ops = code[ir.HEADER : ir.HEADER + 4 * (code[ir.STEPS_NORMAL] + code[ir.STEPS_REDUCE]) : 2]
    return ir.CONV5 in ops or ir.CONV7 in ops


_FC_DIMS = (64, 128, 192, 256)

# The rules of GHN-1 and GHN-2 (Knyazev et al., 2021, authors' code): parameters are those of the form
# being trained (CIFAR-10 or ImageNet) at 32 channels.
PAPER_RULES = (
    WidthRule(
        over_params=800_000, over_cells=12, flatten=True, large_conv=True, widths=(32,), fc_dims=_FC_DIMS
    ),
    WidthRule(over_params=400_000, over_cells=10, widths=(32, 48), fc_dims=_FC_DIMS),
    WidthRule(over_params=200_000, over_cells=8, widths=(32, 48, 64), fc_dims=_FC_DIMS),
    WidthRule(
        widths=tuple(range(32, 129, 16)),
        fc_dims=_FC_DIMS,
        narrow=64,
        narrow_fc_dims=tuple(range(64, 513, 64)),
    ),
)

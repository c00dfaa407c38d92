"""Widths of training networks: every row of the paper's table, at and beside its thresholds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from deepnets_bench import Architecture, Genotype
from deepnets_bench.architecture import encode
from deepnets_bench.data.widths import PAPER_RULES, WidthRule, width_rule
from deepnets_bench.errors import BadInput

NARROW = {64, 128, 192, 256}
ONE, TWO, THREE = {32}, {32, 48}, {32, 48, 64}
MANY = set(range(32, 129, 16))


def rule(
    params: int, n_cells: int = 4, op: str = "conv_3x3", cell: str = "normal", **fields: Any
) -> WidthRule:
    pairs = {"normal": (("conv_1x1", 0), ("skip_connect", 1)), "reduce": (("max_pool_3x3", 0), ("msa", 1))}
    pairs[cell] = ((op, 0), pairs[cell][1])
    genotype = Genotype(pairs["normal"], (2,), pairs["reduce"], (2,))
    arch = Architecture(genotype, n_cells=n_cells, **fields)
    return width_rule(encode(arch).tolist(), params, PAPER_RULES)


@pytest.mark.parametrize(
    ("widths", "arguments"),
    [
        (ONE, {"params": 800_001}),
        (ONE, {"params": 1, "glob_avg": False}),
        (ONE, {"params": 1, "n_cells": 13}),
        *[
            (ONE, {"params": 1, "op": op, "cell": cell})
            for op in ("conv_5x5", "conv_7x7")
            for cell in ("normal", "reduce")
        ],
        (TWO, {"params": 800_000}),
        (TWO, {"params": 400_001}),
        (TWO, {"params": 1, "n_cells": 12}),
        (TWO, {"params": 1, "n_cells": 11}),
        (THREE, {"params": 400_000}),
        (THREE, {"params": 200_001}),
        (THREE, {"params": 1, "n_cells": 10}),
        (THREE, {"params": 1, "n_cells": 9}),
        (MANY, {"params": 200_000, "n_cells": 8}),
        *[
            (MANY, {"params": 1, "op": op})
            for op in ("sep_conv_5x5", "dil_conv_5x5", "conv_7x1_1x7", "none", "cse")
        ],
    ],
)
def test_each_row_of_the_table(widths: set[int], arguments: dict[str, Any]) -> None:
    chosen = rule(**arguments)
    random = np.random.default_rng(0)
    drawn = [chosen.draw(random) for _ in range(800)]
    assert {width for width, _ in drawn} == widths
    if widths != MANY:
        assert {fc_dim for _, fc_dim in drawn} == NARROW
        return
    for width in widths:
        expected = set(range(64, 513, 64)) if width <= 64 else NARROW
        assert {fc_dim for w, fc_dim in drawn if w == width} == expected


def test_draws_are_uniform() -> None:
    random = np.random.default_rng(0)
    drawn = np.array([PAPER_RULES[-1].draw(random) for _ in range(7_000)])
    _, counts = np.unique(drawn[:, 0], return_counts=True)
    assert np.abs(counts - 1000).max() < 150


def test_a_list_without_an_unconditional_rule_is_refused() -> None:
    code = encode(Architecture(Genotype((("cse", 0), ("msa", 1)), (2,), (("cse", 0), ("msa", 1)), (2,)), 4))
    with pytest.raises(BadInput, match="the last rule must have no condition"):
        width_rule(code.tolist(), 1, PAPER_RULES[:-1])

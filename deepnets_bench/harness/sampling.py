"""Sampling of training networks: which architectures meet at a step, and how wide each one is built."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice
from typing import TYPE_CHECKING

import numpy as np

from deepnets_bench.dataset import MetaBatchSampler
from deepnets_bench.errors import BadInput
from deepnets_bench.graph import assemble
from deepnets_bench.harness.tracks import Networks
from deepnets_bench.program import encode
from deepnets_bench.widths import WidthRule, width_rule

if TYPE_CHECKING:
    from deepnets_bench.architecture import Architecture


@dataclass(frozen=True)
class Draw:
    """One network of a meta-batch: the architecture's index in the training set, and its sizes."""

    index: int
    width: int
    fc_dim: int


class NetworkSampler:
    """The meta-batches of a training; those of step s depend on (seed, s) alone.

    Architectures above `protocol.max_nodes` or `max_params` are left out; so are, whole, meta-batches
    above `max_meta_batch_nodes`. Raises `BadInput` if too few architectures remain.
    """

    def __init__(
        self,
        architectures: Sequence[Architecture],
        protocol: Networks,
        *,
        image_size: int,
        num_classes: int,
        seed: int,
    ) -> None:
        self.seed = seed
        self.indices: list[int] = []  # of the architectures that may be drawn
        self._rules: list[WidthRule] = []
        nodes: list[int] = []
        for index, arch in enumerate(architectures):
            program = arch.program(
                width=protocol.reference_width, image_size=image_size, num_classes=num_classes
            )
            if protocol.max_params is not None and program.num_params > protocol.max_params:
                continue
            n_nodes = len(assemble(program.table, program.args, program.live)[0])
            if protocol.max_nodes is not None and n_nodes > protocol.max_nodes:
                continue
            self.indices.append(index)
            nodes.append(n_nodes)
            self._rules.append(width_rule(encode(arch).tolist(), program.num_params, protocol.width_rules))
        if len(self.indices) < protocol.meta_batch_size:
            raise BadInput(
                f"Only {len(self.indices)} of {len(architectures)} training architectures pass the track's "
                f"limits on nodes and parameters, fewer than its meta-batch of {protocol.meta_batch_size}."
            )
        self._meta_batches = MetaBatchSampler(
            nodes, protocol.meta_batch_size, protocol.max_meta_batch_nodes, seed
        )

    def from_step(self, step: int) -> Iterator[list[Draw]]:
        """The meta-batches of `step` and all after it, without end."""
        positions = islice(iter(self._meta_batches), step, None)
        for number, chosen in zip(count(step), positions, strict=False):
            random = np.random.Generator(np.random.Philox(key=(self.seed, number)))
            yield [Draw(self.indices[i], *self._rules[i].draw(random)) for i in chosen]

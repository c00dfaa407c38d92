"""Sampling of training networks: which architectures meet at a step, and how wide each one is built."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice
from typing import TYPE_CHECKING

import numpy as np

from deepnets_bench.data.dataset import MetaBatchSampler
from deepnets_bench.data.widths import draw_sizes
from deepnets_bench.errors import BadInput
from deepnets_bench.graphs.folding import assemble
from deepnets_bench.harness.protocol.tables import Networks
from deepnets_bench.harness.randomness import ARCHITECTURES, WIDTHS, Streams
from deepnets_bench.harness.training.splits import StoredArchitectures

if TYPE_CHECKING:
    from deepnets_bench.architecture import Architecture
    from deepnets_bench.data.shards import GraphRecord


@dataclass(frozen=True)
class SampledNetwork:
    """One network of a meta-batch: the architecture's index in the training set, and its sizes."""

    index: int
    width: int
    fc_dim: int


class NetworkSampler:
    """The meta-batches of a training; those of step s depend on `streams` and s alone.

    Architectures above `protocol.max_nodes` or `max_params` are left out; so are, whole, meta-batches
    above `max_meta_batch_nodes`. Raises `BadInput` if too few architectures remain.
    """

    def __init__(
        self,
        architectures: Sequence[Architecture | GraphRecord],
        protocol: Networks,
        *,
        image_size: int,
        num_classes: int,
        streams: Streams,
    ) -> None:
        self.streams, self.architectures, self.protocol = streams, architectures, protocol
        self._sizes = {
            "width": protocol.reference_width,
            "image_size": image_size,
            "num_classes": num_classes,
        }
        nodes = self._node_counts()
        kept = np.ones(len(architectures), bool)
        if protocol.max_nodes is not None:
            kept &= nodes <= protocol.max_nodes
        self.indices: list[int] = np.flatnonzero(kept).tolist()  # of the architectures that may be drawn
        if protocol.max_params is not None:
            sizes = ((i, self._num_params(architectures[i])) for i in self.indices)
            self.indices = [i for i, num_params in sizes if num_params <= protocol.max_params]
        if len(self.indices) < protocol.meta_batch_size:
            raise BadInput(
                f"Only {len(self.indices)} of {len(architectures)} training architectures pass the track's "
                f"limits on nodes and parameters, fewer than its meta-batch of {protocol.meta_batch_size}."
            )
        self._meta_batches = MetaBatchSampler(
            nodes[self.indices],
            protocol.meta_batch_size,
            protocol.max_meta_batch_nodes,
            streams.seed(ARCHITECTURES),
        )

    def _node_counts(self) -> np.ndarray:
        """int64 [architectures]: the nodes of each graph, from its file where there is one."""
        if isinstance(self.architectures, StoredArchitectures):
            return self.architectures.node_counts()
        programs = (arch.program(**self._sizes) for arch in self.architectures)
        return np.array([len(assemble(p.table, p.args, p.live)[0]) for p in programs])

    def _num_params(self, arch: Architecture | GraphRecord) -> int:
        return arch.program(**self._sizes).num_params

    def _sample(self, index: int, random: np.random.Generator) -> SampledNetwork:
        """Sizes by the rule of an architecture, found when it is drawn: a million would take minutes."""
        arch = self.architectures[index]
        sizes = draw_sizes(arch.encoded, self._num_params(arch), self.protocol.width_rules, random)
        return SampledNetwork(index, *sizes)

    def from_step(self, step: int) -> Iterator[list[SampledNetwork]]:
        """The meta-batches of `step` and all after it, without end."""
        positions = islice(iter(self._meta_batches), step, None)
        for number, chosen in zip(count(step), positions, strict=False):
            random = self.streams.generator(WIDTHS, number)
            yield [self._sample(self.indices[i], random) for i in chosen]

"""Gradient accumulation: the networks of a meta-batch, one at a time, then the hypernetwork once for all."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from deepnets_bench.data.dataset import GraphBatch
from deepnets_bench.errors import NotFinite, reason_of
from deepnets_bench.graphs.graph import ComputationGraph
from deepnets_bench.harness.protocol.tables import Optimisation
from deepnets_bench.harness.randomness import DROPOUT, GNN_TRAINING, Streams
from deepnets_bench.harness.training.distributed import Compute
from deepnets_bench.harness.training.failures import is_network_failure, is_out_of_memory, require_finite
from deepnets_bench.networks.network import execute
from deepnets_bench.networks.operations import Step


class Member(NamedTuple):
    """A network of a meta-batch: its position there, its graph and its operations."""

    position: int
    graph: ComputationGraph
    steps: tuple[Step, ...]


@dataclass
class StepResult:
    """What became of the networks that one process ran in one step: sums over those that did not fail."""

    loss: float = 0.0
    correct: float = 0.0
    ran: int = 0
    failed: int = 0
    skipped: bool = False  # the hypernetwork ran out of memory, so that there is no gradient
    reason: str = ""  # of the last failure

    def fail(self, error: BaseException, count: int = 1) -> None:
        """Count the failure of networks."""
        self.failed += count
        self.reason = reason_of(error)


class GradientAccumulator:
    """Adds the gradients of a step's losses to those of the hypernetwork's weights.

    Every network is run and differentiated on its own, up to its predicted parameters, and the
    hypernetwork once for all of them: the same gradient as that of the summed loss, with the activations of
    one network in memory at a time. A network that fails (`is_network_failure`) has no part in it.
    """

    def __init__(self, ghn: Any, protocol: Optimisation, compute: Compute, streams: Streams) -> None:
        self.ghn, self.protocol, self.compute, self.streams = ghn, protocol, compute, streams

    def __call__(self, step: int, members: Sequence[Member], images: Tensor, labels: Tensor) -> StepResult:
        """Run this process's members of the meta-batch of a step on the step's images.

        Raises whatever is not the failure of one network.
        """
        result = StepResult()
        # What the GNN draws depends on the process, which sees other graphs than the others.
        with self.streams.seeded(self.compute.device, GNN_TRAINING, step, self.compute.rank):
            try:
                self._accumulate(step, members, images, labels, result)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                result.fail(error)
                result.skipped = True
        return result

    def _accumulate(
        self, step: int, members: Sequence[Member], images: Tensor, labels: Tensor, result: StepResult
    ) -> None:
        outputs: list[Tensor] = []
        gradients: list[Tensor] = []
        for member, predicted in self._predict(members, result):
            leaves = {name: tensor.detach().requires_grad_() for name, tensor in predicted.items()}
            try:
                with self.streams.seeded(self.compute.device, DROPOUT, step, member.position):
                    self._run_network(member.steps, leaves, images, labels, result)
            except Exception as error:
                if not is_network_failure(error):
                    raise
                result.fail(error)
                continue
            used = [(predicted[name], leaf.grad) for name, leaf in leaves.items() if leaf.grad is not None]
            outputs += [tensor for tensor, _ in used]
            gradients += [gradient for _, gradient in used]
        if outputs:
            torch.autograd.backward(outputs, gradients)

    def _predict(
        self, members: Sequence[Member], result: StepResult
    ) -> list[tuple[Member, dict[str, Tensor]]]:
        """Predicted parameters of the members for which they are finite; the others have failed.

        Those are predicted again without the failed ones: a gradient of zero times a value that is not
        finite would be NaN in the weights that all graphs share.
        """
        buffers = [(buffer, buffer.clone()) for buffer in self.ghn.gnn.buffers()]
        while members:
            graphs = [member.graph for member in members]
            batch = GraphBatch.from_graphs(graphs, virtual_edges=self.ghn.virtual_edges)
            try:
                with self.compute.autocast():
                    predictions = self.ghn(batch.to(self.compute.device))
                require_finite(predictions)
                return list(zip(members, predictions, strict=True))
            except NotFinite as error:
                if not error.graphs:
                    raise
                failed = set(error.graphs)
                result.fail(error, len(failed))
            with torch.no_grad():  # such as the running statistics of a batch norm
                for buffer, before in buffers:
                    buffer.copy_(before)
            members = [member for index, member in enumerate(members) if index not in failed]
        return []

    def _run_network(
        self,
        steps: tuple[Step, ...],
        params: dict[str, Tensor],
        images: Tensor,
        labels: Tensor,
        result: StepResult,
    ) -> None:
        """Leave the gradient of a network's loss in its parameters."""
        protocol = self.protocol
        with self.compute.autocast():
            logits = execute(steps, images, params, training=True, fast=protocol.fast_gradients)
            loss = F.cross_entropy(logits, labels, label_smoothing=protocol.label_smoothing)
        value = total = loss.item()
        if protocol.predicted_norm_penalty:
            norms = torch._foreach_norm(list(params.values()))
            loss = loss + protocol.predicted_norm_penalty * torch.stack(norms).sum()
            total = loss.item()
        if not math.isfinite(total):
            raise NotFinite(f"the loss is {total}")
        self.compute.scaled(loss).backward()
        self._clip(params.values())
        result.loss += value
        result.correct += (logits.detach().argmax(1) == labels).float().mean().item()
        result.ran += 1

    def _clip(self, leaves: Iterable[Tensor]) -> None:
        """Shorten the gradient of one network to the track's limit, if there is one.

        Raises `NotFinite` for a gradient that is not finite.
        """
        limit, scaler = self.protocol.clip_network_grad_norm, self.compute.scaler
        largest = math.inf if limit is None else limit * (scaler.get_scale() if scaler else 1.0)
        norm = torch.nn.utils.clip_grad_norm_(leaves, largest)
        if scaler is None and not torch.isfinite(norm):  # with a scaler it is how the right scale is found
            raise NotFinite(f"the norm of its gradient is {norm.item()}")

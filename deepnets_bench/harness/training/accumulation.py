"""Gradient accumulation: the networks of a meta-batch, one at a time, then the hypernetwork once for all."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
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
from deepnets_bench.harness.training.failures import (
    is_network_failure,
    is_out_of_memory,
    norm_of,
    require_finite,
)
from deepnets_bench.networks.network import execute
from deepnets_bench.networks.operations import Step


class Member(NamedTuple):
    """A network of a meta-batch: its position there, its graph and its operations."""

    position: int
    graph: ComputationGraph
    steps: tuple[Step, ...]


class Run(NamedTuple):
    """A network that was run and differentiated, all of it still on the device."""

    predicted: dict[str, Tensor]
    leaves: dict[str, Tensor]  # the same values, with the gradients of the network's loss
    outcome: Tensor  # [5]: norm of its parameters, cross-entropy, loss, accuracy, norm of its gradient


@dataclass
class StepResult:
    """What became of the networks that one process ran in one step: sums over those that did not fail."""

    loss: float = 0.0
    correct: float = 0.0
    ran: int = 0
    failed: int = 0
    overflowed: int = 0  # whose gradients the scale of the loss made too large: left out, and no failure
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

    What became of the networks stays on the device and is read once, before the hypernetwork is
    differentiated. Masks there would need no reading, but could not spare the shared weights: a gradient of
    zero times a value that is not finite is NaN.
    """

    def __init__(self, ghn: Any, protocol: Optimisation, compute: Compute, streams: Streams) -> None:
        self.ghn, self.protocol, self.compute, self.streams = ghn, protocol, compute, streams

    def __call__(self, step: int, members: Sequence[Member], images: Tensor, labels: Tensor) -> StepResult:
        """Run this process's members of the meta-batch of a step on the step's images.

        Raises whatever is not the failure of one network.
        """
        result = StepResult()
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
        buffers = [(buffer, buffer.clone()) for buffer in self.ghn.gnn.buffers()]
        attempt = StepResult()
        with self._gnn_stream(step):
            predictions = self._predict(members, check=False)
            runs = self._run_networks(step, members, predictions, images, labels, attempt)
        outcomes = _read(runs)
        if not all(math.isfinite(norm) for norm, *_ in outcomes):
            attempt = StepResult()
            del runs, predictions
            with self._gnn_stream(step):
                members, predictions = self._predict_finite(members, buffers, attempt)
                runs = self._run_networks(step, members, predictions, images, labels, attempt)
            outcomes = _read(runs)
        result.failed, result.reason = attempt.failed, attempt.reason
        outputs: list[Tensor] = []
        gradients: list[Tensor] = []
        for run, (_, cross_entropy, loss, accuracy, norm) in zip(runs, outcomes, strict=True):
            if not self._has_part(loss, norm, result):
                continue
            result.loss += cross_entropy
            result.correct += accuracy
            result.ran += 1
            used = [(run.predicted[name], leaf.grad) for name, leaf in run.leaves.items()]
            outputs += [tensor for tensor, gradient in used if gradient is not None]
            gradients += [gradient for _, gradient in used if gradient is not None]
        if outputs:
            torch.autograd.backward(outputs, gradients)

    def _gnn_stream(self, step: int) -> AbstractContextManager[None]:
        """What the GNN draws depends on the process, which sees other graphs than the others."""
        return self.streams.seeded(self.compute.device, GNN_TRAINING, step, self.compute.rank)

    def _has_part(self, loss: float, norm: float, result: StepResult) -> bool:
        """Whether the step takes a network's gradient, of this norm; otherwise it is counted why not."""
        scaler = self.compute.scaler
        if not math.isfinite(loss):
            result.fail(NotFinite(f"the loss is {loss}"))
        elif not math.isfinite(norm) and scaler and scaler.may_fall:
            result.overflowed += 1
        elif not math.isfinite(norm):
            result.fail(NotFinite(f"the norm of its gradient is {norm}"))
        else:
            return True
        return False

    def _predict(self, members: Sequence[Member], check: bool) -> list[dict[str, Tensor]]:
        batch = GraphBatch.from_graphs(
            [member.graph for member in members], virtual_edges=self.ghn.virtual_edges
        )
        with self.compute.autocast():
            predictions: list[dict[str, Tensor]] = self.ghn(batch.to(self.compute.device), check=check)
        return predictions

    def _predict_finite(
        self, members: Sequence[Member], buffers: Sequence[tuple[Tensor, Tensor]], result: StepResult
    ) -> tuple[Sequence[Member], list[dict[str, Tensor]]]:
        """The members for which predicted parameters are finite, and these; the others have failed.

        They are predicted without the failed ones: a gradient of zero times a value that is not finite would
        be NaN in the weights that all graphs share. `buffers` are those of the GNN with what they held.
        """
        while members:
            with torch.no_grad():  # such as the running statistics of a batch norm
                for buffer, before in buffers:
                    buffer.copy_(before)
            try:
                predictions = self._predict(members, check=True)
                require_finite(predictions)
                return members, predictions
            except NotFinite as error:
                if not error.graphs:
                    raise
                failed = set(error.graphs)
                result.fail(error, len(failed))
            members = [member for index, member in enumerate(members) if index not in failed]
        return [], []

    def _run_networks(
        self,
        step: int,
        members: Sequence[Member],
        predictions: Sequence[dict[str, Tensor]],
        images: Tensor,
        labels: Tensor,
        result: StepResult,
    ) -> list[Run]:
        """Run and differentiate every network; those for which memory does not suffice have failed."""
        runs = []
        for member, predicted in zip(members, predictions, strict=True):
            leaves = {name: tensor.detach().requires_grad_() for name, tensor in predicted.items()}
            try:
                with self.streams.seeded(self.compute.device, DROPOUT, step, member.position):
                    outcome = self._run_network(member.steps, leaves, images, labels)
            except Exception as error:
                if not is_network_failure(error):
                    raise
                result.fail(error)
            else:
                runs.append(Run(predicted, leaves, outcome))
        return runs

    def _run_network(
        self, steps: tuple[Step, ...], params: dict[str, Tensor], images: Tensor, labels: Tensor
    ) -> Tensor:
        """Leave the gradient of a network's loss in its parameters; returns `Run.outcome`."""
        protocol = self.protocol
        size = norm_of(params).detach()
        with self.compute.autocast():
            logits = execute(steps, images, params, training=True, fast=protocol.fast_gradients)
            cross_entropy = F.cross_entropy(logits, labels, label_smoothing=protocol.label_smoothing)
        loss = cross_entropy
        if protocol.predicted_norm_penalty:
            loss = loss + protocol.predicted_norm_penalty * norm_of(params)
        self.compute.scaled(loss).backward()
        norm = self._clip(params.values())
        accuracy = (logits.detach().argmax(1) == labels).float().mean()
        return torch.stack([size, cross_entropy.detach(), loss.detach(), accuracy, norm])

    def _clip(self, leaves: Iterable[Tensor]) -> Tensor:
        """Shorten the gradient of one network to the track's limit, if there is one; returns its norm."""
        limit, scaler = self.protocol.clip_network_grad_norm, self.compute.scaler
        largest = math.inf if limit is None else limit * (scaler.scale if scaler else 1.0)
        return torch.nn.utils.clip_grad_norm_(leaves, largest)


def _read(runs: Sequence[Run]) -> list[list[float]]:
    """The outcomes of all networks on the host: the one place where a step waits for them."""
    return torch.stack([run.outcome for run in runs]).tolist() if runs else []

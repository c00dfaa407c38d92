"""Training of a graph hypernetwork: each batch of images meets a fresh meta-batch of architectures."""

from __future__ import annotations

import math
import os
import time
import warnings
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

import deepnets_bench
from deepnets_bench.errors import BadInput, RunFailed
from deepnets_bench.graphs.graph import ComputationGraph
from deepnets_bench.harness.images.sets import ImageSet
from deepnets_bench.harness.protocol.schedule import learning_rate
from deepnets_bench.harness.protocol.tables import Optimisation
from deepnets_bench.harness.protocol.tracks import Track
from deepnets_bench.harness.randomness import Streams
from deepnets_bench.harness.training.accumulation import GradientAccumulator, Member
from deepnets_bench.harness.training.averaging import add_to_mean
from deepnets_bench.harness.training.checkpoint import load_checkpoint, remove_checkpoints, save_checkpoint
from deepnets_bench.harness.training.curve import learning_curve
from deepnets_bench.harness.training.distributed import Compute, LossScale
from deepnets_bench.harness.training.evaluation import evaluate
from deepnets_bench.harness.training.sampling import NetworkSampler, SampledNetwork
from deepnets_bench.networks.network import unpack
from deepnets_bench.networks.operations import Step
from deepnets_bench.system.signals import stop_signals

if TYPE_CHECKING:
    from deepnets_bench.architecture import Architecture
    from deepnets_bench.data.shards import GraphRecord
    from deepnets_bench.harness.training.splits import StoredNetwork

_NETWORK_CACHE = 512
_COMPILED_CONVOLUTIONS = 16_384  # that oneDNN keeps, of thousands of shapes; its own limit is 1,024


@dataclass(frozen=True)
class Progress:
    """Where a training stands, handed to the `report` callback after every step."""

    step: int
    steps: int
    loss: float
    accuracy: float
    networks_per_second: float
    val_accuracy: float | None


@dataclass
class TrainingState:
    """All that a resumed training needs beside the weights and the optimiser; sampling needs only `step`."""

    step: int = 0
    failures: int = 0
    last_failure: str = ""
    seconds: float = 0.0
    cpu_seconds: float = 0.0  # of all processes and their threads
    window: list[tuple[float, float]] = field(default_factory=list)  # (loss, accuracy) since the last log
    val_accuracy: float | None = None
    best_accuracy: float = -1.0
    best_step: int = 0


class Trainer:
    """Trains `ghn` by a track's protocol; `run()` goes from the current step to the last.

    All that step s draws comes from the streams of (track, seed) at s (`randomness`), so a training that was
    interrupted and resumed from its checkpoint equals one that was not, bit for bit on the CPU. With a
    `folder`, the learning curve (`curve.csv`) and the newest two checkpoints are kept there.

    Where `compute` has several processes, each runs its share of every meta-batch, and all apply the
    gradient of the mean over all networks: the same training, but for the rounding of sums, as that of one
    process (a GNN with randomness or batch statistics of its own sees its share only). The first process
    alone validates, writes and reports.
    """

    def __init__(
        self,
        track: Track,
        ghn: Any,
        architectures: Sequence[Architecture | GraphRecord],
        images: ImageSet,
        *,
        seed: int,
        compute: Compute | None = None,
        validation: Sequence[Architecture | StoredNetwork] = (),
        folder: Path | None = None,
        report: Callable[[Progress], None] | None = None,
    ) -> None:
        # Read once, at the first convolution of the process.
        os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(_COMPILED_CONVOLUTIONS))
        self.compute = compute = compute or Compute("cpu", track.training.precision)
        if track.networks.meta_batch_size < compute.size:
            raise BadInput(
                f"A meta-batch of {track.networks.meta_batch_size} networks cannot be divided among "
                f"{compute.size} processes."
            )
        self.track, self.seed, self.folder = track, seed, folder
        self.report = report if compute.rank == 0 else None
        self.streams = Streams.of_run(track, seed)
        self.ghn = ghn.to(compute.device)
        compute.spread(self.ghn)
        self.images = images.to(compute.device)
        self.validation_images = self.images.val.head(track.selection.images)
        self.architectures = architectures
        self.validation = validation[: track.selection.count]
        self.sampler = NetworkSampler(
            architectures,
            track.networks,
            image_size=track.images.size,
            num_classes=images.num_classes,
            streams=self.streams,
        )
        self.accumulate = GradientAccumulator(self.ghn, track.training, compute, self.streams)
        self.optimiser = _optimiser(track.training, self.ghn)
        self.state = TrainingState()
        self.best_weights: dict[str, Tensor] | None = None  # those to evaluate, where not the last ones
        self._built: OrderedDict[SampledNetwork, tuple[ComputationGraph, tuple[Step, ...]]] = OrderedDict()

    def run(self) -> TrainingState:
        """Train to the last step; SIGINT and SIGTERM end it after the current step, checkpoint saved."""
        protocol, state = self.track.training, self.state
        started = time.perf_counter() - state.seconds
        cpu_time = time.process_time()
        folder = self.folder if self.compute.rank == 0 else None
        with stop_signals() as stopped, learning_curve(folder, state.step) as write_row:
            self.ghn.train()
            sampled = self.sampler.from_step(state.step)
            while state.step < protocol.steps:
                lr = learning_rate(protocol, state.step)
                begun = time.perf_counter()
                loss, accuracy, n_ran = self._step(state.step, next(sampled), lr)
                if n_ran:
                    state.window.append((loss, accuracy))
                state.step += 1
                self._average()
                last = state.step == protocol.steps
                validated = (
                    self._validate() if state.step % self.track.selection.interval == 0 or last else None
                )
                state.seconds = time.perf_counter() - started
                if state.step % protocol.log_interval == 0 or validated is not None or last:
                    write_row(self._curve_row(lr, validated))
                if self.report:
                    speed = n_ran / max(1e-9, time.perf_counter() - begun)
                    self.report(
                        Progress(state.step, protocol.steps, loss, accuracy, speed, state.val_accuracy)
                    )
                before, cpu_time = cpu_time, time.process_time()
                stop, cpu_seconds = self.compute.sums([stopped(), cpu_time - before])
                state.cpu_seconds += cpu_seconds
                if stop or last or state.step % protocol.checkpoint_interval == 0:
                    self.save()
                if stop and not last:
                    raise KeyboardInterrupt
        if self.track.selection.rule != "last" and self.best_weights is not None:
            self.ghn.load_state_dict(self.best_weights)
        return state

    def _average(self) -> None:
        """Add the weights after a step to their mean, if the track evaluates the mean of the last ones."""
        mean_steps = self.track.selection.mean_steps
        if mean_steps is None:
            return
        count = self.state.step - (self.track.training.steps - mean_steps)
        if count > 0:
            self.best_weights = add_to_mean(self.best_weights, self.ghn, count)

    def _step(self, step: int, sampled: Sequence[SampledNetwork], lr: float) -> tuple[float, float, int]:
        """One update; returns mean loss, mean accuracy and the number of networks that ran."""
        compute = self.compute
        images, labels = self.images.training_batch(step, self.streams, self.track.images)
        self.optimiser.zero_grad(set_to_none=True)
        positions = range(compute.rank, len(sampled), compute.size)
        members = [Member(position, *self._build(sampled[position])) for position in positions]
        result = self.accumulate(step, members, images, labels)
        if result.failed and compute.device.type == "cuda":
            torch.cuda.empty_cache()  # here, where no error keeps the tensors of what failed alive
        counts = (result.ran, result.failed, result.overflowed, result.skipped)
        loss, correct, *sums = compute.sums([result.loss, result.correct, *counts])
        ran, failed, overflowed, skipped = map(int, sums)
        if failed:
            self._count_failures(failed, compute.first(result.reason))
        updates = ran and not skipped
        finite = self._update(lr, ran) if updates else True
        if compute.scaler and (overflowed or updates):
            compute.scaler.update(overflowed > 0 or not finite)
        return (loss / ran, correct / ran, ran) if updates else (math.nan, math.nan, 0)

    def _update(self, lr: float, n_networks: int) -> bool:
        """Step along the mean gradient of all networks, unless it is not finite; returns whether it is."""
        self.compute.sum_gradients(list(self.ghn.parameters()))
        weights = [weight for weight in self.ghn.parameters() if weight.grad is not None]
        scaler = self.compute.scaler
        scale = scaler.scale if scaler else 1.0
        torch._foreach_div_([weight.grad for weight in weights], n_networks * scale)
        norm = torch.nn.utils.clip_grad_norm_(weights, self.track.training.clip_grad_norm)
        finite = bool(torch.isfinite(norm))
        if finite:
            for group in self.optimiser.param_groups:
                group["lr"] = lr
            self.optimiser.step()
        elif not (scaler and scaler.may_fall):
            self._count_failures(1, "the gradient of the hypernetwork is not finite")
        return finite

    def _count_failures(self, count: int, reason: str) -> None:
        state, limit = self.state, self.track.training.max_failures
        state.failures += count
        state.last_failure = reason
        if state.failures > limit:
            raise RunFailed(
                f"Training stopped at step {state.step}: more than {limit} networks failed, "
                f"the last one because {reason}."
            )

    def _build(self, network: SampledNetwork) -> tuple[ComputationGraph, tuple[Step, ...]]:
        """The graph and the network of a draw; recent ones are kept because building takes time."""
        built = self._built.pop(network, None)
        if built is None:
            program = self.architectures[network.index].program(
                width=network.width,
                image_size=self.track.images.size,
                num_classes=self.images.num_classes,
                fc_dim=network.fc_dim,
            )
            built = ComputationGraph.from_program(program), unpack(program)
            if len(self._built) >= _NETWORK_CACHE:
                self._built.popitem(last=False)
        self._built[network] = built
        return built

    def _validate(self) -> float | None:
        """Mean accuracy on a few validation networks and images; keeps the best weights if the rule asks."""
        if not self.validation or self.compute.rank:
            return None
        evaluation = self.track.evaluation
        result = evaluate(
            self.ghn,
            self.validation,
            self.validation_images,
            width=evaluation.width,
            fc_dim=evaluation.fc_dim,
            num_classes=self.images.num_classes,
            batch_size=evaluation.batch_size,
            top_k=evaluation.top_k,
        )
        state = self.state
        state.val_accuracy = result.mean
        if self.track.selection.rule == "best-val" and result.mean > state.best_accuracy:
            state.best_accuracy, state.best_step = result.mean, state.step
            self.best_weights = {name: value.clone() for name, value in self.ghn.state_dict().items()}
        return result.mean

    def _curve_row(self, lr: float, validated: float | None) -> tuple[Any, ...]:
        window = self.state.window
        mean = (
            [sum(column) / len(window) for column in zip(*window, strict=True)] if window else [math.nan] * 2
        )
        window.clear()
        return (
            self.state.step,
            f"{mean[0]:.5f}",
            f"{mean[1]:.5f}",
            "" if validated is None else f"{validated:.5f}",
            f"{lr:.3g}",
            f"{self.state.seconds:.2f}",
            self.state.failures,
        )

    def save(self) -> None:
        """Write a checkpoint of the current step, if the training has a folder."""
        if self.folder and self.compute.rank == 0:
            content = {
                "track": self.track.fingerprint(),
                "seed": self.seed,
                "stack": _stack(),
                "state": asdict(self.state),
                "weights": self.ghn.state_dict(),
                "optimiser": self.optimiser.state_dict(),
                "scaler": asdict(self.compute.scaler) if self.compute.scaler else None,
                "best_weights": self.best_weights,
            }
            save_checkpoint(self.folder, self.state.step, content)

    def resume(self) -> int:
        """Continue from the newest sound checkpoint in the folder; returns its step, 0 if there is none.

        Those of another stack are removed, with a warning: a row names one PyTorch and one version of this
        package. Raises `BadInput` for a checkpoint of another protocol or seed.
        """
        content = load_checkpoint(self.folder) if self.folder else None
        if self.folder is None or content is None:
            return 0
        if (content["track"], content["seed"]) != (self.track.fingerprint(), self.seed):
            raise BadInput(
                f"The checkpoint in {self.folder} belongs to another protocol or seed; "
                "train without resuming, or into another folder."
            )
        if content.get("stack") != _stack():
            warnings.warn(
                f"The checkpoint in {self.folder} is of another PyTorch or deepnets-bench; "
                "training starts anew.",
                stacklevel=2,
            )
            if self.compute.rank == 0:
                remove_checkpoints(self.folder)
            return 0
        state = content["state"]
        self.state = TrainingState(**state | {"window": [tuple(pair) for pair in state["window"]]})
        self.ghn.load_state_dict(content["weights"])
        self.optimiser.load_state_dict(content["optimiser"])
        if self.compute.scaler:
            self.compute.scaler = LossScale(**content["scaler"])
        self.best_weights = content["best_weights"]
        return self.state.step


def _stack() -> list[str]:
    return [str(torch.__version__), deepnets_bench.__version__]


def _optimiser(protocol: Optimisation, ghn: torch.nn.Module) -> torch.optim.Optimizer:
    kind = torch.optim.Adam if protocol.optimiser == "adam" else torch.optim.AdamW
    return kind(ghn.parameters(), lr=protocol.lr, weight_decay=protocol.weight_decay)

"""Training of a graph hypernetwork: each batch of images meets a fresh meta-batch of architectures."""

from __future__ import annotations

import csv
import math
import signal
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from deepnets_bench.dataset import GraphBatch
from deepnets_bench.errors import BadInput, RunFailed
from deepnets_bench.graph import ComputationGraph
from deepnets_bench.harness.checkpoint import load_checkpoint, save_checkpoint
from deepnets_bench.harness.evaluation import evaluate
from deepnets_bench.harness.images import ImageSet, training_batch
from deepnets_bench.harness.sampling import Draw, NetworkSampler
from deepnets_bench.harness.tracks import Optimisation, Track
from deepnets_bench.network import Step, execute, unpack

if TYPE_CHECKING:
    from deepnets_bench.architecture import Architecture

CURVE_COLUMNS = ("step", "loss", "train_accuracy", "val_accuracy", "lr", "seconds", "failures")
_NETWORK_CACHE = 512


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
    seconds: float = 0.0
    window: list[tuple[float, float]] = field(default_factory=list)  # (loss, accuracy) since the last log
    val_accuracy: float | None = None
    best_accuracy: float = -1.0
    best_step: int = 0


class Trainer:
    """Trains `ghn` by a track's protocol; `run()` goes from the current step to the last.

    Step s samples its networks and images from (seed, s) alone, so a training that was interrupted and
    resumed from its checkpoint equals one that was not, bit for bit on the CPU. With a `folder`, the
    learning curve (`curve.csv`) and the newest two checkpoints are kept there.
    """

    def __init__(
        self,
        track: Track,
        ghn: Any,
        architectures: Sequence[Architecture],
        images: ImageSet,
        *,
        seed: int,
        device: torch.device | str = "cpu",
        virtual_edges: int = 1,
        validation: Sequence[Architecture] = (),
        folder: Path | None = None,
        report: Callable[[Progress], None] | None = None,
    ) -> None:
        self.track, self.seed, self.report, self.folder = track, seed, report, folder
        self.virtual_edges = virtual_edges
        self.device = torch.device(device)
        self.ghn = ghn.to(self.device)
        self.images = images.to(self.device)
        self.architectures = architectures
        self.validation = validation[: track.selection.count]
        self.sampler = NetworkSampler(
            architectures,
            track.networks,
            image_size=track.images.size,
            num_classes=images.num_classes,
            seed=seed,
        )
        self.optimiser = _optimiser(track.training, self.ghn)
        self.state = TrainingState()
        self.best_weights: dict[str, Tensor] | None = None
        self._built: OrderedDict[Draw, tuple[ComputationGraph, tuple[Step, ...]]] = OrderedDict()
        self._last_failure = ""

    def run(self) -> TrainingState:
        """Train to the last step; SIGINT and SIGTERM end it after the current step, checkpoint saved."""
        protocol, state = self.track.training, self.state
        started = time.perf_counter() - state.seconds
        with _stop_signals() as stopped, _curve(self.folder, state.step) as write_row:
            self.ghn.train()
            draws = self.sampler.from_step(state.step)
            while state.step < protocol.steps:
                lr = learning_rate(protocol, state.step)
                begun = time.perf_counter()
                loss, accuracy, n_ran = self._step(state.step, next(draws), lr)
                if n_ran:
                    state.window.append((loss, accuracy))
                state.step += 1
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
                if stopped() or last or state.step % protocol.checkpoint_interval == 0:
                    self.save()
                if stopped() and not last:
                    raise KeyboardInterrupt
        if self.track.selection.rule == "best-val" and self.best_weights is not None:
            self.ghn.load_state_dict(self.best_weights)
        return state

    def _step(self, step: int, draws: Sequence[Draw], lr: float) -> tuple[float, float, int]:
        """One update; returns mean loss, mean accuracy and the number of networks that ran.

        Every network is run and differentiated on its own, up to its predicted parameters, and the
        hypernetwork once for all of them: the same gradient as that of the mean loss, with the
        activations of one network in memory at a time.
        """
        torch.manual_seed(_mix(self.seed, step))  # dropout in the classifiers
        images, labels = training_batch(
            self.images.train, step, self.track.images.batch_size, self.track.images.shift, self.seed
        )
        graphs, networks = zip(*map(self._build, draws), strict=True)
        batch = self._graph_batch(graphs)
        outputs: list[Tensor] = []
        gradients: list[Tensor] = []
        losses: list[float] = []
        correct = 0.0
        for steps, predicted in zip(networks, self.ghn(batch), strict=True):
            leaves = {name: tensor.detach().requires_grad_() for name, tensor in predicted.items()}
            try:
                logits = execute(steps, images, leaves, training=True)
                loss = F.cross_entropy(logits, labels, label_smoothing=self.track.training.label_smoothing)
                value = loss.item()
                if not math.isfinite(value):
                    raise FloatingPointError(f"the loss is {value}")
                loss.backward()
            except (RuntimeError, MemoryError, FloatingPointError) as error:
                self._count_failure(error)
                continue
            losses.append(value)
            correct += (logits.detach().argmax(1) == labels).float().mean().item()
            used = [(predicted[name], leaf.grad) for name, leaf in leaves.items() if leaf.grad is not None]
            outputs += [tensor for tensor, _ in used]
            gradients += [gradient for _, gradient in used]
        if not losses:
            return math.nan, math.nan, 0
        self.optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(outputs, gradients)
        self._update(lr, len(losses))
        return sum(losses) / len(losses), correct / len(losses), len(losses)

    def _update(self, lr: float, n_networks: int) -> None:
        weights = [weight for weight in self.ghn.parameters() if weight.grad is not None]
        torch._foreach_div_([weight.grad for weight in weights], n_networks)
        norm = torch.nn.utils.clip_grad_norm_(weights, self.track.training.clip_grad_norm)
        if not torch.isfinite(norm):
            self._count_failure(FloatingPointError("the gradient of the hypernetwork is not finite"))
            return
        for group in self.optimiser.param_groups:
            group["lr"] = lr
        self.optimiser.step()

    def _count_failure(self, error: BaseException) -> None:
        self.state.failures += 1
        limit = self.track.training.max_failures
        if self.state.failures > limit:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise RunFailed(
                f"Training stopped at step {self.state.step}: more than {limit} networks failed, "
                f"the last one because {reason}."
            ) from error

    def _build(self, draw: Draw) -> tuple[ComputationGraph, tuple[Step, ...]]:
        """The graph and the network of a draw; recent ones are kept because building takes time."""
        built = self._built.pop(draw, None)
        if built is None:
            program = self.architectures[draw.index].program(
                width=draw.width,
                image_size=self.track.images.size,
                num_classes=self.images.num_classes,
                fc_dim=draw.fc_dim,
            )
            built = ComputationGraph.from_program(program), unpack(program)
            if len(self._built) >= _NETWORK_CACHE:
                self._built.popitem(last=False)
        self._built[draw] = built
        return built

    def _graph_batch(self, graphs: Sequence[ComputationGraph]) -> GraphBatch:
        batch = GraphBatch.from_graphs(list(graphs), virtual_edges=self.virtual_edges)
        return batch.to(self.device)

    def _validate(self) -> float | None:
        """Mean accuracy on a few validation networks and images; keeps the best weights if the rule asks."""
        if not self.validation:
            return None
        evaluation = self.track.evaluation
        result = evaluate(
            self.ghn,
            self.validation,
            self.images.val.head(self.track.selection.images),
            width=evaluation.width,
            fc_dim=evaluation.fc_dim,
            num_classes=self.images.num_classes,
            virtual_edges=self.virtual_edges,
            batch_size=evaluation.batch_size,
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
        if self.folder:
            content = {
                "track": self.track.fingerprint(),
                "seed": self.seed,
                "state": asdict(self.state),
                "weights": self.ghn.state_dict(),
                "optimiser": self.optimiser.state_dict(),
                "best_weights": self.best_weights,
            }
            save_checkpoint(self.folder, self.state.step, content)

    def resume(self) -> int:
        """Continue from the newest sound checkpoint in the folder; returns its step, 0 if there is none.

        Raises `BadInput` for a checkpoint of another protocol or seed.
        """
        content = load_checkpoint(self.folder, self.device) if self.folder else None
        if content is None:
            return 0
        if (content["track"], content["seed"]) != (self.track.fingerprint(), self.seed):
            raise BadInput(
                f"The checkpoint in {self.folder} belongs to another protocol or seed; "
                "train without resuming, or into another folder."
            )
        state = content["state"]
        self.state = TrainingState(**state | {"window": [tuple(pair) for pair in state["window"]]})
        self.ghn.load_state_dict(content["weights"])
        self.optimiser.load_state_dict(content["optimiser"])
        self.best_weights = content["best_weights"]
        return self.state.step


def learning_rate(protocol: Optimisation, step: int) -> float:
    """The learning rate of a step (from 0): linear warm-up, then constant, milestones or half a cosine."""
    if step < protocol.warmup_steps:
        return protocol.lr * (step + 1) / protocol.warmup_steps
    if protocol.schedule == "cosine":
        done = (step - protocol.warmup_steps) / (protocol.steps - protocol.warmup_steps)
        return protocol.lr * 0.5 * (1 + math.cos(math.pi * done))
    passed = sum(step >= milestone * protocol.steps for milestone in protocol.milestones)
    return protocol.lr * protocol.gamma**passed


def _optimiser(protocol: Optimisation, ghn: torch.nn.Module) -> torch.optim.Optimizer:
    kind = torch.optim.Adam if protocol.optimiser == "adam" else torch.optim.AdamW
    return kind(ghn.parameters(), lr=protocol.lr, weight_decay=protocol.weight_decay)


def _mix(seed: int, step: int) -> int:
    """A seed for PyTorch's generator that differs between all (seed, step)."""
    return ((seed << 32) + step) % (1 << 63)


@contextmanager
def _curve(folder: Path | None, step: int) -> Iterator[Callable[[Sequence[Any]], None]]:
    """A function that adds a row to the learning curve; rows of steps after `step` are dropped first."""
    if folder is None:
        yield lambda row: None
        return
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "curve.csv"
    kept: list[list[str]] = []
    if step and path.exists():
        with open(path, newline="", encoding="utf-8") as file:
            kept = [row for row in list(csv.reader(file))[1:] if row and int(row[0]) <= step]
    with open(path, "w", newline="", encoding="utf-8", buffering=1) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([CURVE_COLUMNS, *kept])
        yield writer.writerow


@contextmanager
def _stop_signals() -> Iterator[Callable[[], bool]]:
    """Turn SIGINT and SIGTERM into a flag, so that no step is cut in two; a second one acts at once."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False  # Python delivers signals to the main thread only
        return

    def remember(number: int, _frame: object) -> None:
        received.append(number)
        signal.signal(number, previous[number])

    previous: dict[int, Any] = {
        number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)
    }
    for number in previous:
        signal.signal(number, remember)
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)

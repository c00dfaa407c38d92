"""Training of one network by SGD: learning curve, accuracy, accuracy under noise, convergence, time."""

from __future__ import annotations

import dataclasses
import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deepnets_bench.errors import BadInput, NotFinite
from deepnets_bench.harness.images.sets import ImagePart, ImageSet
from deepnets_bench.harness.randomness import DROPOUT, Streams
from deepnets_bench.harness.training.checkpoint import load_checkpoint, save_checkpoint
from deepnets_bench.networks.network import Network
from deepnets_bench.uses.recipe import Recipe
from deepnets_bench.uses.regularisation import RegularisedNetwork, check_regularisable, run_network

if TYPE_CHECKING:
    from deepnets_bench.harness.protocol.tables import Images

NETWORK_WEIGHTS = "initial weights of the network"
AUXILIARY_WEIGHTS = "initial weights of the auxiliary classifier"
CUTOUT = "places that are cut out"  # (step)
DROP_PATH = "paths that are dropped"  # (step)
_EVALUATION_BATCH = 64  # as of predicted networks: norms without running statistics use those of a batch


@dataclass(frozen=True)
class Epoch:
    """A row of the learning curve: means over the epoch's steps; `loss` is all that is minimised."""

    epoch: int
    lr: float
    loss: float
    train_accuracy: float
    cpu_seconds: float  # since the beginning


@dataclass
class Training:
    """Where a training stands, and at its end what came of it.

    `convergence` is the share of all steps after which the training accuracy over the last epoch's worth of
    steps first reached the recipe's `converged_at`, 1.0 with `converged` False where it never did. Accuracies
    are in [0, 1], of the part of the images that was asked for; `accuracy_noise` of the same images under
    the recipe's noise, NaN where it was not asked for.
    """

    curve: list[Epoch] = field(default_factory=list)
    convergence: float = 1.0
    converged: bool = False
    accuracy: float = math.nan
    accuracy_noise: float = math.nan
    cpu_seconds: float = 0.0


def streams_of(seed: int) -> Streams:
    """What a training of this seed draws: the same images in the same order for every network."""
    return Streams(("training of a network", seed))


def train(
    module: nn.Module,
    images: ImageSet,
    protocol: Images,
    recipe: Recipe,
    seed: int,
    *,
    part: str = "test",
    under_noise: bool = True,
    folder: Path | None = None,
    report: Callable[[Epoch], None] | None = None,
) -> Training:
    """Train a module in place, and evaluate it on a `part` of the images ('val' or 'test').

    The same images are evaluated `under_noise` too, unless that is turned off.
    `protocol` says how training images change at random; the batch size is the recipe's. Norms with running
    statistics use them in evaluation, the others those of batches of 64. With a `folder`, a checkpoint is
    kept of every epoch, and a training that finds one there goes on from it, on the CPU bit for bit as if it
    had not been interrupted.

    Raises `NotFinite` where the loss is no longer finite, `BadInput` for a module without logits
    [batch, classes] or without cells where the recipe needs them, and for a checkpoint of another recipe or
    seed.
    """
    return _Trainer(module, images, protocol, recipe, seed, folder).run(part, under_noise, report)


class _Trainer:
    def __init__(
        self,
        module: nn.Module,
        images: ImageSet,
        protocol: Images,
        recipe: Recipe,
        seed: int,
        folder: Path | None,
    ) -> None:
        self.module, self.images, self.recipe, self.folder = module, images, recipe, folder
        self.key = [recipe.digest(), seed]
        self.protocol = protocol.model_copy(update={"batch_size": recipe.batch_size})
        self.streams = streams_of(seed)
        check_regularisable(module, recipe)
        self.regularised = self._regularised()
        self.trained = self.regularised or module  # all that has parameters
        self.steps = max(1, len(images.train) // min(recipe.batch_size, len(images.train)))
        self.optimiser = torch.optim.SGD(
            self.trained.parameters(), recipe.lr, recipe.momentum, weight_decay=recipe.weight_decay
        )
        self.state = Training()
        self.recent: deque[float] = deque(maxlen=self.steps)  # training accuracies of the last steps

    def _regularised(self) -> RegularisedNetwork | None:
        recipe, images = self.recipe, self.images.train
        if not isinstance(self.module, Network) or not (recipe.auxiliary or recipe.drop_path):
            return None
        with self.streams.seeded(torch.device("cpu"), AUXILIARY_WEIGHTS):
            return RegularisedNetwork(self.module, recipe.auxiliary > 0, images.size).to(images.device)

    def run(self, part: str, under_noise: bool, report: Callable[[Epoch], None] | None) -> Training:
        self._resume()
        for epoch in range(len(self.state.curve), self.recipe.epochs):
            self._epoch(epoch)
            self._save()
            if report:
                report(self.state.curve[-1])
        begun = time.process_time()
        data = self.images.part(part)
        self.state.accuracy = accuracy(self.module, data)
        if under_noise:
            self.state.accuracy_noise = accuracy(self.module, data.noisy(self.recipe.noise))
        self.state.cpu_seconds += time.process_time() - begun
        return self.state

    def _epoch(self, epoch: int) -> None:
        begun, state, recipe = time.process_time(), self.state, self.recipe
        lr = recipe.rate(epoch)
        for group in self.optimiser.param_groups:
            group["lr"] = lr
        self.trained.train()
        outcomes = []
        for step in range(epoch * self.steps, (epoch + 1) * self.steps):
            loss, correct = self._step(step, recipe.drop_rate(epoch))
            outcomes.append((loss, correct))
            self.recent.append(correct)
            full = len(self.recent) == self.steps
            if not state.converged and full and sum(self.recent) / self.steps >= recipe.converged_at:
                state.converged = True
                state.convergence = (step + 1) / (self.steps * recipe.epochs)
        state.cpu_seconds += time.process_time() - begun
        loss, correct = (sum(column) / self.steps for column in zip(*outcomes, strict=True))
        state.curve.append(Epoch(epoch + 1, lr, loss, correct, state.cpu_seconds))

    def _step(self, step: int, drop_rate: float) -> tuple[float, float]:
        images, labels = self.images.training_batch(step, self.streams, self.protocol)
        if self.recipe.cutout:
            images = _cut_out(images, self.recipe.cutout, self.streams, step)
        self.optimiser.zero_grad(set_to_none=True)
        with self.streams.seeded(images.device, DROPOUT, step):
            logits, auxiliary = self._logits(images, step, drop_rate)
        loss = F.cross_entropy(logits, labels)
        if auxiliary is not None:
            loss = loss + self.recipe.auxiliary * F.cross_entropy(auxiliary, labels)
        if not math.isfinite(loss.item()):
            raise NotFinite(f"The loss is {loss.item()} at step {step + 1}.")
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.trained.parameters(), self.recipe.clip_grad_norm)
        self.optimiser.step()
        return loss.item(), (logits.detach().argmax(1) == labels).float().mean().item()

    def _logits(self, images: Tensor, step: int, drop_rate: float) -> tuple[Tensor, Tensor | None]:
        if self.regularised is None:
            return logits_of(self.module, images), None
        logits, auxiliary = self.regularised(images, drop_rate, self.streams.generator(DROP_PATH, step))
        return logits, auxiliary

    def _save(self) -> None:
        if self.folder is None:
            return
        content = {
            "key": self.key,
            "state": asdict(self.state),
            "recent": list(self.recent),
            "weights": self.trained.state_dict(),
            "optimiser": self.optimiser.state_dict(),
        }
        save_checkpoint(self.folder, len(self.state.curve), content)

    def _resume(self) -> None:
        content = load_checkpoint(self.folder) if self.folder else None
        if content is None:
            return
        if content["key"] != self.key:
            raise BadInput(
                f"The checkpoint in {self.folder} is of another recipe or seed; choose another folder."
            )
        state: dict[str, Any] = content["state"]
        self.state = Training(**state | {"curve": [Epoch(**row) for row in state["curve"]]})
        self.recent.extend(content["recent"])
        self.trained.load_state_dict(content["weights"])
        self.optimiser.load_state_dict(content["optimiser"])


def logits_of(module: nn.Module, images: Tensor) -> Tensor:
    """Logits [batch, classes] of any module; of several outputs the first one, or the one called 'logits'."""
    if isinstance(module, Network):
        return run_network(module, images)
    output = module(images)
    while not isinstance(output, Tensor):
        if isinstance(output, Mapping):
            output = next((output[key] for key in ("logits", "out") if key in output), None)
        elif isinstance(output, (tuple, list)) and output:
            output = output[0]
        else:
            output = getattr(output, "logits", None)
        if output is None:
            raise BadInput(f"{type(module).__name__} returns no tensor of logits.")
    if output.dim() != 2 or len(output) != len(images):
        raise BadInput(
            f"{type(module).__name__} returns a tensor {list(output.shape)}, not logits [batch, classes]."
        )
    return output


@torch.no_grad()
def accuracy(module: nn.Module, data: ImagePart) -> float:
    """Share of the images that a module classifies right; logits that are not finite are wrong."""
    module.eval()
    correct = 0
    for images, labels in data.batches(_EVALUATION_BATCH):
        logits = logits_of(module, images)
        right = (logits.argmax(1) == labels) & logits.isfinite().all(1)
        correct += int(right.sum())
    return correct / len(data)


def shots(images: ImageSet, count: int) -> ImageSet:
    """The image set with the first `count` training images of each class alone.

    Raises `BadInput` where a class has fewer, and for images that are not in memory.
    """
    train = images.train
    labels = getattr(train, "labels", None)
    if not isinstance(labels, Tensor):
        raise BadInput("Training images of a folder cannot be cut to some shots a class.")
    rows = []
    for label in range(images.num_classes):
        members = (labels == label).nonzero().flatten()
        if len(members) < count:
            raise BadInput(f"Class {label} has {len(members)} training images, fewer than {count} shots.")
        rows.append(members[:count])
    index = torch.cat(rows).sort().values
    held: Any = train
    few = dataclasses.replace(held, images=held.images[index], labels=labels[index])
    return dataclasses.replace(images, train=few)


def _cut_out(images: Tensor, size: int, streams: Streams, step: int) -> Tensor:
    """Blank a square around a random pixel of every image (https://arxiv.org/abs/1708.04552)."""
    random = streams.generator(CUTOUT, step)
    side = images.shape[-1]
    centre = torch.from_numpy(random.integers(0, side, (len(images), 2))).to(images.device)
    grid = torch.arange(side, device=images.device)
    first = centre - size // 2
    inside = (grid >= first[..., None]) & (grid < first[..., None] + size)  # [n, 2, side]
    return images.masked_fill((inside[:, 0, :, None] & inside[:, 1, None, :])[:, None], 0.0)

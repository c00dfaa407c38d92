"""What a training adds to a network made of cells: drop-path, and an auxiliary classifier inside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from deepnets_bench.compiler import instructions as ir
from deepnets_bench.errors import BadInput
from deepnets_bench.networks.network import Network, execute

if TYPE_CHECKING:
    from collections.abc import Callable

    from deepnets_bench.compiler.program import Program
    from deepnets_bench.networks.operations import Execution, Step
    from deepnets_bench.uses.recipe import Recipe


class RegularisedNetwork(nn.Module):
    """A network in training, with drop-path and, if `auxiliary`, an `auxiliary_head` (Liu et al., ICLR 2019).

    The network itself is left as it is: it is evaluated and kept without them. `image_size` is the side of
    the training images. Raises `BadInput` where the network has no place for an auxiliary classifier.
    """

    def __init__(self, network: Network, auxiliary: bool, image_size: int) -> None:
        super().__init__()
        self.network = network
        roles = network.program.table[:, ir.ROLE]
        self._dropped = frozenset(np.flatnonzero(roles & ir.OP_VALUE).tolist())
        self._tapped = _auxiliary_row(network.program) if auxiliary else None
        self.auxiliary_head: nn.Sequential | None = None
        if auxiliary:
            shape = self._shape_of_tapped(image_size)
            self.auxiliary_head = auxiliary_head(network.program, shape, image_size)

    def forward(
        self, images: Tensor, drop_rate: float, random: np.random.Generator
    ) -> tuple[Tensor, Tensor | None]:
        """Logits [batch, classes] and those of the auxiliary classifier, None without one.

        The value of every operation of a cell but identities is dropped with probability `drop_rate`, for
        each image on its own, and divided by 1 - `drop_rate` otherwise (https://arxiv.org/abs/1605.07648,
        as https://arxiv.org/abs/1707.07012 uses it).
        """
        tapped: list[Tensor] = []
        logits = run_network(self.network, images, self._steps(drop_rate, random, tapped))
        return logits, self.auxiliary_head(tapped[0]) if self.auxiliary_head is not None else None

    def _steps(
        self, drop_rate: float, random: np.random.Generator | None, tapped: list[Tensor]
    ) -> tuple[Step, ...]:
        """The network's steps, of which some drop their values, and one adds its own to `tapped`."""
        steps = []
        for step in self.network.steps:
            if random is not None and drop_rate and step.row in self._dropped:
                step = step._replace(operation=_dropping(step.operation, drop_rate, random))
            if step.row == self._tapped:
                step = step._replace(operation=_keeping(step.operation, tapped))
            steps.append(step)
        return tuple(steps)

    def _shape_of_tapped(self, image_size: int) -> tuple[int, int]:
        """Channels and side of what the auxiliary classifier reads."""
        shapes = self.network.program.param_shapes
        params = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
        images = torch.empty(2, 3, image_size, image_size, device="meta")
        tapped: list[Tensor] = []
        with torch.no_grad():
            execute(self._steps(0.0, None, tapped), images, params, training=False)
        return tapped[0].shape[1], tapped[0].shape[-1]


def check_regularisable(module: nn.Module, recipe: Recipe) -> None:
    """Raise `BadInput` where a recipe asks for what a module without cells, or without that cell, lacks."""
    if not (recipe.auxiliary or recipe.drop_path):
        return
    roles = module.program.table[:, ir.ROLE] if isinstance(module, Network) else np.zeros(0, np.int32)
    if not roles.any():
        raise BadInput(
            "Drop-path and the auxiliary classifier are for architectures made of cells, such as test/12; "
            "leave --drop-path and --auxiliary out."
        )
    if recipe.auxiliary and isinstance(module, Network):
        _auxiliary_row(module.program)


def auxiliary_head(program: Program, shape: tuple[int, int], image_size: int) -> nn.Sequential:
    """The auxiliary classifier for values [batch, channels, side, side], `shape` being (channels, side).

    Made for the sides that networks of 32×32 images have there, 8, or 4 after a stem that halves them (for
    images above 64×64: 7); values of other sides are averaged to the nearest of these first.
    """
    channels, side = shape
    classes = int(program.table[-1, ir.OUT_CH])
    imagenet = image_size > ir.IMAGENET_FROM
    expected, window, stride = (7, 5, 2) if imagenet else (8, 5, 3) if side > 4 else (4, 2, 2)
    return nn.Sequential(
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(expected) if side != expected else nn.Identity(),
        nn.AvgPool2d(window, stride, count_include_pad=False),
        nn.Conv2d(channels, 128, 1, bias=False),
        _norm(program, 128),
        nn.ReLU(),
        nn.Conv2d(128, 768, 2, bias=False),
        nn.Identity() if imagenet else _norm(program, 768),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(768, classes),
    )


def run_network(network: Network, images: Tensor, steps: tuple[Step, ...] | None = None) -> Tensor:
    """Logits with the network's own parameters, with gradients that are fast on the CPU."""
    statistics = dict(network.named_buffers()) if network.program.tracks_statistics else None
    params = dict(network.named_parameters())
    return execute(steps or network.steps, images, params, network.training, statistics, fast=True)


def _auxiliary_row(program: Program) -> int:
    """The row of the value that the auxiliary classifier reads, after two thirds of the cells."""
    rows = np.flatnonzero((program.table[:, ir.ROLE] & ir.AUXILIARY_INPUT > 0) & program.live)
    if not len(rows):
        raise BadInput(
            "The output of the cell after two thirds of the network is empty or unused, so that an auxiliary "
            "classifier has no place; leave --auxiliary out."
        )
    return int(rows[0])


def _norm(program: Program, channels: int) -> nn.Module:
    if not program.has_norms:
        return nn.Identity()
    return nn.BatchNorm2d(channels, track_running_stats=False)  # only ever used in training


def _dropping(
    operation: Callable[[Step, Execution], Tensor], rate: float, random: np.random.Generator
) -> Callable[[Step, Execution], Tensor]:
    def dropped(step: Step, run: Execution) -> Tensor:
        x = operation(step, run)
        kept = torch.from_numpy(random.random(len(x)) >= rate)
        return x * (kept.to(x) / (1 - rate)).view(-1, 1, 1, 1)

    return dropped


def _keeping(
    operation: Callable[[Step, Execution], Tensor], kept: list[Tensor]
) -> Callable[[Step, Execution], Tensor]:
    def keeping(step: Step, run: Execution) -> Tensor:
        kept.append(operation(step, run))
        return kept[-1]

    return keeping

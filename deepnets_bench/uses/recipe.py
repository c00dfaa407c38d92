"""Recipes: how one network is trained by SGD, fixed and versioned for each image set."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from types import MappingProxyType
from typing import Any

from deepnets_bench.errors import BadInput, UnknownName

_LATER = ("auxiliary", "drop_path")  # fields that recipes of earlier results lack; 0 turns them off


@dataclass(frozen=True)
class Recipe:
    """SGD with momentum; the learning rate falls by a cosine from epoch to epoch.

    Defaults are those of the networks trained on CIFAR-10 in https://arxiv.org/abs/2110.13100.
    """

    version: int = 1
    epochs: int = 50
    batch_size: int = 96
    lr: float = 0.025
    momentum: float = 0.9
    weight_decay: float = 3e-4
    clip_grad_norm: float = 5.0
    cutout: int = 0  # side of the square that is blanked in every training image
    auxiliary: float = 0.0  # weight of the auxiliary classifier's loss; 0.4 for 600 epochs in the paper
    drop_path: float = 0.0  # would be the probability of dropping in an epoch after the last; 0.2 there
    converged_at: float = 0.5  # training accuracy over an epoch's worth of steps from which it has converged
    noise: float = 0.08  # standard deviation, on pixels in [0, 1], of `accuracy_noise`

    def __post_init__(self) -> None:
        limits: dict[str, tuple[float, float]] = {
            "epochs": (1, math.inf),
            "batch_size": (2, math.inf),
            "lr": (0, math.inf),
            "momentum": (0, 1),
            "weight_decay": (0, math.inf),
            "clip_grad_norm": (0, math.inf),
            "cutout": (0, math.inf),
            "auxiliary": (0, math.inf),
            "drop_path": (0, 1),
            "converged_at": (0, 1),
            "noise": (0, 1),
        }
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if name in ("epochs", "batch_size", "cutout") and not isinstance(value, int):
                raise BadInput(f"{name} of a recipe must be a whole number, not {value!r}.")
            if not isinstance(value, (int, float)) or not low <= value <= high or math.isinf(value):
                raise BadInput(
                    f"{name} of a recipe must be a number from {low:g} to {high:g}, not {value!r}."
                )

    def rate(self, epoch: int) -> float:
        """Learning rate of an epoch, counted from 0."""
        return self.lr * 0.5 * (1 + math.cos(math.pi * epoch / self.epochs))

    def drop_rate(self, epoch: int) -> float:
        """Probability that drop-path drops a value in an epoch, counted from 0: it rises linearly."""
        return self.drop_path * epoch / self.epochs

    def to_dict(self) -> dict[str, Any]:
        """Plain data, without later fields that are off: older results keep their recipe and digest."""
        return {name: value for name, value in asdict(self).items() if name not in _LATER or value}

    def digest(self) -> str:
        """12 hexadecimal digits that any change of the recipe changes."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()[:12]


# Of the labels and of `train`, by image set. Digits: short, so that accuracies of networks spread over most
# of the range instead of meeting at the top (docs/properties.md says how it was chosen).
RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        "digits": Recipe(epochs=5, converged_at=0.4, noise=0.3),
        "mnist": Recipe(epochs=5, converged_at=0.4, noise=0.3),
        "cifar10": Recipe(),
        "imagenet": Recipe(epochs=1, batch_size=128, lr=0.1, weight_decay=3e-5, noise=0.18),
        "imagefolder": Recipe(noise=0.18),
    }
)


def recipe_of(dataset: str, **changes: Any) -> Recipe:
    """The recipe of an image set, with fields changed where `changes` are not None."""
    known = {field.name for field in fields(Recipe)}
    for name in changes:
        if name not in known:
            raise UnknownName("field of a recipe", name, sorted(known))
    given = {name: value for name, value in changes.items() if value is not None}
    return Recipe(**asdict(RECIPES[dataset]) | given)

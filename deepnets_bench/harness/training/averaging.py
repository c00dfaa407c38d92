"""The mean of the last weights of a training, kept while it runs (rule "mean" of a track)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


@torch.no_grad()
def add_to_mean(mean: dict[str, Tensor] | None, module: nn.Module, count: int) -> dict[str, Tensor]:
    """The mean of `count` states of a module: `mean` of those before, in place, and the one it has now.

    Tensors of whole numbers, which have no mean, are those of now.
    """
    now = module.state_dict()
    if mean is None:
        return {name: tensor.clone() for name, tensor in now.items()}
    for name, tensor in now.items():
        if tensor.is_floating_point():
            mean[name].lerp_(tensor, 1 / count)
        else:
            mean[name].copy_(tensor)
    return mean

"""Initial weights of a network: at random as PyTorch does, by He et al., orthogonal, or predicted."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from deepnets_bench.errors import BadInput
from deepnets_bench.system.files import short_digest

if TYPE_CHECKING:
    from deepnets_bench.ghn.model import GHN

KINDS = ("random", "he", "orthogonal")


def load_initialisation(how: str, trust: bool = False) -> str | GHN:
    """One of `KINDS`, or the hypernetwork of a checkpoint; raises `BadInput` for anything else."""
    if how in KINDS:
        return how
    if not Path(how).is_file():
        raise BadInput(f"Initial weights are {', '.join(KINDS)} or a hypernetwork's checkpoint, not '{how}'.")
    from deepnets_bench.ghn.model import GHN

    return GHN.load(Path(how), trust)


@lru_cache(maxsize=1)
def load_ghn(path: Path, trust: bool = False) -> GHN:
    """The hypernetwork of a checkpoint, kept for the next task of a process that works many off."""
    from deepnets_bench.ghn.model import GHN

    return GHN.load(path, trust)


def name_of(how: str) -> str:
    """What tells initial weights from others: their kind, or a checkpoint's file name and digest."""
    if how in KINDS:
        return how
    return f"{Path(how).name} {short_digest(Path(how))}"


def initialise(module: nn.Module, how: str | GHN, input_shape: tuple[int, int, int], classes: int) -> None:
    """Set the weights of a module, whose norms and biases are as it was made.

    'random' leaves PyTorch's own; 'he' draws from N(0, 2 / fan-in)
    (https://arxiv.org/abs/1502.01852, eq. 10), 'orthogonal' as https://arxiv.org/abs/1312.6120 does. A
    hypernetwork predicts all that it can, and leaves a classifier of another number of classes as it is.
    Random draws follow PyTorch's generator.
    """
    if isinstance(how, str):
        if how != "random":
            _draw(module, how)
        return
    same = how.config.num_classes == classes
    with torch.no_grad():
        how.initialize(module, input_shape, classifier="predict" if same else "skip")


@torch.no_grad()
def _draw(module: nn.Module, how: str) -> None:
    for parameter in module.parameters():
        if parameter.dim() < 2:
            continue
        if how == "he":
            nn.init.kaiming_normal_(parameter, nonlinearity="relu")
        else:
            nn.init.orthogonal_(parameter)


@torch.no_grad()
def orthogonalise(module: nn.Module, noise: float = 0.0) -> None:
    """Give all weights of two dimensions or more, but the last, orthogonal rows or columns of unit length.

    The Q of a QR decomposition, with the signs that R's diagonal asks for, so that orthogonal weights stay
    what they are. `noise` adds N(0, 1) times it times the standard deviation of the correlations between the
    outputs of the predicted weight, which makes outputs that were predicted alike differ.
    https://arxiv.org/abs/2207.10049.
    """
    weights = [parameter for parameter in module.parameters() if parameter.dim() >= 2]
    for weight in weights[:-1]:
        matrix = weight.flatten(1)
        tall = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T
        q, r = torch.linalg.qr(tall)
        q = q * torch.where(r.diagonal() < 0, -1.0, 1.0)
        found = q if tall is matrix else q.T
        if noise:
            correlations = (
                torch.nan_to_num(torch.corrcoef(matrix)) if len(matrix) > 1 else matrix.new_zeros(1)
            )
            found = found + noise * correlations.std(correction=0) * torch.randn_like(found)
        weight.copy_(found.reshape(weight.shape))

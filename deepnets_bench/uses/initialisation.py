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
    what they are. `noise` first adds N(0, 1) times it times the standard deviation of the correlations in the
    predicted weight, which makes what was predicted alike differ.

    As the code of https://arxiv.org/abs/2207.10049, which adds noise to the parameters of norms too.
    """
    weights = [parameter for parameter in module.parameters() if parameter.dim() >= 2]
    for weight in weights[:-1]:
        matrix = weight.flatten(1)
        wide = matrix.shape[0] < matrix.shape[1]
        tall = matrix.T if wide else matrix
        if noise:
            tall = tall + noise * _spread_of_correlations(tall) * torch.randn_like(tall)
        q, r = torch.linalg.qr(tall)
        q = q * torch.where(r.diagonal() < 0, -1.0, 1.0)
        weight.copy_((q.T if wide else q).reshape(weight.shape))


def _spread_of_correlations(matrix: torch.Tensor) -> float:
    """The standard deviation of the entries of `torch.corrcoef`, n × n for n rows, without making them.

    A constant row counts as uncorrelated.
    """
    rows = matrix.double()
    rows = torch.nan_to_num(nn.functional.normalize(rows - rows.mean(dim=1, keepdim=True), eps=1e-12))
    entries = len(rows) ** 2
    total, squares = rows.sum(dim=0).square().sum(), (rows.T @ rows).square().sum()
    return float(((squares - total.square() / entries) / max(entries - 1, 1)).clamp_min(0).sqrt())

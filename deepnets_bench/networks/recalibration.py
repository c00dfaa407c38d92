"""Re-estimate the running statistics of norms, which do not belong to predicted parameters."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from deepnets_bench.errors import BadInput, one_line
from deepnets_bench.networks.network import Network

STATISTICS = ("running_mean", "running_var")
_MOMENTUM = 0.1  # of norms that have no setting for it, PyTorch's default

ModuleT = TypeVar("ModuleT", bound=nn.Module)


@torch.no_grad()
def recalibrate(module: ModuleT, batches: Iterable[Any]) -> ModuleT:
    """Set the running statistics of all norms to the mean over `batches` of their batch statistics.

    `batches` is a loader or any iterable of image tensors [batch, channels, height, width], or of tuples,
    lists or dicts that hold the images first, such as (images, labels); each is moved to the module's device
    and dtype. Only norms are in training mode meanwhile. Modes, momenta and all else are as before, and the
    module is returned; one without running statistics as it is. Norms that no batch reached keep theirs.

    Raises `BadInput` for no batches, batches of another kind or that the module cannot take, and statistics
    that are not finite; the module is then as before.
    """
    norms = norms_with_statistics(module)
    if not norms:
        return module
    before = {id(norm): _read(norm) for norm in norms}
    total: dict[int, list[Tensor]] = {}
    seen: dict[int, int] = {}
    number = 0
    try:
        with _norms_in_training(module, norms):
            for number, batch in enumerate(batches, 1):
                for norm in norms:
                    for name in STATISTICS:
                        getattr(norm, name).zero_()
                _run(module, batch, number)
                for norm in norms:
                    statistics = [s.double() / _momentum(norm) for s in _read(norm)]
                    if statistics[1].any():  # zeros: the norm was not reached
                        sums = total.setdefault(id(norm), [torch.zeros_like(s) for s in statistics])
                        total[id(norm)] = [a + b for a, b in zip(sums, statistics, strict=True)]
                        seen[id(norm)] = seen.get(id(norm), 0) + 1
        if not number:
            raise BadInput("There are no batches to re-estimate running statistics on.")
        if not all(s.isfinite().all() for sums in total.values() for s in sums):
            raise BadInput("Running statistics are not finite: outputs of layers overflow on these images.")
        after = {key: [s / seen[key] for s in sums] for key, sums in total.items()}
    except BaseException:
        _write(norms, before)
        raise
    _write(norms, before | after)
    return module


def norms_with_statistics(module: nn.Module) -> list[nn.Module]:
    """The modules of a network that update running statistics in training mode."""
    return [
        m
        for m in module.modules()
        if all(isinstance(getattr(m, name, None), Tensor) for name in STATISTICS)
        and (hasattr(m, "momentum") or type(m) is nn.Module)  # the latter in a `Network`
    ]


def _run(module: nn.Module, batch: Any, number: int) -> None:
    images = batch
    while isinstance(images, (list, tuple, dict)) and images:
        images = next(iter(images.values() if isinstance(images, dict) else images))
    if not isinstance(images, Tensor) or not images.is_floating_point():
        kind = f"a tensor of {images.dtype}" if isinstance(images, Tensor) else f"a {type(images).__name__}"
        raise BadInput(f"Batch {number} holds {kind} where floating-point images are expected.")
    like = next(module.parameters(), None)
    try:
        module(images if like is None else images.to(like.device, like.dtype))
    except Exception as error:
        shape = list(images.shape)
        raise BadInput(
            f"{type(module).__name__} cannot take batch {number} of shape {shape} ({one_line(error)})."
        ) from error


@contextmanager
def _norms_in_training(module: nn.Module, norms: list[nn.Module]) -> Iterator[None]:
    """Norms use batch statistics and keep the last batch's, as far as their momentum can be set."""
    modes = {m: m.training for m in module.modules()}
    momenta = {norm: norm.momentum for norm in norms if hasattr(norm, "momentum")}
    module.eval()
    for m in modes:
        m.training = m in momenta or isinstance(m, Network)
    for norm in momenta:
        norm.momentum = 1.0  # type: ignore[assignment]
    try:
        yield
    finally:
        for m, training in modes.items():
            m.training = training
        for norm, momentum in momenta.items():
            norm.momentum = momentum


def _momentum(norm: nn.Module) -> float:
    return 1.0 if hasattr(norm, "momentum") else _MOMENTUM


def _read(norm: nn.Module) -> list[Tensor]:
    return [getattr(norm, name).clone() for name in STATISTICS]


def _write(norms: list[nn.Module], statistics: dict[int, list[Tensor]]) -> None:
    for norm in norms:
        for name, value in zip(STATISTICS, statistics[id(norm)], strict=True):
            getattr(norm, name).copy_(value)

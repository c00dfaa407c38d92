"""Weights that a module computes from other parameters (weight norm, spectral norm, pruning, ...)."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from deepnets_bench.errors import BadInput, one_line

_POWER_ITERATIONS = 15  # as many as PyTorch makes for the first singular vectors of a spectral norm


@dataclass(frozen=True, eq=False)
class Reparametrised:
    """A weight (or bias) called `name` that its module computes from the parameters `sources`."""

    name: str
    sources: tuple[str, ...]
    owner: nn.Module
    attribute: str
    computes: Any  # ParametrizationList, or the hook of PyTorch's older functions
    method: str  # of `computes`, which returns the weight

    def value(self) -> Tensor:
        weight: Tensor = getattr(self.owner, self.attribute)
        return weight

    @torch.no_grad()
    def refresh(self) -> None:
        """Compute the weight anew where the module keeps it between passes (PyTorch's older functions)."""
        if not isinstance(self.computes, nn.Module):
            self.computes(self.owner, ())

    @torch.no_grad()
    def invert(self, weight: Tensor) -> dict[str, Tensor]:
        """Parameters and buffers (name → new tensor) from which the module computes `weight`.

        Where the weight is constrained (unit spectral norm, orthogonal), it computes the one that PyTorch's
        `right_inverse` makes of `weight`. Raises `BadInput` where there is no such inverse.
        """
        prefix = self.name.removesuffix(self.attribute)
        hook = self.computes
        if isinstance(hook, nn.Module):
            inverse = _invert_parametrization(hook, weight)
            return {f"{prefix}parametrizations.{self.attribute}.{name}": t for name, t in inverse.items()}
        stem = prefix + self.attribute
        if isinstance(hook, WeightNorm):
            return {f"{stem}_g": torch.norm_except_dim(weight, 2, hook.dim), f"{stem}_v": weight}
        if isinstance(hook, SpectralNorm):
            u, v = _singular_vectors(hook.reshape_weight_to_matrix(weight))
            return {f"{stem}_orig": weight, f"{stem}_u": u, f"{stem}_v": v}
        return {f"{stem}_orig": weight}


def find(module: nn.Module) -> dict[str, Reparametrised]:
    """All reparametrised weights of a module, by name."""
    computed = [
        (f"{path}." if path else "", owner, weight)
        for path, owner in module.named_modules()
        if owner._forward_pre_hooks or "parametrizations" in owner._modules
        for weight in (*_parametrizations(owner), *_hooks(owner))
    ]
    known = dict(module.named_parameters()) if computed else {}
    found: dict[str, Reparametrised] = {}
    for prefix, owner, (attribute, sources, computes, method) in computed:
        names = tuple(prefix + source for source in sources if prefix + source in known)
        if names:
            name = prefix + attribute
            found[name] = Reparametrised(name, names, owner, attribute, computes, method)
    return found


@contextmanager
def replaced(weights: Mapping[Reparametrised, Tensor]) -> Iterator[None]:
    """Let modules read the given tensors as their weights, and compute none."""
    plain = [(w, w.owner.__dict__[w.attribute]) for w in weights if w.attribute in w.owner.__dict__]
    for weight, tensor in weights.items():
        setattr(weight.computes, weight.method, lambda *_, _tensor=tensor, **__: _tensor)
    try:
        yield
    finally:
        for weight in weights:
            delattr(weight.computes, weight.method)
        for weight, tensor in plain:
            weight.owner.__dict__[weight.attribute] = tensor


# Attribute, sources, what computes it from these, and by which method.
_Found = Iterator[tuple[str, tuple[str, ...], Any, str]]


def _parametrizations(owner: nn.Module) -> _Found:
    if not parametrize.is_parametrized(owner):
        return
    for attribute, transforms in owner.parametrizations.items():  # type: ignore[union-attr, operator]
        originals = [name for name, _ in transforms.named_parameters(recurse=False)]
        sources = tuple(f"parametrizations.{attribute}.{name}" for name in originals)
        yield attribute, sources, transforms, "forward"


def _hooks(owner: nn.Module) -> _Found:
    for hook in owner._forward_pre_hooks.values():
        if isinstance(hook, WeightNorm):
            yield hook.name, (f"{hook.name}_g", f"{hook.name}_v"), hook, "compute_weight"
        elif isinstance(hook, SpectralNorm):
            yield hook.name, (f"{hook.name}_orig",), hook, "compute_weight"
        elif isinstance(hook, prune.BasePruningMethod):
            yield hook._tensor_name, (f"{hook._tensor_name}_orig",), hook, "apply_mask"


def _invert_parametrization(transforms: nn.Module, weight: Tensor) -> dict[str, Tensor]:
    """State of a `ParametrizationList` whose value is `weight`: its originals and its buffers."""
    if any(buffer.is_meta for buffer in transforms.buffers()):
        raise BadInput("its parametrization has buffers on the meta device, which hold no values")
    kinds = ", ".join(type(part).__name__ for part in transforms.children())
    if not all(hasattr(part, "right_inverse") for part in transforms.children()):
        raise BadInput(f"parametrization {kinds} has no right_inverse to assign a predicted weight through")
    transforms = copy.deepcopy(transforms)
    if any(parameter.is_meta for parameter in transforms.parameters()):
        transforms = transforms.to_empty(device=weight.device)
    first = next(transforms.parameters())
    try:
        transforms.right_inverse(weight.to(first.device, first.dtype))  # type: ignore[operator]
        if any(True for _ in transforms.buffers()):  # singular vectors follow the weight in training mode
            transforms.train()
            for _ in range(_POWER_ITERATIONS):
                transforms()
    except Exception as error:
        reason = one_line(error).rstrip(".")
        raise BadInput(f"parametrization {kinds} cannot be inverted ({reason})") from error
    own = {name for name, _ in transforms.named_parameters() if "." in name}
    return {name: tensor for name, tensor in transforms.state_dict().items() if name not in own}


def _singular_vectors(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """The first left and right singular vectors of a matrix, by power iteration."""
    u = nn.functional.normalize(torch.randn_like(matrix[:, 0]), dim=0)
    v = matrix[0]
    for _ in range(_POWER_ITERATIONS):
        v = nn.functional.normalize(matrix.T @ u, dim=0)
        u = nn.functional.normalize(matrix @ v, dim=0)
    return u, v

"""Which errors are failures of one network, counted in training and evaluation; all others end the job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from deepnets_bench.errors import NotFinite


def is_network_failure(error: BaseException) -> bool:
    """Did one network run out of memory, or give values that are not finite?"""
    return isinstance(error, NotFinite) or is_out_of_memory(error)


def is_out_of_memory(error: BaseException) -> bool:
    """Is it for want of memory, on a GPU or on the CPU, that something failed?"""
    # PyTorch's CPU allocator and NVIDIA's libraries raise a plain RuntimeError.
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or (
        isinstance(error, RuntimeError)
        and any(phrase in str(error) for phrase in ("allocate memory", "ALLOC_FAILED", "out of memory"))
    )


def norm_of(params: Mapping[str, Tensor]) -> Tensor:
    """The sum of the norms of all parameters, a scalar on their device; not finite if a value is not."""
    return torch.stack(torch._foreach_norm([*params.values()])).sum()


def require_finite(predictions: Sequence[Mapping[str, Tensor]]) -> None:
    """Raise `NotFinite`, which names the graphs, where predicted parameters are NaN or infinite."""
    # First the sum of squares, a few fast operations for all tensors, whose overflow is not yet a failure.
    norms = [norm_of(params).detach() for params in predictions]
    if not norms or torch.stack(norms).isfinite().all():
        return
    graphs = [
        index
        for index, params in enumerate(predictions)
        if not all(bool(tensor.isfinite().all()) for tensor in params.values())
    ]
    if graphs:
        raise NotFinite("Predicted parameters are NaN or infinite.", graphs)

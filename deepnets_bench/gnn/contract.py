"""The contract of outputs: what a GNN's new node states must be, in `check` and at every step of training."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from deepnets_bench.errors import BadInput


def check_output(name: str, x: Tensor, out: Any) -> Tensor:
    """`out` itself where it may replace the node states `x`; raises `BadInput` for anything else.

    Shape, type and device: cheap enough for every step. Whether values are finite is another question, which
    concerns single graphs of a batch.
    """
    problem = output_problem(x, out)
    if problem:
        raise BadInput(f"GNN '{name}': {problem}")
    checked: Tensor = out
    return checked


def output_problem(x: Tensor, out: Any) -> str | None:
    """Why `out` cannot replace the node states `x` for its form, in a sentence; None where it can."""
    if not isinstance(out, Tensor):
        return f"forward returns {type(out).__name__} where a tensor [N, dim] is expected."
    if out.shape != x.shape:
        return f"forward returns shape {list(out.shape)} where [N, dim] = {list(x.shape)} is expected."
    if out.device != x.device:
        return f"forward returns a tensor on {out.device} where the node states are on {x.device}."
    if out.dtype != x.dtype and not _is_of_autocast(out):
        return f"forward returns {out.dtype} where the node states are {x.dtype}."
    return None


def finite_problem(out: Tensor) -> str | None:
    """For how many nodes `out` is not finite, in a sentence; None where it is finite."""
    bad = ~out.isfinite()
    return f"forward returns NaN or infinity for {int(bad.any(1).sum())} nodes." if bad.any() else None


def _is_of_autocast(out: Tensor) -> bool:
    kind = out.device.type
    return torch.is_autocast_enabled(kind) and out.dtype == torch.get_autocast_dtype(kind)

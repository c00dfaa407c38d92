"""Materialisation: a GNN has all its parameters before anything counts, trains or loads them."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from deepnets_bench.errors import BadInput, located

if TYPE_CHECKING:
    from deepnets_bench.data.dataset import GraphBatch


def materialise(name: str, module: nn.Module, dim: int) -> Tensor | None:
    """Run `module` on small graphs, in evaluation and in training mode; what it returned in training mode.

    Parameters that the first forward pass makes (lazy layers, layers made in `forward`) are drawn there
    from PyTorch's generator; where a pass makes none, it leaves the generator as it was. Buffers keep
    their values and `module` its mode. What `forward` raises is no concern of this function, which then
    returns None: it may need a GPU.

    Raises `BadInput` for a module that cannot be trained or saved: parameters without shape or values, made
    anew at each pass, or of another dtype than float32; sparse gradients; a state of more than dense tensors.
    """
    _require_values(name, module)
    module.to("cpu")
    training = module.training
    try:
        _pass(module.eval(), dim)
        known = dict(module.named_parameters())
        out = _pass(module.train(), dim)
    finally:
        module.train(training)
    error = out if isinstance(out, BaseException) else None
    for key, parameter in module.named_parameters():
        if is_lazy(parameter):
            why = f", and forward raises {located(error)}" if error else "; use it in forward or remove it"
            raise BadInput(
                f"GNN '{name}': parameter {key} has no shape after a forward pass{why}."
            ) from error
        if known.get(key, parameter) is not parameter:
            raise BadInput(
                f"GNN '{name}': forward makes parameter {key} anew at each pass, so that none is trained; "
                "make it once."
            )
        if parameter.requires_grad and parameter.dtype != torch.float32:
            raise BadInput(
                f"GNN '{name}': parameter {key} is {_dtype(parameter)}; parameters that are trained are "
                "float32 (forward may compute in another type)."
            )
    _require_values(name, module)
    _require_savable(name, module)
    return None if isinstance(out, BaseException) else out


def dry_states(dim: int) -> Tensor:
    """The node states [N, dim] that `materialise` gives a GNN: the same at every call, in fresh memory."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(len(_dry_batch().op), dim, generator=generator)


def small_batch() -> GraphBatch:
    """A batch of three small real architectures: DARTS, PDARTS and a vision transformer."""
    from deepnets_bench.architecture import Architecture
    from deepnets_bench.data.dataset import GraphBatch
    from deepnets_bench.predefined import DARTS, PDARTS, VIT

    architectures = (
        Architecture(DARTS, n_cells=3),
        Architecture(PDARTS, n_cells=2, stem_type=1),
        Architecture(VIT, n_cells=3, preproc=False, C_mult=1),
    )
    return GraphBatch.from_graphs([arch.graph(width=16, image_size=32) for arch in architectures])


_dry_batch = cache(small_batch)


def _pass(module: nn.Module, dim: int) -> Tensor | BaseException:
    """The output of a forward pass, or what it raises; leaves no trace but new parameters and buffers."""
    before = _made(module)
    buffers = [(buffer, buffer.clone()) for buffer in module.buffers() if not is_lazy(buffer)]
    random = torch.get_rng_state()
    out: Tensor | BaseException
    try:
        with torch.no_grad():
            out = module(dry_states(dim), _dry_batch().clone())
    except (
        Exception,
        SystemExit,
    ) as error:  # a foreign model may raise anything, and a later pass will say so
        out = error
    if _made(module) == before:
        torch.set_rng_state(random)
    with torch.no_grad():
        for buffer, values in buffers:
            buffer.copy_(values)
    return out


def _made(module: nn.Module) -> set[str]:
    tensors = [*module.named_parameters(), *module.named_buffers()]
    return {key for key, tensor in tensors if not is_lazy(tensor)}


def _require_values(name: str, module: nn.Module) -> None:
    for key, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if tensor.device.type == "meta":
            raise BadInput(
                f"GNN '{name}': {key} is on the device meta, where it has no values; make it on the CPU."
            )


def _require_savable(name: str, module: nn.Module) -> None:
    for key, part in module.named_modules():
        if getattr(part, "sparse", False) and isinstance(part, (nn.Embedding, nn.EmbeddingBag)):
            raise BadInput(f"GNN '{name}': {key} has sparse gradients, which no track's optimiser takes.")
    for key, value in module.state_dict().items():
        if not isinstance(value, Tensor):
            raise BadInput(
                f"GNN '{name}': its state_dict holds a {type(value).__name__} ({key}), not a tensor."
            )
        try:
            safetensors.torch.save({key: value.detach().contiguous()})
        except (KeyError, ValueError, RuntimeError, SafetensorError) as error:
            kind = f"{str(value.layout).removeprefix('torch.')} {_dtype(value)}"
            raise BadInput(f"GNN '{name}': {key} is {kind}, which a checkpoint cannot hold.") from error


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")

"""Run a `Program` with torch: as a module with its own parameters, or on parameters given from outside."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deepnets_bench import ir
from deepnets_bench.depthwise import depthwise_conv2d, is_fast
from deepnets_bench.errors import BadInput
from deepnets_bench.program import Program

_ACTIVATIONS: dict[int, Callable[[Tensor], Tensor]] = {
    ir.RELU: F.relu,
    ir.GELU: F.gelu,
    ir.HARDSWISH: F.hardswish,
}


class Step(NamedTuple):
    """One live operation, unpacked from its row once so that running it costs no look-ups."""

    kind: int
    row: int
    inputs: tuple[int, ...]
    act: int
    weight: str | None
    bias: str | None
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: int
    groups: int
    crop: bool
    last_use: tuple[int, ...]  # rows whose values nobody reads later


class Network(nn.Module):
    """The network of a `Program`, with every parameter, those of dead branches included.

    Parameters carry the names of the published code and PyTorch's default initialisation. Images are
    float [batch, 3, size, size], logits float [batch, classes]. Norms use batch statistics, always for
    `bnorm`, and for `bn-track` in training mode and in `run`.
    """

    def __init__(self, program: Program) -> None:
        super().__init__()
        program.require_output()
        self.program = program
        self.steps = unpack(program)
        for name, shape in program.param_shapes.items():
            owner, leaf = self._owner(name)
            owner.register_parameter(leaf, nn.Parameter(torch.empty(shape)))
        if program.tracks_statistics:
            norms = (program.table[:, ir.KIND] == ir.NORM).nonzero()[0]
            for name, channels in zip(
                program.module_names(norms), program.table[norms, ir.OUT_CH].tolist(), strict=True
            ):
                owner, _ = self._owner(name + ".weight")
                owner.register_buffer("running_mean", torch.zeros(channels))
                owner.register_buffer("running_var", torch.ones(channels))
        self.reset_parameters()

    def _owner(self, name: str) -> tuple[nn.Module, str]:
        """The (nested) module that holds a parameter, made on first use, and the parameter's last name."""
        *path, leaf = name.split(".")
        owner: nn.Module = self
        for part in path:
            if part not in owner._modules:
                owner.add_module(part, nn.Module())
            owner = owner._modules[part]  # type: ignore[assignment]
        return owner, leaf

    def reset_parameters(self) -> None:
        """Initialise as PyTorch's layers do; the positional encoding from N(0, 1)."""
        program = self.program
        params = dict(self.named_parameters())
        with torch.no_grad():
            rows = program.table[:, ir.SLOT].nonzero()[0]
            kinds = program.table[rows, ir.KIND].tolist()
            for kind, name in zip(kinds, program.module_names(rows), strict=True):
                weight, bias = params[name + ".weight"], params.get(name + ".bias")
                if kind == ir.POS_ENC:
                    nn.init.normal_(weight)
                elif kind in (ir.NORM, ir.LAYER_NORM):
                    nn.init.ones_(weight)
                    nn.init.zeros_(params[name + ".bias"])
                else:
                    nn.init.kaiming_uniform_(weight, a=math.sqrt(5))
                    if bias is not None:
                        bound = 1 / math.sqrt(weight[0].numel())
                        nn.init.uniform_(bias, -bound, bound)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of the module's own parameters."""
        statistics = dict(self.named_buffers()) if self.program.tracks_statistics else None
        return execute(self.steps, images, dict(self.named_parameters()), self.training, statistics)

    def run(self, images: Tensor, params: Mapping[str, Tensor]) -> Tensor:
        """Logits of the given parameters (name → tensor, the live ones suffice), with batch statistics."""
        return execute(self.steps, images, params, self.training)


def execute(
    steps: tuple[Step, ...],
    images: Tensor,
    params: Mapping[str, Tensor],
    training: bool,
    statistics: dict[str, Tensor] | None = None,
    fast: bool = False,
) -> Tensor:
    """Run unpacked steps on images [batch, 3, size, size]; returns logits [batch, classes].

    `fast` shares activations and takes some gradients in ways that sum in another order: equal up to
    rounding, not bit for bit, to those of results recorded without it. Under autocast it is always on.

    `statistics` holds running means and variances by buffer name: updated in training, used otherwise.
    Without them norms use batch statistics. Raises `BadInput` for a parameter that is missing, and for images
    of another form. Networks that end in a global average take square images of any size, the others (a flat
    head, position encodings) only those of the size they were compiled for.
    """
    _check_images(images)
    device = images.device.type
    # Tracing runs networks on the meta device, for which there is no autocast.
    fast = fast or (torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device))
    values: dict[int, Tensor] = {}
    # ReLU of values, where fast: several convolutions of a cell often read the same one.
    shared: dict[int, Tensor] | None = {} if fast else None
    x = images
    try:
        for step in steps:
            x = _execute_one(step, values, images, params, training, statistics, shared)
            values[step.row] = x
            for row in step.last_use:
                del values[row]
                if shared:
                    shared.pop(row, None)
    except KeyError as error:
        if error.args and error.args[0] not in params and isinstance(error.args[0], str):
            raise BadInput(f"The parameters lack '{error.args[0]}'.") from None
        raise
    return x


def _execute_one(
    step: Step,
    values: dict[int, Tensor],
    images: Tensor,
    params: Mapping[str, Tensor],
    training: bool,
    statistics: dict[str, Tensor] | None,
    shared: dict[int, Tensor] | None,
) -> Tensor:
    kind, inputs = step.kind, step.inputs
    if kind == ir.SUM:
        other = values[inputs[1]]
        if other.shape[1:] != values[inputs[0]].shape[1:]:  # a position encoding for other images
            raise _unfit(images)
        return values[inputs[0]] + (F.relu(other) if step.act == ir.RELU else other)
    if kind == ir.CONCAT:
        return _concat([values[i] if i >= 0 else None for i in inputs])
    if kind == ir.INPUT:
        return images.contiguous(memory_format=torch.channels_last)
    if kind == ir.POS_ENC:
        return params[step.weight]  # type: ignore[index]
    x = values[inputs[0]]
    if kind == ir.SCALE:
        gate = F.hardswish(values[inputs[1]])
        return x * gate[:, :, None, None]
    if step.act == ir.RELU_DROPOUT:
        x = F.dropout(F.relu(x), 0.5, training)
    elif step.act == ir.RELU and shared is not None:
        if inputs[0] not in shared:
            shared[inputs[0]] = F.relu(x)
        x = shared[inputs[0]]
    elif step.act:
        x = _ACTIVATIONS[step.act](x)
    if kind == ir.CONV:
        if step.crop:
            if x.shape[-1] == 1:
                raise _unfit(images)
            x = _Crop.apply(x)
        weight = params[step.weight]  # type: ignore[index]
        if shared is not None and is_fast(x, weight, step.stride, step.groups):
            return depthwise_conv2d(x, weight, step.padding, step.dilation)
        return F.conv2d(x, weight, None, step.stride, step.padding, step.dilation, step.groups)
    weight = params[step.weight] if step.weight else None  # type: ignore[assignment]
    bias = params[step.bias] if step.bias else None
    if kind == ir.NORM:
        x = _batch_norm(step, x, weight, bias, training, statistics)
        if shared is not None and x.requires_grad:
            x.register_hook(_channels_last)
        return x
    if kind == ir.LINEAR:
        if x.dim() == 2:
            if x.shape[1] != weight.shape[1]:
                raise _unfit(images)
            return F.linear(x, weight, bias)
        return F.linear(x.permute(0, 2, 3, 1), weight, bias).permute(0, 3, 1, 2)
    if kind == ir.LAYER_NORM:
        return F.layer_norm(x.permute(0, 2, 3, 1), weight.shape, weight, bias).permute(0, 3, 1, 2)
    if kind == ir.ATTENTION:
        return _attention(x)
    if kind == ir.MAX_POOL:
        return F.max_pool2d(x, 3, step.stride, 1)
    if kind == ir.AVG_POOL:
        return F.avg_pool2d(x, 3, step.stride, 1, count_include_pad=False)
    if kind in (ir.GLOB_AVG, ir.MEAN):
        return x.mean((2, 3))
    if kind == ir.SUBSAMPLE:
        return x[:, :, :: step.stride[0], :: step.stride[1]]
    return x.flatten(1)


def _check_images(images: Tensor) -> None:
    shape = list(images.shape)
    if len(shape) != 4 or shape[1] != 3 or shape[2] != shape[3] or 0 in shape:
        raise BadInput(f"Images must be a tensor [batch, 3, size, size], not {shape}.")
    if not images.is_floating_point():
        raise BadInput(f"Images must be floating-point, not {images.dtype}.")


def _unfit(images: Tensor) -> BadInput:
    size = images.shape[-1]
    return BadInput(f"Images of {size}×{size} do not fit this network, which was compiled for another size.")


def _batch_norm(
    step: Step,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    training: bool,
    statistics: dict[str, Tensor] | None,
) -> Tensor:
    if statistics is None:
        return F.batch_norm(x, None, None, weight, bias, training=True)
    prefix = str(step.weight).removesuffix("weight")
    mean, var = statistics[prefix + "running_mean"], statistics[prefix + "running_var"]
    return F.batch_norm(x, mean, var, weight, bias, training)


def _channels_last(grad: Tensor) -> Tensor:
    """A gradient as the norm before it takes it fastest; that of a part of a concatenation has gaps."""
    return grad.contiguous(memory_format=torch.channels_last)


class _Crop(torch.autograd.Function):
    """x[:, :, 1:, 1:], whose gradient stays channels-last: PyTorch's own is not, and slows what follows."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.shape = x.shape
        return x[:, :, 1:, 1:]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        whole = torch.empty(
            ctx.shape, dtype=grad.dtype, device=grad.device, memory_format=torch.channels_last
        )
        whole[:, :, 0] = 0
        whole[:, :, 1:, 0] = 0
        whole[:, :, 1:, 1:] = grad
        return whole


def _attention(qkv: Tensor) -> Tensor:
    """Self-attention over pixels: [B, 3·8·h, H, W] → [B, 8·h, H, W]."""
    batch, channels, height, width = qkv.shape
    heads = qkv.permute(0, 2, 3, 1).reshape(batch, height * width, 3, ir.HEADS, channels // (3 * ir.HEADS))
    q, k, v = heads.permute(2, 0, 3, 1, 4).unbind(0)
    if qkv.device.type == "cpu" and qkv.dtype.itemsize == 2:  # its gradient takes five times float32's
        with torch.autocast("cpu", enabled=False):
            out = F.scaled_dot_product_attention(q.float(), k.float(), v.float()).to(qkv.dtype)
    else:
        out = F.scaled_dot_product_attention(q, k, v)
    return out.transpose(1, 2).reshape(batch, height, width, channels // 3).permute(0, 3, 1, 2)


def _concat(parts: list[Tensor | None]) -> Tensor:
    """Concatenate channels; an empty state becomes zeros shaped like the first one that is not."""
    first = next(part for part in parts if part is not None)
    return torch.cat([torch.zeros_like(first) if part is None else part for part in parts], 1)


def unpack(program: Program) -> tuple[Step, ...]:
    """The live operations of a program, ready for `execute`: all that running predicted parameters needs."""
    table, args = program.table.tolist(), program.args.tolist()
    rows = program.live.nonzero()[0].tolist()
    inputs = {}
    for index in rows:
        a, b = table[index][ir.IN0], table[index][ir.IN1]
        if table[index][ir.KIND] == ir.CONCAT:
            inputs[index] = tuple(args[a : a + b])
        else:
            inputs[index] = tuple(i for i in (a, b) if i >= 0)
    last_reader: dict[int, int] = {}
    for index in rows:
        for source in inputs[index]:
            last_reader[source] = index
    freed: dict[int, list[int]] = {}
    for source, reader in last_reader.items():
        if source >= 0:
            freed.setdefault(reader, []).append(source)
    steps = []
    for index, name in zip(rows, program.module_names(np.array(rows)), strict=True):
        row = table[index]
        steps.append(
            Step(
                kind=row[ir.KIND],
                row=index,
                inputs=inputs[index],
                act=row[ir.ACT],
                weight=name + ".weight" if name else None,
                bias=name + ".bias" if row[ir.BIAS] else None,
                stride=(row[ir.STRIDE_H], row[ir.STRIDE_W]),
                padding=(row[ir.PAD_H], row[ir.PAD_W]),
                dilation=row[ir.DILATION],
                groups=row[ir.GROUPS],
                crop=bool(row[ir.CROP]),
                last_use=tuple(freed.get(index, ())),
            )
        )
    return tuple(steps)

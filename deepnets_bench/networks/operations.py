"""The operations of programs with torch: one function a kind, on values and parameters of one run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from deepnets_bench.compiler import instructions as ir
from deepnets_bench.errors import BadInput
from deepnets_bench.networks.depthwise import depthwise_conv2d, is_fast

_ACTIVATIONS: dict[int, Callable[[Tensor], Tensor]] = {
    ir.RELU: F.relu,
    ir.GELU: F.gelu,
    ir.HARDSWISH: F.hardswish,
}


class Step(NamedTuple):
    """One live operation, unpacked from its row once so that running it costs no look-ups."""

    operation: Callable[[Step, Execution], Tensor]
    row: int
    inputs: tuple[int, ...]
    act: int
    weight: str  # names of its parameters, '' where it has none
    bias: str
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: int
    groups: int
    crop: bool
    last_use: tuple[int, ...]  # rows whose values nobody reads later


@dataclass(frozen=True, slots=True)
class Execution:
    """What the operations of one run share; `execute` says what `params`, `training` and the rest are."""

    images: Tensor
    params: Mapping[str, Tensor]
    training: bool
    statistics: dict[str, Tensor] | None
    values: dict[int, Tensor]  # of rows that are still to be read
    # ReLU of values, where fast: several convolutions of a cell often read the same one.
    rectified: dict[int, Tensor] | None


def _input(_step: Step, run: Execution) -> Tensor:
    return run.images.contiguous(memory_format=torch.channels_last)


def _position_encoding(step: Step, run: Execution) -> Tensor:
    return run.params[step.weight]


def _sum(step: Step, run: Execution) -> Tensor:
    first, second = run.values[step.inputs[0]], run.values[step.inputs[1]]
    if first.shape[1:] != second.shape[1:]:  # a position encoding for other images
        raise _unfit(run.images)
    return first + (F.relu(second) if step.act == ir.RELU else second)


def _concat(step: Step, run: Execution) -> Tensor:
    """Concatenate channels; an empty state becomes zeros shaped like the first one that is not."""
    parts = [run.values[row] if row >= 0 else None for row in step.inputs]
    first = next(part for part in parts if part is not None)
    return torch.cat([torch.zeros_like(first) if part is None else part for part in parts], 1)


def _scale(step: Step, run: Execution) -> Tensor:
    gate = F.hardswish(run.values[step.inputs[1]])
    return run.values[step.inputs[0]] * gate[:, :, None, None]


def _activated(step: Step, run: Execution) -> Tensor:
    """The first input of a step after the step's activation."""
    source, act = step.inputs[0], step.act
    x = run.values[source]
    if act == ir.NO_ACT:
        return x
    if act == ir.RELU_DROPOUT:
        return F.dropout(F.relu(x), 0.5, run.training)
    if act == ir.RELU and run.rectified is not None:
        if source not in run.rectified:
            run.rectified[source] = F.relu(x)
        return run.rectified[source]
    return _ACTIVATIONS[act](x)


def _conv(step: Step, run: Execution) -> Tensor:
    x = _activated(step, run)
    if step.crop and x.shape[-1] == 1:
        raise _unfit(run.images)
    weight, stride, first = run.params[step.weight], step.stride, int(step.crop)
    if run.rectified is not None and _picks_pixels(x, weight, stride, step.padding, step.groups):
        return F.conv2d(_Part.apply(x, first, stride[0]), weight)
    if first:
        x = _Part.apply(x, first, 1)
    if run.rectified is not None and is_fast(x, weight, stride, step.dilation, step.groups):
        return depthwise_conv2d(x, weight, stride[0], step.padding, step.dilation)
    return F.conv2d(x, weight, None, stride, step.padding, step.dilation, step.groups)


def _picks_pixels(
    x: Tensor, weight: Tensor, stride: tuple[int, int], padding: tuple[int, int], groups: int
) -> bool:
    """On the CPU, a convolution of single pixels that leaves some out is slower than picking the others."""
    single = weight.shape[2:] == (1, 1) and padding == (0, 0) and groups == 1
    return single and stride[0] == stride[1] > 1 and x.device.type == "cpu"


def _batch_norm(step: Step, run: Execution) -> Tensor:
    x, weight, bias = _activated(step, run), run.params[step.weight], run.params[step.bias]
    if run.statistics is None:
        x = F.batch_norm(x, None, None, weight, bias, training=True)
    else:
        prefix = step.weight.removesuffix("weight")
        mean, var = run.statistics[prefix + "running_mean"], run.statistics[prefix + "running_var"]
        x = F.batch_norm(x, mean, var, weight, bias, run.training)
    if run.rectified is not None and x.requires_grad:
        x.register_hook(_channels_last)
    return x


def _layer_norm(step: Step, run: Execution) -> Tensor:
    x, weight, bias = _activated(step, run), run.params[step.weight], run.params[step.bias]
    return F.layer_norm(x.permute(0, 2, 3, 1), weight.shape, weight, bias).permute(0, 3, 1, 2)


def _linear(step: Step, run: Execution) -> Tensor:
    x, weight = _activated(step, run), run.params[step.weight]
    bias = run.params[step.bias] if step.bias else None
    if x.dim() == 4:
        return F.linear(x.permute(0, 2, 3, 1), weight, bias).permute(0, 3, 1, 2)
    if x.shape[1] != weight.shape[1]:
        raise _unfit(run.images)
    return F.linear(x, weight, bias)


def _attention(step: Step, run: Execution) -> Tensor:
    """Self-attention over pixels: [B, 3·8·h, H, W] → [B, 8·h, H, W]."""
    qkv = _activated(step, run)
    batch, channels, height, width = qkv.shape
    heads = qkv.permute(0, 2, 3, 1).reshape(batch, height * width, 3, ir.HEADS, channels // (3 * ir.HEADS))
    q, k, v = heads.permute(2, 0, 3, 1, 4).unbind(0)
    if qkv.device.type == "cpu" and qkv.dtype.itemsize == 2:  # its gradient takes five times float32's
        with torch.autocast("cpu", enabled=False):
            out = F.scaled_dot_product_attention(q.float(), k.float(), v.float()).to(qkv.dtype)
    else:
        out = F.scaled_dot_product_attention(q, k, v)
    return out.transpose(1, 2).reshape(batch, height, width, channels // 3).permute(0, 3, 1, 2)


def _max_pool(step: Step, run: Execution) -> Tensor:
    return F.max_pool2d(_activated(step, run), 3, step.stride, 1)


def _avg_pool(step: Step, run: Execution) -> Tensor:
    return F.avg_pool2d(_activated(step, run), 3, step.stride, 1, count_include_pad=False)


def _mean(step: Step, run: Execution) -> Tensor:
    return _activated(step, run).mean((2, 3))


def _subsample(step: Step, run: Execution) -> Tensor:
    return _activated(step, run)[:, :, :: step.stride[0], :: step.stride[1]]


def _flatten(step: Step, run: Execution) -> Tensor:
    return _activated(step, run).flatten(1)


def _unfit(images: Tensor) -> BadInput:
    size = images.shape[-1]
    return BadInput(f"Images of {size}×{size} do not fit this network, which was compiled for another size.")


def _channels_last(grad: Tensor) -> Tensor:
    """A gradient as the norm before it takes it fastest; that of a part of a concatenation has gaps."""
    return grad.contiguous(memory_format=torch.channels_last)


class _Part(torch.autograd.Function):
    """x[:, :, first::step, first::step], whose gradient stays channels-last: PyTorch's own is not, and slows
    what follows."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, first: int, step: int) -> Tensor:
        ctx.shape, ctx.part = x.shape, slice(first, None, step)
        part = x[:, :, ctx.part, ctx.part]
        return part.contiguous(memory_format=torch.channels_last) if step > 1 else part

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        whole = torch.empty(
            ctx.shape, dtype=grad.dtype, device=grad.device, memory_format=torch.channels_last
        ).zero_()
        whole[:, :, ctx.part, ctx.part] = grad
        return whole, None, None


# Kind of operation → its function.
OPERATIONS: dict[int, Callable[[Step, Execution], Tensor]] = {
    ir.INPUT: _input,
    ir.CONV: _conv,
    ir.NORM: _batch_norm,
    ir.LAYER_NORM: _layer_norm,
    ir.LINEAR: _linear,
    ir.MAX_POOL: _max_pool,
    ir.AVG_POOL: _avg_pool,
    ir.SUM: _sum,
    ir.CONCAT: _concat,
    ir.ATTENTION: _attention,
    ir.MEAN: _mean,
    ir.SCALE: _scale,
    ir.POS_ENC: _position_encoding,
    ir.GLOB_AVG: _mean,
    ir.SUBSAMPLE: _subsample,
    ir.FLATTEN: _flatten,
}

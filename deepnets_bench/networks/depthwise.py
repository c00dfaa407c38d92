"""Depthwise convolution on the CPU whose gradients take the time of the convolution itself.

PyTorch's gradients of dilated and of 5×5 depthwise convolutions take up to 500 times as long as the forward
pass, and on a few pixels a dilated forward pass is as slow. Here the gradient of the input is, with stride 1,
a convolution with the kernel turned around. The other gradients, and convolutions on few pixels, are sums for
each tap and channel, compiled by numba.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numba
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

Size = Sequence[int]  # height, width


def depthwise_conv2d(
    x: Tensor, weight: Tensor, stride: int, padding: tuple[int, int], dilation: int
) -> Tensor:
    """`F.conv2d` of images [batch, C, H, W] with weight [C, 1, h, w] and C groups; autocast as it is."""
    if torch.is_autocast_enabled("cpu"):
        lowered = torch.get_autocast_dtype("cpu")
        x, weight = x.to(lowered), weight.to(lowered)
    output: Tensor = _Depthwise.apply(x, weight, stride, padding, dilation)
    return output


def is_fast(x: Tensor, weight: Tensor, stride: tuple[int, int], dilation: int, groups: int) -> bool:
    """Does `depthwise_conv2d` apply, and is it to be taken? 3×3 kernels without gaps are left to PyTorch."""
    return (
        groups == x.shape[1] == weight.shape[0] > 1
        and (dilation > 1 or max(weight.shape[2:]) > 3)
        and stride[0] == stride[1]
        and x.device.type == "cpu"
        and x.dtype in (torch.float32, torch.bfloat16, torch.float16)
    )


class _Depthwise(torch.autograd.Function):
    """Sums over pixels are taken in float32, in which they keep their accuracy."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, stride: int, padding: tuple[int, int], dilation: int
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.geometry = stride, padding, dilation
        return _convolve(x, weight, stride, padding, dilation)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        x, weight = ctx.saved_tensors
        stride, padding, dilation = ctx.geometry
        grad_x = grad_weight = None
        if ctx.needs_input_grad[0]:
            grad_x = _gradient_of_input(x, weight, grad, stride, padding, dilation)
        if ctx.needs_input_grad[1]:
            taps = np.zeros((*weight.shape[2:], len(weight)), np.float32)
            spans = _spans(x.shape[2:], grad.shape[2:], weight, stride, padding, dilation)
            _add_taps(spans, _pixels(x), stride, _pixels(grad), taps)
            grad_weight = torch.from_numpy(taps).permute(2, 0, 1)[:, None].to(weight.dtype)
        return grad_x, grad_weight, None, None, None


def _convolve(x: Tensor, weight: Tensor, stride: int, padding: tuple[int, int], dilation: int) -> Tensor:
    height, width = (
        (size + 2 * pad - dilation * (taps - 1) - 1) // stride + 1
        for size, pad, taps in zip(x.shape[2:], padding, weight.shape[2:], strict=True)
    )
    if height >= max(padding):  # with fewer rows PyTorch takes up to a hundred times as long
        return F.conv2d(x, weight, None, stride, padding, dilation, x.shape[1])
    output = np.zeros((len(x), height, width, x.shape[1]), np.float32)
    spans = _spans(x.shape[2:], (height, width), weight, stride, padding, dilation)
    _add_products(spans, _taps(weight), _pixels(x), stride, output, 1)
    return _images(output, x.dtype)


def _gradient_of_input(
    x: Tensor, weight: Tensor, grad: Tensor, stride: int, padding: tuple[int, int], dilation: int
) -> Tensor:
    if stride == 1:
        pads = [dilation * (n - 1) - p for n, p in zip(weight.shape[2:], padding, strict=True)]
        turned = weight.flip(2, 3).to(grad.dtype)
        return _convolve(grad, turned, 1, (pads[0], pads[1]), dilation).to(x.dtype)
    batch, channels, height, width = x.shape
    inputs = np.zeros((batch, height, width, channels), np.float32)
    spans = _spans((height, width), grad.shape[2:], weight, stride, padding, dilation)
    _add_products(spans[:, _BACKWARD], _taps(weight), _pixels(grad), 1, inputs, stride)
    return _images(inputs, x.dtype)


def _pixels(images: Tensor) -> np.ndarray:
    """[batch, H, W, C] in float32 with adjacent channels; no copy where images are so already."""
    pixels: np.ndarray = images.detach().float().permute(0, 2, 3, 1).contiguous().numpy()
    return pixels


def _images(pixels: np.ndarray, dtype: torch.dtype) -> Tensor:
    """The inverse of `_pixels`, channels-last."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).to(dtype)


def _taps(weight: Tensor) -> np.ndarray:
    """Weight [C, 1, h, w] as [h, w, C] in float32."""
    taps: np.ndarray = weight.detach().float()[:, 0].permute(1, 2, 0).contiguous().numpy()
    return taps


def _spans(
    inputs: Size, outputs: Size, weight: Tensor, stride: int, padding: tuple[int, int], dilation: int
) -> np.ndarray:
    """Which pixels meet at which tap, [spans, 7]; `inputs` and `outputs` are (height, width) of images.

    Input pixel = output pixel · stride + tap · dilation - padding. A span is a tap (i, j), the first pixel of
    the output and of the input (row, column), and the number of pixels in these rows.
    """
    taps = weight.shape[2], weight.shape[3]
    spans: np.ndarray = _find_spans(tuple(inputs), tuple(outputs), taps, stride, padding, dilation)
    return spans


@numba.njit(cache=True, error_model="numpy")
def _find_spans(inputs, outputs, taps, stride, padding, dilation):  # type: ignore[no-untyped-def]
    found = np.empty((outputs[0] * taps[0] * taps[1], 7), np.int64)
    spans = 0
    for row in range(outputs[0]):
        for i in range(taps[0]):
            place = row * stride + i * dilation - padding[0]
            if place < 0 or place >= inputs[0]:
                continue
            for j in range(taps[1]):
                shift = j * dilation - padding[1]
                first = (max(0, -shift) + stride - 1) // stride
                last = min(outputs[1], (inputs[1] - 1 - shift) // stride + 1)
                found[spans] = (i, j, row, first, place, first * stride + shift, last - first)
                spans += 1
    return found[:spans]


_BACKWARD = [0, 1, 4, 5, 2, 3, 6]  # columns of spans with output and input exchanged


# Channels are summed side by side, pixels in order, so runs repeat bit for bit.
@numba.njit(cache=True, fastmath={"contract"}, error_model="numpy")
def _add_products(spans, taps, source, source_step, target, target_step):  # type: ignore[no-untyped-def]
    """target += source · taps, where spans name the pixels of the target before those of the source."""
    for n in range(len(target)):
        for s in range(len(spans)):
            tap, row, from_row = taps[spans[s, 0], spans[s, 1]], spans[s, 2], spans[s, 4]
            for k in range(spans[s, 6]):
                a = source[n, from_row, spans[s, 5] + k * source_step]
                b = target[n, row, spans[s, 3] + k * target_step]
                for c in range(len(tap)):
                    b[c] += a[c] * tap[c]


@numba.njit(cache=True, fastmath={"contract"}, error_model="numpy")
def _add_taps(spans, x, stride, grad, taps):  # type: ignore[no-untyped-def]
    """taps += Σ over images and pixels of x · grad."""
    of_image = np.empty_like(taps)  # summed apart: sums of sums lose less
    for n in range(len(x)):
        of_image[:] = 0
        for s in range(len(spans)):
            tap, row, place = of_image[spans[s, 0], spans[s, 1]], spans[s, 2], spans[s, 4]
            for k in range(spans[s, 6]):
                a, b = x[n, place, spans[s, 5] + k * stride], grad[n, row, spans[s, 3] + k]
                for c in range(len(tap)):
                    tap[c] += a[c] * b[c]
        taps += of_image

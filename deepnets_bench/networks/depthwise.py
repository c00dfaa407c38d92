"""Depthwise convolution on the CPU whose gradients take the time of the convolution itself.

PyTorch's gradients of dilated and of 5×5 depthwise convolutions take 5 to 70 times as long as the forward
pass. Here the gradient of the input is a convolution with the kernel turned around, and that of the kernel a
sum over pixels for each tap and channel, compiled by numba.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


def depthwise_conv2d(x: Tensor, weight: Tensor, padding: tuple[int, int], dilation: int) -> Tensor:
    """`F.conv2d` of images [batch, C, H, W] with weight [C, 1, h, w], stride 1 and C groups."""
    output: Tensor = _Depthwise.apply(x, weight, padding, dilation)
    return output


def is_fast(x: Tensor, weight: Tensor, stride: tuple[int, int], groups: int) -> bool:
    """Does `depthwise_conv2d` apply, and to a tensor for which it is the faster way?"""
    return (
        groups == x.shape[1] == weight.shape[0] > 1
        and stride == (1, 1)
        and x.device.type == "cpu"
        and x.dtype in (torch.float32, torch.bfloat16, torch.float16)
    )


class _Depthwise(torch.autograd.Function):
    """Gradients are computed in float32, in which the sums over pixels keep their accuracy."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, padding: tuple[int, int], dilation: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.padding, ctx.dilation = padding, dilation
        return F.conv2d(x, weight, None, 1, padding, dilation, x.shape[1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        x, weight = ctx.saved_tensors
        size, dilation = weight.shape[2:], ctx.dilation
        grad_x = grad_weight = None
        if ctx.needs_input_grad[0]:
            padding = [dilation * (n - 1) - p for n, p in zip(size, ctx.padding, strict=True)]
            turned = weight.flip(2, 3).to(grad.dtype)
            grad_x = F.conv2d(grad, turned, None, 1, padding, dilation, len(weight)).to(x.dtype)
        if ctx.needs_input_grad[1]:
            taps = np.zeros((*size, len(weight)), np.float32)
            pad_h, pad_w = ctx.padding
            _add_taps(_pixels(x), _pixels(grad), pad_h, pad_w, dilation, taps)
            grad_weight = torch.from_numpy(taps).permute(2, 0, 1)[:, None].to(weight.dtype)
        return grad_x, grad_weight, None, None


def _pixels(images: Tensor) -> np.ndarray:
    """[batch, H, W, C] in float32 with adjacent channels; no copy where images are so already."""
    pixels: np.ndarray = images.detach().float().permute(0, 2, 3, 1).contiguous().numpy()
    return pixels


# Channels are summed side by side, pixels in order, so runs repeat bit for bit.
@numba.njit(cache=True, fastmath={"contract"}, error_model="numpy")
def _add_taps(x, grad, pad_h, pad_w, dilation, taps):  # type: ignore[no-untyped-def]
    """taps[i, j, c] += Σ x[n, y + i·dilation - pad_h, x + j·dilation - pad_w, c] · grad[n, y, x, c]."""
    batch, height, width, channels = x.shape
    of_image = np.empty_like(taps)  # summed apart: sums of sums lose less
    for n in range(batch):
        of_image[:] = 0
        for row in range(grad.shape[1]):
            for i in range(taps.shape[0]):
                source = row + i * dilation - pad_h
                if source < 0 or source >= height:
                    continue
                for j in range(taps.shape[1]):
                    shift = j * dilation - pad_w
                    tap = of_image[i, j]
                    for column in range(max(0, -shift), min(grad.shape[2], width - shift)):
                        a, b = x[n, source, column + shift], grad[n, row, column]
                        for c in range(channels):
                            tap[c] += a[c] * b[c]
        taps += of_image

"""Decoders of the hypernetwork: from the state of a node to the values of its parameter."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deepnets_bench.errors import UnknownName

DECODERS = ("conv", "mlp")


@dataclass(frozen=True)
class KernelGroup:
    """Consecutive rows of a decoder's input whose parameters have one shape and are predicted together.

    `shape` is the parameter's own; `kernel` is its form (out, in, height, width). `channels` and `window`
    are what the decoder has to compute of it; `fit` in parameter_plan.py turns that into the whole.
    """

    start: int
    stop: int
    shape: tuple[int, ...]
    kernel: tuple[int, ...]
    channels: tuple[int, int]
    window: tuple[int, int]


class TwoLayer(nn.Module):
    """Linear, ReLU, Linear under the names fc.0 and fc.2."""

    def __init__(self, dim_in: int, dim_hidden: int, dim_out: int) -> None:
        super().__init__()
        self.fc = nn.Sequential(nn.Linear(dim_in, dim_hidden), nn.ReLU(), nn.Linear(dim_hidden, dim_out))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc(x)
        return out


def _affine(layer: nn.Module) -> tuple[Tensor, Tensor]:
    """Weight [out, in] and bias [out] of a linear layer or a 1×1 convolution."""
    linear = cast(nn.Linear, layer)
    return linear.weight.flatten(1), linear.bias


class _LeadingProducts(torch.autograd.Function):
    """features @ weight[:o, :i]ᵀ + scale ⊗ bias[:o, :i] for several (o, i) at once.

    Plain slicing would allocate and add one gradient of the full weight per slice; here all slices
    add into a single one.
    """

    @staticmethod
    def forward(
        ctx: Any,
        weight: Tensor,
        bias: Tensor,
        channels: Sequence[tuple[int, int]],
        scales: Sequence[Tensor],
        *features: Tensor,
    ) -> tuple[Tensor, ...]:
        slices = [weight[:o, :i].reshape(o * i, -1) for o, i in channels]
        products = tuple(
            torch.outer(scale, bias[:o, :i].reshape(-1)).addmm_(x, w.t())
            for (o, i), scale, w, x in zip(channels, scales, slices, features, strict=True)
        )
        ctx.save_for_backward(weight, bias, *slices, *scales, *features)
        ctx.channels = channels
        ctx.set_materialize_grads(False)
        return products

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        weight, bias, *saved = ctx.saved_tensors
        n = len(ctx.channels)
        slices, scales, features = saved[:n], saved[n : 2 * n], saved[2 * n :]
        grad_weight, grad_bias = torch.zeros_like(weight), torch.zeros_like(bias)
        grad_features: list[Tensor | None] = [None] * n
        for k, grad in enumerate(grads):
            if grad is None:
                continue
            o, i = ctx.channels[k]
            grad_features[k] = grad @ slices[k]
            if (o, i) == weight.shape[:2]:
                grad_weight.view(o * i, -1).addmm_(grad.t(), features[k])
            else:
                grad_weight[:o, :i] += (grad.t() @ features[k]).view(o, i, -1)
            grad_bias[:o, :i] += (scales[k] @ grad).view(o, i)
        return grad_weight, grad_bias, None, None, *grad_features


class ConvDecoder(nn.Module):
    """Predicts a kernel from a node through 1×1 convolutions over the kernel's own positions.

    The first layer yields 4·dim maps of max_shape[2:]; only the window a kernel needs is computed: the
    top-left one for GHN-1 and GHN-2, the central one (`central`) for GHN-3, whose 1×1 convolutions are
    also stored as linear layers.
    """

    def __init__(
        self, dim: int, max_shape: tuple[int, int, int, int], num_classes: int, central: bool = False
    ) -> None:
        super().__init__()
        out, inp, height, width = max_shape
        self.max_shape = max_shape
        self.central = central

        def pointwise(n_in: int, n_out: int) -> nn.Module:
            return nn.Linear(n_in, n_out) if central else nn.Conv2d(n_in, n_out, 1)

        self.fc = nn.Sequential(nn.Linear(dim, 4 * dim * height * width), nn.ReLU())
        self.conv = nn.Sequential(pointwise(4 * dim, 8 * dim), nn.ReLU(), pointwise(8 * dim, out * inp))
        self.class_layer_predictor = nn.Sequential(nn.ReLU(), pointwise(out, num_classes))

    def _hidden(self, x: Tensor, window: tuple[int, int]) -> Tensor:
        """Features of every position of the window: [n, height·width, 8·dim] for x [n, dim]."""
        rows, columns = (
            slice(start, start + size)
            for size, limit in zip(window, self.max_shape[2:], strict=True)
            for start in [limit // 2 - size // 2 if self.central else 0]
        )
        dim = x.shape[1]
        weight, bias = _affine(self.fc[0])
        # Positions in front of channels, so that the next layer reads its input without a transposition.
        weight = weight.view(4 * dim, *self.max_shape[2:], dim)[:, rows, columns]
        bias = bias.view(4 * dim, *self.max_shape[2:])[:, rows, columns]
        x = F.linear(x, weight.permute(1, 2, 0, 3).reshape(-1, dim), bias.permute(1, 2, 0).reshape(-1))
        x = x.relu_().view(len(x), window[0] * window[1], 4 * dim)
        return F.linear(x, *_affine(self.conv[0])).relu_()

    def forward(self, x: Tensor, scale: Tensor, groups: Sequence[KernelGroup]) -> list[Tensor]:
        """x [K, dim], scale [K] → per group [n, *channels, *window], each row times its scale.

        Groups are sorted by window; products of equal channels are taken together over all windows.
        """
        features: dict[tuple[int, int], list[Tensor]] = defaultdict(list)
        scales: dict[tuple[int, int], list[Tensor]] = defaultdict(list)
        for window, members_of_window in groupby(groups, key=lambda group: group.window):
            members = list(members_of_window)
            rows = slice(members[0].start, members[-1].stop)
            sizes = [group.stop - group.start for group in members]
            row_scale = scale[rows, None].expand(-1, window[0] * window[1])
            hidden = self._hidden(x[rows], window) * row_scale[..., None]
            for group, h, s in zip(members, hidden.split(sizes), row_scale.split(sizes), strict=True):
                features[group.channels].append(h.flatten(0, 1))
                scales[group.channels].append(s.flatten())
        weight, bias = _affine(self.conv[2])
        products = _LeadingProducts.apply(
            weight.view(*self.max_shape[:2], -1),
            bias.view(*self.max_shape[:2]),
            tuple(features),
            [torch.cat(parts) for parts in scales.values()],
            *[torch.cat(parts) for parts in features.values()],
        )
        parts = {
            channels: iter(product.split([len(h) for h in features[channels]]))
            for channels, product in zip(features, products, strict=True)
        }
        return [
            next(parts[group.channels]).view(-1, *group.window, *group.channels).permute(0, 3, 4, 1, 2)
            for group in groups
        ]

    def class_weight(self, x: Tensor) -> Tensor:
        """Weights of the classification layers of x [B, dim]: [B, num_classes, max_shape[1]]."""
        kernel = F.linear(self._hidden(x, (1, 1)).squeeze(1), *_affine(self.conv[2]))
        weight, bias = _affine(self.class_layer_predictor[1])
        return weight @ kernel.relu_().view(-1, *self.max_shape[:2]) + bias[:, None]


class MLPDecoder(nn.Module):
    """Predicts all values of a kernel of max_shape with one two-layer perceptron, and keeps its corner."""

    def __init__(self, dim: int, max_shape: tuple[int, int, int, int], num_classes: int) -> None:
        super().__init__()
        out, inp, height, width = max_shape
        self.max_shape = max_shape
        self.mlp = TwoLayer(dim, 2 * dim, out * inp * height * width)
        self.class_layer_predictor = nn.Sequential(nn.ReLU(), nn.Linear(2 * dim, num_classes * inp))

    def forward(self, x: Tensor, scale: Tensor, groups: Sequence[KernelGroup]) -> list[Tensor]:
        """As `ConvDecoder.forward`."""
        hidden = F.linear(x, *_affine(self.mlp.fc[0])).relu_() * scale[:, None]
        weight, bias = _affine(self.mlp.fc[2])
        weight, bias = weight.view(*self.max_shape, -1), bias.view(self.max_shape)
        kernels = []
        for group in groups:
            corner = tuple(slice(size) for size in (*group.channels, *group.window))
            rows = slice(group.start, group.stop)
            offset = torch.outer(scale[rows], bias[corner].reshape(-1))
            kernel = torch.addmm(offset, hidden[rows], weight[corner].flatten(0, 3).t())
            kernels.append(kernel.view(-1, *group.channels, *group.window))
        return kernels

    def class_weight(self, x: Tensor) -> Tensor:
        """As `ConvDecoder.class_weight`."""
        weights: Tensor = self.class_layer_predictor(self.mlp.fc[0](x))
        return weights.view(len(x), -1, self.max_shape[1])


def build_decoder(
    name: str, dim: int, max_shape: tuple[int, int, int, int], num_classes: int, central: bool
) -> ConvDecoder | MLPDecoder:
    """The decoder of kernels called `name`; raises `UnknownName`."""
    if name == "conv":
        return ConvDecoder(dim, max_shape, num_classes, central)
    if name == "mlp":
        return MLPDecoder(dim, max_shape, num_classes)
    raise UnknownName("decoder", name, DECODERS)

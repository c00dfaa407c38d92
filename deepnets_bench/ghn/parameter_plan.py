"""From node states to parameters: which node becomes which tensor, and how it is sized and scaled.

Parameters of one shape are predicted in one pass over the whole batch of graphs. A kernel with more
channels than the decoder's maximum repeats the prediction, one with a larger window resizes it
bilinearly; neither changes what fits.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from deepnets_bench.compiler.primitives import BIAS, BN, LN, POS_ENC
from deepnets_bench.errors import BadInput
from deepnets_bench.ghn.decoders import ConvDecoder, KernelGroup, MLPDecoder
from deepnets_bench.graphs.graph import ComputationGraph

TOKEN_STD = 0.02  # of the random rows of a position embedding that stand for no position


@dataclass
class Plan:
    """Where every parameter of a batch of graphs comes from.

    A slot is the place of a parameter among all parameters of the batch, in node order; `names` holds the
    parameters' names per graph. The nodes of `kernels` are sorted so that each group is contiguous.
    """

    names: list[list[str]] = field(default_factory=list)
    kernel_nodes: list[int] = field(default_factory=list)
    kernel_scale: list[float] = field(default_factory=list)
    kernel_slots: list[int] = field(default_factory=list)
    kernel_groups: list[KernelGroup] = field(default_factory=list)
    vector_nodes: list[int] = field(default_factory=list)
    vectors: list[tuple[int, int, int]] = field(default_factory=list)  # slot, row of the output, size
    class_weights: list[tuple[int, int, tuple[int, ...]]] = field(default_factory=list)  # node, slot, shape
    class_biases: list[tuple[int, int]] = field(default_factory=list)  # node, slot


def make_plan(
    graphs: Sequence[ComputationGraph],
    max_shape: tuple[int, int, int, int],
    num_classes: int,
    weight_norm: bool,
) -> Plan:
    """List what to predict for the nodes of `graphs`, numbered on from graph to graph.

    Raises `BadInput` for a graph whose last layer has not `num_classes` outputs.
    """
    plan = Plan()
    # (shape, kernel form, whether a position encoding) → (node, slot) of each such parameter
    alike: dict[tuple[tuple[int, ...], tuple[int, ...], bool], list[tuple[int, int]]] = defaultdict(list)
    first_node = slot = 0
    for graph in graphs:
        names: list[str] = []
        ops, features = graph.op.tolist(), graph.shape.tolist()
        class_weight, class_bias = graph.class_weight, graph.class_bias
        for v, (name, shape) in enumerate(zip(graph.param_name, graph.param_shape, strict=True)):
            if name is None or shape is None:
                continue
            node, op = first_node + v, ops[v]
            names.append(name)
            if v == class_weight or v == class_bias:
                if shape[0] != num_classes:
                    raise BadInput(
                        f"The hypernetwork predicts classifiers of {num_classes} classes, but {name} has "
                        f"{shape[0]} outputs."
                    )
                if v == class_weight:
                    plan.class_weights.append((node, slot, shape))
                else:
                    plan.class_biases.append((node, slot))
            elif len(shape) == 1:
                row = 2 * len(plan.vector_nodes)
                plan.vector_nodes.append(node)
                plan.vectors.append((slot, row + (op == BIAS), shape[0]))
                if op in (BN, LN):  # one node, two parameters
                    slot += 1
                    names.append(name.removesuffix("weight") + "bias")
                    plan.vectors.append((slot, row + 1, shape[0]))
            else:
                alike[shape, tuple(features[v]), op == POS_ENC].append((node, slot))
            slot += 1
        plan.names.append(names)
        first_node += graph.num_nodes

    for group in sorted(alike, key=lambda group: (*_decoded(group[1], max_shape), group)):
        shape, kernel, is_pos_enc = group
        window, channels = _decoded(kernel, max_shape)
        start = len(plan.kernel_nodes)
        plan.kernel_nodes += [node for node, _ in alike[group]]
        plan.kernel_slots += [slot for _, slot in alike[group]]
        stop = len(plan.kernel_nodes)
        plan.kernel_groups.append(KernelGroup(start, stop, shape, kernel, channels, window))
        scale = kernel_scale(shape) if weight_norm and not is_pos_enc else 1.0
        plan.kernel_scale += [scale] * (stop - start)
    return plan


def _decoded(kernel: tuple[int, ...], max_shape: tuple[int, ...]) -> tuple[tuple[int, int], tuple[int, int]]:
    """The window and the channels of a kernel that the decoder itself predicts."""
    out, inp, height, width = (min(pair) for pair in zip(kernel, max_shape, strict=True))
    return (height, width), (out, inp)


def kernel_scale(shape: tuple[int, ...]) -> float:
    """Factor sqrt(gain / fan_in) of GHN-2 for parameters of two or more dimensions (Knyazev et al. 2021).

    The gain is 2, and 1 for depthwise and wide (1×7) convolutions.
    """
    depthwise_or_wide = len(shape) > 2 and (shape[1] == 1 or (len(shape) == 4 and shape[2] < shape[3]))
    return math.sqrt((1 if depthwise_or_wide else 2) / math.prod(shape[1:]))


def predict_kernels(plan: Plan, x: Tensor, decoder: ConvDecoder | MLPDecoder) -> list[Tensor]:
    """Convolution and linear weights and position embeddings from states x [N, dim], in plan order."""
    predictions = decode_kernels(plan, x, decoder)
    return [
        kernel
        for group, prediction in zip(plan.kernel_groups, predictions, strict=True)
        for kernel in fit(prediction, group).unbind(0)
    ]


def write_kernels(
    plan: Plan, x: Tensor, decoder: ConvDecoder | MLPDecoder, parameters: Sequence[Tensor]
) -> None:
    """As `predict_kernels`, straight into `parameters` in plan order, of any dtype, layout and device."""
    predictions = decode_kernels(plan, x, decoder)
    for group, prediction in zip(plan.kernel_groups, predictions, strict=True):
        of_group = parameters[group.start : group.stop]
        if _is_position_embedding(group):
            for parameter, kernel in zip(of_group, fit(prediction, group), strict=True):
                parameter.copy_(kernel)
            continue
        for parameter, kernel in zip(of_group, _resize(prediction, group), strict=True):
            linear = parameter.ndim == 2
            _tile(parameter[:, :, None, None] if linear else parameter, kernel)


def decode_kernels(plan: Plan, x: Tensor, decoder: ConvDecoder | MLPDecoder) -> list[Tensor]:
    """The decoder's predictions per group of the plan, not yet of full size: [n, *channels, *window]."""
    nodes = torch.tensor(plan.kernel_nodes, dtype=torch.long, device=x.device)
    scale = torch.tensor(plan.kernel_scale, device=x.device, dtype=x.dtype)
    return decoder(x.index_select(0, nodes), scale, plan.kernel_groups)


def fit(prediction: Tensor, group: KernelGroup) -> Tensor:
    """Bring predictions [n, *channels, *window] to the full shape: [n, *shape]."""
    prediction = _resize(prediction, group)
    if group.channels != group.kernel[:2]:
        prediction = _Tile.apply(prediction, *group.kernel[:2])
    if _is_position_embedding(group):
        rows = prediction.flatten(3).transpose(2, 3)
        tokens = torch.randn_like(rows[:, :, : group.shape[1] - rows.shape[2]]) * TOKEN_STD
        return torch.cat([tokens, rows], 2).flatten(0, 1)[:, None]
    return prediction.reshape(-1, *group.shape)


def _resize(prediction: Tensor, group: KernelGroup) -> Tensor:
    """Bring the windows of predictions [n, *channels, *window] to full size; contiguous."""
    window = group.kernel[2:]
    if group.window != window:
        flat = F.interpolate(prediction.flatten(0, 1), window, mode="bilinear", align_corners=False)
        prediction = flat.unflatten(0, (-1, group.channels[0]))
    return prediction if window == (1, 1) else prediction.contiguous()


def _tile(target: Tensor, kernel: Tensor) -> None:
    """Repeat kernels [..., o, i, h, w] along o and i until they fill the target."""
    for top, bottom, o in _spans(target.shape[-4], kernel.shape[-4]):
        for left, right, i in _spans(target.shape[-3], kernel.shape[-3]):
            block = target[..., top:bottom, left:right, :, :].unflatten(-3, (-1, i)).unflatten(-5, (-1, o))
            block.copy_(kernel[..., None, :o, None, :i, :, :])


def _spans(size: int, period: int) -> list[tuple[int, int, int]]:
    """Where whole repetitions and where a rest of `period` elements lie: (start, stop, elements of each)."""
    whole = size - size % period
    return [(a, b, c) for a, b, c in ((0, whole, period), (whole, size, size - whole)) if b > a]


class _Tile(torch.autograd.Function):
    """Repeat kernels [n, o, i, ...] along o and i up to `out` and `inp`, in one copy.

    The gradient is summed tile by tile, which is several times faster than a sum over an expanded view.
    """

    @staticmethod
    def forward(ctx: Any, kernel: Tensor, out: int, inp: int) -> Tensor:
        ctx.kernel_shape = kernel.shape
        tiled = kernel.new_empty(len(kernel), out, inp, *kernel.shape[3:])
        _tile(tiled, kernel)
        return tiled

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        total = grad.new_zeros(ctx.kernel_shape)
        for tile in _tiles(grad, ctx.kernel_shape):
            total[:, : tile.shape[1], : tile.shape[2]] += tile
        return total, None, None


def _tiles(tensor: Tensor, shape: Sequence[int]) -> list[Tensor]:
    return [tile for rows in tensor.split(shape[1], 1) for tile in rows.split(shape[2], 2)]


def _is_position_embedding(group: KernelGroup) -> bool:
    """True for (1, n, d), decoded as (1, d, √n, √n)."""
    return len(group.shape) == 3 and group.shape[1] > 1 and group.shape[2] == group.kernel[1]


def predict_vectors(plan: Plan, outputs: Tensor, weight_norm: bool) -> tuple[Tensor, ...]:
    """Norm weights and biases from the 1-D decoder's outputs [V, 2, size], in plan order.

    Longer vectors repeat the prediction.
    """
    if weight_norm:
        outputs = torch.stack([2 * torch.sigmoid(outputs[:, 0] / 2), torch.tanh(0.2 * outputs[:, 1])], 1)
    width = outputs.shape[2]
    rows, sizes = np.array([(row, size) for _, row, size in plan.vectors], np.int64).reshape(-1, 2).T
    offsets = np.arange(sizes.sum()) - np.repeat(sizes.cumsum() - sizes, sizes)
    index = torch.from_numpy(np.repeat(rows * width, sizes) + offsets % width)
    vectors = outputs.flatten().index_select(0, index.to(outputs.device))
    return torch.split(vectors, sizes.tolist())


def predict_class_weights(
    plan: Plan, x: Tensor, decoder: ConvDecoder | MLPDecoder, weight_norm: bool
) -> list[Tensor]:
    """Weights of the last layers [num_classes, in, ...] from states x [N, dim], in plan order."""
    if not plan.class_weights:
        return []
    nodes = torch.tensor([node for node, _, _ in plan.class_weights], device=x.device)
    predictions = decoder.class_weight(x.index_select(0, nodes)).unbind(0)
    weights = []
    for weight, (_, _, shape) in zip(predictions, plan.class_weights, strict=True):
        inputs = math.prod(shape[1:])
        if inputs > weight.shape[1]:
            weight = weight.repeat(1, -(-inputs // weight.shape[1]))
        weight = weight[:, :inputs].reshape(shape)
        weights.append(weight * kernel_scale(shape) if weight_norm else weight)
    return weights


def assemble(plan: Plan, slots: Sequence[int], tensors: Sequence[Tensor]) -> list[dict[str, Tensor]]:
    """Sort predictions by slot into one dict of name → tensor per graph, in node order."""
    by_slot = dict(zip(slots, tensors, strict=True))
    count = itertools.count()
    return [{name: by_slot[next(count)] for name in names} for names in plan.names]

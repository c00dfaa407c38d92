"""The oracle of the decoders: one tensor at a time, by the rules of the published code."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from deepnets_bench.compiler.primitives import BIAS, BN, LN, POS_ENC
from deepnets_bench.ghn.model import GHN
from deepnets_bench.graphs.graph import ComputationGraph


def predict(ghn: GHN, graph: ComputationGraph, states: Tensor) -> dict[str, Tensor]:
    """All parameters of one graph from its node states [N, hid], for a GHN with the conv decoder."""
    params = {}
    for node, (name, shape) in enumerate(zip(graph.param_name, graph.param_shape, strict=True)):
        if name is None:
            continue
        x, op = states[node], graph.op[node]
        rows = ghn.decoder_1d(x).view(2, -1)
        if node == graph.class_bias:
            params[name] = normalise(ghn, "bias", ghn.bias_class(rows[1]), op)
        elif op == BIAS:
            params[name] = normalise(ghn, "bias", tiled(rows[1], shape), op)
        elif op in (BN, LN):
            params[name] = normalise(ghn, "weight", tiled(rows[0], shape), op)
            bias = normalise(ghn, "bias", tiled(rows[1], shape), op)
            params[name.removesuffix("weight") + "bias"] = bias
        elif node == graph.class_weight:
            full = kernel(ghn, x, 1, 1)[None].relu()
            weight = ghn.decoder.class_layer_predictor[1](full[:, :, :, 0])[0, :, :, 0]
            params[name] = normalise(ghn, "weight", tiled(weight, shape), op)
        else:
            out, inp, height, width = graph.shape[node].tolist()
            full = kernel(ghn, x, height, width)
            if full.shape[2:] != (height, width):
                full = F.interpolate(full, (height, width), mode="bilinear")
            weight = tiled(full, (out, inp, height, width)).reshape(shape)
            params[name] = normalise(ghn, "weight", weight, op)
    return params


def kernel(ghn: GHN, x: Tensor, height: int, width: int) -> Tensor:
    """All channels of the top-left height×width of what the decoder can predict."""
    out, inp, limit, _ = ghn.config.max_shape
    maps = ghn.decoder.fc(x).view(1, -1, limit, limit)[:, :, :height, :width]
    return ghn.decoder.conv(maps).reshape(out, inp, *maps.shape[2:])


def tiled(tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    for dim, size in enumerate(shape[:2]):
        tensor = tensor.index_select(dim, torch.arange(size) % tensor.shape[dim])
    return tensor


def normalise(ghn: GHN, kind: str, tensor: Tensor, op: int) -> Tensor:
    if not ghn.config.weight_norm or op == POS_ENC:
        return tensor
    if kind == "bias":
        return torch.tanh(0.2 * tensor)
    if tensor.dim() == 1:
        return 2 * torch.sigmoid(tensor / 2)
    gain = 1 if tensor.dim() >= 3 and (tensor.shape[1] == 1 or tensor.shape[2] < tensor.shape[3]) else 2
    return tensor * math.sqrt(gain / math.prod(tensor.shape[1:]))

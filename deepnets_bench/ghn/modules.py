"""Predict the parameters of any torch module: into the module itself, or as new tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from deepnets_bench.dataset import GraphBatch
from deepnets_bench.errors import BadInput
from deepnets_bench.ghn.config import GHNConfig
from deepnets_bench.ghn.model import GHN
from deepnets_bench.ghn.shapes import MAX_CHANNELS
from deepnets_bench.graph import ComputationGraph
from deepnets_bench.trace import Trace, trace


@dataclass(frozen=True)
class Prediction:
    """Which parameters of a module were predicted, which were left (name → why), and remarks on the fit."""

    predicted: list[str]
    left: dict[str, str]
    num_nodes: int
    notes: list[str]


def initialize(ghn: GHN, module: nn.Module, input_shape: tuple[int, int, int]) -> Prediction:
    """`GHN.initialize`."""
    traced = trace(module, input_shape)
    params = {name: p for name, p in module.named_parameters() if name not in traced.left}
    for name, parameter in params.items():
        if parameter.is_meta:
            raise BadInput(
                f"Parameter '{name}' is on the meta device, which holds no values; "
                "call module.to_empty(device='cpu') first."
            )
    ghn.write(traced.graph, params)
    return _report(ghn, traced, list(params))


@torch.no_grad()
def predict(
    ghn: GHN, module: nn.Module, input_shape: tuple[int, int, int]
) -> tuple[dict[str, Tensor], Prediction]:
    """As `GHN.initialize`, but into new tensors (name → tensor); the module may be on the meta device."""
    traced = trace(module, input_shape)
    batch = GraphBatch.from_graphs([traced.graph], virtual_edges=ghn.virtual_edges)
    params = ghn(batch.to(ghn.embed.weight.device))[0]
    names = [name for name, _ in module.named_parameters() if name not in traced.left]
    return {name: params[name] for name in names}, _report(ghn, traced, names)


def _report(ghn: GHN, traced: Trace, predicted: list[str]) -> Prediction:
    notes = _notes(ghn.config, _sizes(traced.graph, predicted))
    return Prediction(predicted, traced.left, traced.graph.num_nodes, notes)


def _sizes(graph: ComputationGraph, names: Sequence[str]) -> np.ndarray:
    """(out, in, height, width) [parameters, 4] that the decoder has to reach for the parameters `names`."""
    rows = graph.shape.copy()
    for node in (graph.class_weight, graph.class_bias):
        if node >= 0:
            rows[node, 0] = 1  # the outputs of a classifier have a decoder of their own
    node_of = {name: node for node, name in enumerate(graph.param_name)}
    norm_weights = (name.removesuffix("bias") + "weight" for name in names)
    nodes = [n if n in node_of else w for n, w in zip(names, norm_weights, strict=True)]
    return rows[[node_of[name] for name in nodes]]


def _notes(config: GHNConfig, sizes: np.ndarray) -> list[str]:
    """What of a network exceeds the sizes that the hypernetwork knows, a sentence each."""
    out, inp, height, width = config.max_shape
    found = (
        (
            sizes[:, :2] > MAX_CHANNELS,
            f"have more than {MAX_CHANNELS} channels, the most that the shape encoder tells apart.",
        ),
        (
            sizes[:, :2] > (out, inp),
            f"have more channels than the {out}×{inp} that the decoder predicts, which are repeated.",
        ),
        (
            sizes[:, 2:] > (height, width),
            f"have larger windows than the decoder's {height}×{width}, which is stretched to fit.",
        ),
    )
    counts = ((int(exceeds.any(1).sum()), what) for exceeds, what in found)
    return [f"{count} of {len(sizes)} parameters {what}" for count, what in counts if count]

"""Computation graph of any image network: the forward pass runs once on tensors without data."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from deepnets_bench.errors import BadInput
from deepnets_bench.graph import ComputationGraph
from deepnets_bench.origins import Features, Node, Parameter, set_value, skip_folded, value_of
from deepnets_bench.primitives import PRIMITIVES
from deepnets_bench.recorder import Recorder


@dataclass(frozen=True)
class Trace:
    """The graph of a module, and the parameters it has no node for: name → why."""

    graph: ComputationGraph
    left: dict[str, str]


def trace(module: nn.Module, input_shape: Sequence[int] = (3, 32, 32)) -> Trace:
    """Trace `module` on one image tensor of `input_shape` (channels, height, width).

    The module is run in evaluation mode on meta tensors, so nothing is computed, and is left as it was.
    Operations that are no primitive of DeepNets-1M fold into their producer; parametrised ones that the
    primitives cannot describe (group normalisation, relative position tables, ...) are listed in `left`. A
    classifier without a bias has `class_bias` -1, and a module that does not end in a linear layer also
    `class_weight` -1.
    Node rules: https://arxiv.org/abs/2110.13100, appendix A, with position embeddings as in
    https://arxiv.org/abs/2303.04143. Raises `BadInput` for a module that has no graph of this kind.
    """
    shape = _image_shape(input_shape)
    parameters = _parameters(module)
    dtype = next(iter(parameters.values())).dtype
    recorder = Recorder()
    with _evaluation_mode(module), torch.inference_mode():
        state: dict[str, Tensor] = {name: buffer.clone() for name, buffer in module.named_buffers()}
        for name, parameter in parameters.items():
            state[name] = torch.empty_like(parameter, device="meta", requires_grad=False)
            set_value(state[name], Parameter(frozenset({name}), tuple(parameter.shape)))
        # Two images: batch statistics of a 1×1 feature map need more than one value per channel.
        images = torch.empty((2, *shape), dtype=dtype, device="meta")
        set_value(images, Features((recorder.add("input", ()),)))
        try:
            with recorder:
                output = torch.func.functional_call(module, state, (images,))
        except BadInput:
            raise
        except Exception as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise BadInput(
                f"{type(module).__name__} could not be traced on images of shape {shape}: {reason}"
            ) from error
    features = next(_features(output), None)
    if features is None:
        raise BadInput(f"The output of {type(module).__name__} does not depend on the input image.")
    return _finish(recorder, recorder.producer(features), parameters)


def _finish(recorder: Recorder, output: Node, parameters: dict[str, nn.Parameter]) -> Trace:
    """Prune to the ancestors of the output and lay the nodes out as arrays."""
    nodes = recorder.nodes
    for node in nodes:
        node.inputs = list(dict.fromkeys(map(skip_folded, node.inputs)))
    output = _classifier_last(nodes, skip_folded(output))
    keep, pending = {output}, [output]
    while pending:
        for source in pending.pop().inputs:
            if source not in keep:
                keep.add(source)
                pending.append(source)
    nodes = [node for node in nodes if node in keep]
    index = {node: i for i, node in enumerate(nodes)}
    edges = [
        (source, target)
        for target, node in enumerate(nodes)
        for source in sorted(index[source] for source in node.inputs)
    ]
    covered = {name for node in nodes for name in (node.name, node.bias) if name is not None}
    if not covered:
        raise BadInput("No parameter between the input image and the output has a node type in DeepNets-1M.")
    left = {
        name: recorder.left.get(name, "does not contribute to the output")
        for name in parameters
        if name not in covered
    }
    cell: dict[Node, int] = {}
    for node in nodes:
        match = re.match(r"cells\.(\d+)\.", node.name or "")
        cell[node] = int(match[1]) if match else max((cell[source] for source in node.inputs), default=0)
    last = output.inputs[0] if output.op == "bias" else output
    graph = ComputationGraph(
        op=np.array([PRIMITIVES.index(node.op) for node in nodes], dtype=np.uint8),
        cell=np.array([cell[node] for node in nodes], dtype=np.int16),
        param_name=[node.name for node in nodes],
        param_shape=[node.shape for node in nodes],
        shape=np.array([_feature_shape(node) for node in nodes], dtype=np.int64),
        edge_index=np.array(edges, dtype=np.int64).reshape(-1, 2).T.copy(),
        class_weight=index[last] if last.op == "conv" else -1,
        class_bias=index[output] if output.op == "bias" else -1,
    )
    return Trace(graph, left)


def _classifier_last(nodes: list[Node], output: Node) -> Node:
    """Move the mean that follows a 1×1 convolution as classifier (SqueezeNet) in front of it, as GHN-3 does.

    Mean and classifier commute, and the last nodes are then the classifier's weight and bias.
    """
    if output.op != "glob_avg":
        return output
    pool, (last,) = output, output.inputs
    weight = last.inputs[0] if last.op == "bias" else last
    if weight.op != "conv" or math.prod((weight.shape or ())[2:]) > 1:
        return output
    pool.inputs, weight.inputs = weight.inputs, [pool]
    nodes.remove(pool)
    nodes.insert(nodes.index(weight), pool)
    return last


def _feature_shape(node: Node) -> tuple[int, int, int, int]:
    """The row of `ComputationGraph.shape`; n position embeddings are a square map of side ⌊√n⌋."""
    if node.op in ("max_pool", "avg_pool"):
        return 1, 1, 3, 3
    if node.shape is None:
        return 0, 0, 0, 0
    if node.op == "pos_enc" and len(node.shape) == 3:
        _, length, channels = node.shape
        return 1, channels, math.isqrt(length), math.isqrt(length)
    a, b, c, d = (*node.shape, 1, 1, 1)[:4]
    return a, b, c, d


def _features(output: Any) -> Iterator[Features]:
    """Values of the tensors in a module's output, the logits of a structured output first."""
    if isinstance(output, Tensor):
        value = value_of(output)
        if isinstance(value, Features):
            yield value
    elif hasattr(output, "logits"):
        yield from _features(output.logits)
    elif isinstance(output, (list, tuple, dict)):
        for item in output.values() if isinstance(output, dict) else output:
            yield from _features(item)


def _image_shape(input_shape: Sequence[int]) -> tuple[int, int, int]:
    shape = tuple(input_shape) if isinstance(input_shape, Sequence) else ()
    if len(shape) != 3 or not all(isinstance(n, int) and n > 0 for n in shape):
        raise BadInput(
            "input_shape must be three positive whole numbers (channels, height, width), "
            f"not {input_shape!r}."
        )
    return shape


def _parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    if not isinstance(module, nn.Module):
        raise BadInput(f"Only a torch.nn.Module can be traced, not {type(module).__name__}.")
    parameters = dict(module.named_parameters())
    if not parameters:
        raise BadInput(f"{type(module).__name__} has no parameters, so there is nothing to predict.")
    for name, parameter in parameters.items():
        if isinstance(parameter, nn.parameter.UninitializedParameter):
            raise BadInput(f"Parameter '{name}' is not initialised; run the lazy module once first.")
        if not parameter.is_floating_point():
            raise BadInput(
                f"Parameter '{name}' is {parameter.dtype}; parameters must be real floating-point."
            )
    return parameters


@contextmanager
def _evaluation_mode(module: nn.Module) -> Iterator[None]:
    training = {m: m.training for m in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for m, flag in training.items():
            m.training = flag

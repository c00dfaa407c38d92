"""Computation graph of any image network: the forward pass runs once on tensors without data."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from deepnets_bench.compiler.primitives import PRIMITIVES
from deepnets_bench.errors import BadInput
from deepnets_bench.graphs.tracing.reasons import UNUSED
from deepnets_bench.graphs.tracing.recorder import Recorder
from deepnets_bench.graphs.tracing.reparametrised import Reparametrised, find, replaced
from deepnets_bench.graphs.tracing.values import Features, Node, Parameter, set_value, skip_folded, value_of


@dataclass(frozen=True, eq=False)
class Trace:
    """The graph of a module as arrays, those of `ComputationGraph`.

    `left` holds the parameters without a node: name → why.
    """

    op: np.ndarray
    cell: np.ndarray
    param_name: list[str | None]
    param_shape: list[tuple[int, ...] | None]
    shape: np.ndarray
    edge_index: np.ndarray
    class_weight: int
    class_bias: int
    left: dict[str, str]


@dataclass(frozen=True)
class Output:
    """A tensor among a module's outputs."""

    features: Features
    shape: tuple[int, ...]


_LOGITS = ("logits", "out")  # names of the main output among several
_DEPTH = 4  # of outputs inside outputs


def trace(module: nn.Module, input_shape: Sequence[int] = (3, 32, 32)) -> Trace:
    """Trace `module` on one image tensor of `input_shape` (channels, height, width).

    The module is run in evaluation mode on meta tensors, so nothing is computed, and is left as it was.
    Operations that are no primitive of DeepNets-1M fold into their producer; parameters that the primitives
    cannot describe (group normalisation, relative position tables, ...) are in `left` with the reason. All
    outputs of a module are traced: those of tuples, dicts and dataclasses.

    A weight that PyTorch's weight norm, spectral norm, parametrizations or pruning compute is a parameter of
    its own ("conv.weight"). A parameter used twice is the weight of its first node; the other nodes have its
    shape, and no name. So have nodes whose weight is computed in the forward pass, unless that standardises
    it (weight standardisation).

    The classifier is a linear layer whose outputs [batch, classes] are an output of the module, or a 1×1
    convolution in its place, which may stand in front of the global mean; without a bias it has `class_bias`
    -1, and a module without one also `class_weight` -1.
    Node rules: https://arxiv.org/abs/2110.13100, with position embeddings as in
    https://arxiv.org/abs/2303.04143. Raises `BadInput` for a module that has no graph of this kind.
    """
    shape = _image_shape(input_shape)
    parameters = _parameters(module)
    computed = find(module)
    with _evaluation_mode(module), torch.inference_mode():
        try:
            recorder, output = _record(module, parameters, computed.values(), shape)
        except BadInput:
            raise
        except Exception as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise BadInput(
                f"{type(module).__name__} could not be traced on images of shape {shape}: {reason}"
            ) from error
    outputs = list(_outputs(output))
    if not outputs:
        raise BadInput(f"The output of {type(module).__name__} does not depend on the input image.")
    sources = {source: weight.name for weight in computed.values() for source in weight.sources}
    return _finish(recorder, outputs, {name: sources.get(name, name) for name in parameters})


def _record(
    module: nn.Module,
    parameters: dict[str, nn.Parameter],
    computed_weights: Iterable[Reparametrised],
    shape: tuple[int, int, int],
) -> tuple[Recorder, Any]:
    """Run the module on meta tensors; returns the record and the output."""
    computed = {weight: _like(weight.value()) for weight in computed_weights}
    state = {name: _like(parameter) for name, parameter in parameters.items()}
    tensors = state | {weight.name: tensor for weight, tensor in computed.items()}
    for name, tensor in tensors.items():
        set_value(tensor, Parameter(frozenset({name}), tuple(tensor.shape)))
    recorder = Recorder({name: tuple(tensor.shape) for name, tensor in tensors.items()})
    # Two images: batch statistics of a 1×1 feature map need more than one value per channel.
    dtype = next(iter(parameters.values())).dtype
    images = torch.empty((2, *shape), dtype=dtype, device="meta")
    set_value(images, Features((recorder.add("input", ()),)))
    state |= {name: buffer.clone() for name, buffer in module.named_buffers()}
    with replaced(computed), recorder:
        return recorder, torch.func.functional_call(module, state, (images,))


def _finish(recorder: Recorder, outputs: list[Output], parameters: dict[str, str]) -> Trace:
    """Prune to the ancestors of the outputs and lay the nodes out as arrays.

    `parameters` names for every parameter the weight that it is or from which that is computed.
    """
    nodes = recorder.nodes
    ends = [recorder.producer(output.features) for output in outputs]
    for node in nodes:
        node.inputs = list(dict.fromkeys(map(skip_folded, node.inputs)))
    classifier, ends = _find_classifier(nodes, outputs, [skip_folded(end) for end in ends])
    keep, pending = set(ends), ends
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
        name: recorder.left.get(weight) or recorder.left.get(name) or _unread(name)
        for name, weight in parameters.items()
        if weight not in covered and name not in covered
    }
    cell: dict[Node, int] = {}
    for node in nodes:
        match = re.match(r"cells\.(\d+)\.", node.name or "")
        cell[node] = int(match[1]) if match else max((cell[source] for source in node.inputs), default=0)
    weight, bias = classifier
    return Trace(
        op=np.array([PRIMITIVES.index(node.op) for node in nodes], dtype=np.uint8),
        cell=np.array([cell[node] for node in nodes], dtype=np.int16),
        param_name=[node.name for node in nodes],
        param_shape=[node.shape if node.name else None for node in nodes],
        shape=np.array([_feature_shape(node) for node in nodes], dtype=np.int64),
        edge_index=np.array(edges, dtype=np.int64).reshape(-1, 2).T.copy(),
        class_weight=index[weight] if weight else -1,
        class_bias=index[bias] if bias else -1,
        left=left,
    )


def _find_classifier(
    nodes: list[Node], outputs: list[Output], ends: list[Node]
) -> tuple[tuple[Node | None, Node | None], list[Node]]:
    """Weight and bias of the classifier, and the nodes that end in the outputs."""
    candidates = []
    for position, (output, end) in enumerate(zip(outputs, ends, strict=True)):
        last = end.inputs[0] if _is_pooled_classifier(nodes, end) else end
        weight = last.inputs[0] if last.op == "bias" else last
        if weight.op == "conv" and _is_logits(output.shape, weight):
            candidates.append((len(weight.shape or ()), position, weight, last))
    if not candidates:
        return (None, None), ends
    _, position, weight, last = min(candidates, key=lambda candidate: candidate[:2])  # linear layers first
    if ends[position] is not last:
        _move_in_front(nodes, ends[position], weight)
        ends[position] = last
    return (weight, last if last.op == "bias" else None), ends


def _is_logits(shape: tuple[int, ...], weight: Node) -> bool:
    """True for an output [batch, classes] or [batch, classes, 1, 1] of a linear layer or 1×1 convolution."""
    sizes = weight.shape or ()
    return shape[1:2] == sizes[:1] and math.prod(shape[2:]) == math.prod(sizes[2:]) == 1


def _is_pooled_classifier(nodes: list[Node], end: Node) -> bool:
    """True for a mean that reads a 1×1 convolution (SqueezeNet), where nothing else reads either."""
    if end.op != "glob_avg":
        return False
    last = end.inputs[0]
    weight = last.inputs[0] if last.op == "bias" else last
    is_pointwise = weight.op == "conv" and math.prod((weight.shape or ())[2:]) == 1
    return is_pointwise and not any(
        {end, last} & set(node.inputs) for node in nodes if node not in (end, last)
    )


def _move_in_front(nodes: list[Node], pool: Node, weight: Node) -> None:
    """Move the mean in front of the classifier, as GHN-3 does: they commute, and the classifier is last."""
    pool.inputs, weight.inputs = weight.inputs, [pool]
    nodes.remove(pool)
    nodes.insert(nodes.index(weight), pool)


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


def _outputs(output: Any, depth: int = 0) -> Iterator[Output]:
    """The tensors in a module's output that depend on the image, logits first."""
    if isinstance(output, Tensor):
        value = value_of(output)
        if isinstance(value, Features):
            yield Output(value, tuple(output.shape))
    if isinstance(output, Tensor) or depth > _DEPTH:
        return
    if isinstance(output, Mapping):
        parts = dict(output)
    elif hasattr(output, "_asdict"):
        parts = output._asdict()
    elif isinstance(output, (list, tuple)):
        parts = dict(enumerate(output))
    elif is_dataclass(output):
        parts = {field.name: getattr(output, field.name) for field in fields(output)}
    else:
        parts = dict(getattr(output, "__dict__", {}))
    for name in sorted(parts, key=lambda name: name not in _LOGITS):
        yield from _outputs(parts[name], depth + 1)


def _unread(name: str) -> str:
    inside = re.search(r"(.*)\bparametrizations\.(\w+)\.", name)
    return f"a setting of the parametrization of '{inside[1]}{inside[2]}'" if inside else UNUSED


def _like(tensor: Tensor) -> Tensor:
    return torch.empty_like(tensor, device="meta", requires_grad=False)


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


_NAMED = 3  # reasons in a warning


def warn_of_left(left: Mapping[str, str], stacklevel: int = 3) -> None:
    """Warn of the parameters of a module that are no part of its graph, with the first reasons."""
    if not left:
        return
    by_reason: dict[str, list[str]] = {}
    for name, reason in left.items():
        by_reason.setdefault(reason, []).append(name)
    listed = [
        f"{names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''}: {reason}"
        for reason, names in list(by_reason.items())[:_NAMED]
    ]
    more = f"; and {len(by_reason) - _NAMED} more reasons" if len(by_reason) > _NAMED else ""
    parameters = "1 parameter is" if len(left) == 1 else f"{len(left)} parameters are"
    warnings.warn(f"{parameters} no part of the graph ({'; '.join(listed)}{more}).", UserWarning, stacklevel)

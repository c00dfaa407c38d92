"""What a forward pass on meta tensors does, recorded as nodes: the lower half of `trace`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from deepnets_bench.errors import BadInput
from deepnets_bench.origins import (
    Call,
    Features,
    Node,
    Parameter,
    Value,
    set_value,
    skip_folded,
    tensors_in,
    value_of,
)

# Reasons for leaving a parameter to its own initialisation, which published hypernetworks also do.
LAYER_SCALE = "layer scale, keeps its initial value"
CLASS_TOKEN = "token joined to the sequence, keeps its initial value"

_NORM = {
    **dict.fromkeys(("batch_norm", "native_batch_norm", "_native_batch_norm_legit_no_training"), "bn"),
    **dict.fromkeys(("layer_norm", "native_layer_norm"), "ln"),
}
_MATMUL = ("matmul", "mm", "bmm", "einsum", "baddbmm", "addmm")
_SOFTMAX = ("softmax", "_softmax", "_safe_softmax", "special_softmax")
_TRANSPOSE = ("t", "transpose", "permute", "numpy_T", "mT")
# Change neither which parameter a tensor is nor its layout up to strides; other views come by their schema.
_COPY = ("clone", "_to_copy", "to", "contiguous", "expand", "alias", "detach")
# Return a view or a copy, so what is written into the result need not reach the argument.
_MAY_COPY = ("reshape", "flatten", "contiguous", "to")
_READ_VALUE = ("item", "_local_scalar_dense", "is_nonzero", "equal", "nonzero", "masked_select")
# How an operation joins feature maps of several producers; any other operation that does so counts as a sum.
_JOIN = {
    "mul": "cse",
    "div": "cse",
    **dict.fromkeys(("cat", "concat", "stack", "hstack", "copy", "index_put", "slice_scatter"), "concat"),
}


class Recorder(TorchDispatchMode):
    """Writes a node for every primitive that runs under it.

    What a tensor comes from is kept on the tensor itself, so a freed tensor cannot be mistaken for a new one.
    """

    def __init__(self) -> None:
        super().__init__()
        self.nodes: list[Node] = []
        self.left: dict[str, str] = {}
        self._used: set[str] = set()
        handlers: dict[Callable[[Call], Value | None], tuple[str, ...]] = {
            self._layer: ("conv2d", "convolution", "linear"),
            self._matmul: _MATMUL,
            self._norm: tuple(_NORM),
            self._pool: ("max_pool2d", "max_pool2d_with_indices", "avg_pool2d", "adaptive_max_pool2d"),
            self._adaptive_pool: ("adaptive_avg_pool2d", "_adaptive_avg_pool2d"),
            self._mean: ("mean",),
            self._softmax: _SOFTMAX,
            self._attention: ("scaled_dot_product_attention",),
            self._add: ("add",),
        }
        self._handlers = {op: handler for handler, ops in handlers.items() for op in ops}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        tensors = list(tensors_in((*args, *kwargs.values())))
        if not any(t.is_meta for t in tensors):
            return func(*args, **kwargs)
        schema = func._schema
        op = schema.name.split("::")[1]
        if op in _READ_VALUE:
            raise BadInput(
                f"The forward pass reads the values of a tensor (operation '{op}'), so the operations that "
                "follow depend on the image and have no fixed graph."
            )
        target = schema.arguments[0].alias_info
        writes = target is not None and target.is_write
        if writes and not tensors[0].is_meta:
            raise BadInput(
                f"The forward pass writes features into a tensor on the CPU (operation '{op}'); create that "
                "tensor on the device of the input, for example with x.new_zeros(...)."
            )
        if not all(t.is_meta for t in tensors):  # constants of the module
            args, kwargs = tree_map_only(Tensor, lambda t: t.to("meta"), (args, kwargs))
        bound = dict(zip((a.name for a in schema.arguments), args, strict=False)) | kwargs
        output = _shape_only(op, bound)
        if output is None:
            output = func(*args, **kwargs)
        alias = schema.returns[0].alias_info if schema.returns else None
        is_view = alias is not None and not alias.is_write
        call = Call(op.rstrip("_"), bound, tensors, output, is_view)
        handler = self._handlers.get(call.op)
        value = (handler(call) if handler else None) or self._fold(call)
        if value is not None:
            for tensor in tensors_in((output,)):
                set_value(tensor, value)
            if writes:
                self._update_viewed(tensors[0], value)
        if is_view and call.op not in _MAY_COPY:
            for tensor in tensors_in((output,)):
                if tensor is not tensors[0]:
                    tensor._viewed = getattr(tensors[0], "_viewed", tensors[0])  # type: ignore[attr-defined]
        return output

    def _update_viewed(self, view: Tensor, value: Value) -> None:
        """After an in-place change of a view, the tensor it views comes from the new value too."""
        whole = getattr(view, "_viewed", None)
        if whole is None or not isinstance(value, Features):
            return
        before = value_of(whole)
        if isinstance(before, Features) and whole.numel() > view.numel():
            value = self._join("concat", [before, value])
        set_value(whole, value)

    def add(self, op: str, inputs: Iterable[Node], parameter: Parameter | None = None) -> Node:
        node = Node(op, list(inputs))
        if parameter is not None:
            node.name, node.shape = parameter.name, parameter.shape
            if node.name in self._used:
                raise BadInput(
                    f"Parameter '{node.name}' is shared: the forward pass uses it more than once, and a "
                    "graph has one node for each parameter."
                )
            self._used.add(node.name)
        self.nodes.append(node)
        return node

    def producer(self, features: Features) -> Node:
        """The node a tensor comes from; a product of query and key that was never attended to becomes one."""
        if len(features.sources) > 1:
            return self.add("msa", features.sources)
        return features.sources[0]

    def _join(self, op: str, values: Sequence[Features]) -> Features:
        """A node of type `op`, or no node where all values have one producer."""
        sources = list(dict.fromkeys(self.producer(value) for value in values))
        if len(sources) == 1:
            return Features((sources[0],))
        if op == "cse":
            for gate, scaled in (sources, reversed(sources)) if len(sources) == 2 else ():
                _fold_squeeze(gate, scaled)
        return Features((self.add(op, sources),))

    def _fold(self, call: Call) -> Value | None:
        values = [value for value in map(value_of, call.tensors) if value is not None]
        features = list(dict.fromkeys(value for value in values if isinstance(value, Features)))
        parameters = [value for value in values if isinstance(value, Parameter)]
        is_constant = call.op.startswith("new_") or call.op.endswith("_like")  # takes a shape, not values
        if not values or is_constant:
            return None
        if not features:
            if len(parameters) == 1 and (call.is_view or call.op in _COPY):
                return _viewed_parameter(parameters[0], call)
            return Parameter(frozenset().union(*(p.names for p in parameters)))
        for parameter in parameters:
            reason = _reason_left(parameter, call)
            self.left.update(dict.fromkeys(parameter.names, reason))
        if call.op == "copy" and value_of(call.args.get("src")) is not None:
            features = [f for f in features if f is value_of(call.args["src"])]
        if len(features) == 1:
            return features[0]
        if any(
            len(f.sources) > 1 for f in features
        ):  # scores of attention, plus biases that depend on queries
            return _union(features, softmax=any(f.softmax for f in features))
        return self._join(_JOIN.get(call.op, "sum"), features)

    def _weight_and_bias(
        self, call: Call, op: str, features: Features, weight: Parameter, bias: str
    ) -> Features:
        node = self.add(op, [self.producer(features)], weight)
        given = value_of(call.args.get(bias))
        if isinstance(given, Parameter):
            if given.shape:
                node = self.add("bias", [node], given)
            else:
                self.left.update(dict.fromkeys(given.names, "bias computed from other parameters"))
        return Features((node,))

    def _layer(self, call: Call) -> Value | None:
        """A convolution of images or a linear layer."""
        features, weight = call.features("input"), call.parameter("weight")
        if features is None or weight is None or weight.ndim not in (2, 4) or call.args.get("transposed"):
            return None
        op = "conv"
        if call.args.get("groups", 1) > 1:
            op = "dil_conv" if max(_pair(call.args["dilation"])) > 1 else "sep_conv"
        return self._weight_and_bias(call, op, features, weight, "bias")

    def _matmul(self, call: Call) -> Value | None:
        """A linear layer written out, the scores of attention, or attention."""
        left = "mat1" if call.op == "addmm" else "self"
        right = "other" if call.op == "matmul" else "mat2"
        features, weight = call.features(left), call.parameter(right, transposed=True)
        if features is not None and weight is not None:
            return self._weight_and_bias(call, "conv", features, weight, "self" if call.op == "addmm" else "")
        values = [value for value in map(value_of, call.tensors) if isinstance(value, Features)]
        if len(values) < 2:
            return None
        scores = _union(values)
        if any(value.softmax for value in values):
            return Features((self.add("msa", scores.sources),))
        return scores

    def _softmax(self, call: Call) -> Value | None:
        features = call.features("self")
        return features and Features(features.sources, softmax=True)

    def _attention(self, call: Call) -> Value | None:
        values = [value for value in map(call.features, ("query", "key", "value")) if value is not None]
        if not values:
            return None
        sources = dict.fromkeys(self.producer(value) for value in values)
        return Features((self.add("msa", sources),))

    def _norm(self, call: Call) -> Value | None:
        features, weight = call.features("input"), call.parameter("weight")
        if features is None or weight is None or weight.ndim != 1:
            return None
        node = self.add(_NORM[call.op], [self.producer(features)], weight)
        bias = call.parameter("bias")
        # Readers of a graph find the bias by this name.
        if bias is not None and bias.name == weight.name.removesuffix("weight") + "bias":
            node.bias = bias.name
        elif bias is not None:
            self.left[bias.name] = "bias of a norm, not named as its weight is"
        return Features((node,))

    def _pool(self, call: Call) -> Value | None:
        features = call.features("self")
        if features is None:
            return None
        kernel = call.args.get("kernel_size")
        spatial = tuple(call.args["self"].shape[-2:])
        padding = any(_pair(call.args.get("padding", 0)))
        if call.op == "avg_pool2d" and _pair(kernel) == spatial != (1, 1) and not padding:
            op = "glob_avg"
        else:
            op = "avg_pool" if "avg" in call.op else "max_pool"
        return Features((self.add(op, [self.producer(features)]),))

    def _adaptive_pool(self, call: Call) -> Value | None:
        features = call.features("self")
        before, after = call.args["self"].shape[-2:], call.output.shape[-2:]
        if features is None or (before == after and math.prod(after) > 1):
            return None
        op = "glob_avg" if math.prod(after) == 1 else "avg_pool"
        return Features((self.add(op, [self.producer(features)]),))

    def _mean(self, call: Call) -> Value | None:
        """Mean over all positions of a feature map [B, C, H, W] or of a sequence [B, N, C] or [B, C, N]."""
        features = call.features("self")
        ndim = call.args["self"].ndim
        dims = {d % ndim for d in call.args.get("dim") or ()}
        is_image = ndim == 4 and dims in ({2, 3}, {1, 2})
        # A kept last dimension is the mean over the channels of a hand-written layer norm.
        is_sequence = ndim == 3 and (dims == {1} or (dims == {2} and not call.args.get("keepdim", False)))
        if features is None or not (is_image or is_sequence):
            return None
        return Features((self.add("glob_avg", [self.producer(features)]),))

    def _add(self, call: Call) -> Value | None:
        """A position embedding, a bias added by hand; other sums fold like any operation."""
        for here, there in (("self", "other"), ("other", "self")):
            features, parameter = call.features(here), call.parameter(there)
            if features is None or parameter is None:
                continue
            node = self.producer(features)
            if _is_position_embedding(parameter.shape):
                return Features((self.add("sum", [node, self.add("pos_enc", (), parameter)]),))
            if "conv" in node.op and node.shape is not None and parameter.shape == node.shape[:1]:
                return Features((self.add("bias", [node], parameter),))
        return None


def _union(values: Iterable[Features], softmax: bool = False) -> Features:
    return Features(tuple(dict.fromkeys(source for value in values for source in value.sources)), softmax)


def _fold_squeeze(gate: Node, scaled: Node) -> None:
    """Fold the mean of squeeze-and-excitation: the first node from `scaled` to the gate of `scaled`."""
    while len(gate.inputs) == 1:
        if gate.op == "glob_avg" and skip_folded(gate.inputs[0]) is skip_folded(scaled):
            gate.folded = True
            return
        gate = gate.inputs[0]


def _shape_only(op: str, args: dict[str, Any]) -> Tensor | None:
    """The output of common layers without running them: PyTorch derives their shapes in slow Python.

    Layers that do not fit their input are left to PyTorch, which says what is wrong.
    """
    x, weight = args.get("input"), args.get("weight")
    if not isinstance(x, Tensor) or not isinstance(weight, Tensor):
        return None
    if op == "batch_norm" and weight.shape == x.shape[1:2]:
        return torch.empty_like(x)
    if op == "layer_norm" and weight.shape == x.shape[-weight.ndim :]:
        return x.new_empty(x.shape)
    if op == "linear" and weight.ndim == 2 and weight.shape[1:] == x.shape[-1:]:
        return x.new_empty((*x.shape[:-1], weight.shape[0]))
    return None


def _is_position_embedding(shape: tuple[int, ...]) -> bool:
    """(1, tokens, channels) or (1, channels, h, w)."""
    return len(shape) in (3, 4) and shape[0] == 1 and min(shape[1:]) > 1


def _viewed_parameter(parameter: Parameter, call: Call) -> Parameter:
    """The parameter under another shape, or something computed from it where a part is taken."""
    shape = parameter.shape
    if not shape or any(tensor.numel() < math.prod(shape) for tensor in tensors_in((call.output,))):
        return Parameter(parameter.names)
    return Parameter(parameter.names, parameter.shape, parameter.transposed ^ (call.op in _TRANSPOSE))


def _reason_left(parameter: Parameter, call: Call) -> str:
    if parameter.shape:
        channels = (call.output.shape[-1], call.output.shape[1]) if isinstance(call.output, Tensor) else ()
        if call.op == "mul" and max(parameter.shape, default=1) == math.prod(parameter.shape) in channels:
            return LAYER_SCALE
        if call.op in ("cat", "concat"):
            return CLASS_TOKEN
    return f"enters through operation '{call.op}', which is no node type of DeepNets-1M"


def _pair(value: Any) -> tuple[int, ...]:
    if isinstance(value, int):
        return value, value
    return tuple(value) * (2 // len(value))

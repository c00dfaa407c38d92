"""What a forward pass on meta tensors does, recorded as nodes: the lower half of `trace`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from deepnets_bench.errors import BadInput
from deepnets_bench.graphs.tracing.reasons import CLASS_TOKEN, LAYERS, MATMUL, NORMS, reason_left
from deepnets_bench.graphs.tracing.values import (
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

_SOFTMAX = ("softmax", "_softmax", "_safe_softmax", "special_softmax")
_TRANSPOSE = ("t", "transpose", "permute", "numpy_T", "mT")
# Change neither which parameter a tensor is nor its layout up to strides; other views come by their schema.
_COPY = ("clone", "_to_copy", "to", "contiguous", "expand", "alias", "detach")
# Make a convolution's weight independent of the scale of the parameter it is computed from.
_STANDARDISE = (
    "batch_norm",
    "layer_norm",
    "var_mean",
    "std_mean",
    "var",
    "std",
    "linalg_vector_norm",
    "norm",
)
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

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """`shapes` are those of the module's parameters, by name."""
        super().__init__()
        self.nodes: list[Node] = []
        self.left: dict[str, str] = {}
        self._shapes = shapes
        self._used: set[str] = set()
        handlers: dict[Callable[[Call], Value | None], tuple[str, ...]] = {
            self._layer: LAYERS,
            self._matmul: MATMUL,
            self._norm: tuple(NORMS),
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
        if isinstance(value, Features):
            self._explain(call)
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
        if whole is None:
            return
        before = value_of(whole)
        if before is None or whole.numel() <= view.numel():
            set_value(whole, value if isinstance(value, Features) else Parameter(value.names, ops=("copy",)))
        elif isinstance(before, Features) and isinstance(value, Features):
            set_value(whole, self._join("concat", [before, value]))
        elif isinstance(before, Parameter) and isinstance(value, Parameter):
            if not value.names <= before.names:  # else a part of a bias is set to zero, say
                set_value(whole, _computed([before, value], "copy"))
        else:
            features, tokens = (value, before) if isinstance(value, Features) else (before, value)
            set_value(whole, features)
            for name in tokens.names - self._used:  # type: ignore[union-attr]
                self.left.setdefault(name, CLASS_TOKEN)

    def _explain(self, call: Call) -> None:
        """Say why parameters that enter an operation beside features are no nodes."""
        for tensor in call.tensors:
            value = value_of(tensor)
            for name in value.names - self._used if isinstance(value, Parameter) else ():
                self.left.setdefault(name, reason_left(value, tensor, call))  # type: ignore[arg-type]

    def add(
        self, op: str, inputs: Iterable[Node], name: str | None = None, shape: Sequence[int] | None = None
    ) -> Node:
        """A node, with the parameter `name` unless another node has it already."""
        node = Node(op, list(inputs), shape=None if shape is None else tuple(shape))
        if name is not None and name not in self._used:
            node.name, node.shape = name, self._shapes[name]
            self._used.add(name)
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
            return _computed(parameters, call.op)
        source = value_of(call.args.get("src")) if call.op == "copy" else None
        if isinstance(source, Parameter):
            return _computed([source], call.op)
        if source is not None:
            return source
        if len(features) == 1:
            return features[0]
        if any(
            len(f.sources) > 1 for f in features
        ):  # scores of attention, plus biases that depend on queries
            return _union(features)
        return self._join(_JOIN.get(call.op, "sum"), features)

    def _weight_and_bias(self, call: Call, op: str, features: Features, weight: str, bias: str) -> Features:
        """A node with a weight, whatever that is computed from, and one with its bias.

        The node is nameless where its weight belongs to another node too, or cannot be predicted.
        """
        tensor = call.args[weight]
        transposed = weight != "weight"  # of a product x·Wᵀ
        shape = tuple(tensor.shape[-2:][::-1] if transposed else tensor.shape)
        name = self._name_of_weight(tensor, shape, transposed)
        node = self.add(op, [self.producer(features)], name, shape)
        given = value_of(call.args.get(bias))
        if isinstance(given, Parameter) and given.shape == shape[:1]:
            node = self.add("bias", [node], given.name, given.shape)
        return Features((node,))

    def _name_of_weight(self, tensor: Tensor, shape: tuple[int, ...], transposed: bool = False) -> str | None:
        """The parameter that is a layer's weight, or that the module standardises to be its weight."""
        value = value_of(tensor)
        if not isinstance(value, Parameter):
            return None
        if value.shape:
            fits = _without_ones(value.shape) == _without_ones(shape) and value.transposed == transposed
            return value.name if fits else None
        same = [name for name in value.names if self._shapes[name] == shape]
        return same[0] if len(same) == 1 and set(value.ops) & set(_STANDARDISE) else None

    def _layer(self, call: Call) -> Value | None:
        """A convolution of images or a linear layer."""
        features, weight = call.features("input"), call.args["weight"]
        is_parameter = isinstance(value_of(weight), Parameter)
        if features is None or not is_parameter or weight.ndim not in (2, 4) or call.args.get("transposed"):
            return None
        op = "conv"
        if call.args.get("groups", 1) > 1:
            op = "dil_conv" if max(_pair(call.args["dilation"])) > 1 else "sep_conv"
        return self._weight_and_bias(call, op, features, "weight", "bias")

    def _matmul(self, call: Call) -> Value | None:
        """A linear layer written out, the scores of attention, or attention."""
        left = "mat1" if call.op == "addmm" else "self"
        right = "other" if call.op == "matmul" else "mat2"
        features, weight = call.features(left), call.args.get(right)
        value = value_of(weight)
        # A weight may be expanded over the batch.
        if features and isinstance(value, Parameter) and 2 in (call.args[right].ndim, value.ndim):
            return self._weight_and_bias(call, "conv", features, right, "self" if call.op == "addmm" else "")
        values = [value for value in map(value_of, call.tensors) if isinstance(value, Features)]
        if len(values) < 2:
            return None
        scores = _union(values)
        return Features((self.add("msa", scores.sources),)) if scores.softmax else scores

    def _softmax(self, call: Call) -> Value | None:
        features = call.features("self")
        return features and replace(features, softmax=True)

    def _attention(self, call: Call) -> Value | None:
        values = [value for value in map(call.features, ("query", "key", "value")) if value is not None]
        if not values:
            return None
        sources = dict.fromkeys(self.producer(value) for value in values)
        return Features((self.add("msa", sources),))

    def _norm(self, call: Call) -> Value | None:
        features, weight = call.features("input"), call.args.get("weight")
        if features is None or weight is None or weight.ndim != 1:
            return None
        if not isinstance(value_of(weight), Parameter):
            return None
        name = self._name_of_weight(weight, tuple(weight.shape))
        node = self.add(NORMS[call.op], [self.producer(features)], name, weight.shape)
        bias = call.parameter("bias")
        # Readers of a graph find the bias by this name.
        if node.name and bias is not None and bias.name == node.name.removesuffix("weight") + "bias":
            node.bias = bias.name
            self._used.add(bias.name)
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
            if features.scores:
                continue
            (node,) = features.sources
            if _is_position_embedding(parameter.shape):
                table = self.add("pos_enc", (), parameter.name, parameter.shape)
                return Features((self.add("sum", [node, table]),))
            if "conv" in node.op and node.shape is not None and parameter.shape == node.shape[:1]:
                return Features((self.add("bias", [node], parameter.name, parameter.shape),))
        return None


def _union(values: Sequence[Features]) -> Features:
    """Scores of attention, from what they are computed from."""
    sources = dict.fromkeys(source for value in values for source in value.sources)
    return Features(tuple(sources), any(value.softmax for value in values), scores=True)


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


def _without_ones(shape: tuple[int, ...]) -> list[int]:
    return [size for size in shape if size > 1]


def _is_position_embedding(shape: tuple[int, ...]) -> bool:
    """(1, tokens, channels) or (1, channels, h, w)."""
    return len(shape) in (3, 4) and shape[0] == 1 and min(shape[1:]) > 1


def _viewed_parameter(parameter: Parameter, call: Call) -> Parameter:
    """The parameter under another shape, or something computed from it where a part is taken."""
    shape = parameter.shape
    if not shape or any(tensor.numel() < math.prod(shape) for tensor in tensors_in((call.output,))):
        return _computed([parameter], call.op)
    return Parameter(parameter.names, parameter.shape, parameter.transposed ^ (call.op in _TRANSPOSE))


def _computed(parameters: Sequence[Parameter], op: str) -> Parameter:
    """What an operation makes of parameters alone."""
    names = frozenset[str]().union(*(parameter.names for parameter in parameters))
    before = [earlier for parameter in parameters for earlier in parameter.ops]
    return Parameter(names, ops=tuple(dict.fromkeys([*before, op])))


def _pair(value: Any) -> tuple[int, ...]:
    if isinstance(value, int):
        return value, value
    return tuple(value) * (2 // len(value))

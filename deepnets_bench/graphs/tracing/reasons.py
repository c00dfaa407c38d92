"""Why a traced parameter has no node in the graph: the sentence that names the true reason."""

from __future__ import annotations

import math

from torch import Tensor

from deepnets_bench.graphs.tracing.values import Call, Features, Parameter, value_of

# Parameters that published hypernetworks leave to their own initialisation too.
LAYER_SCALE = "scale of channels (layer scale), keeps its initial value"
CLASS_TOKEN = "token joined to the sequence, keeps its initial value"
UNUSED = "does not contribute to the output"

LAYERS = ("conv2d", "convolution", "linear")
MATMUL = ("matmul", "mm", "bmm", "einsum", "baddbmm", "addmm")
NORMS = {
    **dict.fromkeys(("batch_norm", "native_batch_norm", "_native_batch_norm_legit_no_training"), "bn"),
    **dict.fromkeys(("layer_norm", "native_layer_norm"), "ln"),
}
_PARTS = ("split", "split_with_sizes", "chunk", "slice", "select", "narrow", "unbind", "t", "transpose")
_JOINS = ("cat", "concat", "stack", "hstack", "copy", "index_put", "slice_scatter")
_SCORES = (
    "enters the scores of attention (a relative position table, a temperature), which no node of "
    "DeepNets-1M describes"
)


def reason_left(parameter: Parameter, tensor: Tensor, call: Call) -> str:
    """Why `tensor`, computed from `parameter`, is no node although it enters `call` beside features."""
    op = call.op
    arguments = (name for name, value in call.args.items() if value is tensor)
    argument = next(arguments, "")
    if op == "scaled_dot_product_attention" and argument == "attn_mask":
        return _SCORES
    if any(value.scores for value in map(value_of, call.tensors) if isinstance(value, Features)):
        return _SCORES
    if op == "scaled_dot_product_attention":
        return "attended to without being computed from the image, which no node of DeepNets-1M describes"
    if op in _JOINS:
        return CLASS_TOKEN
    if op in (*LAYERS, *MATMUL) and (argument in ("weight", "other", "mat2") or op == "einsum"):
        return _of_weight(parameter, tensor, call)
    if op in LAYERS and argument == "bias" and not parameter.shape:
        return f"the bias of a layer is computed from it ({_listed(parameter)})"
    if op in NORMS:
        return _of_norm(parameter, tensor, argument, call)
    if op == "mul" and _is_scale_of_channels(parameter, call):
        return LAYER_SCALE
    if op in ("add", "sub", "mul", "div"):
        verb = "added to" if op in ("add", "sub") else "multiplied with"
        how = f" after {_listed(parameter)}" if parameter.ops else ""
        what = "the bias of a layer or a position embedding" if verb == "added to" else "a scale of channels"
        return f"{verb} features{how}, but not as {what}"
    if parameter.ops:
        return f"enters operation '{op}' after {_listed(parameter)}, which is no node type of DeepNets-1M"
    return _no_node_type(op)


def _no_node_type(op: str) -> str:
    return f"enters through operation '{op}', which is no node type of DeepNets-1M"


def _listed(parameter: Parameter) -> str:
    """The operations that computed a tensor from a parameter, at most three."""
    more = ", ..." if len(parameter.ops) > 3 else ""
    return ", ".join(parameter.ops[:3]) + more


def _of_weight(parameter: Parameter, tensor: Tensor, call: Call) -> str:
    layer = "convolution" if "conv" in call.op else "linear layer"
    if set(parameter.ops) & set(_PARTS) and not set(parameter.ops) - set(_PARTS):
        return f"a part of it is the weight of a {layer}, and a node has a whole parameter"
    if parameter.ops:
        how = _listed(parameter)
        return f"the weight of a {layer} is computed from it ({how}), and no predicted weight can be assigned"
    if call.op not in LAYERS and tensor.ndim == 2:
        return "weight of a linear layer that is stored as (inputs, outputs), transposed"
    if call.args.get("transposed") or call.op in ("bmm", "baddbmm", "einsum"):
        return _no_node_type("transposed convolution" if call.args.get("transposed") else call.op)
    return f"weight of a {layer} in another layout than the layer's own"


def _of_norm(parameter: Parameter, tensor: Tensor, argument: str, call: Call) -> str:
    if tensor.ndim > 1:
        dims = "×".join(map(str, tensor.shape))
        return f"belongs to a {call.op} over {dims} values; the node of a norm has one value a channel"
    if parameter.shape and argument == "bias":
        return "bias of a norm, not named as its weight is"
    return f"the {argument} of a norm is computed from it ({_listed(parameter)})"


def _is_scale_of_channels(parameter: Parameter, call: Call) -> bool:
    if not parameter.shape or not isinstance(call.output, Tensor):
        return False
    channels = (call.output.shape[-1], call.output.shape[1] if call.output.ndim > 1 else 1)
    return max(parameter.shape, default=1) == math.prod(parameter.shape) in channels

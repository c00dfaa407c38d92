"""Predict the parameters of any torch module: into the module itself, or as new tensors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from deepnets_bench.data.dataset import GraphBatch
from deepnets_bench.errors import BadInput, UnknownName
from deepnets_bench.ghn.config import GHNConfig
from deepnets_bench.ghn.shapes import MAX_CHANNELS
from deepnets_bench.graphs.graph import ComputationGraph
from deepnets_bench.graphs.tracing.reparametrised import Reparametrised, find
from deepnets_bench.graphs.tracing.trace import trace
from deepnets_bench.networks.recalibration import STATISTICS, norms_with_statistics, recalibrate

if TYPE_CHECKING:
    from deepnets_bench.ghn.model import GHN

CLASSIFIER_CHOICES = ("predict", "skip")
CLASSIFIER = "classifier, skipped as asked"


@dataclass(frozen=True)
class Prediction:
    """Which parameters of a module were predicted, which were left (name → why), and remarks on the fit."""

    predicted: list[str]
    left: dict[str, str]
    num_nodes: int
    notes: list[str]


def initialize(
    ghn: GHN, module: nn.Module, input_shape: tuple[int, ...] | None, classifier: str
) -> Prediction:
    """`GHN.initialize`."""
    plan = _plan(ghn, module, input_shape, classifier)
    state = plan.parameters | (dict(module.named_buffers()) if plan.computed else {})
    targets: dict[str, Tensor] = {}
    for name in plan.names:
        parameter = state.get(name)
        if parameter is None:
            weight = plan.computed[name]
            _check_storage(state, weight.sources)
            targets[name] = torch.empty_like(weight.value(), device="cpu", requires_grad=False)
        else:
            _check_storage(state, [name])
            targets[name] = parameter
    ghn.write(plan.graph, targets)
    inverses = plan.invert(targets)
    with torch.no_grad():
        for name, tensor in inverses.items():
            state[name].copy_(tensor)
    for weight in plan.computed.values():
        weight.refresh()
    return plan.report(ghn.config)


@torch.no_grad()
def predict(
    ghn: GHN, module: nn.Module, input_shape: tuple[int, ...] | None, classifier: str = "predict"
) -> tuple[dict[str, Tensor], Prediction]:
    """As `GHN.initialize`, but into new tensors (name → tensor); the module may be on the meta device.

    The tensors include the buffers that belong to predicted weights (singular vectors of spectral norms).
    """
    plan = _plan(ghn, module, input_shape, classifier)
    batch = GraphBatch.from_graphs([plan.graph], virtual_edges=ghn.virtual_edges)
    predicted = ghn(batch.to(ghn.embed.weight.device))[0]
    inverses = plan.invert(predicted)
    report = plan.report(ghn.config)
    tensors = {name: predicted[name] if name in predicted else inverses[name] for name in report.predicted}
    return tensors | inverses, report


@dataclass
class _Plan:
    """What to predict for a module with `parameters`: its weights `names`, some of them `computed`."""

    graph: ComputationGraph
    parameters: dict[str, Tensor]
    names: list[str]
    computed: dict[str, Reparametrised]
    left: dict[str, str]
    notes: list[str]

    def invert(self, predicted: dict[str, Tensor]) -> dict[str, Tensor]:
        """The state that makes modules compute the predicted weights; what has none is left."""
        inverses: dict[str, Tensor] = {}
        for name in self.names:
            if name in self.computed:
                weight = self.computed[name]
                try:
                    inverses |= weight.invert(predicted[name])
                except BadInput as error:
                    self.left |= dict.fromkeys(weight.sources, str(error))
        return inverses

    def report(self, config: GHNConfig) -> Prediction:
        predicted = [name for name in self.parameters if name not in self.left]
        notes = self.notes + _notes(config, _sizes(self.graph, self.names))
        return Prediction(predicted, self.left, self.graph.num_nodes, notes)


def _plan(ghn: GHN, module: nn.Module, input_shape: tuple[int, ...] | None, classifier: str) -> _Plan:
    check_classifier(classifier)
    traced = trace(module, ghn.input_shape if input_shape is None else input_shape)
    graph, skipped, notes = _fit_classifier(
        ComputationGraph(**vars(traced)), ghn.config.num_classes, skip=classifier == "skip"
    )
    parameters: dict[str, Tensor] = dict(module.named_parameters())
    computed = find(module)
    sources = {source: name for name, weight in computed.items() for source in weight.sources}
    left = dict(traced.left)
    names = []
    for name in parameters:
        weight = sources.get(name, name)
        if weight in skipped:
            left[name] = CLASSIFIER
        elif name not in left:
            names.append(weight)
    return _Plan(graph, parameters, list(dict.fromkeys(names)), computed, left, notes)


def check_classifier(classifier: str) -> None:
    if classifier not in CLASSIFIER_CHOICES:
        raise UnknownName("classifier", str(classifier), CLASSIFIER_CHOICES)


def _fit_classifier(
    graph: ComputationGraph, classes: int, skip: bool
) -> tuple[ComputationGraph, list[str], list[str]]:
    """The graph with a classifier that can be predicted, the names of a skipped one, and remarks."""
    nodes = [node for node in (graph.class_weight, graph.class_bias) if node >= 0]
    named = {node: name for node in nodes if (name := graph.param_name[node]) is not None}
    if not named:
        return graph, [], []
    names, outputs = list(named.values()), int(graph.shape[nodes[0], 0])
    without = replace(graph, class_weight=-1, class_bias=-1)
    if skip:
        param_name = [None if node in nodes else name for node, name in enumerate(graph.param_name)]
        return replace(without, param_name=param_name), names, []
    if outputs == classes:
        return graph, [], []
    if len(graph.param_shape[nodes[0]] or ()) == 4:
        return (
            without,
            [],
            [
                f"{names[0]} has {outputs} outputs, not the {classes} of the hypernetwork's "
                "classifiers, and is predicted as any other convolution."
            ],
        )
    raise BadInput(
        f"The hypernetwork predicts classifiers of {classes} classes, but {names[0]} has {outputs} outputs; "
        "classifier='skip' (--classifier skip) predicts everything but the classifier."
    )


def _check_storage(state: dict[str, Tensor], names: Sequence[str]) -> None:
    for name in names:
        if state[name].is_meta:
            raise BadInput(
                f"Parameter '{name}' is on the meta device, which holds no values; "
                "call module.to_empty(device='cpu') first."
            )


def recalibrated(module: nn.Module, tensors: dict[str, Tensor], batches: Iterable[Any]) -> dict[str, Tensor]:
    """Load predicted tensors into a module, and return the running statistics it has on `batches`.

    Raises `BadInput` as `deepnets_bench.recalibrate`, and for a module on the meta device.
    """
    state = dict(module.named_parameters()) | dict(module.named_buffers())
    _check_storage(state, list(state))
    module.load_state_dict(tensors, strict=False)
    recalibrate(module, batches)
    return {name: state[name] for name in state if name.rpartition(".")[2] in STATISTICS}


def statistics_note(module: nn.Module) -> list[str]:
    """A remark on the norms whose running statistics do not belong to predicted parameters."""
    count = len(norms_with_statistics(module))
    if not count:
        return []
    norms = "1 norm keeps its" if count == 1 else f"{count} norms keep their"
    return [
        f"{norms} running statistics (mean 0 and variance 1 in a new module), which do not belong to these "
        "parameters: outputs in eval() are meaningless until they are re-estimated on images, with "
        "--calibrate IMAGES or deepnets_bench.recalibrate(module, loader)."
    ]


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

"""Evaluation: the accuracy of networks with predicted parameters, one network at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from deepnets_bench.dataset import GraphBatch
from deepnets_bench.graph import ComputationGraph
from deepnets_bench.harness.images import LabelledImages
from deepnets_bench.network import Step, execute, unpack

if TYPE_CHECKING:
    from deepnets_bench.architecture import Architecture


@dataclass
class Evaluation:
    """What evaluating a split gave: accuracy in [0, 1], or why there is none, by index in the split."""

    accuracies: dict[int, float] = field(default_factory=dict)
    failures: dict[int, str] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def mean(self) -> float:
        """Mean accuracy over the networks that could be evaluated; NaN for none."""
        values = list(self.accuracies.values())
        return sum(values) / len(values) if values else float("nan")


def evaluate(
    ghn: Any,
    architectures: Iterable[Architecture],
    data: LabelledImages,
    *,
    width: int,
    fc_dim: int | None,
    num_classes: int,
    virtual_edges: int,
    batch_size: int,
    on_network: Callable[[Evaluation], None] | None = None,
) -> Evaluation:
    """Accuracy of each architecture with the parameters `ghn` predicts for it, as in the paper.

    The graphs carry virtual edges up to the distance `virtual_edges` (1: none beyond the real ones).
    Norm layers use the statistics of each batch of `batch_size` images, taken in order. A network that
    runs out of memory or fails otherwise is reported in `failures` and does not count as evaluated.
    """
    result = Evaluation()
    started = time.perf_counter()
    image_size = data.images.shape[-1]
    sizes: dict[str, Any] = {
        "width": width,
        "image_size": image_size,
        "num_classes": num_classes,
        "fc_dim": fc_dim,
    }
    device = data.images.device
    was_training = ghn.training
    ghn.eval()
    with torch.inference_mode():
        for index, arch in enumerate(architectures):
            try:
                program = arch.program(**sizes)
                graphs = [ComputationGraph.from_program(program)]
                params = ghn(GraphBatch.from_graphs(graphs, virtual_edges=virtual_edges).to(device))[0]
                result.accuracies[index] = _accuracy(unpack(program), params, data, batch_size)
            except (RuntimeError, MemoryError) as error:  # PyTorch's out-of-memory errors are RuntimeErrors
                result.failures[index] = f"{type(error).__name__}: {error}".splitlines()[0]
            result.seconds = time.perf_counter() - started
            if on_network:
                on_network(result)
    ghn.train(was_training)
    return result


def _accuracy(
    steps: tuple[Step, ...], params: dict[str, Tensor], data: LabelledImages, batch_size: int
) -> float:
    correct = torch.zeros((), dtype=torch.long, device=data.labels.device)
    batches = zip(data.images.split(batch_size), data.labels.split(batch_size), strict=True)
    for images, labels in batches:
        logits = execute(steps, images, params, training=False)
        # Predictions that are not finite are wrong, whichever class argmax makes of them.
        correct += ((logits.argmax(1) == labels) & logits.isfinite().all(1)).sum()
    return int(correct) / len(data)

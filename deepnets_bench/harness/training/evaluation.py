"""Evaluation: the accuracy of networks with predicted parameters, one network at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from deepnets_bench.data.dataset import GraphBatch
from deepnets_bench.errors import BadInput, reason_of
from deepnets_bench.graphs.graph import ComputationGraph
from deepnets_bench.harness.images.sets import ImagePart
from deepnets_bench.harness.randomness import EVALUATION, GNN_EVALUATION
from deepnets_bench.harness.training.failures import is_network_failure, is_out_of_memory, require_finite
from deepnets_bench.networks.network import execute, unpack
from deepnets_bench.networks.operations import Step

if TYPE_CHECKING:
    from deepnets_bench.architecture import Architecture
    from deepnets_bench.compiler.program import Program
    from deepnets_bench.harness.training.splits import StoredNetwork

_SMALLEST_BATCH = 2  # batch statistics of one image do not exist


@dataclass
class Evaluation:
    """What evaluating a split gave: accuracy in [0, 1], or why there is none, by index in the split.

    `batch_sizes` names the networks for which memory sufficed for smaller batches only: norm layers use the
    statistics of a batch, so that these accuracies are not quite those of the protocol. `not_finite` lists
    those whose logits are not all finite; such predictions count as wrong.
    """

    accuracies: dict[int, float] = field(default_factory=dict)
    failures: dict[int, str] = field(default_factory=dict)
    batch_sizes: dict[int, int] = field(default_factory=dict)
    not_finite: list[int] = field(default_factory=list)
    seconds: float = 0.0
    cpu_seconds: float = 0.0  # of this process and its threads

    @property
    def mean(self) -> float:
        """Mean accuracy over the networks that could be evaluated; NaN for none."""
        values = list(self.accuracies.values())
        return sum(values) / len(values) if values else float("nan")

    @property
    def reason(self) -> str:
        """What a reader of the mean must know of failures, batches and logits; '' for nothing."""
        remarks = [f"architecture {index}: {why}" for index, why in list(self.failures.items())[:3]]
        if len(self.failures) > len(remarks):
            remarks.append(f"{len(self.failures)} architectures failed in all")
        if self.batch_sizes:
            first, size = next(iter(self.batch_sizes.items()))
            remarks.append(
                f"{len(self.batch_sizes)} architectures ran out of memory and were evaluated with smaller "
                f"batches, which changes accuracies (the first one, {first}, with {size} images)"
            )
        if self.not_finite:
            remarks.append(
                f"{len(self.not_finite)} architectures gave logits that are not finite, which count as wrong "
                f"(the first one, {self.not_finite[0]})"
            )
        return "; ".join(remarks)


def evaluate(
    ghn: Any,
    architectures: Iterable[Architecture | StoredNetwork],
    data: ImagePart,
    *,
    width: int | Literal["stored"],
    fc_dim: int | None,
    num_classes: int,
    batch_size: int,
    top_k: int = 1,
    on_network: Callable[[Evaluation], None] | None = None,
) -> Evaluation:
    """Accuracy of each architecture with the parameters `ghn` predicts for it, as in the paper.

    Norm layers use the statistics of each batch of `batch_size` images, taken in order. A prediction is
    right if the label is among the `top_k` classes rated highest. `width` 'stored' is each network's own.
    What the GNN draws depends on the architecture alone. `ghn` is left in the mode that it was in.

    A network that runs out of memory is tried with batches of half as many images, down to 2. One that
    does so nevertheless, or whose predicted parameters are not finite, is reported in `failures` and does not
    count as evaluated. Whatever else is raised goes on to the caller.
    """
    if top_k >= num_classes:
        raise BadInput(f"Every prediction would be right: top_k is {top_k} for {num_classes} classes.")
    result = Evaluation()
    started, cpu_started = time.perf_counter(), time.process_time()
    sizes: dict[str, Any] = {
        "image_size": data.size,
        "num_classes": num_classes,
        "fc_dim": fc_dim,
    }
    was_training = ghn.training
    ghn.eval()
    try:
        for index, network in enumerate(architectures):
            try:
                program = network.program(width=_width(network, width, data.size), **sizes)
                with torch.inference_mode():
                    params = _predict(ghn, program, network.fingerprint(), data.device)
                    accuracy, finite, used = _accuracy_that_fits(
                        unpack(program), params, data, batch_size, top_k
                    )
            except Exception as error:
                if not is_network_failure(error):
                    raise
                result.failures[index] = reason_of(error)
            else:
                result.accuracies[index] = accuracy
                if not finite:
                    result.not_finite.append(index)
                if used < batch_size:
                    result.batch_sizes[index] = used
            result.seconds = time.perf_counter() - started
            result.cpu_seconds = time.process_time() - cpu_started
            if on_network:
                on_network(result)
    finally:
        ghn.train(was_training)
    return result


def _predict(ghn: Any, program: Program, fingerprint: str, device: torch.device) -> dict[str, Tensor]:
    """Parameters of one network; raises `NotFinite` where they are not finite."""
    graph = ComputationGraph.from_program(program)
    batch = GraphBatch.from_graphs([graph], virtual_edges=ghn.virtual_edges)
    with EVALUATION.seeded(device, GNN_EVALUATION, fingerprint):
        predictions: list[dict[str, Tensor]] = ghn(batch.to(device))
    require_finite(predictions)
    return predictions[0]


def _width(network: Architecture | StoredNetwork, width: int | Literal["stored"], image_size: int) -> int:
    if width != "stored":
        return width
    from deepnets_bench.harness.training.splits import StoredNetwork

    if not isinstance(network, StoredNetwork):
        raise BadInput("This architecture comes from no file, so that it has no width of its own.")
    return network.width(image_size)


def _accuracy_that_fits(
    steps: tuple[Step, ...], params: dict[str, Tensor], data: ImagePart, batch_size: int, top_k: int
) -> tuple[float, bool, int]:
    """The accuracy, whether all logits are finite, and the size of the batches that fitted into memory."""
    while True:
        try:
            return *_accuracy(steps, params, data, batch_size, top_k), batch_size
        except (RuntimeError, MemoryError) as error:
            if batch_size <= _SMALLEST_BATCH or not is_out_of_memory(error):
                raise
        # Outside of the handler, whose error keeps the tensors of the failed batch alive.
        batch_size = max(_SMALLEST_BATCH, batch_size // 2)
        if data.device.type == "cuda":
            torch.cuda.empty_cache()


def _accuracy(
    steps: tuple[Step, ...], params: dict[str, Tensor], data: ImagePart, batch_size: int, top_k: int
) -> tuple[float, bool]:
    """The accuracy, and whether all logits are finite."""
    correct, finite = counts(steps, params, data, batch_size, top_k).tolist()
    return correct / len(data), finite == len(data)


def counts(
    steps: tuple[Step, ...], params: dict[str, Tensor], data: ImagePart, batch_size: int, top_k: int
) -> Tensor:
    """int64 [2], on the device: images that are classified right, and those whose logits are finite."""
    correct, n_finite = torch.zeros(2, dtype=torch.long, device=data.device).unbind()
    for images, labels in data.batches(batch_size):
        logits = execute(steps, images, params, training=False)
        if top_k == 1:
            hit = logits.argmax(1) == labels
        else:
            hit = (logits.topk(top_k, dim=1).indices == labels[:, None]).any(1)
        # Predictions that are not finite are wrong, whichever class argmax makes of them.
        finite = logits.isfinite().all(1)
        correct += (hit & finite).sum()
        n_finite += finite.sum()
    return torch.stack([correct, n_finite])

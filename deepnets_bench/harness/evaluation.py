"""Evaluation: the accuracy of networks with predicted parameters, one network at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from deepnets_bench.dataset import GraphBatch
from deepnets_bench.errors import BadInput, one_line
from deepnets_bench.graph import ComputationGraph
from deepnets_bench.harness.images import ImagePart
from deepnets_bench.network import execute, unpack
from deepnets_bench.operations import Step

if TYPE_CHECKING:
    from deepnets_bench.architecture import Architecture
    from deepnets_bench.harness.data import StoredNetwork

_SMALLEST_BATCH = 2  # batch statistics of one image do not exist


@dataclass
class Evaluation:
    """What evaluating a split gave: accuracy in [0, 1], or why there is none, by index in the split.

    `batch_sizes` names the networks for which memory sufficed for smaller batches only: norm layers use the
    statistics of a batch, so that these accuracies are not quite those of the protocol.
    """

    accuracies: dict[int, float] = field(default_factory=dict)
    failures: dict[int, str] = field(default_factory=dict)
    batch_sizes: dict[int, int] = field(default_factory=dict)
    seconds: float = 0.0
    cpu_seconds: float = 0.0  # of this process, all its threads

    @property
    def mean(self) -> float:
        """Mean accuracy over the networks that could be evaluated; NaN for none."""
        values = list(self.accuracies.values())
        return sum(values) / len(values) if values else float("nan")

    @property
    def reason(self) -> str:
        """What a reader of the mean must know: the first failures, and smaller batches; '' for nothing."""
        told = [f"architecture {index}: {why}" for index, why in list(self.failures.items())[:3]]
        if self.batch_sizes:
            first, size = next(iter(self.batch_sizes.items()))
            told.append(
                f"{len(self.batch_sizes)} architectures ran out of memory and were evaluated with smaller "
                f"batches, which changes accuracies (the first one, {first}, with {size} images)"
            )
        return "; ".join(told)


def evaluate(
    ghn: Any,
    architectures: Iterable[Architecture | StoredNetwork],
    data: ImagePart,
    *,
    width: int | Literal["stored"],
    fc_dim: int | None,
    num_classes: int,
    virtual_edges: int,
    batch_size: int,
    top_k: int = 1,
    on_network: Callable[[Evaluation], None] | None = None,
) -> Evaluation:
    """Accuracy of each architecture with the parameters `ghn` predicts for it, as in the paper.

    The graphs carry virtual edges up to the distance `virtual_edges` (1: none beyond the real ones).
    Norm layers use the statistics of each batch of `batch_size` images, taken in order. A prediction is
    right if the label is among the `top_k` classes rated highest. `width` 'stored' is each network's own.

    A network that runs out of memory is tried with batches of half as many images, down to 2. One that
    fails nevertheless, or otherwise, is reported in `failures` and does not count as evaluated.
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
    with torch.inference_mode():
        for index, arch in enumerate(architectures):
            try:
                program = arch.program(width=_width(arch, width, data.size), **sizes)
                graphs = [ComputationGraph.from_program(program)]
                params = ghn(GraphBatch.from_graphs(graphs, virtual_edges=virtual_edges).to(data.device))[0]
                accuracy, used = _accuracy_that_fits(unpack(program), params, data, batch_size, top_k)
                result.accuracies[index] = accuracy
                if used < batch_size:
                    result.batch_sizes[index] = used
            except (RuntimeError, MemoryError) as error:  # PyTorch's out-of-memory errors are RuntimeErrors
                result.failures[index] = one_line(error)
            result.seconds = time.perf_counter() - started
            result.cpu_seconds = time.process_time() - cpu_started
            if on_network:
                on_network(result)
    ghn.train(was_training)
    return result


def _width(arch: Architecture | StoredNetwork, width: int | Literal["stored"], image_size: int) -> int:
    if width != "stored":
        return width
    from deepnets_bench.harness.data import StoredNetwork

    if not isinstance(arch, StoredNetwork):
        raise BadInput("This architecture comes from no file, so that it has no width of its own.")
    return arch.width(image_size)


def _accuracy_that_fits(
    steps: tuple[Step, ...], params: dict[str, Tensor], data: ImagePart, batch_size: int, top_k: int
) -> tuple[float, int]:
    """The accuracy, and the size of the batches that fitted into memory."""
    while True:
        try:
            return _accuracy(steps, params, data, batch_size, top_k), batch_size
        except (RuntimeError, MemoryError) as error:
            if batch_size <= _SMALLEST_BATCH or not is_out_of_memory(error):
                raise
        # Outside of the handler, whose error keeps the tensors of the failed batch alive.
        batch_size = max(_SMALLEST_BATCH, batch_size // 2)
        if data.device.type == "cuda":
            torch.cuda.empty_cache()


def is_out_of_memory(error: BaseException) -> bool:
    """Is it for want of memory, on a GPU or on the CPU, that something failed?"""
    # PyTorch's CPU allocator and NVIDIA's libraries raise a plain RuntimeError.
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or any(
        phrase in str(error) for phrase in ("allocate memory", "ALLOC_FAILED", "out of memory")
    )


def _accuracy(
    steps: tuple[Step, ...], params: dict[str, Tensor], data: ImagePart, batch_size: int, top_k: int
) -> float:
    correct = torch.zeros((), dtype=torch.long, device=data.device)
    for images, labels in data.batches(batch_size):
        logits = execute(steps, images, params, training=False)
        if top_k == 1:
            hit = logits.argmax(1) == labels
        else:
            hit = (logits.topk(top_k, dim=1).indices == labels[:, None]).any(1)
        # Predictions that are not finite are wrong, whichever class argmax makes of them.
        correct += (hit & logits.isfinite().all(1)).sum()
    return int(correct) / len(data)

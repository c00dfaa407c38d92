"""CPU time of a training step, by part and by operation: 8 training networks, 64 images of 32×32, GHN-2.

Run with `pytest tests/benchmarks/test_training_step.py --benchmark-only -s`. Networks run as in recorded
results (`float32`), with the gradients of `execute(fast=True)`, these under autocast to bfloat16, and, for
comparison, with contiguous images instead of channels-last. The clock counts this process's CPU time.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from deepnets_bench.compiler import instructions as ir
from deepnets_bench.data.dataset import GraphBatch
from deepnets_bench.generators import sample
from deepnets_bench.ghn.model import GHN
from deepnets_bench.graphs.graph import ComputationGraph
from deepnets_bench.networks import network
from deepnets_bench.networks.operations import OPERATIONS

NETWORKS, IMAGES, SIZE, WIDTH, FC_DIM = 8, 64, 32, 32, 128


class TrainingStep:
    """A step as `harness.training.trainer` takes it, with a clock around each part."""

    def __init__(self, way: str) -> None:
        self.fast, self.lowered = way in ("fast", "bfloat16"), way == "bfloat16"
        torch.manual_seed(0)
        self.ghn = GHN.from_config("ghn2")
        self.optimiser = torch.optim.AdamW(self.ghn.parameters(), lr=1e-4)
        self.architectures = [sample("train", index) for index in range(NETWORKS)]
        self.images, self.labels = torch.randn(IMAGES, 3, SIZE, SIZE), torch.randint(10, (IMAGES,))
        self.seconds: dict[str, list[float]] = defaultdict(list)

    def __call__(self) -> None:
        elapsed: dict[str, float] = defaultdict(float)

        @contextmanager
        def clock(part: str) -> Iterator[None]:
            start = time.process_time()
            yield
            elapsed[part] += time.process_time() - start

        with clock("graphs and batch"):
            programs = [
                arch.program(width=WIDTH, image_size=SIZE, fc_dim=FC_DIM) for arch in self.architectures
            ]
            graphs = [ComputationGraph.from_program(program) for program in programs]
            batch = GraphBatch.from_graphs(graphs, virtual_edges=self.ghn.virtual_edges)
        with clock("networks unpacked"):
            networks = [network.unpack(program) for program in programs]
        with clock("hypernetwork, forward"):
            predictions = self.ghn(batch)
        outputs: list[Tensor] = []
        gradients: list[Tensor] = []
        for steps, predicted in zip(networks, predictions, strict=True):
            leaves = {name: tensor.detach().requires_grad_() for name, tensor in predicted.items()}
            lowered = torch.autocast("cpu", torch.bfloat16, enabled=self.lowered)
            with clock("networks, forward"), lowered:
                logits = network.execute(steps, self.images, leaves, True, fast=self.fast)
                loss = F.cross_entropy(logits, self.labels)
            with clock("networks, backward"):
                loss.backward()
            outputs += predicted.values()
            gradients += [leaf.grad for leaf in leaves.values() if leaf.grad is not None]
        with clock("hypernetwork, backward"):
            self.optimiser.zero_grad(set_to_none=True)
            torch.autograd.backward(outputs, gradients)
        with clock("optimiser"):
            torch.nn.utils.clip_grad_norm_(self.ghn.parameters(), 5.0)
            self.optimiser.step()
        for part, seconds in elapsed.items():
            self.seconds[part].append(seconds)


class Operations(TorchDispatchMode):
    """Counts the CPU time of every operation that runs under it, gradients included, by kind."""

    KINDS = (
        ("batch_norm", "norm"),
        ("layer_norm", "norm"),
        ("attention", "attention"),
        ("relu", "activation"),
        ("gelu", "activation"),
        ("hardswish", "activation"),
        ("threshold_backward", "activation"),
        ("pool", "pooling"),
        ("mm", "linear"),
    )

    def __init__(self) -> None:
        super().__init__()
        self.seconds: dict[str, float] = defaultdict(float)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        start = time.process_time()
        output = func(*args, **(kwargs or {}))
        self.seconds[self.kind(func._schema.name, args)] += time.process_time() - start
        return output

    def kind(self, name: str, args: tuple[Any, ...]) -> str:
        if "convolution" in name:
            weight = args[2 if "backward" in name else 1]
            if weight.shape[1] == 1:
                return "convolution, depthwise"
            return "convolution, 1×1" if weight[0, 0].numel() == 1 else "convolution, larger"
        return next((kind for part, kind in self.KINDS if part in name), "the rest (sums, copies, ...)")


@pytest.mark.benchmark(timer=time.process_time)
@pytest.mark.parametrize("way", ["contiguous", "float32", "fast", "bfloat16"])
def test_parts(
    benchmark: BenchmarkFixture,
    way: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if way == "contiguous":
        monkeypatch.setitem(OPERATIONS, ir.INPUT, lambda step, run: run.images)
    step = TrainingStep(way)
    benchmark.pedantic(step, warmup_rounds=1, rounds=1)
    parts = {part: seconds[-1] for part, seconds in step.seconds.items()}
    with Operations() as operations:
        step()
    # Compiled kernels are no operations of PyTorch and are missing here.
    benchmark.extra_info |= parts | operations.seconds
    with capsys.disabled():
        for title, seconds in (("part", parts), ("operation", operations.seconds)):
            total = sum(seconds.values())
            print(f"\n{way}: ms of CPU time a step, by {title}")
            for name, value in (*sorted(seconds.items()), ("all", total)):
                print(f"  {name:30} {value * 1e3:8.1f}  {value / total:6.1%}")

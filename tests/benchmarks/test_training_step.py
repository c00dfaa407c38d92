"""CPU time of a training step by part: 8 training networks, 64 images of 32×32, GHN-2, one thread.

Run with `pytest tests/benchmarks/test_training_step.py --benchmark-only -s`. Networks run channels-last, as
they do everywhere, and with contiguous images for comparison. The clock counts this process's CPU time.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median

import pytest
import torch
import torch.nn.functional as F
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from deepnets_bench import ir, network
from deepnets_bench.dataset import GraphBatch
from deepnets_bench.generators import sample
from deepnets_bench.ghn.model import GHN
from deepnets_bench.graph import ComputationGraph

NETWORKS, IMAGES, SIZE, WIDTH, FC_DIM = 8, 64, 32, 32, 128


class TrainingStep:
    """A step as `harness.training` takes it, with a clock around each part."""

    def __init__(self) -> None:
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
            with clock("networks, forward"):
                loss = F.cross_entropy(network.execute(steps, self.images, leaves, True), self.labels)
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


@pytest.mark.benchmark(timer=time.process_time)
@pytest.mark.parametrize("layout", ["channels-last", "contiguous"])
def test_parts(
    benchmark: BenchmarkFixture,
    layout: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if layout == "contiguous":
        run = network._execute_one
        monkeypatch.setattr(
            network,
            "_execute_one",
            lambda step, values, images, *rest: (
                images if step.kind == ir.INPUT else run(step, values, images, *rest)
            ),
        )
    step = TrainingStep()
    rounds = 3
    benchmark.pedantic(step, warmup_rounds=1, rounds=rounds)
    parts = {part: median(seconds[-rounds:]) for part, seconds in step.seconds.items()}
    benchmark.extra_info |= parts
    with capsys.disabled():
        print(f"\n{layout}: ms of CPU time a step")
        for part, seconds in {**parts, "all": sum(parts.values())}.items():
            print(f"  {part:24} {seconds * 1e3:8.1f}  {seconds / sum(parts.values()):6.1%}")

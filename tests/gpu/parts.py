"""The parts of `make gpu` that yield figures; each is also called on the CPU, where it can be, by the tests.

Run as `python -m tests.gpu.parts NAME [ARGUMENTS]`: prints a line `RESULT {...}` for each figure
as soon as it is known.
"""

from __future__ import annotations

import csv
import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from deepnets_bench.data.dataset import GraphBatch
from deepnets_bench.generators import sample
from deepnets_bench.ghn.gated.module import GatedGNN
from deepnets_bench.ghn.model import GHN
from deepnets_bench.graphs.graph import ComputationGraph
from deepnets_bench.harness.training.distributed import Compute, Rank
from deepnets_bench.networks.network import execute, unpack
from tests.ghn import oracle
from tests.gpu.report import RESULT, ROOT
from tests.harness.conftest import tiny_track
from tests.harness.training.processes import free_port, run_together
from tests.harness.training.test_trainer import make_trainer

Figure = dict[str, Any]
# graphs, fewest nodes, most nodes; as in tests/benchmarks/test_gatedgnn.py
BATCHES = {"1": (1, 194, 195), "8": (8, 130, 260), "32": (32, 130, 260), "8 deep": (8, 350, 700)}
CUDA = torch.device("cuda", 0)


def milliseconds(device: torch.device, action: Callable[[], Any], rounds: int = 5) -> float:
    """The least time of an action after a first one, with the device's work done."""
    times = []
    for _ in range(rounds + 1):
        _wait(device)
        start = time.perf_counter()
        action()
        _wait(device)
        times.append(time.perf_counter() - start)
    return 1e3 * min(times[1:])


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def gated(
    device: torch.device = CUDA, batches: dict[str, tuple[int, int, int]] = BATCHES
) -> Iterator[Figure]:
    """GatedGNN forward and backward against the oracle on the CPU: largest relative error, and times."""
    for name, (graphs, fewest, most) in batches.items():
        rng = np.random.default_rng(0)
        batch = oracle.make_batch(
            [oracle.random_graph(rng, int(n)) for n in rng.integers(fewest, most, graphs)]
        )
        torch.manual_seed(0)
        gnn, x = GatedGNN(32), torch.randn(len(batch.batch), 32)
        expected = _with_gradients(lambda gnn=gnn, x=x, batch=batch: oracle.gated(gnn, x, batch), gnn)
        gnn.to(device)
        on_device = type(batch)(**{key: value.to(device) for key, value in vars(batch).items()})
        x = x.to(device)

        def step(way: Callable[..., Any], gnn=gnn, x=x, batch=on_device) -> list[torch.Tensor]:
            vars(batch).pop("_gated_schedule", None)  # a training step sees every batch once
            return _with_gradients(lambda: way(gnn, x, batch), gnn)

        found = step(GatedGNN.forward)
        errors = [
            float((one.cpu() - other).abs().max() / other.abs().max().clamp(min=1))
            for one, other in zip(found, expected, strict=True)
        ]
        assert max(errors) < 1e-4, errors
        yield {
            "graphs": name,
            "nodes": len(batch.batch),
            "largest error": max(errors),
            "same bits twice": all(map(torch.equal, found, step(GatedGNN.forward))),
            "ms": milliseconds(device, lambda step=step: step(GatedGNN.forward)),
            "ms by level": milliseconds(device, lambda step=step: step(GatedGNN.by_level), 2),
            "ms of the oracle": milliseconds(device, lambda step=step: step(oracle.gated), 1),
        }


def _with_gradients(run: Callable[[], torch.Tensor], gnn: torch.nn.Module) -> list[torch.Tensor]:
    out = run()
    weights = torch.linspace(-1, 1, out.numel(), device=out.device).view_as(out)
    return [out.detach(), *torch.autograd.grad((out * weights).sum(), list(gnn.parameters()))]


def step(
    gnn: str, device: torch.device = CUDA, networks: int = 8, images: int = 64, width: int = 32
) -> Iterator[Figure]:
    """A training step by part: milliseconds, launches, the share of the time the GPU is busy, and memory."""
    torch.manual_seed(0)
    ghn = GHN.from_config("ghn3-t") if gnn == "ghn3" else GHN.from_config("ghn2", gnn=gnn)
    ghn.to(device).train()
    optimiser = torch.optim.AdamW(ghn.parameters(), lr=1e-4)
    sizes = {"width": width, "image_size": 32, "num_classes": 10, "fc_dim": 128}
    programs = [sample("train", index).program(**sizes) for index in range(networks)]
    pixels = torch.randn(images, 3, 32, 32, device=device)
    labels = torch.randint(10, (images,), device=device)
    held: dict[str, Any] = {}

    def batch() -> None:
        graphs = [ComputationGraph.from_program(program) for program in programs]
        held["steps"] = [unpack(program) for program in programs]
        held["batch"] = GraphBatch.from_graphs(graphs, ghn.virtual_edges).to(device)

    def forward() -> None:
        held["predicted"] = ghn(held["batch"], check=False)
        held["leaves"] = [
            {name: tensor.detach().requires_grad_() for name, tensor in params.items()}
            for params in held["predicted"]
        ]

    def networks_run() -> None:
        for steps, leaves in zip(held["steps"], held["leaves"], strict=True):
            logits = execute(steps, pixels, leaves, training=True)
            torch.nn.functional.cross_entropy(logits, labels).backward()

    def backward() -> None:
        pairs = zip(held["predicted"], held["leaves"], strict=True)
        used = [(params[name], leaf.grad) for params, leaves in pairs for name, leaf in leaves.items()]
        optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(
            [tensor for tensor, gradient in used if gradient is not None],
            [gradient for _, gradient in used if gradient is not None],
        )

    def update() -> None:
        torch.nn.utils.clip_grad_norm_(ghn.parameters(), 5.0)
        optimiser.step()

    order = {
        "graphs and batch": batch,
        "hypernetwork, forward": forward,
        "networks, forward and backward": networks_run,
        "hypernetwork, backward": backward,
        "optimiser": update,
    }
    for _ in range(2):  # kernels are chosen and memory is taken
        for action in order.values():
            action()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    times = {}
    for name, action in order.items():
        _wait(device)
        start = time.perf_counter()
        action()
        _wait(device)
        times[name] = time.perf_counter() - start
    memory = torch.cuda.max_memory_allocated(device) / 1e6 if device.type == "cuda" else 0.0
    for name, action in order.items():
        launches, busy = _launches(device, action)
        yield {
            "part": name,
            "ms": 1e3 * times[name],
            "launches": launches,
            "busy share": busy / times[name],
        }
    yield {"part": "all", "ms": 1e3 * sum(times.values()), "peak memory in MB": memory}


def _launches(device: torch.device, action: Callable[[], None]) -> tuple[int, float]:
    """Kernels an action launches and the seconds they take; operations of PyTorch on the CPU."""
    on_gpu = device.type == "cuda"
    activities = [ProfilerActivity.CPU, ProfilerActivity.CUDA] if on_gpu else [ProfilerActivity.CPU]
    with profile(activities=activities) as profiler:
        action()
        _wait(device)
    kind = torch.autograd.DeviceType.CUDA if on_gpu else torch.autograd.DeviceType.CPU
    events = [event for event in profiler.events() if event.device_type == kind]
    microseconds = sum(
        event.self_device_time_total if on_gpu else event.self_cpu_time_total for event in events
    )
    return len(events), microseconds / 1e6


def predict(
    device: torch.device = CUDA, names: tuple[str, ...] = ("resnet50", "resnet152")
) -> Iterator[Figure]:
    """Parameters of networks of torchvision for 1000 classes, written into modules on the device."""
    from torchvision.models import get_model

    ghn = GHN.from_config("ghn2", num_classes=1000).to(device)
    for name in names:
        with torch.device(device):
            module = get_model(name, weights=None)
        yield {
            "network": name,
            "values": sum(weight.numel() for weight in module.parameters()),
            "ms": milliseconds(device, lambda module=module: ghn.initialize(module, (3, 224, 224))),
        }


def digits(gnn: str, folder: str, device: str = "cuda", smoke: bool = False) -> Iterator[Figure]:
    """One job of the track digits, with the rows of the CPU beside, where the repository has some."""
    from deepnets_bench.gnn import identify
    from deepnets_bench.harness.protocol.tracks import load_track
    from deepnets_bench.harness.runs.job import Job
    from deepnets_bench.harness.runs.launch import run_job
    from deepnets_bench.harness.runs.options import RunOptions
    from deepnets_bench.harness.training.splits import prepare_dataset

    track = load_track("digits")
    track = track.as_smoke() if smoke else track
    path = ROOT / "leaderboards" / track.name / "results.csv"
    known = list(csv.DictReader(path.open(encoding="utf-8"))) if path.exists() else []
    dataset = prepare_dataset(track, Path(folder) / "data")
    out, options = Path(folder) / "digits", RunOptions(device=device)
    rows = run_job(Job(track, identify(gnn), 0), dataset, out, options)
    for row in rows:
        cpu = [
            float(other["accuracy_mean"])
            for other in known
            if (other["gnn"], other["split"], other["track_version"], other["seed"], other["status"])
            == (gnn, row.split, str(track.version), "0", "ok")
        ]
        yield {
            "split": row.split,
            "status": row.status,
            "accuracy": row.accuracy_mean,
            "accuracy of the CPU": cpu[0] if cpu else "no row",
            "train seconds": row.train_seconds,
            "eval seconds": row.eval_seconds,
            "device": row.device,
        }


def nccl(device: str = "cuda") -> Iterator[Figure]:
    """The first step of one process and of two, on a device each: the loss and the norm of the gradient."""
    port = free_port()
    places = [None, (0, 2, port), (1, 2, port)]
    found = run_together(first_step, [(device, place) for place in places])
    for place, (loss, norm) in zip(places, found, strict=True):
        yield {"process": "alone" if place is None else f"{place[0]} of 2", "loss": loss, "gradient": norm}
    np.testing.assert_allclose(found[1], found[2], rtol=1e-6)
    np.testing.assert_allclose(found[0], found[1], rtol=1e-3)


def first_step(device: str, place: tuple[int, int, int] | None) -> tuple[float, float]:
    """Loss and norm of the gradient after the first step of a tiny training, as this process sees them."""
    networks = {"meta_batch_size": 4, "max_meta_batch_nodes": None}
    track = tiny_track(training={"clip_grad_norm": 1e9}, networks=networks)
    architectures = {
        split: [sample(split, i) for i in range(count)] for split, count in (("train", 30), ("val", 3))
    }
    process = Rank(*place) if place else Rank()
    compute = Compute(f"cuda:{process.rank}" if device == "cuda" else device, "32", process)
    trainer = make_trainer(track, architectures, "mlp", compute=compute)
    loss, _, n_ran = trainer._step(0, next(trainer.sampler.from_step(0)), lr=0.0)
    assert n_ran == 4
    return loss, float(torch.nn.utils.clip_grad_norm_(trainer.ghn.parameters(), math.inf))


def main(name: str, *arguments: str) -> None:
    """Print the figures of a part, each as soon as it is known."""
    parts: dict[str, Callable[..., Iterator[Figure]]] = {
        "gated": gated,
        "step": step,
        "predict": predict,
        "digits": digits,
        "nccl": nccl,
    }
    for figure in parts[name](*arguments):
        print(RESULT + json.dumps(figure), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

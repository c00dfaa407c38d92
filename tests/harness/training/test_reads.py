"""What a training step reads from the device, for each of which the host waits."""

import pytest
import torch
from torch.overrides import TorchFunctionMode

from deepnets_bench.data.dataset import GraphBatch
from tests.harness.conftest import tiny_track
from tests.harness.training.test_trainer import make_trainer

READS = {
    getattr(torch.Tensor, name)
    for name in ("item", "tolist", "__bool__", "__int__", "__float__", "cpu", "numpy", "nonzero", "unique")
}


class Reads(TorchFunctionMode):
    """The names of the functions by which Python reads the values of tensors inside."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in READS:
            self.names.append(func.__name__)
        return func(*args, **kwargs or {})


@pytest.mark.parametrize("precision", ["32", "bf16", "fp16"])
@pytest.mark.parametrize("gnn", ["mlp", "gat"])
@pytest.mark.parametrize("networks", [2, 5])
def test_a_step_reads_what_became_of_its_networks_and_of_its_gradient(
    architectures, monkeypatch, gnn, precision, networks
):
    track = tiny_track(
        networks={"meta_batch_size": networks, "max_meta_batch_nodes": None},
        training={"clip_network_grad_norm": 1.0, "predicted_norm_penalty": 1e-4},
        images={"shift": 0},  # which the processor draws and compares
    ).in_precision(precision)
    trainer = make_trainer(track, architectures, gnn)
    if trainer.compute.scaler:
        trainer.compute.scaler.scale = 1024.0
    monkeypatch.setattr(trainer.optimiser, "step", lambda: None)  # it reads counts that are on the host
    monkeypatch.setattr(GraphBatch, "edges_ascend", True)  # looked at before a batch is moved
    sampled = next(trainer.sampler.from_step(0))
    with Reads() as reads:
        _, _, n_ran = trainer._step(0, sampled, lr=1e-3)
    assert n_ran == networks
    assert reads.names == ["tolist", "__bool__"]

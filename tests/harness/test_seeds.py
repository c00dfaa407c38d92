"""Two GNNs with one seed differ by the GNN alone, however many random numbers each of them draws."""

import signal

import pytest
import torch

import deepnets_bench.harness.training.accumulation as module
from deepnets_bench.gnn import identify
from deepnets_bench.harness.images.sets import digits
from deepnets_bench.harness.runs.job import build_ghn
from deepnets_bench.harness.training.trainer import Trainer
from tests.harness.conftest import tiny_track
from tests.harness.training.test_trainer import weights

GNNS = """
import random
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

class Plain(nn.Module):
    edges = "none"

    def __init__(self, dim):
        super().__init__()
        self.linear = nn.Linear(dim, dim)

    def forward(self, x, batch):
        return x + self.linear(x)

class Drawing(nn.Module):
    edges = "none"

    def __init__(self, dim):
        super().__init__()
        torch.manual_seed(int(torch.randint(100, (1,))))
        torch.rand(1000), np.random.rand(7), random.random()
        self.linear = nn.Linear(dim, dim)
        self.more = nn.Linear(dim, dim)

    def forward(self, x, batch):
        features = torch.rand_like(x) + float(np.random.rand()) + random.random()
        return F.dropout(x + self.linear(x), 0.3, self.training) + self.more(features)
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("gnns") / "gnns.py"
    path.write_text(GNNS)
    return path


def make(track, architectures, gnn, seed=0, **options) -> Trainer:
    torch.set_num_threads(1)
    return Trainer(
        track,
        build_ghn(track, identify(str(gnn)), 10, seed),
        architectures["train"],
        digits(16),
        seed=seed,
        validation=architectures["val"],
        **options,
    )


def frame(ghn) -> dict[str, torch.Tensor]:
    return {name: value for name, value in ghn.state_dict().items() if not name.startswith("gnn.")}


def same(a, b) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("config", ["ghn2", "ghn3-t"])
def test_all_weights_but_the_gnns_are_those_of_the_seed(file, config):
    track = tiny_track(ghn={"config": config})
    plain, drawing = (build_ghn(track, identify(f"{file}:{name}"), 10, 3) for name in ("Plain", "Drawing"))
    again, other = (build_ghn(track, identify(f"{file}:Drawing"), 10, seed) for seed in (3, 4))
    assert same(frame(plain), frame(drawing))
    for name in ("ghn3", "gat"):  # with embeddings, and with other layers
        assert same(frame(plain), frame(build_ghn(track, identify(name), 10, 3)))
    assert same(drawing.state_dict(), again.state_dict())
    assert not torch.equal(drawing.embed.weight, other.embed.weight)
    assert not torch.equal(drawing.gnn.linear.weight, other.gnn.linear.weight)
    newer = build_ghn(track.model_copy(update={"version": 2}), identify(f"{file}:Drawing"), 10, 3)
    assert not torch.equal(drawing.embed.weight, newer.embed.weight)


def test_building_and_training_leave_the_callers_generator_alone(file, architectures):
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    make(tiny_track(training={"steps": 1, "warmup_steps": 0}), architectures, f"{file}:Drawing").run()
    assert torch.equal(torch.rand(1), expected)


def seen_by_networks(track, architectures, gnn, monkeypatch, seed=0) -> list:
    """(operations, images, state of the generator, shape of each parameter) of every network that is run."""
    seen, execute = [], module.execute

    def record(steps, images, params, **options):
        shapes = {name: tuple(tensor.shape) for name, tensor in params.items()}
        seen.append((steps, images.clone(), torch.get_rng_state(), shapes))
        return execute(steps, images, params, **options)

    with monkeypatch.context() as patch:
        patch.setattr(module, "execute", record)
        make(track, architectures, gnn, seed).run()
    return seen


def test_networks_widths_images_and_dropout_are_those_of_the_seed(tiny, architectures, file, monkeypatch):
    plain, drawing, other = (
        seen_by_networks(tiny, architectures, f"{file}:{name}", monkeypatch, seed)
        for name, seed in (("Plain", 0), ("Drawing", 0), ("Plain", 1))
    )
    assert len(plain) == 12
    for (steps, images, state, shapes), found in zip(plain, drawing, strict=True):
        assert (steps, shapes) == (found[0], found[3])
        assert torch.equal(images, found[1])
        assert torch.equal(state, found[2])
    assert len({state.numpy().tobytes() for _, _, state, _ in plain}) == 12  # no two masks are alike
    assert not torch.equal(plain[0][1], other[0][1])
    assert [shapes for *_, shapes in plain] != [shapes for *_, shapes in other]


def test_a_gnn_that_draws_trains_the_same_weights_again_and_when_resumed(tiny, architectures, file, tmp_path):
    gnn = f"{file}:Drawing"
    whole, again = (make(tiny, architectures, gnn, folder=tmp_path / name) for name in ("whole", "again"))
    whole.run(), again.run()
    assert torch.equal(weights(whole), weights(again))

    def interrupt(progress) -> None:
        if progress.step == 3:
            signal.raise_signal(signal.SIGINT)

    cut = make(tiny, architectures, gnn, folder=tmp_path / "cut", report=interrupt)
    with pytest.raises(KeyboardInterrupt):
        cut.run()
    resumed = make(tiny, architectures, gnn, folder=tmp_path / "cut")
    assert resumed.resume() == 3
    assert resumed.state.cpu_seconds == cut.state.cpu_seconds > 0
    resumed.run()
    assert torch.equal(weights(whole), weights(resumed))
    assert resumed.state.cpu_seconds > cut.state.cpu_seconds

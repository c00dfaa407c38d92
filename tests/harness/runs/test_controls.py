"""Controls run as GNNs do; their rows carry their names, and their hypernetworks load without trust."""

import pytest
import torch

from deepnets_bench.ghn.model import GHN
from deepnets_bench.gnn import identify
from deepnets_bench.harness.runs.job import Job, build_ghn
from deepnets_bench.harness.runs.launch import run_job
from deepnets_bench.harness.runs.options import RunOptions
from deepnets_bench.harness.training.splits import prepare_dataset
from tests.harness.conftest import tiny_track


@pytest.mark.parametrize(
    ("name", "options"),
    [("control:same:gat", {}), ("control:shuffled:ghn2", {}), ("control:matched:mlp", {"params": 900})],
)
def test_a_control_is_a_job(name, options, tmp_path_factory, tmp_path):
    track = tiny_track(training={"steps": 2, "warmup_steps": 0})
    data = tmp_path_factory.getbasetemp() / "data-of-controls"
    job = Job(track, identify(name, options), 0)
    rows = run_job(job, prepare_dataset(track, data), tmp_path, RunOptions("cpu"))
    assert {(row.gnn, row.status, row.edges) for row in rows} == {(name, "ok", identify(name).edges)}
    assert rows[0].gnn_params <= options.get("params", rows[0].gnn_params)
    (saved,) = tmp_path.glob("runs/*/ghn.safetensors")
    assert GHN.load(saved).config.gnn == name


def test_an_untrained_control_is_evaluated_as_its_run_starts(tmp_path_factory, tmp_path):
    track = tiny_track()
    data = tmp_path_factory.getbasetemp() / "data-of-controls"
    job = Job(track, identify("control:untrained:gat"), 3)
    rows = run_job(job, prepare_dataset(track, data), tmp_path, RunOptions("cpu"))
    assert {(row.status, row.steps, row.train_cpu_seconds) for row in rows} == {("ok", 0, 0.0)}
    (saved,) = tmp_path.glob("runs/*/ghn.safetensors")
    started, written = build_ghn(track, identify("gat"), 10, 3).state_dict(), GHN.load(saved).state_dict()
    assert all(torch.equal(value, written[name]) for name, value in started.items()), "weights of a gat run"
    assert not list(tmp_path.glob("runs/*/curve.csv"))


def test_the_same_gnn_shares_all_of_a_run_but_its_own_weights():
    track = tiny_track()
    gnn, same = (build_ghn(track, identify(name), 10, 3) for name in ("gat", "control:same:gat"))
    assert torch.equal(gnn.embed.weight, same.embed.weight)
    ours = dict(same.gnn.gnn.named_parameters())
    assert not all(torch.equal(value, ours[name]) for name, value in gnn.gnn.named_parameters())

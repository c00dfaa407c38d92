"""A job on several devices: rows as from one process; what ends one process ends the job, with its reason."""

import os
import signal
import subprocess
import sys

import pytest

from deepnets_bench.errors import BadInput, RunFailed
from deepnets_bench.gnn import identify
from deepnets_bench.harness.runs.ddp import under_torchrun
from deepnets_bench.harness.runs.job import RESULTS, Job
from deepnets_bench.harness.runs.launch import run_job
from deepnets_bench.harness.runs.options import RunOptions
from deepnets_bench.harness.training.checkpoint import checkpoints
from deepnets_bench.harness.training.splits import prepare_dataset
from deepnets_bench.leaderboard.results import read_rows
from tests.harness.conftest import tiny_track
from tests.harness.test_commands import TRACK
from tests.harness.training.test_trainer import curve

TWO = RunOptions("cpu", devices=2)
GNN = """
import os, signal
import torch

class Failing(torch.nn.Module):
    def __init__(self, dim, how="raise"):
        super().__init__()
        self.linear, self.how, self.calls = torch.nn.Linear(dim, dim), how, 0

    def forward(self, x, batch):
        self.calls += 1
        if self.calls == 3 and os.environ.get("RANK") == "1":
            if self.how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise ValueError("this process alone fails")
        return self.linear(x)
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


def ranks() -> list[str]:
    """The processes of jobs that this process has started and that still are."""
    command = ["ps", "-ww", "-o", "args=", "--ppid", str(os.getpid())]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [line for line in listed.splitlines() if "harness.runs.ddp" in line]


def test_two_processes_leave_the_rows_of_one_job_and_go_on_where_they_were_stopped(data, tmp_path):
    track = tiny_track(training={"checkpoint_interval": 100})
    seen = []

    def stop(progress):
        seen.append((progress.phase, progress.done))
        if progress.done == 3:
            assert len(ranks()) == 2
            signal.raise_signal(signal.SIGTERM)

    job, dataset = Job(track, identify("mlp"), 0), prepare_dataset(track, data)
    with pytest.raises(KeyboardInterrupt):
        run_job(job, dataset, tmp_path, TWO, stop)
    assert seen == [("train", 1), ("train", 2), ("train", 3)]
    (folder,) = (tmp_path / "runs").iterdir()
    (saved,) = checkpoints(folder)
    assert saved.stem in ("checkpoint-3", "checkpoint-4", "checkpoint-5")
    assert not (tmp_path / RESULTS).exists()
    assert ranks() == []

    seen.clear()
    rows = run_job(job, dataset, tmp_path, TWO, lambda p: seen.append((p.phase, p.done)))
    assert seen[0] == ("train", int(saved.stem.partition("-")[2]) + 1)
    assert read_rows(tmp_path / RESULTS) == rows
    assert [(row.split, row.status) for row in rows] == [("val", "ok"), ("test", "ok"), ("wide", "ok")]
    assert rows[0].device.endswith(", 2 processes")
    assert [row["step"] for row in curve(folder)] == ["2", "3", "4", "6"]


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("raise", "ValueError: this process alone fails"),
        ("kill", "one of its processes was ended by SIGKILL, perhaps for want of memory"),
    ],
)
def test_a_process_that_fails_ends_the_job_with_its_own_reason(data, tmp_path, capfd, how, reason):
    file = tmp_path / "failing.py"
    file.write_text(GNN)
    track = tiny_track()
    job = Job(track, identify(f"{file}:Failing", {"how": how}), 0)
    with pytest.raises(RunFailed) as failed:
        run_job(job, prepare_dataset(track, data), tmp_path, TWO)
    assert str(failed.value) == reason


def test_one_gpu_of_several_cannot_be_named(tiny, data, tmp_path):
    job, dataset = Job(tiny, identify("mlp"), 0), prepare_dataset(tiny, data)
    with pytest.raises(BadInput, match="give --device cuda, not cuda:1"):
        run_job(job, dataset, tmp_path, RunOptions("cuda:1", devices=2))


def test_torchrun_sets_the_number_of_processes_and_its_variables_go_no_further():
    variables = {
        "TORCHELASTIC_RUN_ID": "none",
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "RANK": "1",
        "WORLD_SIZE": "4",
        "LOCAL_WORLD_SIZE": "4",
        "MASTER_PORT": "29500",
        "HOME": "/home/me",
    }
    with pytest.raises(BadInput, match="devices of one machine: start torchrun with one node"):
        under_torchrun(variables | {"LOCAL_WORLD_SIZE": "2"})
    assert under_torchrun(variables) == (1, 4)
    assert variables == {"HOME": "/home/me"}
    assert under_torchrun(variables) is None


def test_torchrun_trains_one_job_with_all_its_processes(data, tmp_path):
    (tmp_path / "tiny.toml").write_text(TRACK)
    options = ["--precision", "bf16", "--device", "cpu", "--out", "out", "--data", str(data)]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "0"]
    done = subprocess.run(
        [*launcher, "-m", "deepnets_bench", "run", "--gnn", "mlp", "--track", "tiny.toml", *options],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("1 ok, 0 failed, 0 skipped") == 1
    rows = read_rows(tmp_path / "out" / RESULTS)
    assert [(row.split, row.status) for row in rows] == [("val", "ok"), ("test", "ok")]
    assert all(row.device.endswith(", 2 processes") and row.precision == "bf16" for row in rows)

"""Jobs on a Dask cluster: the same rows as here, failures among them; a dead worker costs little."""

from __future__ import annotations

import os
import signal
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

import deepnets_bench as dnb
from deepnets_bench.errors import BadInput, RunFailed
from deepnets_bench.gnn import identify
from deepnets_bench.harness.runs import executors, scheduler
from deepnets_bench.harness.runs.job import RESULTS, Job
from deepnets_bench.harness.runs.scheduler import run_jobs
from deepnets_bench.harness.runs.worker import Task
from deepnets_bench.harness.training.splits import Dataset, prepare_dataset
from deepnets_bench.leaderboard.results import read_rows
from deepnets_bench.system.dask import connected
from tests.harness.conftest import tiny_track
from tests.harness.runs.test_job import CPU, Silent

distributed = pytest.importorskip("distributed", reason="Dask is an extra")

SCORED = ("gnn", "seed", "split", "status", "n_evaluated", "accuracy_mean", "config_hash", "steps", "edges")
RAISES = """
import torch
class Raises(torch.nn.Module):
    edges = "none"
    def __init__(self, dim):
        super().__init__()
    def forward(self, x, batch):
        raise ValueError("no luck")
"""


@pytest.fixture(scope="module")
def client():
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        connected(cluster.scheduler_address) as client,
    ):
        yield client


def run(jobs: list[Job], data: Path, out: Path, view: Any, cluster: Any = None) -> list[Any]:
    dataset = prepare_dataset(jobs[0].track, data)
    return run_jobs(jobs, dataset, out, CPU, view, cluster)


def task_in(path: Path, folder: Path) -> Task:
    job, dataset = Job(tiny_track(), identify("mlp"), 0), Dataset(path, None, "d0")
    return Task(job, dataset, path, folder, path, CPU)


@pytest.mark.stress
def test_a_cluster_leaves_the_rows_that_this_machine_does(client, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the workers are elsewhere: relative paths are ours
    track = tiny_track(training={"steps": 2, "warmup_steps": 0})
    Path("mine.py").write_text(RAISES)
    jobs = [Job(track, identify("mlp"), 1), Job(track, identify("./mine.py"), 0)]
    data, view = Path("data"), Silent()
    outcomes = run(jobs, data, Path("there"), view, cluster=client)
    run(jobs[:1], data, Path("here"), Silent())
    assert {outcome.job.gnn.name: outcome.status for outcome in outcomes} == {
        "mlp": "ok",
        "./mine.py": "failed",
    }
    (failed,) = (outcome for outcome in outcomes if outcome.status == "failed")
    assert failed.reason == "ValueError: no luck"
    assert "Traceback" in failed.log.read_text()
    assert "train" in view.phases
    there, here = read_rows("there/" + RESULTS), read_rows("here/" + RESULTS)
    finished = [row.model_dump(include=set(SCORED)) for row in there if row.status == "ok"]
    assert finished == [row.model_dump(include=set(SCORED)) for row in here]
    assert [row.reason for row in there if row.status == "failed"] == ["ValueError: no luck"] * 3


@pytest.mark.stress
def test_a_dead_worker_costs_only_the_steps_since_its_last_checkpoint(client, tmp_path):
    track = tiny_track(training={"steps": 400, "checkpoint_interval": 20})
    killed: list[int] = []

    class Killing(Silent):
        def update(self, name: str, progress: Any) -> None:
            super().update(name, progress)
            if progress.phase == "train" and progress.done > 100 and not killed:
                busy = [address for address, tasks in client.processing().items() if tasks]
                killed.extend(client.run(os.getpid, workers=busy).values())
                os.kill(killed[0], signal.SIGKILL)

    (outcome,) = run([Job(track, identify("mlp"), 0)], tmp_path / "data", tmp_path, Killing(), cluster=client)
    assert (outcome.status, len(killed)) == ("ok", 1)
    rows = read_rows(tmp_path / RESULTS)
    assert [row.split for row in rows] == ["val", "test", "wide"]  # and not twice
    (curve,) = tmp_path.glob("runs/*/curve.csv")
    steps = [int(line.split(",")[0]) for line in curve.read_text().splitlines()[1:]]
    assert steps == sorted(set(steps))
    assert not list(tmp_path.glob("runs/*/.deepnets-bench-*"))


def test_a_worker_that_does_not_see_the_folder_says_so(tmp_path):
    folder = tmp_path / "elsewhere"
    task = task_in(tmp_path, folder)
    with pytest.raises(RunFailed, match=r"does not see .*elsewhere: --out must be on a file system"):
        executors._on_worker(task, "run")


def test_a_scheduler_that_does_not_answer_is_one_sentence_before_anything_is_made(tmp_path, monkeypatch):
    def refuse(address: str, timeout: str) -> None:
        raise OSError("Timed out")

    monkeypatch.setattr(distributed, "Client", refuse)
    bench = dnb.Benchmark(tiny_track(), tmp_path / "data", quiet=True)
    with pytest.raises(BadInput, match="No Dask scheduler answers at tcp://nowhere:1"):
        bench.run("mlp", out=tmp_path / "out", scheduler="tcp://nowhere:1")
    assert not list(tmp_path.iterdir())


def test_a_lost_cluster_and_a_dead_worker_are_failed_jobs(tmp_path):
    task = task_in(tmp_path, tmp_path)
    lost, dead = Future(), Future()
    lost.cancel()
    dead.set_exception(MemoryError())
    outcomes = [scheduler._outcome(future, task) for future in (lost, dead)]
    assert [outcome.status for outcome in outcomes] == ["failed", "failed"]
    assert [outcome.reason for outcome in outcomes] == [
        "the Dask cluster that ran it was lost",
        "MemoryError",
    ]


@pytest.mark.parametrize(
    ("gpus", "device", "expected"),
    [
        (2, "cuda", ["cuda:0", "cuda:1", "cuda:0"]),
        (2, "auto", ["cuda:0", "cuda:1", "cuda:0"]),
        (2, "cuda:1", ["cuda:1"] * 3),
        (2, "cpu", ["cpu"] * 3),
        (1, "cuda", ["cuda"] * 3),
        (0, "auto", ["auto"] * 3),
    ],
)
def test_jobs_side_by_side_are_spread_over_the_gpus(monkeypatch, gpus, device, expected):
    monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
    assert [executors.device_of(worker, device) for worker in range(3)] == expected

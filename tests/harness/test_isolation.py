"""The process of a job: what counts as its time."""

from __future__ import annotations

import time
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from deepnets_bench.gnn import identify
from deepnets_bench.harness.runs import worker
from deepnets_bench.harness.runs.job import Job
from deepnets_bench.harness.runs.options import RunOptions
from deepnets_bench.harness.runs.worker import Task, run_isolated
from deepnets_bench.harness.training.progress import JobProgress
from deepnets_bench.harness.training.splits import Dataset
from deepnets_bench.system.processes import start
from tests.harness.conftest import tiny_track

LIMIT = 6.0  # seconds; a process needs some to start


def eight_seconds(phase: str, sender: Connection) -> None:
    for step in range(40):
        sender.send(JobProgress(phase, step, 40, ""))
        time.sleep(0.2)
    sender.send(("ok", ""))


@pytest.mark.parametrize(("phase", "status"), [("wait", "ok"), ("train", "timeout")])
def test_waiting_for_another_start_of_the_job_is_not_its_time(phase, status, tmp_path, monkeypatch):
    monkeypatch.setattr(worker, "_start", lambda task: start(eight_seconds, phase))
    track = tiny_track().model_copy(update={"timeout_minutes": LIMIT / 60})
    job, dataset = Job(track, identify("mlp"), 0), Dataset(tmp_path, None, "d0")
    task = Task(job, dataset, tmp_path, tmp_path, Path.cwd(), RunOptions())
    assert run_isolated(task, lambda progress: None, lambda: False).status == status

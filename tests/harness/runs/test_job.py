"""Jobs: each leaves rows, scores and a hypernetwork that scores the same; finished ones are skipped."""

import subprocess
import sys

import pytest
import torch
from filelock import FileLock

from deepnets_bench.errors import BadInput
from deepnets_bench.gnn import identify
from deepnets_bench.harness.runs.job import RESULTS, Job, failed_rows, finished_jobs
from deepnets_bench.harness.runs.launch import LOCK, run_job
from deepnets_bench.harness.runs.options import RunOptions
from deepnets_bench.harness.runs.scheduler import run_jobs, unfinished
from deepnets_bench.harness.training import scoring
from deepnets_bench.harness.training.evaluation import Evaluation
from deepnets_bench.harness.training.scoring import pick_device
from deepnets_bench.harness.training.splits import prepare_dataset
from deepnets_bench.leaderboard.admission import Calibration
from deepnets_bench.leaderboard.results import ResultRow, append_rows, read_rows
from deepnets_bench.leaderboard.scores import read_scores
from deepnets_bench.leaderboard.validate import validate
from tests.harness.conftest import tiny_track


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def finished(tiny, data, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    return out, run_job(Job(tiny, identify("mlp"), 1), prepare_dataset(tiny, data), out, CPU)


CPU = RunOptions("cpu")


class Silent:
    def __init__(self):
        self.phases = []
        self.steps = []
        self.outcomes = []

    def update(self, name, progress):
        self.phases.append(progress.phase)
        self.steps.append(progress.done)

    def finish(self, outcome):
        self.outcomes.append(outcome)


def test_a_job_leaves_a_row_per_split_with_scores_and_provenance(tiny, finished):
    out, rows = finished
    assert read_rows(out / RESULTS) == rows
    assert [(row.split, row.status, row.n_evaluated) for row in rows] == [
        ("val", "ok", 3),
        ("test", "ok", 3),
        ("wide", "ok", 2),
    ]
    row = rows[1]
    assert (row.track, row.track_version, row.gnn, row.seed, row.steps) == ("tiny", 1, "mlp", 1, 6)
    assert row.ghn_params > row.gnn_params > 0
    assert (row.track_digest, row.metric, row.precision, row.threads) == (tiny.fingerprint(), "top1", "32", 1)
    assert (row.frame_digest, row.tuning_trials) == ("", 0)
    assert row.gnn_digest == identify("mlp").digest
    assert row.train_seconds > 0
    assert row.train_cpu_seconds > 0
    assert row.eval_cpu_seconds > 0
    assert validate(out / RESULTS) == []
    assert row.peak_memory_mb > 50
    assert row.torch_version == torch.__version__.partition("+")[0] or row.torch_version == torch.__version__
    scores = read_scores(out / "scores" / row.scores_file)
    assert sum(scores["test"].values()) / 3 == pytest.approx(row.accuracy_mean)
    left = {path.name for path in (out / "runs").glob("*/[!.]*")}
    assert left == {"curve.csv", "ghn.safetensors"}  # no checkpoint that a later run might take for its own


def test_finished_jobs_are_known_by_all_that_determines_their_result(tiny, data, finished):
    out, rows = finished
    dataset = prepare_dataset(tiny, data)
    assert finished_jobs(out) == {rows[0].config_hash: rows}
    others = [
        Job(tiny, identify("mlp"), 2),
        Job(tiny, identify("gat"), 1),
        Job(tiny, identify("mlp", {"depth": 3}), 1),
        Job(tiny_track(training={"lr": 0.5}), identify("mlp"), 1),
    ]
    assert unfinished([Job(tiny, identify("mlp"), 1), *others], dataset, out) == others


def test_partial_and_failed_jobs_are_run_again(tiny, data, finished, tmp_path):
    _, rows = finished
    dataset, job = prepare_dataset(tiny, data), Job(tiny, identify("mlp"), 1)
    partial = {"status": "partial", "n_evaluated": 1, "accuracy_std": None, "accuracy_sem": None}
    append_rows(tmp_path / RESULTS, [*rows[:2], ResultRow(**rows[2].model_dump() | partial)])
    assert unfinished([job], dataset, tmp_path) == [job]
    append_rows(tmp_path / RESULTS, failed_rows(job, dataset, "failed", "killed", 3.0))
    assert unfinished([job], dataset, tmp_path) == [job]
    append_rows(tmp_path / RESULTS, rows[2:])
    assert unfinished([job], dataset, tmp_path) == []


def test_the_calibration_job_runs_once_with_each_stack(tiny, data, finished, tmp_path):
    _, rows = finished
    calibrated = tiny.model_copy(update={"calibration": Calibration(gnn="mlp", seed=1, tolerance=0.001)})
    dataset = prepare_dataset(tiny, data)
    jobs = [Job(calibrated, identify("mlp"), 1), Job(calibrated, identify("mlp", {"depth": 3}), 1)]
    append_rows(tmp_path / RESULTS, [row.model_copy(update={"torch_version": "1.0"}) for row in rows])
    assert unfinished([Job(tiny, identify("mlp"), 1)], dataset, tmp_path) == []
    assert unfinished(jobs, dataset, tmp_path) == jobs
    append_rows(tmp_path / RESULTS, rows)
    assert unfinished(jobs, dataset, tmp_path) == jobs[1:]


def test_the_number_of_settings_tried_is_a_declaration_and_no_part_of_a_job(tiny, data):
    job = Job(tiny, identify("gat"), 0, tuning_trials=12)
    dataset = prepare_dataset(tiny, data)
    assert job.config_hash("data") == Job(tiny, identify("gat"), 0).config_hash("data")
    assert {row.tuning_trials for row in failed_rows(job, dataset, "failed", "killed", 3.0)} == {12}


def test_an_edited_file_is_another_job(tiny, tmp_path):
    mine = tmp_path / "mine.py"
    mine.write_text("class MyGNN:\n    edges = 'none'\n")
    before = Job(tiny, identify(f"{mine}:MyGNN"), 0).config_hash("data")
    mine.write_text("class MyGNN:\n    edges = 'both'\n")
    assert Job(tiny, identify(f"{mine}:MyGNN"), 0).config_hash("data") != before


def test_a_job_whose_gnn_was_edited_after_it_was_planned_fails_with_that_reason(data, tmp_path):
    mine = tmp_path / "mine.py"
    mine.write_text("class MyGNN:\n    edges = 'none'\n")
    track = tiny_track()
    job = Job(track, identify(f"{mine}:MyGNN"), 0)
    mine.write_text("class MyGNN:\n    edges = 'both'\n")
    (outcome,) = run_jobs([job], prepare_dataset(track, data), tmp_path, CPU, Silent())
    assert outcome.status == "failed"
    assert "has changed since this run began; start the run again" in outcome.reason


TWICE = """
import sys
from pathlib import Path
from deepnets_bench.gnn import identify
from deepnets_bench.harness.runs.job import Job
from deepnets_bench.harness.runs.launch import run_job
from deepnets_bench.harness.runs.options import RunOptions
from deepnets_bench.harness.training.splits import prepare_dataset
from tests.harness.conftest import tiny_track
phases = []
def report(progress):
    if progress.phase not in phases:
        phases.append(progress.phase)
        print(progress.phase, flush=True)
track, (data, out) = tiny_track(), map(Path, sys.argv[1:])
job = Job(track, identify("mlp"), 0)
rows = run_job(job, prepare_dataset(track, data), out, RunOptions("cpu"), report)
print(len(rows), {row.status for row in rows})
"""


def test_two_starts_of_one_job_leave_the_rows_of_one(tiny, data, tmp_path):
    dataset = prepare_dataset(tiny, data)
    job = Job(tiny, identify("mlp"), 0)
    folder = job.folder(tmp_path, job.config_hash(dataset.fingerprint))
    folder.mkdir(parents=True)
    command = [sys.executable, "-c", TWICE, str(data), str(tmp_path)]
    with FileLock(folder / LOCK):  # both have started and wait before either can train
        both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
        assert [process.stdout.readline() for process in both] == ["wait\n"] * 2
    printed = sorted(process.communicate(timeout=240)[0].split("\n") for process in both)
    assert printed == [["3 {'ok'}", ""], ["train", "val", "test", "wide", "3 {'ok'}", ""]]
    rows = read_rows(tmp_path / RESULTS)
    assert [row.split for row in rows] == ["val", "test", "wide"]
    assert run_job(job, dataset, tmp_path, CPU) == rows  # finished: not again
    assert read_rows(tmp_path / RESULTS) == rows


def test_failed_rows_name_the_reason_in_every_split(tiny, data):
    rows = failed_rows(
        Job(tiny, identify("gat"), 0), prepare_dataset(tiny, data), "timeout", "it took too long", 3.0
    )
    assert [(row.split, row.status, row.n_evaluated, row.reason) for row in rows] == [
        (split, "timeout", 0, "it took too long") for split in ("val", "test", "wide")
    ]


def test_jobs_run_in_processes_and_a_failing_one_harms_no_other(data, tmp_path):
    track = tiny_track(training={"steps": 2, "warmup_steps": 0})
    mine = tmp_path / "mine.py"
    mine.write_text(
        "import os, pathlib, signal, torch\n"
        "with pathlib.Path(__file__).with_suffix('.ran').open('a') as file: print(os.getpid(), file=file)\n"
        "class Narrow(torch.nn.Module):\n"
        "    edges = 'forward'\n"
        "    def __init__(self, dim):\n"
        "        super().__init__()\n"
        "    def forward(self, x, batch):\n"
        "        return x[:, :-1]\n"
        "class Dies(Narrow):\n"
        "    def forward(self, x, batch):\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    dataset = prepare_dataset(track, data)
    jobs = [
        Job(track, identify(f"{mine}:Narrow"), 0),
        Job(track, identify(f"{mine}:Dies"), 0),
        Job(track, identify("mlp"), 0),
    ]
    view = Silent()
    outcomes = run_jobs(jobs, dataset, tmp_path, RunOptions("cpu", tensorboard=True), view)
    assert [outcome.status for outcome in outcomes] == ["failed", "failed", "ok"]
    assert outcomes == view.outcomes
    assert "forward returns shape" in outcomes[0].reason
    assert "Traceback" in outcomes[0].log.read_text()
    assert outcomes[1].reason == "its process was ended by SIGKILL, perhaps for want of memory"
    assert view.phases[-1] == "wide"
    rows = read_rows(tmp_path / RESULTS)
    statuses = [(row.gnn, row.edges, row.status) for row in rows[::3]]
    assert statuses == [
        (f"{mine}:Narrow", "forward", "failed"),
        (f"{mine}:Dies", "forward", "failed"),
        ("mlp", "none", "ok"),
    ]
    assert len(rows) == 9
    assert unfinished(jobs, dataset, tmp_path) == jobs[:2]
    ran = mine.with_suffix(".ran").read_text().split()
    assert len(ran) == len(set(ran)) == 3  # once here and once in each job
    assert len(list(tmp_path.glob("runs/mlp-*/tensorboard/events.out.tfevents.*"))) == 1


def test_a_job_of_which_no_network_could_be_evaluated_has_failed(data, tmp_path):
    track = tiny_track(training={"steps": 2, "warmup_steps": 0, "max_failures": 10})
    mine = tmp_path / "mine.py"
    mine.write_text(
        "import torch\n"
        "class Nan(torch.nn.Module):\n"
        "    def __init__(self, dim):\n"
        "        super().__init__()\n"
        "        self.linear = torch.nn.Linear(dim, dim)\n"
        "    def forward(self, x, batch):\n"
        "        return self.linear(x) * float('nan')\n"
    )
    dataset = prepare_dataset(track, data)
    (outcome,) = run_jobs([Job(track, identify(f"{mine}:Nan"), 0)], dataset, tmp_path, CPU, Silent())
    assert outcome.status == "failed"
    assert outcome.reason.startswith("no network of any split could be evaluated, the first one because GNN")
    assert "4 networks failed in training, the last one because" in outcome.reason
    rows = read_rows(tmp_path / RESULTS)
    assert [(row.status, row.reason) for row in rows] == [("failed", outcome.reason)] * 3
    assert validate(tmp_path / RESULTS) == []


def test_a_partial_job_keeps_the_checkpoints_from_which_its_next_run_evaluates(
    tiny, data, tmp_path, monkeypatch
):
    partial = Evaluation({0: 0.5}, {1: "no memory"})
    monkeypatch.setattr(scoring, "score_splits", lambda *_: dict.fromkeys(tiny.evaluation.splits, partial))
    rows = run_job(Job(tiny, identify("mlp"), 0), prepare_dataset(tiny, data), tmp_path, CPU)
    assert {row.status for row in rows} == {"partial"}
    assert list(tmp_path.glob("runs/*/checkpoint-6.ckpt"))


def test_an_interrupted_run_stops_its_jobs_writes_no_row_and_goes_on_from_its_checkpoints(data, tmp_path):
    track = tiny_track(training={"steps": 100_000, "checkpoint_interval": 100_000})

    class Interrupting(Silent):
        def update(self, name, progress):
            super().update(name, progress)
            raise KeyboardInterrupt

    def first_step() -> int:
        view = Interrupting()
        with pytest.raises(KeyboardInterrupt):
            run_jobs(jobs, prepare_dataset(track, data), tmp_path, CPU, view)
        return view.steps[0]

    jobs = [Job(track, identify("mlp"), 0), Job(track, identify("mlp"), 1)]
    assert first_step() == 1
    (saved,) = tmp_path.glob("runs/mlp-seed0-*/checkpoint-*.ckpt")
    assert first_step() == int(saved.stem.partition("-")[2]) + 1
    assert not list(tmp_path.glob("runs/mlp-seed1-*/checkpoint-*.ckpt"))  # it never began
    assert not (tmp_path / RESULTS).exists()


def test_a_job_over_its_time_is_stopped_and_leaves_a_row(data, tmp_path):
    track = tiny_track(training={"steps": 100_000}).model_copy(update={"timeout_minutes": 0.1})
    dataset = prepare_dataset(track, data)
    (outcome,) = run_jobs([Job(track, identify("mlp"), 0)], dataset, tmp_path, CPU, Silent())
    assert outcome.status == "timeout"
    assert {row.status for row in read_rows(tmp_path / RESULTS)} == {"timeout"}


def test_devices_that_are_not_there_are_refused():
    assert pick_device("cpu") == torch.device("cpu")
    with pytest.raises(BadInput, match="Device 'gpu' is not supported"):
        pick_device("gpu")
    with pytest.raises(BadInput, match="'cuda:99' is not available"):
        pick_device("cuda:99")

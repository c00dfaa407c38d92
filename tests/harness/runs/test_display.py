"""Views of running jobs: what a terminal of a given width shows, and the lines elsewhere."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from deepnets_bench.gnn import identify
from deepnets_bench.harness.runs import display
from deepnets_bench.harness.runs.job import Job
from deepnets_bench.harness.runs.worker import Outcome
from deepnets_bench.harness.training.progress import JobProgress

TEXT = "loss 2.198 acc 12.5% val 9.4% 8.9 networks/s"


def test_a_terminal_shows_all_of_the_progress_and_how_a_job_ended(tiny):
    console = Console(file=io.StringIO(), force_terminal=True, width=80, color_system=None)
    job = Job(tiny, identify("gat", {"heads": 2}), 0)
    with display.view(console) as shown:
        shown.update(job.name, JobProgress("train", 56, 150, TEXT))
        bars = shown._progress
        screen = io.StringIO()
        Console(file=screen, width=80).print(bars.get_renderable())
        shown.finish(Outcome(job, "failed", "no [luck]", 7.4, Path("log.txt")))
        assert bars.tasks == []
    words = screen.getvalue().split()
    assert [word for word in TEXT.split() if word not in words] == []
    assert "56/150" in words
    assert "gat heads=2 seed 0: failed after 7 s: no [luck] (log: log.txt)" in console.file.getvalue()


def test_the_time_left_of_a_resumed_training_counts_from_where_it_goes_on(monkeypatch):
    now = 100.0
    console = Console(file=io.StringIO(), force_terminal=True, width=80)
    with display.view(console) as shown:
        bars = shown._progress
        monkeypatch.setattr(bars, "get_time", lambda: now)
        for step in range(500, 511):
            shown.update("gat seed 0", JobProgress("train", step, 1000, ""))
            now += 2.0
        assert bars.tasks[0].time_remaining == pytest.approx(490 * 2, rel=0.01)


def test_lines_tell_each_phase_and_the_time_left(monkeypatch):
    now = 0.0
    monkeypatch.setattr(display.time, "monotonic", lambda: now)
    console = Console(file=io.StringIO(), width=200)
    with display.view(console) as shown:
        for now, step in ((100.0, 500), (105.0, 510), (120.0, 540), (121.0, 1000)):  # noqa: B007
            shown.update("gat seed 0", JobProgress("train", step, 1000, f"loss {step}"))
    assert console.file.getvalue().splitlines() == [
        "gat seed 0: train 500/1000 loss 500",
        "gat seed 0: train 540/1000 loss 540, 230 s left",
        "gat seed 0: train 1000/1000 loss 1000",
    ]

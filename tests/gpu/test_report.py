"""`make gpu` without a GPU: one line; its machinery and its parts on the CPU."""

import json
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
import torch

from tests.gpu import parts, report
from tests.gpu.report import Part, markdown, run_parts, write_report

CPU = torch.device("cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_ends_with_one_line_and_code_2(tmp_path):
    command = [sys.executable, "-S", str(report.ROOT / "tests/gpu/report.py"), "--dir", str(tmp_path / "out")]
    bare = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (bare.returncode, bare.stdout) == (2, "")
    assert bare.stderr.count("\n") == 1
    assert "no PyTorch that imports" in bare.stderr or "sees no GPU" in bare.stderr
    command.remove("-S")
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout) == (2, "")
    assert found.stderr == f"PyTorch {torch.__version__} sees no GPU on this machine: make gpu needs one.\n"
    assert not (tmp_path / "out").exists()


def python(code):
    return (sys.executable, "-c", code)


def test_a_part_that_hangs_and_one_that_raises_leave_the_figures_of_all(tmp_path, capsys):
    figure = "print('RESULT {\"ms\": 1.5}', flush=True)"
    chosen = [
        Part("hangs", python(f"import subprocess, sys; {figure}; subprocess.run(['sleep', '600'])"), 3),
        Part("raises", python(f"{figure}; raise ValueError('what went wrong')"), 60),
        Part("good", python(f"print('noise'); {figure}"), 60),
    ]
    started = time.monotonic()
    outcomes = run_parts(chosen, tmp_path, dict(os.environ))
    assert time.monotonic() - started < 60
    assert [outcome.status for outcome in outcomes] == ["timeout", "failed", "ok"]
    assert all(outcome.figures == [{"ms": 1.5}] for outcome in outcomes)
    assert "what went wrong" in outcomes[1].output
    assert outcomes[2].output == ""
    machine = {"devices": ["A GPU"], "torch": "2.11", "cuda": "13.0", "commit": "abc"}
    write_report(tmp_path, machine, outcomes)
    content = json.loads((tmp_path / "report.json").read_text())
    assert [part["status"] for part in content["parts"]] == ["timeout", "failed", "ok"]
    text = (tmp_path / "report.md").read_text()
    assert text.startswith("# A GPU\n")
    assert text.count("| ms |\n| --- |\n| 1.5 |\n") == 3
    assert "## raises: failed" in text


def test_no_part_begins_when_the_time_is_over(tmp_path):
    chosen = [Part("long", python("import time; time.sleep(60)"), 60), Part("late", python("pass"), 60)]
    outcomes = run_parts(chosen, tmp_path, dict(os.environ), seconds=2.0)
    assert [outcome.status for outcome in outcomes] == ["timeout", "late"]
    assert "late" in markdown({"devices": [], "torch": "", "cuda": "", "commit": ""}, outcomes)


def test_all_parts_fit_into_nine_minutes_and_nccl_needs_two_devices(tmp_path):
    names = [part.name for part in report.parts(1, tmp_path)]
    assert names == [
        "tests", "gated", "step ghn2", "step ghn3", "step gat", "predict", "digits mlp", "digits gat"
    ]  # fmt: skip
    assert "nccl" in [part.name for part in report.parts(2, tmp_path)]
    assert report.SECONDS < 9 * 60


def test_the_parts_import_the_package_from_this_tree_and_wheels(tmp_path):
    (tmp_path / "wheels").mkdir()
    with zipfile.ZipFile(tmp_path / "wheels" / "extra-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("extra_module.py", "VALUE = 3\n")
    tree, found = report.stage(tmp_path / "out", tmp_path / "wheels")
    code = (
        "import importlib.util, extra_module; print(extra_module.VALUE); "
        "print(importlib.util.find_spec('deepnets_bench.generators').origin)"
    )
    command = [sys.executable, "-S", "-c", code]  # without the package that this Python has installed
    done = subprocess.run(command, cwd=tree, env=found, capture_output=True, text=True, check=True)
    value, path = done.stdout.split()
    assert Path(path).is_relative_to(tmp_path / "out")
    assert value == "3"


def test_gated_on_the_cpu():
    (figure,) = parts.gated(CPU, {"2": (2, 20, 30)})
    assert figure["largest error"] < 1e-5
    assert figure["same bits twice"]
    assert figure["ms"] > 0


@pytest.mark.parametrize("gnn", ["ghn2", "ghn3", "gat"])
def test_a_step_by_part_on_the_cpu(gnn):
    figures = list(parts.step(gnn, CPU, networks=2, images=4, width=8))
    assert [figure["part"] for figure in figures] == [
        "graphs and batch", "hypernetwork, forward", "networks, forward and backward",
        "hypernetwork, backward", "optimiser", "all",
    ]  # fmt: skip
    assert all(figure["launches"] > 0 for figure in figures[1:-1])


def test_predict_on_the_cpu():
    pytest.importorskip("torchvision")
    (figure,) = parts.predict(CPU, ("squeezenet1_0",))
    assert figure["values"] == 1_248_424


def test_two_processes_on_the_cpu():
    alone, first, second = parts.nccl("cpu")
    assert first["loss"] == second["loss"] == pytest.approx(alone["loss"], rel=1e-5)


def test_a_job_of_digits_on_the_cpu(tmp_path, capsys):
    figures = list(parts.digits("mlp", str(tmp_path), "cpu", smoke=True))
    assert [figure["split"] for figure in figures] == ["val", "test", "wide", "deep", "dense", "bnfree"]
    assert all(figure["status"] == "ok" for figure in figures)


def test_a_part_prints_its_figures_as_they_come(monkeypatch, capsys):
    monkeypatch.setattr(parts, "gated", lambda: iter([{"ms": 1.0}, {"ms": 2.0}]))
    parts.main("gated")
    assert capsys.readouterr().out == 'RESULT {"ms": 1.0}\nRESULT {"ms": 2.0}\n'

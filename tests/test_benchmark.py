"""`Benchmark`: what it runs and evaluates is what the command line does, for names, classes and notebooks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import nn

import deepnets_bench as dnb
from deepnets_bench.benchmark import Benchmark, noise_of, variant
from deepnets_bench.harness.runs.job import RESULTS
from deepnets_bench.leaderboard.results import COLUMNS, read_results
from deepnets_bench.leaderboard.scores import read_scores
from tests.harness.conftest import tiny_track
from tests.harness.test_commands import TRACK, command

MEASURED = ("seconds", "memory", "time", "scores_file")  # what two runs of one job do not share


class Plain(nn.Module):
    edges = "none"

    def __init__(self, dim: int, factor: float = 1.0) -> None:
        super().__init__()
        self.linear, self.factor = nn.Linear(dim, dim), factor

    def forward(self, x: torch.Tensor, batch: object) -> torch.Tensor:
        return self.factor * self.linear(x)


class Failing(Plain):
    def forward(self, x: torch.Tensor, batch: object) -> torch.Tensor:
        raise ValueError("no luck")


def results(rows: pd.DataFrame) -> pd.DataFrame:
    """The columns that two runs of one job share."""
    return rows[[column for column in COLUMNS if not any(word in column for word in MEASURED)]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the command line ran mlp, seed 0, on a track of its own."""
    path = tmp_path_factory.mktemp("benchmark")
    (path / "tiny.toml").write_text(TRACK)
    done = command(path, "run", "--gnn", "mlp", "--track", "tiny.toml", "--out", "cli", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    return path


@pytest.fixture(scope="module")
def bench(folder: Path) -> Benchmark:
    return dnb.Benchmark(folder / "tiny.toml", data=folder / "data", quiet=True)


@pytest.fixture(scope="module")
def rows(bench: Benchmark, folder: Path) -> pd.DataFrame:
    return bench.run("mlp", seeds=0, out=folder / "api", device="cpu")


def test_rows_are_those_of_the_command_line_to_every_digit(rows: pd.DataFrame, folder: Path) -> None:
    there = read_results(folder / "cli" / RESULTS)
    assert rows["split"].tolist() == ["val", "test"]
    assert rows["status"].tolist() == ["ok", "ok"]
    pd.testing.assert_frame_equal(results(rows), results(there), check_exact=True)
    pd.testing.assert_frame_equal(rows, read_results(folder / "api" / RESULTS), check_exact=True)


def test_finished_jobs_are_not_run_again_and_their_rows_are_returned(
    bench: Benchmark, rows: pd.DataFrame, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = (folder / "api" / RESULTS).read_bytes()
    pd.testing.assert_frame_equal(bench.run(["mlp", "mlp"], (0, 0), out=folder / "api"), rows)
    assert (folder / "api" / RESULTS).read_bytes() == before
    assert capfd.readouterr() == ("", "")
    loud = Benchmark(bench.track, bench.data)
    loud.run("mlp", out=str(folder / "api"))
    shown = capfd.readouterr().err
    assert "mlp sees none: no edges" in shown
    assert "0 ok, 0 failed, 1 skipped" in shown


def test_evaluate_gives_the_scores_of_the_run(bench: Benchmark, rows: pd.DataFrame, folder: Path) -> None:
    (checkpoint,) = (folder / "api").glob("runs/*/ghn.safetensors")
    scores = read_scores(folder / "api" / "scores" / rows["scores_file"][0])
    expected = [(split, i, accuracy) for split, found in scores.items() for i, accuracy in found.items()]
    found = bench.evaluate(checkpoint, device="cpu")
    assert list(found.columns) == ["split", "index", "accuracy"]
    assert list(found.itertuples(index=False, name=None)) == expected
    ghn = dnb.GHN.load(checkpoint)
    threads = torch.get_num_threads()
    again = bench.evaluate(ghn.train(), splits=("test",), device="cpu")
    assert list(again.itertuples(index=False, name=None)) == [row for row in expected if row[0] == "test"]
    assert (ghn.training, torch.get_num_threads()) == (True, threads)
    assert bench.evaluate(ghn, splits="test", noise=1.0)["accuracy"].between(0, 1).all()


def test_networks_that_fail_have_no_row_and_a_warning(
    bench: Benchmark, rows: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    ghn = bench.ghn("mlp")
    forward, calls = ghn.forward, []

    def first_not_finite(batch: dnb.GraphBatch, check: bool = True) -> list[dict[str, torch.Tensor]]:
        calls.append(batch)
        found = forward(batch, check)
        return found if len(calls) > 1 else [{key: value * torch.nan for key, value in found[0].items()}]

    monkeypatch.setattr(ghn, "forward", first_not_finite)
    with pytest.warns(UserWarning, match="test: architecture 0: Predicted parameters are NaN or infinite"):
        assert bench.evaluate(ghn, ["test"], device="cpu")["index"].tolist() == [1]


def test_hypernetworks_of_one_seed_share_all_weights_but_the_gnns(bench: Benchmark) -> None:
    ours, other, later = bench.ghn(Plain, options={"factor": 2.0}), bench.ghn("gat"), bench.ghn("gat", seed=1)
    assert ours.gnn.factor == 2.0
    frame = {name: value for name, value in ours.state_dict().items() if not name.startswith("gnn.")}
    assert frame
    for name, value in frame.items():
        assert torch.equal(value, other.state_dict()[name])
    assert any(not torch.equal(value, later.state_dict()[name]) for name, value in frame.items())
    again = bench.ghn("gat").state_dict()
    assert all(torch.equal(value, again[name]) for name, value in other.state_dict().items())


def test_a_failed_job_leaves_its_row_and_raises_afterwards(bench: Benchmark, folder: Path) -> None:
    with pytest.raises(dnb.RunFailed, match=r"Failing seed 0: ValueError: no luck; its log is .*log\.txt"):
        bench.run([Failing, Plain], out=folder / "failing", device="cpu", jobs=1)
    left = read_results(folder / "failing" / RESULTS)
    assert left["status"].tolist() == ["failed", "failed", "ok", "ok"]
    assert left["gnn"].str.endswith(("Failing", "Plain")).all()
    assert bench.run(Plain, out=folder / "failing")["status"].tolist() == ["ok", "ok"]


SCRIPT = """
import torch
import deepnets_bench as dnb

class Mine(torch.nn.Module):
    edges = "none"
    def __init__(self, dim):
        super().__init__()
        self.linear = torch.nn.Linear(dim, dim)
    def forward(self, x, batch):
        return self.linear(x)

bench = dnb.Benchmark("tiny.toml", data="data")
rows = bench.run(Mine, seeds=(0, 1), out="OUT", device="cpu")
print(rows[["gnn", "seed", "split", "status"]].to_csv(header=False, index=False))
print(rows["accuracy_mean"].map(repr).to_list())
"""
CELLS = """
import linecache, sys, types
main = types.ModuleType("__main__")  # a notebook's, which has no file
sys.modules["__main__"] = main
for number, text in enumerate(open("script.py").read().split("\\n\\n")):
    name = f"/tmp/ipykernel_1/{number}.py"
    linecache.cache[name] = (len(text), None, text.splitlines(True), name)
    exec(compile(text, name, "exec"), vars(main))
"""


def test_classes_of_scripts_and_notebooks_are_run(folder: Path) -> None:
    """A script without `if __name__ == "__main__"`, then the same as cells of a notebook."""
    lines = [f"__main__:Mine,{seed},{split},ok" for seed in (0, 1) for split in ("val", "test")]
    printed = []
    for out, arguments in (("script", ["script.py"]), ("notebook", ["-c", CELLS])):
        (folder / "script.py").write_text(SCRIPT.replace("OUT", out))
        done = subprocess.run(
            [sys.executable, *arguments], cwd=folder, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stderr
        assert "2 ok, 0 failed, 0 skipped" in done.stderr
        assert done.stdout.splitlines()[:4] == lines
        printed.append(done.stdout)
    assert printed[0] == printed[1]


def test_bad_input_is_refused_before_anything_runs(bench: Benchmark, folder: Path) -> None:
    out = folder / "refused"
    for arguments, message in (
        ({"gnn": "gatt"}, "Did you mean 'gat'"),
        ({"gnn": []}, "Give at least one GNN"),
        ({"gnn": "mlp", "options": {"widht": 2}}, "widht"),
        ({"gnn": "mlp", "seeds": "0,1"}, "Seeds are whole numbers"),
        ({"gnn": "mlp", "seeds": (0, -1)}, "A seed is a whole number from 0 on, not -1"),
        ({"gnn": "mlp", "seeds": ()}, "at least one seed"),
        ({"gnn": "mlp", "device": "gpu"}, "Device 'gpu' is not supported"),
        ({"gnn": "mlp", "jobs": 0}, "jobs must be at least 1"),
        ({"gnn": "mlp", "tuning_trials": -1}, "tuning_trials must be at least 0"),
        ({"gnn": "mlp", "jobs": 2, "scheduler": "tcp://a:1"}, "jobs or a scheduler, not both"),
        ({"gnn": "mlp", "precision": "64"}, "Unknown precision '64'"),
    ):
        with pytest.raises(dnb.BadInput, match=message):
            bench.run(out=out, **arguments)
    assert not out.exists()
    with pytest.raises(dnb.UnknownName, match=r"split 'tset' of track 'tiny'\. Did you mean 'test'"):
        bench.evaluate("none.safetensors", splits=["tset"])
    with pytest.raises(dnb.BadInput, match=r"There is no checkpoint none\.safetensors"):
        bench.evaluate("none.safetensors")
    with pytest.raises(dnb.UnknownName, match="Did you mean 'digits'"):
        Benchmark("digit")
    other = dnb.GHN.from_config("mlp", num_classes=7)
    with pytest.raises(dnb.BadInput, match="was trained for 7 classes, the images of track 'tiny' have 10"):
        bench.evaluate(other)


def test_noise_and_variants_of_a_track() -> None:
    track = tiny_track(evaluation={"noise": 0.1})
    assert [noise_of(track, noise) for noise in (None, 0.5, "track")] == [None, 0.5, 0.1]
    for noise in (0, 2, "much"):
        with pytest.raises(dnb.BadInput, match="noise is a standard deviation above 0 and up to 1"):
            noise_of(track, noise)
    with pytest.raises(dnb.BadInput, match="Track 'tiny' sets no noise"):
        noise_of(tiny_track(), "track")
    assert variant(track) is track
    assert variant(track, smoke=True, precision="bf16").training.precision == "bf16"
    assert variant(track, smoke=True).training.steps == track.smoke.steps

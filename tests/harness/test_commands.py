"""`run`, `eval` and `track` through the real command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from deepnets_bench.harness.runs.job import RESULTS
from deepnets_bench.leaderboard.results import read_rows

TRACK = """
name = "tiny"
version = 1
label = "test"
description = "A training of two steps."
dataset_version = 1
seeds = [0, 1]
timeout_minutes = 5
images = { dataset = "digits", size = 16, batch_size = 16 }
ghn = { config = "ghn2", hid = 8, max_shape = [8, 8, 3, 3], virtual_edges = 50 }
selection = { rule = "last", interval = 2, count = 2, images = 32 }
smoke = { steps = 1, networks = 20, evaluated = 2 }

[networks]
count = 20
max_nodes = 120
reference_width = 8
meta_batch_size = 2
width_rules = [{ widths = [8], fc_dims = [16] }]

[training]
steps = 2
optimiser = "adamw"
lr = 1e-3
schedule = "constant"
clip_grad_norm = 5
max_failures = 0
threads = 1
log_interval = 1
checkpoint_interval = 1

[evaluation]
batch_size = 32
max_images = 32
width = 8
fc_dim = 16
splits = { val = { count = 2, images = "val" }, test = { count = 2, images = "test" } }
"""


def command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-c", "from deepnets_bench.cli import main; main()", *arguments]
    return subprocess.run(program, cwd=folder, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder in which `run` was called once."""
    path = tmp_path_factory.mktemp("run")
    (path / "tiny.toml").write_text(TRACK)
    done = command(path, "run", "--gnn", "mlp", "--track", "tiny.toml", "--seeds", "0")
    assert done.returncode == 0, done.stderr
    assert "tiny v1" in done.stdout
    assert "mlp" in done.stdout
    assert "mlp sees none: no edges" in done.stderr
    assert "1 ok, 0 failed, 0 skipped" in done.stderr
    return path


def test_run_generates_trains_evaluates_and_appends(folder):
    assert (folder / "data" / "train" / "manifest.json").exists()
    rows = read_rows(folder / "leaderboards" / "tiny" / RESULTS)
    assert [(row.gnn, row.seed, row.split, row.status) for row in rows] == [
        ("mlp", 0, "val", "ok"),
        ("mlp", 0, "test", "ok"),
    ]
    assert all(row.comparable for row in rows)


def test_a_second_run_skips_what_is_finished(folder):
    before = (folder / "leaderboards" / "tiny" / RESULTS).read_bytes()
    done = command(folder, "run", "--gnn", "mlp", "--track", "tiny.toml", "--seeds", "0")
    assert done.returncode == 0
    assert "0 ok, 0 failed, 1 skipped" in done.stderr
    assert (folder / "leaderboards" / "tiny" / RESULTS).read_bytes() == before


def test_eval_prints_the_accuracies_of_the_rows(folder):
    (checkpoint,) = folder.glob("leaderboards/tiny/runs/*/ghn.safetensors")
    done = command(folder, "eval", str(checkpoint), "--track", "tiny.toml", "--split", "test")
    assert done.returncode == 0
    row = read_rows(folder / "leaderboards" / "tiny" / RESULTS)[1]
    assert f"{row.accuracy_mean:.2%}" in done.stdout


def test_a_checkpoint_of_a_file_is_scored_when_it_is_trusted_and_neighbours_are_found(folder):
    (folder / "split").mkdir()
    (folder / "split" / "parts.py").write_text("from torch.nn import Linear as Layer\n")
    (folder / "split" / "model.py").write_text(
        "import torch\nfrom parts import Layer\n"
        "class Model(torch.nn.Module):\n"
        "    edges = 'none'\n"
        "    def __init__(self, dim):\n"
        "        super().__init__()\n"
        "        self.layer = Layer(dim, dim)\n"
        "    def forward(self, x, batch):\n"
        "        return self.layer(x)\n"
    )
    done = command(folder, "run", "--gnn", "split/model.py", "--track", "tiny.toml", "--out", "split")
    assert done.returncode == 0, done.stderr
    (checkpoint,) = folder.glob("split/runs/*/ghn.safetensors")
    arguments = ["eval", str(checkpoint), "--track", "tiny.toml", "--split", "val"]
    done = command(folder, *arguments)
    assert done.returncode == 2
    assert "which is not a registered one" in done.stderr
    assert command(folder, *arguments, "--trust").returncode == 0


def test_a_run_in_which_all_fails_says_why_and_ranks_nothing(folder):
    (folder / "nan.py").write_text(
        "import torch\n"
        "class Nan(torch.nn.Module):\n"
        "    def __init__(self, dim):\n"
        "        super().__init__()\n"
        "    def forward(self, x, batch):\n"
        "        return x * float('nan')\n"
    )
    done = command(folder, "run", "--gnn", "nan.py", "--track", "tiny.toml", "--out", "nan")
    assert done.returncode == 1
    assert "0 ok, 1 failed, 0 skipped" in done.stderr
    assert "NaN or infinity" in done.stderr.splitlines()[-1]
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--gnn", "gatt"], "Did you mean 'gat'?"),
        (["run", "--gnn", "GCN"], "Did you mean 'gcn'?"),
        (["run", "--gnn", "gat", "--track", "digit"], "Did you mean 'digits'?"),
        (["run", "--gnn", "gat", "--seeds", "0,x"], "Seeds are whole numbers"),
        (["run", "--gnn", "gat", "--track", "tiny.toml", "--out", "tiny.toml/x"], "cannot be made"),
        (["run", "--gnn", "no_such_gnn", "--gnn", "mlp"], "Unknown GNN 'no_such_gnn'"),
        (["run", "--gnn", "gat", "--track", "digits", "--track", "cifar10"], "--track is given 2 times"),
        (
            ["run", "--gnn", "gat", "--gnn-option", "heads=2", "--gnn-option", "heads=4"],
            "heads is given twice",
        ),
        (["run", "--gnn", "gat", "--device", "mps"], "Device 'mps' is not supported"),
        (["run", "--gnn", "gat", "--device", "cpu:3"], "Device 'cpu:3' is not supported"),
        (["run", "--gnn", "gat", "--device", "cuda:99"], "Device 'cuda:99' is not available: PyTorch sees"),
        (["run", "--gnn", "gat", "--device", "cuda:0", "--devices", "2"], "give --device cuda, not cuda:0"),
        (["run", "--gnn", "gat", "--device", "xla", "--scheduler", "tcp://a:1"], "Device 'xla' is not supp"),
        (["eval", "tiny.toml", "--device", "meta", "--data", "none"], "Device 'meta' is not supported"),
        (["eval", "tiny.toml", "--data", "none"], "tiny.toml is no hypernetwork's checkpoint (expected"),
        (
            ["eval", "tiny.toml", "--split", "tset", "--data", "none"],
            "Unknown split 'tset' of track 'digits'",
        ),
        (["leaderboard", "show"], "make one with `deepnets-bench run --gnn gat --track digits`"),
        (["run", "--gnn", ","], "The list ',' has an empty item"),
        (["run", "--gnn", "mlp", "--seeds", "0,,1"], "The list '0,,1' has an empty item"),
        (["run", "--gnn", "gat", "--log", "wandb"], "Unknown log 'wandb'. Choices: tensorboard."),
        (
            ["run", "--gnn", "gat", "--jobs", "2", "--scheduler", "tcp://a:1"],
            "Give jobs or a scheduler, not both",
        ),
        (["eval", "none.safetensors"], "There is no checkpoint"),
        (["track", "show", "digit"], "Did you mean 'digits'?"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(folder, arguments, message):
    done = command(folder, *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (folder / "leaderboards" / "digits").exists()
    assert not (folder / "none").exists()


def test_a_run_without_its_images_leaves_no_folder_of_results(folder):
    pytest.importorskip("torchvision", reason="needs the extra 'vision'")
    done = command(folder, "run", "--gnn", "mlp", "--track", "cifar10", "--images", "none")
    assert done.returncode == 2
    assert "There is no folder none with the images of 'cifar10'" in done.stderr
    assert not (folder / "leaderboards" / "cifar10").exists()


def test_track_list_and_show(tmp_path):
    listed = command(tmp_path, "track", "list").stdout
    assert "digits " in listed
    assert "digits-full" in listed
    shown = command(tmp_path, "track", "show", "digits").stdout
    assert shown.startswith("# Track `digits`")

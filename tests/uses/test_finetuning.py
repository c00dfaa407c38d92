"""Fine-tuning: shots, choice of the rate, initial weights, rows, and gains paired by seed."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from deepnets_bench import GHN
from deepnets_bench.cli import app
from deepnets_bench.errors import BadInput, NotFinite, UnknownName
from deepnets_bench.harness.images.loading import load_images
from deepnets_bench.harness.images.sets import digits
from deepnets_bench.harness.protocol.tracks import load_track
from deepnets_bench.uses import finetuning, training
from deepnets_bench.uses.finetuning import (
    FineTuneTask,
    FineTuning,
    fine_tune,
    fine_tune_tasks,
    run_fine_tuning,
)
from deepnets_bench.uses.finetuning_plots import mean_curves
from deepnets_bench.uses.finetuning_rows import CurvePoint, FineTuneRow, curves_path, read_fine_tuning
from deepnets_bench.uses.gains import compared, gain_table, interval
from deepnets_bench.uses.initialisation import orthogonalise
from deepnets_bench.uses.recipe import Recipe
from deepnets_bench.uses.rows import read_rows
from deepnets_bench.uses.shots import split_shots
from deepnets_bench.uses.training import Training
from tests.harness.conftest import tiny_track

FAST = Recipe(epochs=2, weight_decay=1e-3)


@pytest.fixture(scope="module")
def ghn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("ghn") / "ghn.safetensors"
    GHN.from_config({"gnn": "mlp", "hid": 8, "max_shape": [8, 8, 3, 3], "num_classes": 10}).save(path)
    return path


@pytest.fixture
def study(ghn: Path) -> FineTuning:
    return FineTuning(tiny_track(), ghn, recipe=FAST, rates=(0.01, 0.1))


def row(model: str, init: str, seed: int, accuracy: float, shots: int = 5) -> FineTuneRow:
    return FineTuneRow(
        model=model, init=init, shots=shots, seed=seed, accuracy=accuracy, held_out_accuracy=0.5, lr=0.01,
        initial_accuracy=0.1, cpu_seconds=1, track="mnist", track_version=1, track_digest="d", images="",
        recipe_digest="r", source="", ghn="g", settings="s", package_version="0",
        torch_version="2", device="cpu", timestamp="t",
    )  # fmt: skip


def test_a_seed_draws_its_own_shots_and_holds_a_fifth_out():
    images = digits()
    learning, whole = split_shots(images, 5, 0)
    held_out = learning.test
    assert torch.bincount(whole.train.labels).tolist() == [5] * 10
    assert torch.bincount(learning.train.labels).tolist() == [4] * 10
    assert torch.bincount(held_out.labels).tolist() == [1] * 10
    both = torch.cat([learning.train.images, held_out.images]).flatten(1).sum(1).sort().values
    assert torch.equal(both, whole.train.images.flatten(1).sum(1).sort().values)
    again, other = split_shots(images, 5, 0)[1], split_shots(images, 5, 1)[1]
    assert torch.equal(again.train.images, whole.train.images)
    assert not torch.equal(other.train.images, whole.train.images)
    assert whole.test is images.test
    with pytest.raises(BadInput, match="at least two shots"):
        split_shots(images, 1, 0)
    with pytest.raises(BadInput, match="fewer than 500 shots"):
        split_shots(images, 500, 0)


def test_shots_of_a_folder_are_read_into_memory(tmp_path):
    image = pytest.importorskip("PIL.Image", reason="needs the extra 'vision'")
    pytest.importorskip("torchvision", reason="needs the extra 'vision'")
    for number in range(20):
        folder = tmp_path / "ab"[number % 2]
        folder.mkdir(exist_ok=True)
        image.new("RGB", (20, 20), (10 * number, 0, 0)).save(folder / f"{number}.png")
    track = load_track("imagefolder")
    images = load_images(track.images.model_copy(update={"size": 16}), tmp_path)
    learning, whole = split_shots(images, 4, 0)
    assert torch.bincount(whole.train.labels).tolist() == [4, 4]
    assert torch.bincount(learning.train.labels).tolist() == [3, 3]
    assert torch.bincount(learning.test.labels).tolist() == [1, 1]
    read = torch.cat([batch for batch, _ in images.train.batches(8)])
    shots = torch.cat([batch for batch, _ in whole.train.batches(8)])
    assert all(any(torch.equal(shot, found) for found in read) for shot in shots)
    assert shots.shape[1:] == (3, 16, 16)


def test_what_is_compared():
    predicted = ("predicted", "orthogonalised")
    assert compared(["he", "predicted", "random"], predicted) == [
        ("predicted", "he"),
        ("predicted", "random"),
    ]
    assert compared(["he", "random"], predicted) == [("he", "random")]
    assert compared(["orthogonalised", "predicted"], predicted) == [("orthogonalised", "predicted")]
    assert compared(["he"], predicted) == []


def test_orthogonal_weights_stay():
    module = nn.Sequential(nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, 16), nn.Linear(16, 3))
    last = module[3].weight.clone()
    orthogonalise(module)
    weight = module[0].weight.detach().flatten(1)
    assert torch.allclose(weight @ weight.T, torch.eye(8), atol=1e-5)
    tall = module[2].weight.detach()
    assert torch.allclose(tall.T @ tall, torch.eye(8), atol=1e-5)
    assert torch.equal(module[3].weight, last)
    before = module[0].weight.clone()
    orthogonalise(module)
    assert torch.allclose(module[0].weight, before, atol=1e-5)


@pytest.mark.parametrize("form", [(8, 4, 3, 3), (16, 8)])
def test_noise_follows_the_correlations_and_comes_before_the_decomposition(form):
    weight = torch.rand(form) + 0.3  # predicted alike
    tall = weight.flatten(1) if len(form) == 2 else weight.flatten(1).T
    spread = torch.corrcoef(tall).std()
    torch.manual_seed(0)
    q, r = torch.linalg.qr(tall + 0.5 * spread * torch.randn_like(tall))
    expected = q * r.diagonal().sign()
    layers = nn.ModuleList([nn.Linear(1, 1, bias=False), nn.Linear(1, 1)])
    layers[0].weight = nn.Parameter(weight)
    torch.manual_seed(0)
    orthogonalise(layers, noise=0.5)
    found = layers[0].weight.detach().flatten(1)
    assert torch.allclose(found, expected if len(form) == 2 else expected.T, atol=1e-5)
    layers[0].weight = nn.Parameter(torch.ones(form))
    orthogonalise(layers, noise=0.5)
    assert layers[0].weight.isfinite().all()


def test_the_rate_that_is_best_on_held_out_shots_is_taken(study):
    [task] = fine_tune_tasks(study, ["test/1"], ["he"], [4], [0])
    found = fine_tune(task).row
    scores = {}
    for rate in study.rates:
        alone = dataclasses.replace(task, study=dataclasses.replace(study, rates=(rate,)))
        scores[rate] = fine_tune(alone).row
    best = max(study.rates, key=lambda rate: (scores[rate].held_out_accuracy, -rate))
    assert found.lr == best
    assert (found.accuracy, found.held_out_accuracy) == (
        scores[best].accuracy,
        scores[best].held_out_accuracy,
    )


def test_trials_of_rates_see_no_test_images_and_nothing_is_evaluated_under_noise(study, monkeypatch):
    evaluated = []
    original = training.accuracy
    monkeypatch.setattr(
        training, "accuracy", lambda module, data: evaluated.append(len(data)) or original(module, data)
    )
    [task] = fine_tune_tasks(study, ["test/1"], ["he"], [2], [0])
    fine_tune(task)
    assert evaluated == [10, 10, len(digits().test)]


def test_a_study_goes_on_and_refuses_rows_of_another(study, tmp_path, monkeypatch):
    path = tmp_path / "rows.csv"
    tasks = fine_tune_tasks(study, ["test/1"], ["predicted", "random"], [2], [0])
    run_fine_tuning(tasks[:1], path)
    done = []
    monkeypatch.setattr(finetuning, "fine_tune", lambda task: done.append(task.init) or fine_tune(task))
    run_fine_tuning(tasks, path)
    assert done == ["random"]
    assert {found.init for found in read_fine_tuning(path)} == {"predicted", "random"}
    other = fine_tune_tasks(dataclasses.replace(study, noise=0.1), ["test/1"], ["orthogonalised"], [2], [0])
    with pytest.raises(BadInput, match="rows of other settings"):
        run_fine_tuning(other, path)
    path.write_text("model\n")
    with pytest.raises(BadInput, match="no results of fine-tuning"):
        read_fine_tuning(path)


def test_no_row_of_a_file_may_be_of_anything_else(study, tmp_path, monkeypatch):
    monkeypatch.setattr(finetuning, "train", lambda *_, **__: Training(accuracy=0.5))
    source = tmp_path / "net.py"
    text = "from torch import nn\nnet = lambda: nn.Sequential(nn.Flatten(), nn.Linear(768, 10))\n"
    source.write_text(text)
    model, path = f"{source}:net", tmp_path / "rows.csv"
    run_fine_tuning(fine_tune_tasks(study, [model], ["he"], [2], [0]), path)
    changed = tiny_track(training={"steps": 7})
    ghn = tmp_path / "other.safetensors"
    ghn.write_bytes(study.ghn.read_bytes() + b" ")
    for change, message in (
        ({"track": changed}, "the track as it was before"),
        ({"recipe": dataclasses.replace(FAST, epochs=3)}, "another recipe"),
        ({"ghn": ghn}, "another hypernetwork"),
    ):
        other = fine_tune_tasks(dataclasses.replace(study, **change), ["test/1"], ["he"], [3], [7])
        with pytest.raises(BadInput, match=message):
            run_fine_tuning(other, path)
    source.write_text(text + "# changed\n")
    with pytest.raises(BadInput, match=r"another source of .*net.py:net"):
        run_fine_tuning(fine_tune_tasks(study, [model], ["he"], [3], [0]), path)


def test_predicted_weights_are_those_of_the_hypernetwork_and_a_classifier_may_be_random(study):
    from deepnets_bench.generators import sample

    [task] = fine_tune_tasks(study, ["test/1"], ["predicted"], [2], [0])
    images = digits()
    module = finetuning._module(task, images)
    params = GHN.load(study.ghn).predict(sample("test", 1), width=8, image_size=16, fc_dim=16)
    name = next(name for name in params if name.startswith("classifier"))
    assert torch.allclose(module.get_parameter(name), params[name], atol=1e-6)
    random = dataclasses.replace(task, study=dataclasses.replace(study, random_classifier=True))
    other = finetuning._module(random, images)
    last = max(n for n, _ in other.named_parameters() if n.startswith("classifier") and n.endswith("weight"))
    assert not torch.allclose(other.get_parameter(last), params[last], atol=1e-3)
    calibrated = dataclasses.replace(task, study=dataclasses.replace(study, recalibrate=True))
    means = [
        b for n, b in finetuning._module(calibrated, images).named_buffers() if n.endswith("running_mean")
    ]
    assert not means or any(mean.abs().sum() > 0 for mean in means)


@pytest.mark.parametrize("init", ["he", "random"])
def test_statistics_are_re_estimated_for_random_weights_too(study, tmp_path, init):
    (tmp_path / "net.py").write_text(
        "from torch import nn\n"
        "net = lambda: nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(768, 10))\n"
    )
    task = FineTuneTask(
        dataclasses.replace(study, recalibrate=True), f"{tmp_path / 'net.py'}:net", init, 2, 0
    )
    assert finetuning._module(task, digits())[0].running_mean.abs().sum() > 0


def test_gains_are_paired_by_seed():
    """By hand: differences of 10, 20 and 30 points: mean 20, t interval ± 4.303 · 10 / √3."""
    rows = [row("a", "predicted", s, 0.5 + 0.1 * (s + 1)) for s in range(3)]
    rows += [row("a", "he", s, 0.5) for s in range(3)]
    low, high = interval(np.array([0.1, 0.2, 0.3]))
    assert (low, high) == pytest.approx((0.2 - 0.24841, 0.2 + 0.24841), abs=1e-4)
    table = gain_table(rows, "he")
    assert table.rows[0][0] == "all models"
    assert table.rows[1] == ("a", "5", "3", "70.0", "50.0", "+20.0 [-4.8, +44.8]")
    assert interval(np.array([0.1])) == (-math.inf, math.inf)
    with pytest.raises(BadInput, match="from predicted and from orthogonal"):
        gain_table(rows, "orthogonal")


def test_a_training_that_diverges_leaves_a_row_that_says_so(study, tmp_path, monkeypatch):
    def diverges(module, images, protocol, recipe, seed, **_):
        if seed == 1 and (recipe.lr > 0.01 or len(images.train) > 10):
            raise NotFinite("The loss is nan at step 3.")
        return Training(accuracy=0.5)

    monkeypatch.setattr(finetuning, "train", diverges)
    path = tmp_path / "rows.csv"
    tasks = fine_tune_tasks(study, ["test/1"], ["he", "random"], [2], [0, 1])
    run_fine_tuning(tasks, path)
    first, _, diverged, _ = read_fine_tuning(path)
    assert (first.failure, first.lr) == ("", 0.01)
    assert (diverged.failure, diverged.accuracy) == ("The loss is nan at step 3", None)
    every = dataclasses.replace(study, rates=(0.1, 1.0))
    assert fine_tune(dataclasses.replace(tasks[-1], study=every)).row.failure.startswith(
        "At every rate: The loss"
    )
    monkeypatch.setattr(finetuning, "fine_tune", lambda task: pytest.fail("it was finished"))
    run_fine_tuning(tasks, path)
    with pytest.raises(ValueError, match="no failure says why"):
        row("a", "he", 0, 0.5).model_validate(row("a", "he", 0, 0.5).model_dump() | {"accuracy": None})


def test_failures_are_counted_and_named():
    rows = [row("a", init, seed, 0.5) for init in ("predicted", "he") for seed in range(2)]
    lost = rows[-1].model_copy(update={"accuracy": None, "failure": "The loss is nan"})
    table = gain_table([*rows[:-1], lost], "he")
    assert table.rows[1][2] == "1"
    assert "1 training failed" in table.notes[-1]
    assert "a from he, 5 shots, seed 1 (The loss is nan)" in table.notes[-1]
    assert gain_table([rows[0], lost], "he").rows == ()


def test_over_all_models_only_seeds_count_that_all_models_have():
    rows = [row(m, i, s, 0.5) for m in "ab" for i in ("predicted", "he") for s in range(3)]
    rows = [found for found in rows if (found.model, found.seed) != ("b", 2)]
    table = gain_table(rows, "he")
    assert [cells[:3] for cells in table.rows] == [("all models", "5", "2"), ("a", "5", "3"), ("b", "5", "2")]


def test_curves_are_kept_and_their_bands_are_intervals_over_seeds(study, tmp_path):
    """By hand: means over two models of 0.2, 0.3 and 0.4: 0.3 ± 4.303 · 0.1 / √3."""
    pytest.importorskip("matplotlib", reason="needs the extra 'report'")
    path = tmp_path / "rows.csv"
    slow = dataclasses.replace(study, recipe=Recipe(epochs=3), rates=(0.01,))
    run_fine_tuning(fine_tune_tasks(slow, ["test/1"], ["he"], [2], [0]), path)
    kept = read_rows(curves_path(path), CurvePoint)
    [of] = read_fine_tuning(path)
    assert [point.epoch for point in kept] == [0, 1, 2, 3]
    assert (kept[0].accuracy, kept[-1].accuracy) == (of.initial_accuracy, of.accuracy)
    points = [
        CurvePoint(model=model, init=init, shots=5, seed=seed, epoch=epoch, accuracy=value)
        for model, more in (("a", 0.1), ("b", -0.1))
        for init in ("predicted", "he")
        for seed in range(4)
        for epoch in (0, 1)
        for value in [0.2 + more + 0.1 * seed]
        if (model, init, seed) != ("b", "he", 3)
    ]
    [panel] = mean_curves(points).axes
    line, band = panel.lines[0], panel.collections[0].get_paths()[0].vertices[:, 1]
    assert line.get_ydata() == pytest.approx([30, 30])
    assert (band.min(), band.max()) == pytest.approx((30 - 24.841, 30 + 24.841), abs=0.01)
    with pytest.raises(BadInput, match="No seed has curves"):
        mean_curves([point for point in points if (point.init, point.seed) in (("he", 0), ("predicted", 1))])


def test_the_command(ghn, tmp_path, monkeypatch):
    from deepnets_bench.harness.protocol import tracks

    monkeypatch.setattr(tracks, "load_track", lambda name: tiny_track())
    arguments = [
        "finetune", "--ghn", str(ghn), "--model", "test/1", "--shots", "2", "--seeds", "0,1", "--epochs", "1",
        "--init", "predicted,he", "--out", str(tmp_path / "rows.csv"), "--jobs", "1",
    ]  # fmt: skip
    plot = ["--plot", str(tmp_path / "curves.svg")]
    shown = CliRunner().invoke(app, [*arguments, *plot], catch_exceptions=False)
    assert (tmp_path / "curves.svg").stat().st_size > 1000
    assert "predicted against he" in shown.output
    missing = ["--ghn", str(tmp_path / "none.safetensors")]
    with pytest.raises(BadInput, match=r"Cannot read .*none.safetensors"):
        CliRunner().invoke(app, ["finetune", *missing, *arguments[3:]], catch_exceptions=False)
    for option in ("--model", "--init"):
        empty = [*arguments]
        empty[empty.index(option) + 1] = ","
        with pytest.raises(BadInput, match="The list ',' has an empty item"):
            CliRunner().invoke(app, empty, catch_exceptions=False)
    he = ["he" if argument == "predicted,he" else argument for argument in arguments]
    alone = CliRunner().invoke(app, he, catch_exceptions=False)
    assert "Trained from he weights alone" in alone.output
    for option, message in (
        (["--noise", "1"], "Noise is that of orthogonalised weights"),
        (["--random-classifier"], "stands beside predicted weights"),
    ):
        with pytest.raises(BadInput, match=message):
            CliRunner().invoke(app, [*he, *option], catch_exceptions=False)
    with pytest.raises(UnknownName, match="initial weights 'xavier'"):
        CliRunner().invoke(app, [*arguments[:-6], "--init", "xavier"], catch_exceptions=False)

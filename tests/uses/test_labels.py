"""Labels: the file, the queue that fills it, reliability between seeds, and inference times."""

from __future__ import annotations

import concurrent.futures
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import kendalltau
from typer.testing import CliRunner

from deepnets_bench.cli import app
from deepnets_bench.errors import BadInput, Interrupted, RunFailed, UnknownName
from deepnets_bench.harness.protocol.tracks import Track, load_track, track_text
from deepnets_bench.uses import labelling, timing
from deepnets_bench.uses import recipe as recipes
from deepnets_bench.uses.labelling import LabelTask, label_one, label_tasks, run_labelling
from deepnets_bench.uses.labels import Label, append_labels, read_labels
from deepnets_bench.uses.recipe import Recipe
from deepnets_bench.uses.reliability import noise_bound, reliability, reliability_table
from deepnets_bench.uses.rows import append_rows
from tests.harness.conftest import tiny_track

RECIPE = Recipe(epochs=1, batch_size=256)


def label(split: str = "val", index: int = 0, seed: int = 0, **changes: object) -> Label:
    values = {
        "split": split, "index": index, "fingerprint": f"f{index}", "seed": seed, "accuracy": 0.5,
        "accuracy_noise": 0.4, "convergence": 0.25, "converged": True, "parameters": 99, "multiply_adds": 999,
        "nodes": 10, "depth": 5, "train_accuracy": 0.6, "cpu_seconds": 1.5, "track": "digits",
        "track_version": 3, "track_digest": "d", "width": 8, "recipe_version": 1, "recipe_digest": "r",
        "part": "val", "package_version": "0.1.0", "git_commit": "", "torch_version": "2.4.0",
        "device": "a, b", "timestamp": "2026-11-25T00:00:00Z",
    }  # fmt: skip
    return Label.model_validate(values | changes)


def results(path: Path) -> list[dict[str, object]]:
    return [row.model_dump(exclude={"cpu_seconds", "timestamp"}) for row in read_labels(path)]


@pytest.fixture(scope="module")
def track() -> Track:
    return tiny_track()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture
def tasks(track: Track, data: Path) -> list[LabelTask]:
    return label_tasks(track, ["val", "wide"], 2, [0, 1], RECIPE, data)


def test_rows_come_back_in_order_and_a_row_that_is_there_is_replaced(tmp_path):
    path = tmp_path / "sub/labels.csv"
    failed = label(index=3, accuracy=None, accuracy_noise=None, convergence=None, converged=None,
                   train_accuracy=None, failure="the loss is nan")  # fmt: skip
    append_labels(path, [label(index=2), failed])
    append_labels(path, [label(index=1, seed=1), label(index=2, accuracy=0.75)])
    assert read_labels(path) == [label(index=1, seed=1), label(index=2, accuracy=0.75), failed]


def test_files_that_are_none_are_refused_in_one_sentence(tmp_path):
    path = tmp_path / "labels.csv"
    with pytest.raises(BadInput, match="Cannot read"):
        read_labels(path)
    append_labels(path, [label()])
    text = path.read_text()
    header, row = text.splitlines()
    for content, message in (
        (text + row + "\n", r"holds val/0 with seed 0 2 times"),
        (text[:-5], "ends in the middle of a row"),
        (header.replace("accuracy,", "", 1) + "\n", "is no file of labels: it lacks accuracy"),
        (header + "\n" + row.replace("0.5", "1.5", 1) + "\n", "line 2: accuracy: Input should be less than"),
        (header + "\n" + row.replace("val,0", "val,x", 1) + "\n", "line 2: index"),
        ("\x89HDF\n", "is no file of labels"),
        ('{"val": {"0": {"val_acc": 91.5, "params": 99}}}', "is no file of labels"),
        ("split,index", "is no file of labels: it lacks fingerprint"),
        ("", "is no file of labels: it lacks split"),
    ):
        path.write_text(content)
        with pytest.raises(BadInput, match=message) as caught:
            read_labels(path)
        assert "\n" not in str(caught.value)


def test_every_architecture_is_trained_with_every_seed_and_none_twice(tasks, tmp_path, monkeypatch):
    path = tmp_path / "labels.csv"
    assert [task.key for task in tasks] == [
        (split, index, seed) for seed in (0, 1) for split in ("val", "wide") for index in (0, 1)
    ]
    seen: list[tuple[int, int]] = []
    run_labelling(tasks[:3], path, report=lambda *counts: seen.append(counts))
    assert seen == [(0, 3), (1, 3), (2, 3), (3, 3)]
    assert {row.key for row in read_labels(path)} == {task.key for task in tasks[:3]}
    first = path.read_bytes()
    trained = []
    monkeypatch.setattr(labelling, "label_one", lambda task: trained.append(task.key) or label_one(task))
    run_labelling(tasks[:5], path)
    assert trained == [task.key for task in tasks[3:5]]
    rows = {row.key: row for row in read_labels(path)}
    assert len(rows) == 5
    assert first.splitlines()[1] in path.read_bytes().splitlines()
    assert rows["wide", 0, 0].width == 4 * rows["val", 0, 0].width == 32
    assert (rows["val", 0, 0].part, rows["wide", 0, 0].part) == ("val", "test")
    assert rows["val", 0, 0].accuracy != rows["val", 0, 1].accuracy or (
        rows["val", 0, 0].accuracy_noise != rows["val", 0, 1].accuracy_noise
    )


def test_a_label_is_the_same_every_time(tasks):
    a, b = (label_one(tasks[0]).model_dump(exclude={"cpu_seconds", "timestamp"}) for _ in range(2))
    assert a == b


def test_processes_give_the_same_labels(tasks, tmp_path):
    run_labelling(tasks[:2], tmp_path / "one.csv")
    run_labelling(tasks[:2], tmp_path / "two.csv", workers=2)
    assert results(tmp_path / "one.csv") == results(tmp_path / "two.csv")


def test_threads_of_one_process_give_the_same_labels(tasks, tmp_path):
    """As of a Dask worker with several: PyTorch's generators are those of the process."""
    run_labelling(tasks[:2], tmp_path / "one.csv")
    with ThreadPoolExecutor(2) as executor:
        run_labelling(tasks[:2], tmp_path / "two.csv", executor=executor)
    assert results(tmp_path / "one.csv") == results(tmp_path / "two.csv")


def test_a_dask_cluster_gives_the_same_labels(data, tmp_path, monkeypatch):
    distributed = pytest.importorskip("distributed", reason="Dask is an extra")
    monkeypatch.setattr(recipes, "RECIPES", {"digits": RECIPE})
    path = tmp_path / "tiny.toml"
    path.write_text(track_text("digits").replace("max_images = 359", "max_images = 64"))
    arguments = ["label", "--split", "val", "--count", "2", "--track", str(path), "--data", str(data)]
    with distributed.LocalCluster(n_workers=1, threads_per_worker=2, dashboard_address=None) as cluster:
        there = [*arguments, "--seeds", "0", "--scheduler", cluster.scheduler_address]
        shown = CliRunner().invoke(
            app, [*there, "--out", str(tmp_path / "there.csv")], catch_exceptions=False
        )
    assert "val, accuracy" in shown.output
    run_labelling(label_tasks(load_track(str(path)), ["val"], 2, [0], RECIPE, data), tmp_path / "here.csv")
    assert results(tmp_path / "there.csv") == results(tmp_path / "here.csv")
    with pytest.raises(BadInput, match="--jobs or --scheduler, not both"):
        CliRunner().invoke(app, [*there, "--jobs", "1"], catch_exceptions=False)


def test_results_are_kept_that_come_with_an_error(tasks, tmp_path, monkeypatch):
    """All four have ended before the first is looked at."""
    good = label_one(tasks[0])

    class Ended(ThreadPoolExecutor):
        def submit(self, function, /, *args, **named):
            future = super().submit(function, *args, **named)
            concurrent.futures.wait([future])
            return future

    def some_fail(task: LabelTask) -> Label:
        if task.index == 1:
            raise KilledWorker("no luck")
        return good.model_copy(update={"split": task.split, "seed": task.seed})

    class KilledWorker(Exception):
        pass

    monkeypatch.setattr(labelling, "label_one", some_fail)
    with (
        Ended(1) as executor,
        pytest.raises(RunFailed, match=r"A worker process died .* the rows of 2 trainings"),
    ):
        run_labelling(tasks[:4], tmp_path / "labels.csv", executor=executor)
    assert [row.split for row in read_labels(tmp_path / "labels.csv")] == ["val", "wide"]


def test_an_interruption_keeps_what_is_finished(tasks, tmp_path, monkeypatch):
    def interrupted(task: LabelTask) -> Label:
        if task == tasks[1]:
            raise KeyboardInterrupt
        return label_one(task)

    monkeypatch.setattr(labelling, "label_one", interrupted)
    with pytest.raises(Interrupted, match=r"after 1 of 2 trainings; .* goes on from there"):
        run_labelling(tasks[:2], tmp_path / "labels.csv")
    assert [row.key for row in read_labels(tmp_path / "labels.csv")] == [tasks[0].key]


def test_a_network_that_diverges_leaves_a_row_that_says_so(track, data, tmp_path):
    recipe = Recipe(epochs=3, batch_size=256, lr=1e30, clip_grad_norm=1e30)
    [task] = label_tasks(track, ["val"], 1, [0], recipe, data)
    row = label_one(task)
    assert "not finite" in row.failure or "nan" in row.failure or "inf" in row.failure
    assert row.accuracy is None
    append_labels(tmp_path / "labels.csv", [row])
    assert read_labels(tmp_path / "labels.csv")[0].failure == row.failure


def test_rows_of_another_recipe_or_architecture_are_refused(track, data, tasks, tmp_path):
    path = tmp_path / "labels.csv"
    run_labelling(tasks[:1], path)
    other = label_tasks(track, ["val"], 1, [0], Recipe(epochs=2), data)
    with pytest.raises(BadInput, match=r"holds labels of recipe .*, not of .*; label into another"):
        run_labelling(other, path)
    elsewhere = label_tasks(load_track("mnist"), ["test"], 1, [0], RECIPE, data)
    with pytest.raises(BadInput, match=r"holds labels of track tiny v1, not of mnist v\d+"):
        run_labelling(elsewhere, path)
    assert len(read_labels(path)) == 1, "though no row is there that was asked for"
    [row] = read_labels(path)
    append_labels(path, [row.model_copy(update={"fingerprint": "0" * 32})])
    with pytest.raises(BadInput, match="labels another architecture as val/0"):
        run_labelling(tasks[:1], path)
    append_labels(path, [row.model_copy(update={"track_digest": "0" * 16})])
    with pytest.raises(BadInput, match="of track tiny v1 as it was before it was changed"):
        run_labelling(tasks[:1], path)
    with pytest.raises(UnknownName, match="split 'vall'"):
        label_tasks(track, ["vall"], 1, [0], RECIPE, data)


@pytest.mark.parametrize(
    ("good", "bad", "message"),
    [
        (",0.5,0.4,0.25,True,", ",,0.4,0.25,True,", "val/7: accuracy is missing, and no failure says why"),
        (",0.5,0.4,0.25,True,", ",0.5,0.4,,True,", "val/7: convergence is missing"),
        (",0.5,0.4,0.25,True,", ",0.5,0.4,0.25,,", "val/7: converged is missing"),
        (",0.25,True,", ",0.25,False,", "val/7: it never converged, and yet has the convergence 0.25, not 1"),
    ],
)
def test_missing_and_contradictory_values_are_refused(tmp_path, good, bad, message):
    path = tmp_path / "labels.csv"
    append_labels(path, [label(index=7)])
    assert good in path.read_text()
    path.write_text(path.read_text().replace(good, bad))
    with pytest.raises(BadInput, match=f"line 2: {message}"):
        read_labels(path)


def test_reliability_is_kendalls_tau_between_seeds():
    """By hand: seeds order three architectures as 1 2 3 and 1 3 2, so two of three pairs agree: tau 1/3."""
    rows = [label(index=i, seed=0, accuracy=a) for i, a in enumerate([0.1, 0.2, 0.3])]
    rows += [label(index=i, seed=1, accuracy=a) for i, a in enumerate([0.2, 0.5, 0.4])]
    rows += [label(index=9, seed=0)]  # with one seed only
    accuracy = reliability(rows)[0]
    assert (accuracy.architectures, accuracy.seeds, accuracy.low, accuracy.high) == (3, 2, 0.1, 0.5)
    assert accuracy.tau == pytest.approx(1 / 3)
    with pytest.raises(BadInput, match=r"are of several tracks or recipes, digits v3 \(d\) with recipe r"):
        reliability([*rows, label("wide", recipe_digest="other")])
    rows[0] = label(index=0, converged=False, convergence=1.0)
    convergence = reliability(rows)[2]
    assert convergence.censored == pytest.approx(1 / 6)
    table = reliability_table(rows)
    found = reliability(rows)[0]
    assert found.bound == noise_bound(found.tau, 2)
    assert table.rows[0][-2:] == (f"{found.tau:.3f}", f"{found.bound:.3f}")
    assert (reliability([label()])[0].tau, reliability([label()])[0].bound) == (None, None)


def test_the_bound_by_label_noise_by_hand_and_by_simulation():
    """tau 1/3 is ρ = 1/2, of two seeds 2/3; one seed that half is noise leaves arcsin(√½) = π/4: tau 1/2."""
    assert noise_bound(1 / 3, 1) == pytest.approx(1 / 2)
    assert noise_bound(1 / 3, 2) == pytest.approx(2 / np.pi * np.arcsin(np.sqrt(2 / 3)))
    assert (noise_bound(1.0, 2), noise_bound(0.0, 2), noise_bound(-0.2, 2)) == (1, 0, 0)
    random = np.random.default_rng(0)
    expected = random.standard_normal(4000)
    seeds = expected + 0.7 * random.standard_normal((3, 4000))
    between = np.mean([kendalltau(seeds[a], seeds[b]).statistic for a, b in ((0, 1), (0, 2), (1, 2))])
    reached = kendalltau(expected, seeds.mean(0)).statistic
    assert noise_bound(float(between), 3) == pytest.approx(reached, abs=0.02)
    assert reached > between + 0.1


def test_times_are_measured_once_each_and_kept(tasks, tmp_path, monkeypatch):
    path = tmp_path / timing.TIMES
    timing.run_timing(tasks[:1], path)
    [row] = timing.read_times(path)
    assert row.milliseconds > 0
    assert (row.split, row.index, row.repeats, row.batch_size) == ("val", 0, 15, 64)
    measured = []
    monkeypatch.setattr(timing, "measure", lambda task: measured.append(task) or row.model_copy(
        update={"split": task.split, "index": task.index}))  # fmt: skip
    timing.run_timing(tasks, path)  # of two seeds: an architecture is measured once
    assert len(measured) == 3
    assert len(timing.read_times(path)) == 4
    text = path.read_text()
    for content, message in (
        ("split,index\n", "is no file of inference times"),
        (text[:-5], "ends in the middle of a row"),
        (text + text.splitlines()[1] + "\n", "holds an architecture twice"),
    ):
        path.write_text(content)
        with pytest.raises(BadInput, match=message):
            timing.read_times(path)


def test_times_are_kept_one_by_one_and_those_of_something_else_refused(tasks, tmp_path, monkeypatch):
    path = tmp_path / timing.TIMES
    timing.run_timing(tasks[:1], path)
    [row] = timing.read_times(path)
    measure = timing.measure

    def stops(task: LabelTask) -> timing.InferenceTime:
        if task.split == "wide":
            raise KeyboardInterrupt
        return measure(task)

    monkeypatch.setattr(timing, "measure", stops)
    with pytest.raises(Interrupted, match=r"after 2 of 4 networks; .* goes on from there"):
        timing.run_timing(tasks, path)
    assert len(timing.read_times(path)) == 2
    for changes, message in (
        ({"device": "an abacus"}, "holds times of an abacus, not of"),
        ({"width": 64}, "holds times at width 64 and 16 pixels, not at 8 and 16"),
        ({"fingerprint": "0" * 32}, "has the time of another architecture as val/0"),
    ):
        path.unlink()
        append_rows(path, timing.InferenceTime, [row.model_copy(update=changes)])
        with pytest.raises(BadInput, match=message):
            timing.run_timing(tasks[:1], path)

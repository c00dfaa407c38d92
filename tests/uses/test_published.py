"""The published setting on a small file of the released form, and the released file itself where it is."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import kendalltau
from typer.testing import CliRunner

from deepnets_bench import GHN
from deepnets_bench.commands import properties as commands
from deepnets_bench.data.published import import_published
from deepnets_bench.errors import BadInput, CorruptFile, UnknownName
from deepnets_bench.generators import sample
from deepnets_bench.uses.properties import published
from deepnets_bench.uses.properties.results import read_results

COUNT, WIDTH = 16, 16
RELEASED = Path(os.environ.get("DEEPNETS_BENCH_RELEASED", "../shared/published/results_cifar10.json"))


def released_files(folder: Path) -> tuple[Path, Path]:
    """(results_cifar10.json, deepnets1m_meta.json) of a few architectures, as they were released."""
    results: dict[str, Any] = {}
    metadata: dict[str, Any] = {}
    random = np.random.default_rng(0)
    for split in ("val", "test"):
        results[split], nets = {}, []
        for index in range(COUNT):
            arch = sample(split, index)
            sizes = {
                "cifar10": arch.program(WIDTH).num_params,
                "imagenet": arch.program(WIDTH, 224, 1000).num_params,
            }
            nodes = arch.graph(WIDTH).num_nodes
            nets.append(arch.to_dict() | {"C": WIDTH, "num_nodes": nodes, "num_params": sizes})
            accuracy = round(95 - nodes / 20 + float(random.normal()), 2)
            results[split][str(index)] = {
                "test_acc": accuracy, "params": sizes["cifar10"], "time": nodes / 30, "val_acc": accuracy,
                "val_acc_noise": accuracy / 2, "converge_time": 2.0 if index % 5 == 0 else nodes / 900,
                "ghn2_test_acc": 50.0,
            }  # fmt: skip
        metadata[split] = {"nets": nets, "meta": {}}
    places = folder / "results_cifar10.json", folder / "deepnets1m_val_test_meta.json"
    for place, content in zip(places, (results, metadata), strict=True):
        place.write_text(json.dumps(content), encoding="utf-8")
    return places


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """(results, folder of imported splits, hypernetwork)."""
    folder = tmp_path_factory.mktemp("released")
    results, metadata = released_files(folder)
    import_published([metadata], folder / "data")
    torch.manual_seed(0)
    ghn = GHN.from_config({"hypernet": "mlp", "hid": 8, "max_shape": [8, 8, 3, 3], "num_classes": 10})
    ghn.save(folder / "mlp.pt")  # the published layout
    return results, folder / "data", folder / "mlp.pt"


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    protocol = dataclasses.replace(published.PUBLISHED, labels=(COUNT,), tested=COUNT)
    monkeypatch.setattr(published, "PUBLISHED", protocol)
    monkeypatch.setattr(published, "SVR_GRID", {"C": [1, 100], "gamma": ["auto"], "epsilon": [0.1]})


def altered(source: Path, target: Path, change: Any) -> Path:
    content = json.loads(source.read_text())
    change(content)
    target.write_text(json.dumps(content))
    return target


def run(*arguments: object) -> Any:
    frozen = ["frozen", *map(str, arguments), "--protocol", "published"]
    return CliRunner().invoke(commands.app, frozen, catch_exceptions=False)


def test_the_command_gives_five_runs_of_every_property(files, tmp_path):
    results, data, ghn = files
    out = tmp_path / "rows.csv"
    shown = run(ghn, "--labels", results, "--data", data, "--out", out)
    assert shown.exit_code == 0, shown.output
    rows = read_results(out)
    assert {(row.target, row.seed) for row in rows} == {
        (name, order) for name in published.KEYS for order in range(5)
    }
    assert {(row.method, row.gnn, row.labels, row.tested) for row in rows} == {
        ("published", "mlp", COUNT, COUNT)
    }
    assert "tell nothing of others" in " ".join(shown.output.split())
    before = out.read_bytes()
    assert run(ghn, "--labels", results, "--data", data, "--out", out).exit_code == 0
    assert out.read_bytes() == before, "what is there is not made again"


def test_labels_are_those_of_the_file_unrounded_and_in_its_units(files):
    train = published.read_released(files[0], "val", COUNT, tuple(published.KEYS))
    held = json.loads(files[0].read_text())["val"]
    assert train.values["accuracy"][3] == held["3"]["val_acc"]
    assert train.values["speed"][3] == held["3"]["time"]
    assert train.values["convergence"][[0, 5]].tolist() == [2.0, 2.0]
    assert train.costs["parameters"][3] == held["3"]["params"]


def test_orders_are_four_permutations_and_that_of_the_file():
    orders = [published.order_of(6, run).tolist() for run in range(5)]
    assert orders[0] == np.random.RandomState(0).permutation(6).tolist()
    assert orders[4] == list(range(6))
    assert all(sorted(order) == orders[4] for order in orders)


def test_the_regression_is_the_grids_best_by_r2_on_labels_as_they_are():
    from sklearn.model_selection import cross_val_score
    from sklearn.svm import SVR

    random = np.random.default_rng(0)
    x = random.standard_normal((40, 2))
    y = 80 + 5 * np.sin(2 * x[:, 0]) + x[:, 1]
    scores = {C: cross_val_score(SVR(C=C, gamma="auto", epsilon=0.1), x, y, cv=5).mean() for C in (1, 100)}
    best = SVR(C=max(scores, key=scores.__getitem__), gamma="auto", epsilon=0.1).fit(x, y)
    assert published.grid_svr(x, y, x) == pytest.approx(best.predict(x))


REFUSED = {
    "an architecture that lacks": (lambda c: c["val"].pop("3"), BadInput, r"15 of the first 16 .* val/3 is"),
    "a value that lacks": (lambda c: c["test"]["4"].pop("time"), BadInput, "no number as 'time' of test/4"),
    "a split that lacks": (lambda c: c.pop("test"), BadInput, "no results of split 'test'"),
    "a constant": (
        lambda c: [net.update(val_acc=9.0) for net in c["val"].values()],
        BadInput,
        "val_acc of 'val' .* the same for all",
    ),
    "other architectures": (
        lambda c: [net.update(params=net["params"] + 1) for net in c["val"].values()],
        BadInput,
        "16 of 16 architectures of 'val' .* they are of other architectures",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_files_that_cannot_be_used_are_refused_in_a_sentence(files, tmp_path, what):
    change, error, message = REFUSED[what]
    results = altered(files[0], tmp_path / "results.json", change)
    with pytest.raises(error, match=message):
        run(files[2], "--labels", results, "--data", files[1], "--out", tmp_path / "rows.csv")
    assert not (tmp_path / "rows.csv").exists()


def test_an_index_that_is_there_twice_and_foreign_bytes_are_refused(files, tmp_path):
    twice = tmp_path / "twice.json"
    twice.write_text(files[0].read_text().replace('"1": {', '"0": {', 1))
    with pytest.raises(CorruptFile, match="'0' is there twice"):
        published.read_released(twice, "val", COUNT, ("accuracy",))
    twice.write_bytes(b"\x00\xff")
    with pytest.raises(CorruptFile):
        published.read_released(twice, "val", COUNT, ("accuracy",))


def test_a_few_differing_numbers_of_parameters_are_a_warning(files, tmp_path):
    results = altered(files[0], tmp_path / "results.json", lambda c: c["val"]["2"].update(params=5))
    with pytest.warns(UserWarning, match=r"of 1 of 16 architectures of 'val' \(the first: val/2, 5 and"):
        run(files[2], "--labels", results, "--data", files[1], "--out", tmp_path / "rows.csv")


def test_generated_splits_other_classes_and_unnamed_files_are_refused(files, tmp_path):
    results, data, ghn = files
    with pytest.raises(BadInput, match="no released split 'val': `deepnets-bench import` makes it"):
        run(ghn, "--labels", results, "--data", tmp_path)
    GHN.from_config("mlp", num_classes=7).save(tmp_path / "seven.pt")
    with pytest.raises(BadInput, match="7 classes; the released results are of CIFAR-10"):
        run(tmp_path / "seven.pt", "--labels", results, "--data", data)
    with pytest.raises(BadInput, match="reads a released file of results: --labels"):
        run(ghn, "--data", data)
    with pytest.raises(UnknownName, match="protocol 'paper'"):
        CliRunner().invoke(commands.app, ["frozen", str(ghn), "--protocol", "paper"], catch_exceptions=False)


@pytest.mark.skipif(not RELEASED.exists(), reason="needs the released results (DEEPNETS_BENCH_RELEASED)")
def test_the_released_file_is_read_whole():
    """The count of parameters has tau .19 with time and about none with the others."""
    test = published.read_released(RELEASED, "test", 500, tuple(published.KEYS))
    taus = {
        name: kendalltau(test.costs["parameters"], values).statistic for name, values in test.values.items()
    }
    assert taus["speed"] == pytest.approx(0.19, abs=0.01)
    assert abs(taus["accuracy"]) < 0.05
    assert (test.values["convergence"] == 2.0).any()

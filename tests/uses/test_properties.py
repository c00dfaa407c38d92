"""Property prediction: targets, features, zero-cost scores, heads, the direct mode, boards, commands."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from deepnets_bench import GHN
from deepnets_bench.commands import properties as commands
from deepnets_bench.compiler.primitives import PRIMITIVES
from deepnets_bench.errors import BadInput, UnknownName
from deepnets_bench.generators import sample
from deepnets_bench.gnn import identify
from deepnets_bench.harness.protocol.tracks import load_track
from deepnets_bench.leaderboard.table import to_markdown
from deepnets_bench.uses.embeddings import mean_embeddings
from deepnets_bench.uses.labels import append_labels, read_labels
from deepnets_bench.uses.properties import bounds, direct, heads, zero_cost
from deepnets_bench.uses.properties import study as work
from deepnets_bench.uses.properties.bounds import Bounds, bounds_of
from deepnets_bench.uses.properties.direct import predict_directly
from deepnets_bench.uses.properties.features import FEATURES, graph_features
from deepnets_bench.uses.properties.heads import HEADS, constant, signed
from deepnets_bench.uses.properties.plots import learning_curves, predicted_against_measured
from deepnets_bench.uses.properties.predictions import predictions_path, read_predictions
from deepnets_bench.uses.properties.protocol import PROTOCOL, Protocol
from deepnets_bench.uses.properties.results import PropertyRow, append_results, read_results
from deepnets_bench.uses.properties.study import Study
from deepnets_bench.uses.properties.tables import property_table, rows_of_run
from deepnets_bench.uses.properties.targets import NAMES, read_targets, sample_of
from deepnets_bench.uses.properties.zero_cost import (
    gradient_norm,
    jacobian_covariance,
    naswot,
    synflow,
    zero_cost_scores,
)
from deepnets_bench.uses.reliability import reliability
from tests.uses.test_labels import label

SMALL = Protocol(labels=(8, 20), tested=20, steps=6, hid=8, batch_size=8)
DIGITS = load_track("digits")
NO_TIMES = ("accuracy", "accuracy_noise", "convergence")


def write_labels(path: Path, count: int, seeds: tuple[int, ...] = (0, 1)) -> Path:
    """Labels of architectures whose accuracy rises with the share of convolutions, but for some noise."""
    random = np.random.default_rng(0)
    made = {"track_version": DIGITS.version, "track_digest": DIGITS.fingerprint()}
    rows = []
    for split in ("val", "test"):
        for index in range(count):
            arch = sample(split, index)
            graph = arch.graph(8, 16, 10, 64)
            share = float((graph.op == PRIMITIVES.index("conv")).mean())
            for seed in seeds:
                accuracy = float(np.clip(0.2 + share + 0.02 * random.standard_normal(), 0, 1))
                rows.append(
                    label(
                        split, index, seed, fingerprint=arch.fingerprint(), accuracy=accuracy,
                        accuracy_noise=accuracy / 2, nodes=graph.num_nodes,
                        convergence=max(0.1, 1 - accuracy), **made,
                    )
                )  # fmt: skip
    append_labels(path, rows)
    return path


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_labels(tmp_path_factory.mktemp("labels") / "labels.csv", 20)


@pytest.fixture(scope="module")
def study(labels: Path, tmp_path_factory: pytest.TempPathFactory) -> Study:
    data = tmp_path_factory.mktemp("data")
    return Study(DIGITS, labels, data, None, NO_TIMES, SMALL)


@pytest.fixture(autouse=True)
def small_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two settings; the paper's 105 take most of the time of a study this small."""
    monkeypatch.setattr(heads, "SVR_GRID", {"C": [1, 100], "gamma": ["auto"], "epsilon": [0.1]})


def test_targets_are_means_over_seeds_of_architectures_that_all_properties_have(labels, tmp_path):
    train, test = read_targets(labels, NO_TIMES, SMALL)
    assert (train.split, test.split, len(train), len(test)) == ("val", "test", 20, 20)
    assert train.fingerprints[3] == sample("val", 3).fingerprint()
    path = tmp_path / "labels.csv"
    path.write_bytes(labels.read_bytes())
    held = {row.key: row for row in read_labels(path)}
    failed = dict.fromkeys(("accuracy", "accuracy_noise", "convergence", "converged", "train_accuracy"))
    for key, changes in (
        (("val", 3, 0), {**failed, "failure": "the loss is nan"}),
        (("val", 4, 0), {"accuracy": 0.25}),
        (("val", 4, 1), {"accuracy": 0.75}),
    ):
        append_labels(path, [held[key].model_copy(update=changes)])
    train, _ = read_targets(path, NO_TIMES, SMALL)
    assert 3 not in train.index
    assert train.values["accuracy"][list(train.index).index(4)] == 0.5


def test_labels_that_do_not_suffice_are_refused_with_the_command_that_makes_them(labels, tmp_path):
    with pytest.raises(
        BadInput, match=r"labels 20 architectures of 'val', fewer than 500; .* label --split val"
    ):
        read_targets(labels, NO_TIMES)
    with pytest.raises(BadInput, match=r"no inference times of 'val' .* --time makes them"):
        read_targets(labels, NAMES, SMALL)
    path = tmp_path / "labels.csv"
    append_labels(path, [label(split, i, accuracy=0.5) for split in ("val", "test") for i in range(20)])
    with pytest.raises(BadInput, match=r"accuracy is 0.5 for every architecture of 'val'"):
        read_targets(path, NO_TIMES, SMALL)
    append_labels(path, [label("val", 0, 1), label("val", 1, 1)])
    with pytest.raises(
        BadInput,
        match=r"lacks labels of 18 architectures of 'val' with one of .* 0,1; .* --track .* --seeds 0,1",
    ):
        read_targets(path, NO_TIMES, SMALL)


@pytest.mark.parametrize(("split", "number"), [("val", 12), ("test", 20)])
def test_failed_trainings_leave_enough_architectures_or_are_named(labels, split, number, tmp_path):
    empty = dict.fromkeys(("accuracy", "accuracy_noise", "convergence", "converged", "train_accuracy"))
    path = tmp_path / "labels.csv"
    path.write_bytes(labels.read_bytes())
    held = {row.key: row for row in read_labels(path)}
    changes = {**empty, "failure": "the loss is nan"}
    append_labels(path, [held[split, i, 0].model_copy(update=changes) for i in range(number)])
    with pytest.raises(BadInput, match=f"{number} of 20 architectures of '{split}' in .* failed"):
        read_targets(path, NO_TIMES, SMALL)


def test_seeds_label_the_same_architectures(labels, tmp_path):
    path = tmp_path / "labels.csv"
    path.write_bytes(labels.read_bytes())
    other = {row.key: row for row in read_labels(path)}["val", 2, 1].model_copy(update={"fingerprint": "x"})
    append_labels(path, [other])
    with pytest.raises(BadInput, match="different architectures as val/2"):
        read_targets(path, NO_TIMES, SMALL)


def test_missing_files_are_named_with_the_command_that_makes_them(tmp_path):
    with pytest.raises(
        BadInput,
        match=r"no labels at .*; deepnets-bench label --split val,test --count 20 --out .*labels.csv makes",
    ):
        read_targets(tmp_path / "labels.csv", NO_TIMES, SMALL)
    shown = CliRunner().invoke(commands.app, ["show", "--out", str(tmp_path / "results.csv")])
    assert "`deepnets-bench properties direct --gnn gat` makes some" in str(shown.exception)


def test_labels_of_other_architectures_are_refused(study, tmp_path):
    path = write_labels(tmp_path / "labels.csv", 20, (0,))
    [row] = [row for row in read_labels(path) if row.key == ("test", 5, 0)]
    append_labels(path, [row.model_copy(update={"fingerprint": "0" * 32})])
    with pytest.raises(BadInput, match="labels another architecture as test/5"):
        len(dataclasses.replace(study, labels=path).targets)


def test_labels_of_another_track_or_of_several_are_refused(study, labels, tmp_path):
    with pytest.raises(BadInput, match=r"holds labels of track digits v\d+, not of mnist v\d+; name their"):
        len(dataclasses.replace(study, track=load_track("mnist")).targets)
    path = tmp_path / "labels.csv"
    path.write_bytes(labels.read_bytes())
    last = read_labels(path)[-1]
    for changes in ({"recipe_digest": "other"}, {"track": "mnist"}, {"track_digest": "0" * 16}):
        append_labels(path, [last.model_copy(update=changes)])
        with pytest.raises(BadInput, match="are of several tracks or recipes, digits v"):
            len(dataclasses.replace(study, labels=path).targets)
    append_labels(path, [row.model_copy(update={"track_digest": "0" * 16}) for row in read_labels(path)])
    with pytest.raises(BadInput, match="as it was before it was changed"):
        len(dataclasses.replace(study, labels=path).targets)


def test_a_seed_learns_from_its_own_sample():
    first, second = sample_of(8, 20, 0), sample_of(8, 20, 1)
    assert len(set(first)) == 8
    assert (first != second).any()
    assert (sample_of(8, 20, 0) == first).all()
    assert sample_of(20, 20, 3).tolist() == list(range(20))


def test_features_of_a_graph_by_hand():
    graph = sample("test", 1).graph(8, 16, 10, 64)
    found = dict(zip(FEATURES, graph_features(graph), strict=True))
    assert found["nodes"] == graph.num_nodes == sum(found[f"count of {name}"] for name in PRIMITIVES)
    assert found["edges"] == graph.num_edges
    assert found["depth"] == graph.level.max() + 1
    assert found["largest in-degree"] == max(np.bincount(graph.edge_index[1]))


def test_embeddings_are_means_of_node_states_whatever_the_batches():
    from deepnets_bench import GraphBatch

    torch.manual_seed(0)
    ghn = GHN.from_config({"gnn": "gat", "hid": 8, "max_shape": [8, 8, 3, 3], "num_classes": 10})
    graphs = [sample("val", index).graph(8, 16, 10, 64) for index in range(3)]
    found = mean_embeddings(ghn, graphs, batch_size=2)
    ghn.eval()
    for graph, vector in zip(graphs, found, strict=True):
        with torch.inference_mode():
            states = ghn.node_states(GraphBatch.from_graphs([graph], ghn.virtual_edges))
        assert np.allclose(vector, states.mean(0), atol=1e-5)
    assert mean_embeddings(ghn, []).shape[0] == 0


class Draws(torch.nn.Module):
    """Adds a number that it draws to every state."""

    def __init__(self, dim: int) -> None:
        super().__init__()

    def forward(self, x, batch):
        return x + torch.randn(x.shape[1])


def test_what_a_gnn_draws_is_the_same_for_every_batch(study, monkeypatch):
    ghn = GHN.from_config({"hid": 8, "max_shape": [8, 8, 3, 3], "num_classes": 10}, gnn=Draws)
    graphs = [sample("val", 0).graph(8, 16, 10, 64)] * 4
    found = mean_embeddings(ghn, graphs, batch_size=2)
    assert (found[:2] == found[2:]).all()
    monkeypatch.setattr(direct, "_TEST_BATCH", 2)
    targets = {"accuracy": study.targets[0].values["accuracy"]}
    predicted = predict_directly(identify(Draws), study.graphs[0], targets, graphs, 0, SMALL)["accuracy"]
    assert (predicted[:2] == predicted[2:]).all()


def test_an_edited_gnn_is_not_taken_for_the_one_before(study, tmp_path):
    path, gnn = tmp_path / "results.csv", identify("mlp")
    work.direct(study, gnn, [0], work.sink_of(path))
    edited = work.columns_of(gnn) | {"gnn_digest": "0" * 16}
    with pytest.raises(BadInput, match=r"another source of GNN mlp, seed 0; keep each in a file of its own"):
        work.missing(path, study, "direct", [0, 1], edited)
    with pytest.raises(BadInput, match=r"another hypernetwork with GNN mlp, seed 0; keep each"):
        work.missing(path, study, "direct", [0], work.columns_of(gnn) | {"source": "0" * 16})
    assert work.missing(path, study, "direct", [1], edited) == [1]
    append_results(path, [row.model_copy(update=edited) for row in read_results(path)])
    with pytest.raises(BadInput, match=r"are of two sources of GNN mlp with seed 0; keep each"):
        property_table(read_results(path), "direct")


def test_zero_cost_scores_by_hand():
    """A linear network has a gradient, a flow and correlations that can be written down."""
    network = sample("val", 2).build(8, 16, 10, 16)
    images, labels_ = torch.randn(6, 3, 16, 16), torch.arange(6)
    params = {name: value.detach().requires_grad_() for name, value in network.named_parameters()}
    loss = torch.nn.functional.cross_entropy(network.run(images, params), labels_)
    loss.backward()
    norm = sum(float(p.grad.square().sum()) ** 0.5 for p in params.values() if p.grad is not None)
    assert gradient_norm(network, images, labels_) == pytest.approx(norm, rel=1e-4)
    # R is linear in the weight of the last layer, if that has no bias, and so is the flow of every parameter.
    last = max(name for name in params if name.startswith("classifier") and name.endswith("weight"))
    with torch.no_grad():
        network.get_parameter(last.replace("weight", "bias")).zero_()
    before = synflow(network, images, labels_)
    with torch.no_grad():
        network.get_parameter(last).mul_(-2)
    assert synflow(network, images, labels_) == pytest.approx(before + np.log(2), abs=1e-9)
    same = images[:1].repeat(6, 1, 1, 1)
    assert jacobian_covariance(network, images, labels_) > jacobian_covariance(network, same, labels_)


def test_naswot_counts_units_that_agree_by_hand():
    """Units on: 110 and 101. Each image agrees with itself in 3, with the other in 1: log(3·3 - 1·1)."""
    before = torch.tensor([[0.5, 2.0, -1.0], [3.0, -0.1, 0.2]])

    class OneReLU:
        def named_parameters(self):
            return iter(())

        def run(self, images, params):
            return torch.nn.functional.relu(before)

    assert naswot(OneReLU(), before, before) == pytest.approx(np.log(8))
    network = sample("val", 2).build(8, 16, 10, 16)
    images, labels_ = torch.randn(6, 3, 16, 16), torch.arange(6)
    assert np.isfinite(naswot(network, images, labels_))
    assert naswot(network, images[:1].repeat(6, 1, 1, 1), labels_) == -np.inf


def test_an_infinite_flow_ranks_first_and_a_score_that_is_no_number_last(monkeypatch):
    program = sample("val", 2).program(8, 16, 10, 16)
    images, labels_ = torch.randn(4, 3, 16, 16), torch.arange(4)
    assert zero_cost_scores(program, images, labels_, 0)["synflow"] < np.inf
    monkeypatch.setattr(zero_cost, "SCORES", {"a": lambda *_: np.nan, "b": lambda *_: np.inf})
    assert zero_cost_scores(program, images, labels_, 0) == {"a": -np.inf, "b": np.inf}
    x, y = np.array([[1.0], [np.inf], [-np.inf]]), np.array([2.0, 3.0, 1.0])
    assert work.kendall(signed(x, y, x, 0), y) == 1


@pytest.mark.parametrize("name", HEADS)
def test_heads_learn_what_can_be_learnt(name):
    random = np.random.default_rng(0)
    x = random.standard_normal((60, 3))
    y = 2 * x[:, 0] - x[:, 1] + 5
    predicted = HEADS[name](x[:40], y[:40], x[40:], 0)
    assert work.kendall(predicted, y[40:]) > 0.6
    assert abs(predicted.mean() - y[40:].mean()) < 1.5


def test_scores_are_turned_around_and_a_constant_orders_nothing():
    x, y = np.arange(6.0)[:, None], -np.arange(6.0)
    assert work.kendall(signed(x[:4], y[:4], x[4:], 0), y[4:]) == 1
    assert work.kendall(constant(x, y, x, 0), y) == 0


def test_the_direct_mode_repeats_learns_and_shares_all_but_the_gnn(study):
    train, test = study.graphs
    targets = {"accuracy": study.targets[0].values["accuracy"]}
    gnn = identify("gin")
    first, second = (predict_directly(gnn, train, targets, test, 0, SMALL)["accuracy"] for _ in range(2))
    assert (first == second).all()
    assert (first != predict_directly(gnn, train, targets, test, 1, SMALL)["accuracy"]).any()
    longer = dataclasses.replace(SMALL, steps=80, hid=16)
    predicted = predict_directly(gnn, train, targets, train, 0, longer)["accuracy"]
    assert work.kendall(predicted, targets["accuracy"]) > 0.5


def test_every_method_leaves_its_rows_and_boards_show_them(study, tmp_path):
    path = tmp_path / "results.csv"
    work.baselines(study, [0], path)
    names = {row.method for row in read_results(path)}
    assert names >= {
        "parameters",
        "depth",
        "graph features",
        "synflow",
        "mean of labels",
        "untrained ghn2, svr",
    }
    assert {(row.target, row.labels) for row in read_results(path)} == {
        (name, count) for name in NO_TIMES for count in (8, 20)
    }
    for gnn in ("mlp", "gin"):
        identity = identify(gnn)
        columns = work.columns_of(identity)
        assert work.missing(path, study, "direct", [0, 1, 2], columns) == [0, 1, 2]
        work.direct(study, identity, [0, 1, 2], work.sink_of(path))
        assert work.missing(path, study, "direct", [0, 1, 2], columns) == []
    table = property_table(read_results(path), "direct", bounds=Bounds({"accuracy": 0.7}))
    assert table.headers[0] == "GNN"
    assert {row[0] for row in table.rows} == {"mlp", "gin", "graph features"}
    assert {row[0] for row in property_table(read_results(path), "baselines").rows} >= {"graph features"}
    assert "Detectable difference" in to_markdown(table)
    assert "accuracy 0.70" in to_markdown(table)
    assert property_table(read_results(path), "baselines", 8).rows
    with pytest.raises(BadInput, match="results for 8, 20 labels, not for 9"):
        property_table(read_results(path), "direct", 9)
    with pytest.raises(BadInput, match="no results of the mode 'svr'"):
        property_table(read_results(path), "svr")
    with pytest.raises(UnknownName, match="mode 'mean'"):
        property_table(read_results(path), "mean")
    assert len(learning_curves(read_results(path), "direct", {"accuracy": 0.7}).axes) == 3


def test_baselines_that_are_there_are_not_made_again(study, tmp_path, monkeypatch):
    path, made = tmp_path / "results.csv", []
    scores = {"first": lambda *_: 1.0, "second": lambda *_: 2.0}
    monkeypatch.setattr(zero_cost, "SCORES", scores)
    monkeypatch.setattr(work, "SCORES", scores)
    zero_cost_of = work._zero_cost
    monkeypatch.setattr(work, "_zero_cost", lambda *of: made.append(of[-1]) or zero_cost_of(*of))
    work.baselines(study, [0], path)
    assert made == [0, 0], "of the training and of the test architectures"
    before = path.read_bytes()
    work.baselines(study, [0], path)
    assert path.read_bytes() == before
    work.baselines(study, [0, 1], path)
    assert made == [0, 0, 1, 1]
    rows = read_results(path)
    assert {row.seed for row in rows if row.method == "depth"} == {0, 1}


def test_the_bound_is_of_the_labels_that_rows_were_made_with(study, labels, tmp_path, monkeypatch):
    path = tmp_path / "results.csv"
    monkeypatch.setattr(bounds, "PROTOCOL", SMALL)
    work.direct(study, identify("mlp"), [0], work.sink_of(path))
    rows = read_results(path)
    found = bounds_of(rows, labels)
    test = [row for row in read_labels(labels) if row.split == "test"]
    assert found.taus == {row.property: row.bound for row in reliability(test)}
    assert (found.note, bounds_of([], labels)) == ("", Bounds())
    other = write_labels(tmp_path / "labels.csv", 20, (0,))
    assert bounds_of(rows, other) == Bounds(
        note=f"The label-noise bound is left out: {other} holds other labels than those of these rows."
    )
    assert bounds_of(rows, tmp_path / "none.csv").note.endswith(f"no labels at {tmp_path / 'none.csv'}.")
    fewer = write_labels(tmp_path / "fewer.csv", 8)
    assert "left out: " in bounds_of(rows, fewer).note
    assert "labels 8 architectures of 'val', fewer than 20" in bounds_of(rows, fewer).note
    arguments = ["show", "--format", "markdown", "--out", str(path), "--labels"]
    shown = CliRunner().invoke(commands.app, [*arguments, str(labels)], catch_exceptions=False)
    assert f"noise of the labels: accuracy {found.taus['accuracy']:.2f}" in shown.output
    shown = CliRunner().invoke(commands.app, [*arguments, str(other)], catch_exceptions=False)
    assert "noise of the labels" not in shown.output
    assert "holds other labels than those of these rows" in shown.output


def test_every_command_predicts_all_properties():
    """Rows of some would be of another set of labels, and never stand beside the others."""
    for command in ("direct", "baselines", "frozen"):
        shown = CliRunner().invoke(commands.app, [command, "--property", "accuracy"])
        assert "No such option" in shown.output


def test_predictions_are_kept_and_drawn_against_what_was_measured(study, labels, tmp_path):
    path = tmp_path / "results.csv"
    work.direct(study, identify("gin"), [0, 1], work.sink_of(path))
    chosen = rows_of_run(read_results(path), "direct", "gin", 1)
    assert [(row.target, row.seed, row.labels) for row in chosen] == [(name, 1, 20) for name in NO_TIMES]
    assert len(list((tmp_path / "predictions").glob("*.csv"))) == 2, "a file a seed, from 20 labels alone"
    kept = read_predictions(predictions_path(path, chosen[0]))
    measured = study.targets[1].values["accuracy"]
    assert list(kept) == list(NO_TIMES)
    assert work.kendall(list(kept["accuracy"].values()), measured) == pytest.approx(chosen[0].tau, abs=1e-3)
    panels = predicted_against_measured(path, chosen, labels, {"accuracy": 0.9}).axes
    assert panels[0].get_title() == f"tau {chosen[0].tau:.2f} (label noise 0.90)"
    assert panels[0].lines[0].get_ydata() == pytest.approx(measured)
    assert panels[0].lines[0].get_xdata() == pytest.approx(list(kept["accuracy"].values()))
    other = write_labels(tmp_path / "labels.csv", 20, (0,))
    held = [row for row in read_labels(other) if row.split == "test"]
    append_labels(other, [row.model_copy(update={"accuracy": 1 - row.accuracy}) for row in held])
    with pytest.raises(BadInput, match="holds other labels of accuracy than those of"):
        predicted_against_measured(path, chosen, other)
    with pytest.raises(BadInput, match="the predictions of these rows were not kept"):
        predicted_against_measured(tmp_path / "elsewhere/results.csv", chosen, labels)
    with pytest.raises(UnknownName, match=r"GNN 'gat' of the mode 'direct'\..* Choices: gin"):
        rows_of_run(read_results(path), "direct", "gat")
    with pytest.raises(BadInput, match="gin has results of seeds 0, 1, not of 7"):
        rows_of_run(read_results(path), "direct", "gin", 7)


def test_letters_follow_the_seeds():
    """Ten seeds of two GNNs that are far apart, and of two that are not."""
    random = np.random.default_rng(0)
    rows = [
        PropertyRow(
            method="direct", gnn=gnn, seed=seed, target="accuracy", labels=500,
            tau=float(np.clip(centre + 0.02 * random.standard_normal(), -1, 1)), tested=500, cpu_seconds=1,
            labels_digest="d", protocol_version=1, protocol_digest="p", package_version="0",
            torch_version="2", device="cpu", timestamp="now",
        )
        for gnn, centre in (("a", 0.6), ("b", 0.6), ("c", 0.3))
        for seed in range(10)
    ]  # fmt: skip
    table = property_table(rows, "direct")
    letters = {row[0]: row[2] for row in table.rows}
    assert letters["a"] == letters["b"] != letters["c"]
    assert not any("against graph features" in note for note in table.notes), "there are none"


def test_gnns_are_tested_against_the_features_of_graphs_on_the_same_labels():
    def rows_of(method: str, gnn: str, centre: float, **changes: object) -> list[PropertyRow]:
        random = np.random.default_rng(int(100 * centre))
        return [
            PropertyRow(
                method=method, gnn=gnn, seed=seed, target="accuracy", labels=500, tested=500, cpu_seconds=1,
                tau=centre + 0.02 * float(random.standard_normal()), protocol_version=1, protocol_digest="p",
                package_version="0", torch_version="2", device="cpu", timestamp="now",
                **{"labels_digest": "d"} | changes,
            )
            for seed in range(6)
        ]  # fmt: skip

    gnns = [*rows_of("direct", "a", 0.7), *rows_of("direct", "b", 0.3), *rows_of("direct", "c", 0.5)]
    bar = rows_of("graph features", "", 0.49)
    table = property_table([*gnns, *bar], "direct")
    assert [row[0] for row in table.rows] == ["a", "c", "graph features", "b"]
    assert "accuracy, against graph features: better a; worse b." in table.notes
    elsewhere = rows_of("graph features", "", 0.49, labels_digest="other")
    assert [row[0] for row in property_table([*gnns, *elsewhere], "direct").rows] == ["a", "c", "b"]


def test_results_come_back_and_foreign_files_are_refused(tmp_path):
    path = tmp_path / "results.csv"
    row = PropertyRow(method="svr", gnn="gat", seed=0, target="speed", labels=50, tau=0.5, tested=500,
                      cpu_seconds=2, labels_digest="d", protocol_version=1, protocol_digest="p",
                      package_version="0", torch_version="2", device="a, b", timestamp="t")  # fmt: skip
    append_results(path, [row])
    append_results(path, [row.model_copy(update={"tau": 0.25})])
    assert [found.tau for found in read_results(path)] == [0.25]
    path.write_text(path.read_text().replace("0.25", "2.5"))
    with pytest.raises(BadInput, match="line 2: tau"):
        read_results(path)
    path.write_text("a,b\n")
    with pytest.raises(BadInput, match="holds no results of property prediction"):
        read_results(path)


def test_the_commands(labels, tmp_path, monkeypatch):
    monkeypatch.setattr(Study, "protocol", SMALL)
    monkeypatch.setattr(commands, "study_of", lambda track, labels, data, images: Study(
        load_track(track), labels, data, images, NO_TIMES, SMALL))  # fmt: skip
    out, data = str(tmp_path / "results.csv"), str(tmp_path / "data")
    common = ["--labels", str(labels), "--out", out]
    runner = CliRunner()
    shown = runner.invoke(
        commands.app, ["direct", "--gnn", "mlp,gin", "--seeds", "0,1,2", "--data", data, *common]
    )
    assert shown.exit_code == 0, shown.output
    assert "mlp seed 2: done" in shown.output
    again = runner.invoke(commands.app, ["direct", "--gnn", "mlp", "--seeds", "0", "--data", data, *common])
    assert "seed 0: done" not in again.output
    picture = tmp_path / "curves.svg"
    shown = runner.invoke(
        commands.app,
        ["show", "--format", "latex", "--plot", str(picture), "--scatter", str(tmp_path / "s.svg"), *common],
        catch_exceptions=False,
    )
    assert "tabular" in shown.output
    assert picture.read_bytes()
    assert (tmp_path / "s.svg").read_bytes()
    torch.manual_seed(0)
    ghn = GHN.from_config({"gnn": "mlp", "hid": 8, "max_shape": [8, 8, 3, 3], "num_classes": 10})
    ghn.save(tmp_path / "ghn.safetensors")
    shown = runner.invoke(
        commands.app, ["frozen", str(tmp_path / "ghn.safetensors"), "--data", data, *common],
        catch_exceptions=False,
    )  # fmt: skip
    assert "mlp seed 0, done" in shown.output
    assert {row.method for row in read_results(Path(out)) if row.gnn} == {
        "direct",
        "svr",
        "ridge",
        "boosting",
    }


def test_the_protocol_is_frozen():
    """Raise the version with any change."""
    assert (PROTOCOL.version, PROTOCOL.digest()) == (1, "3742e56b4952")
    assert Protocol(steps=601).digest() != PROTOCOL.digest()

"""Search: embeddings of a split in pieces, ranking, Pareto fronts, and the proof by training."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from deepnets_bench import GHN
from deepnets_bench.cli import app
from deepnets_bench.commands import search as command
from deepnets_bench.commands.progress import cluster_executor
from deepnets_bench.errors import BadInput, Interrupted
from deepnets_bench.generators import sample
from deepnets_bench.harness.protocol.tracks import load_track
from deepnets_bench.uses import search
from deepnets_bench.uses.embeddings import mean_embeddings
from deepnets_bench.uses.proof import compare, compare_labels, random_indices
from deepnets_bench.uses.properties.study import Study
from tests.uses.test_labels import label
from tests.uses.test_properties import NO_TIMES, SMALL, write_labels


@pytest.fixture(scope="module")
def ghn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("ghn") / "ghn.safetensors"
    GHN.from_config({"gnn": "mlp", "hid": 8, "max_shape": [8, 8, 3, 3], "num_classes": 10}).save(path)
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


def test_embeddings_are_kept_in_pieces_and_an_interrupted_search_goes_on(ghn, data, tmp_path, monkeypatch):
    track = load_track("digits")
    monkeypatch.setattr(search, "CHUNK", 4)
    original = search.embed_chunk

    def stops(task: search.ChunkTask) -> search.ChunkTask:
        if task.start == 4:
            raise KeyboardInterrupt
        return original(task)

    monkeypatch.setattr(search, "embed_chunk", stops)
    with pytest.raises(Interrupted, match="after 4 of 10 architectures"):
        search.embeddings_of_split(track, data, ghn, 10, tmp_path)
    made = []
    monkeypatch.setattr(search, "embed_chunk", lambda task: made.append(task.start) or original(task))
    vectors = search.embeddings_of_split(track, data, ghn, 10, tmp_path)
    assert made == [4, 8]
    graphs = [sample("search", index).graph(8, 16, 10, 64) for index in range(10)]
    assert np.allclose(vectors, mean_embeddings(GHN.load(ghn), graphs), atol=1e-5)
    assert track.fingerprint() in next(tmp_path.iterdir()).name
    next(tmp_path.rglob("0-4.npy")).write_bytes(b"\x93NUMPY")
    with pytest.raises(BadInput, match="truncated or not a file of embeddings"):
        search.embeddings_of_split(track, data, ghn, 10, tmp_path)


def test_the_best_have_the_highest_accuracy_and_the_smallest_time():
    predicted = {"accuracy": np.array([0.2, 0.9, 0.5]), "speed": np.array([3.0, 2.0, 1.0])}
    assert search.best(predicted, "accuracy", 2) == [1, 2]
    assert search.best(predicted, "speed", 2) == [2, 1]


def test_no_worse_means_the_best_tenth():
    """By hand: of 20, the two most accurate are the best tenth, and of these the second is faster."""
    predicted = {"accuracy": np.linspace(0.1, 0.9, 20), "speed": np.arange(20.0)}
    assert search.best(predicted, "speed", 5) == [0, 1, 2, 3, 4]
    assert search.best(predicted, "speed", 5, "accuracy") == [18, 19]
    assert search.best(predicted, "accuracy", 1, "speed") == [1]


def test_the_pareto_front_by_hand():
    predicted = {
        "accuracy": np.array([0.9, 0.8, 0.7, 0.8, 0.5, 0.9]),
        "speed": np.array([5.0, 3.0, 4.0, 3.5, 1.0, 6.0]),
    }
    assert search.pareto_front(predicted, "accuracy", "speed") == [0, 1, 4]


def test_random_architectures_are_others_and_always_the_same():
    first = random_indices(100, 5, [3, 4])
    assert len(set(first) - {3, 4}) == 5
    assert first == random_indices(100, 5, [3, 4])


def test_the_difference_is_welchs():
    """Against scipy."""
    from scipy.stats import ttest_ind

    a, b = [0.5, 0.6, 0.8, 0.7], [0.1, 0.5, 0.3]
    proof = compare("accuracy", a, b)
    expected = ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    assert (proof.low, proof.high) == pytest.approx((expected.low, expected.high))
    assert compare("accuracy", [1.0], [0.5]).high == math.inf
    assert compare("accuracy", [1.0, 1.0], [0.5, 0.5]).low == 0.5


def test_trainings_that_failed_count_as_chance():
    """By hand: found (0.8 + 0.1) / 2 and 0.8, random 0.5 and 0.5."""
    lost = {
        "accuracy": None,
        "accuracy_noise": None,
        "convergence": None,
        "converged": None,
        "failure": "nan",
    }
    labels = [label("search", 0, 0, accuracy=0.8), label("search", 0, 1, **lost)]
    labels += [label("search", 1, seed, accuracy=0.8) for seed in range(2)]
    labels += [label("search", index, seed, accuracy=0.5) for index in (2, 3) for seed in range(2)]
    accuracy, _, convergence = compare_labels(labels, [0, 1], [2, 3], 0.1)
    assert (accuracy.found, accuracy.random, accuracy.failed) == (pytest.approx(0.625), 0.5, (1, 0))
    assert convergence.found == pytest.approx(((0.25 + 1) / 2 + 0.25) / 2)


def test_the_command_finds_trains_and_compares(ghn, data, tmp_path, monkeypatch):
    labels = write_labels(tmp_path / "labels.csv", 20, (0,))
    monkeypatch.setattr(command, "study_of", lambda track, labels, data, images, names: Study(
        load_track(track), labels, data, images, NO_TIMES, SMALL))  # fmt: skip
    out = tmp_path / "out"
    arguments = [
        "search", "--ghn", str(ghn), "--count", "12", "--head", "ridge",
        "--labels", str(labels),
        "--out", str(out), "--data", str(data), "--jobs", "1",
    ]  # fmt: skip
    trained = [*arguments, "--top", "2", "--train", "--seeds", "0"]
    shown = CliRunner().invoke(app, trained, catch_exceptions=False)
    assert "rank  architecture" in shown.output
    assert "difference [95 %]" in shown.output
    assert (
        (out / "found.csv").read_text().splitlines()[0].startswith("rank,split,index,fingerprint,predicted_")
    )
    assert len((out / "trained.csv").read_text().splitlines()) == 1 + 4
    whole = list(range(11))
    monkeypatch.setattr(search, "pareto_front", lambda *_: whole)
    for options, expected in (([], 11), (["--top", "3"], 3)):
        pareto = [*arguments, "--pareto", "convergence", *options]
        assert CliRunner().invoke(app, pareto, catch_exceptions=False).exit_code == 0
        assert len((out / "found.csv").read_text().splitlines()) == 1 + expected
    with pytest.raises(BadInput, match="compares 11 architectures"):
        CliRunner().invoke(app, [*arguments, "--pareto", "convergence", "--train"], catch_exceptions=False)
    few = CliRunner().invoke(app, [*arguments, "--no-worse", "convergence"], catch_exceptions=False)
    assert few.exit_code == 0
    with pytest.raises(BadInput, match="another property than accuracy"):
        CliRunner().invoke(app, [*arguments, "--pareto", "accuracy"], catch_exceptions=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--property", "accuracy,convergence"], "Unknown property 'accuracy,convergence'"),
        (["--property", ""], "Unknown property ''"),
        (["--pareto", "x"], "Unknown property 'x'"),
        (["--no-worse", "x"], "Unknown property 'x'"),
        (["--no-worse", "accuracy"], "another property than accuracy"),
        (["--pareto", "speed", "--no-worse", "convergence"], "either --pareto or --no-worse"),
        (["--seeds", "x"], "Seeds are whole numbers"),
        (["--count", "10", "--train"], "compares 10 architectures with as many others, .* --count 10 is"),
    ],
)
def test_what_cannot_be_searched_is_said_before_anything_is_made(ghn, tmp_path, options, message):
    with pytest.raises(BadInput, match=message):
        CliRunner().invoke(app, ["search", "--ghn", str(ghn), *options], catch_exceptions=False)


def test_a_dask_cluster_gives_the_same_embeddings(ghn, data, tmp_path, monkeypatch):
    distributed = pytest.importorskip("distributed", reason="Dask is an extra")
    track = load_track("digits")
    monkeypatch.setattr(search, "CHUNK", 4)
    here = search.embeddings_of_split(track, data, ghn, 10, tmp_path / "here")
    with (
        distributed.LocalCluster(n_workers=1, threads_per_worker=2, dashboard_address=None) as cluster,
        cluster_executor(cluster.scheduler_address) as executor,
    ):
        there = search.embeddings_of_split(track, data, ghn, 10, tmp_path / "there", executor=executor)
    assert np.array_equal(here, there)

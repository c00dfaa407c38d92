"""Files of node embeddings: states and means that belong together, the same bytes again, bad input."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from deepnets_bench.cli import app
from deepnets_bench.errors import BadInput, UnknownName
from deepnets_bench.generators import sample
from deepnets_bench.ghn.model import GHN
from deepnets_bench.graphs.graph import ComputationGraph
from deepnets_bench.harness.protocol.tracks import load_track
from deepnets_bench.uses.embedding_files import evaluation_graphs
from deepnets_bench.uses.embeddings import mean_embeddings, node_embeddings


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture
def ghn(tmp_path: Path) -> Path:
    path = tmp_path / "run" / "ghn.safetensors"
    path.parent.mkdir()
    GHN.from_config("ghn2", gnn="gat", num_classes=10).save(path)
    return path


def invoke(*arguments: object):
    return CliRunner().invoke(app, ["embed", *map(str, arguments)])


def test_states_and_means_belong_together(ghn: Path) -> None:
    graphs = [sample("val", index).graph(8, 16, 10, 64) for index in range(5)]
    model = GHN.load(ghn).train()
    states, means = node_embeddings(model, graphs, 2), mean_embeddings(model, graphs, 2)
    assert [len(of) for of in states] == [graph.num_nodes for graph in graphs]
    assert np.allclose([of.mean(axis=0) for of in states], means, atol=1e-5)
    assert model.training
    assert node_embeddings(model, []) == []


def test_graphs_are_those_of_an_evaluation(data: Path) -> None:
    track = load_track("digits")
    found = evaluation_graphs(track, ["test", "wide", "bnfree"], 3, data, 10)
    wide = ComputationGraph.from_program(sample("wide", 1).program(32, 16, 10, 64))
    assert found["wide"][1].param_shape == wide.param_shape, "four times the width of the track"
    assert found["wide"][1].param_shape != found["test"][1].param_shape
    assert len(evaluation_graphs(track, ["bnfree"], 500, data, 10)["bnfree"]) == 100, "there are no more"
    with pytest.raises(UnknownName, match=r"Unknown split 'search' of track 'digits'"):
        evaluation_graphs(track, ["search"], 3, data, 10)


def test_the_command_writes_beside_each_checkpoint_and_the_same_bytes_again(ghn: Path, data: Path) -> None:
    options = ("--count", 4, "--data", data)
    result = invoke(ghn, *options)
    assert result.exit_code == 0, result.output
    path = ghn.with_name("embeddings.npz")
    assert result.output.startswith(f"wrote {path}: 4 of val, 4 of test (")
    before = path.read_bytes()
    with np.load(path, allow_pickle=False) as found:
        assert sorted(found) == [
            "about", "test/mean", "test/nodes", "test/ptr", "val/mean", "val/nodes", "val/ptr",
        ]  # fmt: skip
        about = json.loads(str(found["about"]))
        ptr, nodes = found["val/ptr"], found["val/nodes"]
        assert (found["val/mean"].dtype, nodes.dtype, ptr.dtype) == (np.float32, np.float32, np.int64)
        assert len(ptr) == 5
        assert ptr[-1] == len(nodes)
        assert np.allclose(nodes[ptr[2] : ptr[3]].mean(axis=0), found["val/mean"][2], atol=1e-5)
    assert (about["gnn"], about["track"], len(about["checkpoint"])) == ("gat", "digits", 64)
    assert invoke(ghn, *options).exit_code == 0
    assert path.read_bytes() == before
    assert [entry.name for entry in ghn.parent.iterdir() if entry.name.endswith(".tmp")] == []


def test_means_alone(ghn: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "means.npz"
    result = invoke(ghn, "--means", "--split", "val", "--count", 2, "--data", data, "--out", out)
    assert result.exit_code == 0, result.output
    with np.load(out, allow_pickle=False) as found:
        assert sorted(found) == ["about", "val/mean"]
        assert found["val/mean"].shape == (2, GHN.load(ghn).config.hid)


def test_bad_input_is_a_sentence(ghn: Path, data: Path, tmp_path: Path) -> None:
    two = invoke(ghn, ghn, "--out", tmp_path / "x.npz", "--data", data)
    assert isinstance(two.exception, BadInput)
    assert "--out is for one hypernetwork, and 2 are given" in str(two.exception)
    empty = invoke(ghn, "--split", ",", "--data", data)
    assert "The list ',' has an empty item" in str(empty.exception)
    assert not ghn.with_name("embeddings.npz").exists()
    missing = invoke(tmp_path / "none.safetensors", "--data", data)
    assert isinstance(missing.exception, BadInput)
    (tmp_path / "file").touch()
    refused = invoke(ghn, "--count", 1, "--data", data, "--out", tmp_path / "file" / "x.npz")
    assert isinstance(refused.exception, BadInput)
    assert "Cannot write" in str(refused.exception)

"""Trained hypernetworks of the frozen mode: seeds are those of their runs, whatever the order of files."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from deepnets_bench import GHN
from deepnets_bench.commands import properties as commands
from deepnets_bench.errors import BadInput
from deepnets_bench.harness.protocol.tracks import load_track
from deepnets_bench.leaderboard.results import append_rows
from deepnets_bench.uses.embedding_files import Embedder, read_embeddings
from deepnets_bench.uses.properties import heads
from deepnets_bench.uses.properties.results import PropertyRow, read_results
from deepnets_bench.uses.properties.study import Study
from deepnets_bench.uses.properties.tables import property_table
from deepnets_bench.uses.properties.trained import trained_ghns
from tests.leaderboard.conftest import make_row
from tests.uses.test_properties import NO_TIMES, SMALL, write_labels

DIGITS = load_track("digits")


def write_run(folder: Path, seed: int, config_hash: str, **changes: object) -> Path:
    """A run of `mlp` as `deepnets-bench run` leaves it: a row, and a hypernetwork in runs/."""
    row = make_row(gnn="mlp", seed=seed, config_hash=config_hash, **changes)
    append_rows(folder / "results.csv", [row])
    place = folder / "runs" / f"mlp-seed{seed}-{config_hash[:8]}"
    place.mkdir(parents=True)
    torch.manual_seed(int(config_hash, 16) % 2**32)
    ghn = GHN.from_config({"gnn": "mlp", "hid": 8, "max_shape": [8, 8, 3, 3], "num_classes": 10})
    ghn.save(place / "ghn.safetensors")
    return place / "ghn.safetensors"


@pytest.fixture
def board(tmp_path: Path) -> Path:
    folder = tmp_path / "digits"
    for seed, config_hash in ((10, "a" * 16), (2, "b" * 16)):
        write_run(folder, seed, config_hash, track="digits", track_version=3)
    return folder


def test_runs_keep_their_seeds_in_folders_and_as_files(board):
    found = trained_ghns([board], DIGITS)
    assert [(ghn.seed, ghn.track) for ghn in found] == [(2, "digits v3"), (10, "digits v3")]
    files = sorted(board.glob("runs/*/ghn.safetensors"))  # as a shell lists them: seed 10 first
    assert [ghn.seed for ghn in trained_ghns(files, DIGITS)] == [10, 2]
    alone = board / "other.safetensors"
    alone.write_bytes(files[0].read_bytes())
    assert trained_ghns([alone], DIGITS)[0].seed is None


def test_the_newest_run_of_a_seed_counts_and_controls_do_not(board):
    newer = write_run(board, 2, "c" * 16, track="digits", track_version=3, utc_time="2099-01-01T00:00:00Z")
    append_rows(board / "results.csv", [make_row(gnn="control:same:mlp", seed=2, config_hash="d" * 16)])
    write_run(board, 2, "e" * 16, track="digits", comparable=False, utc_time="2099-01-02T00:00:00Z")  # smoke
    assert trained_ghns([board], DIGITS)[0].path == newer
    assert len(trained_ghns([board], DIGITS)) == 2


def test_folders_without_hypernetworks_and_of_other_images_are_refused(board, tmp_path):
    append_rows(tmp_path / "empty/results.csv", [make_row()])
    with pytest.raises(BadInput, match="has no trained hypernetworks; `deepnets-bench run"):
        trained_ghns([tmp_path / "empty"], DIGITS)
    with pytest.raises(BadInput, match="There is no"):
        trained_ghns([tmp_path], DIGITS)
    with pytest.raises(BadInput, match=r"track 'digits', for images of 16×16; the labels are of 32×32"):
        trained_ghns([board], load_track("cifar10"))


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A study of twenty labels, which the commands take for theirs."""
    study = Study(DIGITS, write_labels(tmp_path / "labels.csv", 20), tmp_path / "data", None, NO_TIMES, SMALL)
    monkeypatch.setattr(commands, "study_of", lambda *_: study)
    monkeypatch.setattr(heads, "SVR_GRID", {"C": [1, 10], "gamma": ["auto"], "epsilon": [0.1]})
    return study


def frozen(study: Study, out: Path, *places: Path) -> list[PropertyRow]:
    arguments = ["frozen", *map(str, places), "--labels", str(study.labels), "--out", str(out)]
    CliRunner().invoke(commands.app, arguments, catch_exceptions=False)
    return read_results(out)


def test_a_study_of_a_board_has_its_seeds_and_does_not_mix_two_boards(board, study, tmp_path):
    out = tmp_path / "rows.csv"
    rows = frozen(study, out, board)
    assert {row.seed for row in rows} == {2, 10}
    assert {row.ghn_track for row in rows} == {"digits v3"}
    assert len({row.source for row in rows}) == 2
    other = tmp_path / "other"
    write_run(other, 2, "e" * 16, track="digits-full", track_version=2)
    with pytest.raises(BadInput, match="holds results of another hypernetwork with GNN mlp, seed 2; keep"):
        frozen(study, out, board, other)
    assert read_results(out) == rows
    other = tmp_path / "third"
    write_run(other, 3, "e" * 16, track="digits-full", track_version=2)
    with pytest.raises(BadInput, match=r"several tracks \(digits v3, digits-full v2\); keep each"):
        frozen(study, out, board, other)
    with pytest.raises(BadInput, match=r"several tracks \(digits v3, digits-full v2\); keep each"):
        property_table(read_results(out), "svr")


def means_of(count: int, study: Study) -> Embedder:
    return Embedder(DIGITS, ("val", "test"), count, study.data, nodes=False)


def test_kept_embeddings_stand_for_hypernetworks_that_are_gone(board, study, tmp_path):
    rows = frozen(study, tmp_path / "rows.csv", board)
    keeper = means_of(20, study)
    runs = sorted(board.glob("runs/*"))
    assert keeper.keep([*runs, board / "runs" / "not-there"]) == []
    assert keeper.keep(runs) == []
    first = runs[0] / "embeddings.npz"
    content = first.read_bytes()
    first.write_bytes(b"of an older hypernetwork")
    os.utime(first, (0, 0))
    assert keeper.keep(runs) == []
    assert first.read_bytes() == content
    for ghn in board.glob("runs/*/ghn.safetensors"):  # as on another machine, which has what is committed
        ghn.unlink()
    kept = frozen(study, tmp_path / "kept.csv", board)
    apart = {"timestamp": "", "cpu_seconds": 0.0}
    assert [row.model_copy(update=apart) for row in kept] == [row.model_copy(update=apart) for row in rows]
    alone = [trained.path for trained in trained_ghns(sorted(board.glob("runs/*/*.npz")), DIGITS)]
    assert [path.name for path in alone] == ["embeddings.npz"] * 2


def test_kept_embeddings_of_other_graphs_are_refused(board, study, tmp_path):
    index = np.arange(4)
    means_of(4, study).keep(board.glob("runs/*"))
    kept = read_embeddings(next(board.glob("runs/*/embeddings.npz")))
    assert kept.of(DIGITS, "val", index[::2], 10).shape == (2, 8)
    for wrong, message in (
        ((DIGITS, "val", np.arange(5), 10), "has embeddings of 4 graphs of 'val'; 5 are needed"),
        ((DIGITS, "wide", index, 10), "has embeddings of 0 graphs of 'wide'; 4 are needed"),
        ((DIGITS, "val", index, 100), "graphs of track 'digits', which are of other sizes than those of"),
        ((load_track("cifar10"), "val", index, 10), "other sizes than those of 'cifar10'"),
    ):
        with pytest.raises(BadInput, match=message):
            kept.of(*wrong)


def test_a_hypernetwork_that_cannot_be_read_is_named_and_the_others_are_embedded(board, study):
    first, second = sorted(board.glob("runs/*"))
    (first / "ghn.safetensors").write_bytes(b"no tensors")
    (said,) = means_of(2, study).keep([first, second])
    assert said.startswith(f"No embeddings of {first}/ghn.safetensors: ")
    assert not (first / "embeddings.npz").exists()
    assert (second / "embeddings.npz").exists()

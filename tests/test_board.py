"""`Leaderboard`: its DataFrames and pages are what `leaderboard show`, `compare` and `build` give."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import typer
from typer.testing import CliRunner

import deepnets_bench as dnb
from deepnets_bench.commands import leaderboard as command
from deepnets_bench.leaderboard.results import accuracy_summary, append_rows, read_results
from deepnets_bench.leaderboard.scores import read_scores, write_scores
from tests.leaderboard.conftest import failed_row, make_row

METHODS = {"mlp": 0.3, "gat": 0.35, "gin": 0.34}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three methods with three seeds each on test and two splits out of distribution, and a failed run."""
    path = tmp_path_factory.mktemp("board")
    for number, (gnn, level) in enumerate(METHODS.items()):
        for seed in (0, 1, 2):
            noise = 0.004 * ((seed * (number + 2)) % 3)
            scores = {
                split: {i: level - drop + 0.02 * i + noise for i in range(4)}
                for split, drop in (("test", 0.0), ("wide", 0.05), ("deep", 0.1))
            }
            name = write_scores(path / "scores", f"{gnn}-{seed}", scores)
            fields = {"gnn": gnn, "seed": seed, "scores_file": name, "track": "mine"}
            rows = [make_row(**fields, split=split, **accuracy_summary(of)) for split, of in scores.items()]
            append_rows(path / "results.csv", rows)
    append_rows(path / "results.csv", [failed_row(gnn="gcn", track="mine", split="test")])
    return path


@pytest.fixture(scope="module")
def board(folder: Path) -> dnb.Leaderboard:
    return dnb.Leaderboard(folder)


def printed(*arguments: object) -> str:
    app = typer.Typer()
    command.register(app)
    result = CliRunner().invoke(app, ["leaderboard", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result.output


def as_json(*arguments: object, folder: Path) -> dict:
    place = ("--track", "mine", "--results", folder / "results.csv", "--format", "json")
    return json.loads(printed(*arguments, *place))


def test_the_ranking_is_that_of_show(board: dnb.Leaderboard, folder: Path) -> None:
    shown = as_json("show", folder=folder)
    assert json.loads(board.to_json()) == shown
    ranking = board.ranking()
    assert ranking["method"].tolist() == [gnn["name"] for gnn in shown["gnns"]]
    assert ranking["method"].tolist() == ["gat", "gin", "mlp", "gcn"]
    for row, gnn in zip(ranking.to_dict("records"), shown["gnns"], strict=True):
        assert row["seeds"] == len(gnn["seeds"])
        for split, score in gnn["splits"].items():
            assert [row[split], row[f"{split}_std"]] == pytest.approx(
                [score["mean"], score["std"]] if score["by_seed"] else [float("nan")] * 2, nan_ok=True
            )
    assert ranking["test"][0] == pytest.approx(0.35 + 0.03)
    assert ranking["wide_gap"][0] == pytest.approx(-0.05)
    letters = shown["analyses"]["test"]["letters"]
    assert dict(zip(ranking["method"][:3], ranking["letters"][:3], strict=True)) == letters


def test_pairs_and_detectable_differences_are_those_of_show(board: dnb.Leaderboard, folder: Path) -> None:
    shown = as_json("show", folder=folder)["analyses"]
    for family in ("pairs", "references"):
        pairs = board.pairs(family)
        expected = [
            {"endpoint": key, **test} for key, found in shown.items() for test in found[family]["tests"]
        ]
        assert pairs.to_dict("records") == expected
        detectable = board.detectable(family)
        assert detectable["endpoint"].tolist() == list(shown) == ["test", "OOD", "wide", "deep"]
        assert detectable["detectable"].tolist() == [found[family]["detectable"] for found in shown.values()]
        assert detectable["tests"].tolist() == [found[family]["size"] for found in shown.values()]
    assert len(board.pairs()) == 4 * 3
    assert len(board.pairs("references")) == 4 * 2  # each against mlp; ghn2 is not there
    with pytest.raises(dnb.UnknownName, match="Unknown family 'all'"):
        board.pairs("all")


def test_a_comparison_is_that_of_compare(board: dnb.Leaderboard, folder: Path) -> None:
    found = board.compare("gat", "mlp")
    shown = as_json("compare", "gat", "mlp", folder=folder)["comparisons"]
    found["seeds"] = found["seeds"].map(list)
    assert found.to_dict("records") == shown
    assert found["split"].tolist() == ["test", "OOD", "wide", "deep"]
    assert json.loads(board.comparison_json("gat", "mlp"))["comparisons"] == shown
    with pytest.raises(dnb.UnknownName, match="Did you mean 'gat'"):
        board.compare("gatt", "mlp")
    with pytest.raises(dnb.BadInput, match="gat and gat are one method"):
        board.compare("gat", "gat")


def test_rows_are_the_file_and_scores_those_of_its_score_files(board: dnb.Leaderboard, folder: Path) -> None:
    pd.testing.assert_frame_equal(board.rows, read_results(folder / "results.csv"))
    scores = board.scores
    assert len(scores) == 3 * 3 * 3 * 4
    one = scores[(scores["gnn"] == "gin") & (scores["seed"] == 2) & (scores["split"] == "deep")]
    assert (
        dict(zip(one["index"], one["accuracy"], strict=True))
        == read_scores(folder / "scores" / "gin-2.csv")["deep"]
    )
    means = scores[scores["split"] == "test"].groupby("method")["accuracy"].mean()
    ranking = board.ranking().set_index("method")["test"]
    assert means["gat"] == pytest.approx(ranking["gat"])


def test_pages_are_those_of_build_and_html(board: dnb.Leaderboard, folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("jinja2", reason="part of the report extra")
    place = ("--track", "mine", "--results", folder / "results.csv", "--out")
    printed("build", *place, tmp_path, "--format", "markdown", "--format", "latex")
    assert board.to_markdown() == (tmp_path / "README.md").read_text()
    assert board.to_latex() == (tmp_path / "leaderboard.tex").read_text()
    printed("html", *place, tmp_path / "index.html")
    assert board.to_html() == (tmp_path / "index.html").read_text()
    assert repr(board).startswith("Leaderboard(mine v1: 4 GNNs")
    assert board._repr_markdown_() == board.to_markdown()
    assert any("gcn" in note for note in board.notes)


def test_sorting_versions_and_tracks(folder: Path, tmp_path: Path) -> None:
    assert dnb.Leaderboard(folder, sort="wide").ranking()["method"][0] == "gat"
    with pytest.raises(dnb.UnknownName, match="Unknown sort key"):
        dnb.Leaderboard(folder, sort="wdie")
    with pytest.raises(dnb.BadInput, match="There are no results of track mine v7"):
        dnb.Leaderboard(folder / "results.csv", version=7)
    with pytest.raises(dnb.BadInput, match="There is no "):
        dnb.Leaderboard(tmp_path)
    rows = [make_row(track="mine"), make_row(track="digits"), make_row(track="digits", comparable=False)]
    append_rows(tmp_path / "results.csv", rows)
    with pytest.raises(dnb.BadInput, match="holds digits, mine; name the track"):
        dnb.Leaderboard(tmp_path)
    assert dnb.Leaderboard(tmp_path, "digits").board.comparable
    assert dnb.Leaderboard(tmp_path, "digits").label == "early training"
    assert not dnb.Leaderboard(tmp_path, "digits", smoke=True).board.comparable

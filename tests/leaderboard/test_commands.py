"""`leaderboard compare | build | validate | html` through the command line, on a small complete board."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from deepnets_bench.commands import leaderboard as command
from deepnets_bench.errors import BadInput, CorruptFile, UnknownName
from deepnets_bench.harness.protocol.tracks import load_track
from deepnets_bench.leaderboard.results import accuracy_summary, append_rows, read_rows
from deepnets_bench.leaderboard.scores import write_scores
from deepnets_bench.leaderboard.summary import END, START

from .conftest import make_row


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Methods a and b on eight architectures; b is better by 0.04, 0.05 and 0.06 in three seeds."""
    path = tmp_path / "board" / "results.csv"
    for gnn, level in (("a", 0.3), ("b", 0.35)):
        for seed in (0, 1, 2):
            gain = 0.01 * (seed - 1) * (gnn == "b") + 0.002 * (seed - 1) + 0.002
            scores = {"test": {i: level + 0.02 * i + gain for i in range(8)}}
            name = write_scores(path.parent / "scores", f"{gnn}-{seed}", scores)
            fields = {"gnn": gnn, "seed": seed, "n_split": 8, "scores_file": name, "track": "mine"}
            append_rows(path, [make_row(**fields, **accuracy_summary(scores["test"]))])
    return path


def invoke(*arguments: object) -> Result:
    app = typer.Typer()
    command.register(app)
    return CliRunner().invoke(app, ["leaderboard", *map(str, arguments)])


def test_compare(results: Path) -> None:
    result = invoke("compare", "a", "b", "--track", "mine", "--results", results)
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert lines[0] == "mine v1 · A = a, B = b"
    # differences -4, -5, -6 points: t = -5 / sqrt(1 / 3) with 2 degrees of freedom, t(0.975) = 4.303
    split, seeds, mean_a, mean_b, difference, low, high, p, p_holm, _, better = lines[2].split()
    assert (split, seeds, mean_a, mean_b, difference) == ("test", "3", "37.2", "42.2", "-5.0")
    assert (low, high, p, p_holm, better) == ("[-7.5,", "-2.5]", "0.013", "0.013", "B")
    assert "Compared: seeds 0, 1, 2 (3 in common)." in result.output


def test_compare_as_json(results: Path) -> None:
    result = invoke("compare", "a", "b", "--track", "mine", "--results", results, "--format", "json")
    data = json.loads(result.output)
    assert list(data) == ["track", "track_version", "comparable", "a", "b", "comparisons"]
    (row,) = data["comparisons"]
    keys = "split seeds mean_a mean_b difference low high p_value p_holm detectable significant"
    assert list(row) == keys.split()
    assert row["difference"] == pytest.approx(-0.05)
    assert (row["seeds"], row["significant"]) == ([0, 1, 2], True)
    table = invoke("compare", "a", "b", "--track", "mine", "--results", results, "--format", "latex")
    assert table.output.startswith(r"\begin{table}")


def test_show_as_json(results: Path) -> None:
    data = json.loads(invoke("show", "--track", "mine", "--results", results, "--format", "json").output)
    assert list(data) == [
        "track",
        "track_version",
        "comparable",
        "splits",
        "gnns",
        "controls",
        "analyses",
        "notes",
    ]
    assert [gnn["name"] for gnn in data["gnns"]] == ["b", "a"]
    assert list(data["gnns"][0]) == ["name", "gnn", "gnn_options", "seeds", "average_rank", "splits", "costs"]
    assert data["gnns"][1]["splits"]["test"]["mean"] == pytest.approx(0.372)
    found = data["analyses"]["test"]
    keys = "gnns seeds left_out no_test residual_sd f_test references pairs letters rank_intervals"
    assert list(found) == keys.split()
    assert (found["gnns"], found["seeds"], found["no_test"]) == (["b", "a"], [0, 1, 2], None)
    assert found["letters"] == {"b": "a", "a": "b"}
    assert found["rank_intervals"] == {"b": [1, 1], "a": [2, 2]}
    assert found["references"] is None, "neither mlp nor ghn2 is there"
    assert found["pairs"]["size"] == 1
    assert found["pairs"]["tests"][0]["p_holm"] == pytest.approx(0.01307, abs=1e-5)


def test_two_seeds_have_no_test_and_say_so(results: Path) -> None:
    keep(results, {("a", 0), ("a", 1), ("b", 0), ("b", 1)})
    shown = invoke("show", "--track", "mine", "--results", results).output
    assert "test: No test: the GNNs have seed 0, 1 in common, and a test needs 3 seeds." in shown
    compared = invoke("compare", "a", "b", "--track", "mine", "--results", results).output
    assert compared.splitlines()[2].split()[-5:] == ["-4.5", "–", "–", "–", "–"]
    assert "no test, the difference alone" in compared


def test_compare_without_common_seeds_names_them(results: Path) -> None:
    keep(results, {("a", 0), ("b", 1), ("b", 2)})
    error = invoke("compare", "a", "b", "--track", "mine", "--results", results).exception
    assert isinstance(error, BadInput)
    assert "a has test: seed 0. b has test: seed 1, 2." in str(error)


def test_compare_with_an_unknown_method(results: Path) -> None:
    error = invoke("compare", "a", "bb", "--track", "mine", "--results", results).exception
    assert isinstance(error, UnknownName)
    assert "Did you mean 'b'" in str(error)


def test_build_writes_the_numbers_unrounded(results: Path, tmp_path: Path) -> None:
    result = invoke("build", "--track", "mine", "--results", results, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["README.md", "leaderboard.csv"]
    rows = list(csv.DictReader((tmp_path / "out" / "leaderboard.csv").open()))
    assert [row["gnn"] for row in rows] == ["b", "a"]
    assert float(rows[0]["accuracy_mean"]) == pytest.approx(0.35 + 0.07 + 0.002)
    assert float(rows[0]["accuracy_std"]) == pytest.approx(0.012)
    assert [(row["letters"], row["rank_low"], row["rank_high"]) for row in rows] == [
        ("a", "1", "1"),
        ("b", "2", "2"),
    ]
    assert rows[0]["ghn_params"] == "100000"
    assert rows[0]["gap_mean"] == ""
    assert "| b | 3 | 1.00 | 42.2 ± 1.2 a |" in (tmp_path / "out" / "README.md").read_text()


def test_the_page_without_scores_says_so(results: Path) -> None:
    pytest.importorskip("jinja2", reason="part of the report extra")
    shutil.rmtree(results.parent / "scores")
    assert invoke("html", "--track", "mine", "--results", results).exit_code == 0
    assert "No scatter plot of a: Cannot read " in (results.parent / "index.html").read_text()


def test_build_refuses_an_unknown_format_before_it_writes(results: Path) -> None:
    result = invoke("build", "--track", "mine", "--results", results, "--format", "csv", "--format", "latx")
    assert isinstance(result.exception, UnknownName)
    assert "Did you mean 'latex'" in str(result.exception)
    assert not (results.parent / "leaderboard.csv").exists()


def test_latex_compiles(results: Path, tmp_path: Path) -> None:
    hostile = make_row(gnn="[x]_^~\\{}%$#&<>", track="mine", n_split=4)
    append_rows(results, [hostile])
    invoke("build", "--track", "mine", "--results", results, "--format", "latex", "--out", tmp_path)
    table = (tmp_path / "leaderboard.tex").read_text()
    assert table.count(r"\begin{tabular}") == table.count(r"\end{tabular}") == 5, (
        "three of the board, halves, published"
    )
    if not shutil.which("pdflatex"):
        pytest.skip("pdflatex is not installed; the structure was checked")
    packages = r"\usepackage{booktabs,graphicx}"
    document = rf"\documentclass{{article}}{packages}\begin{{document}}\input{{leaderboard}}\end{{document}}"
    (tmp_path / "main.tex").write_text(document)
    run = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "main.tex"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stdout[-1500:]
    assert "Overfull" not in run.stdout, "no table is wider than the text"


def test_published_figures_stand_beside_the_cifar10_track(tmp_path: Path) -> None:
    append_rows(tmp_path / "r.csv", [make_row(track="cifar10")])
    result = invoke("show", "--track", "cifar10", "--results", tmp_path / "r.csv", "--format", "markdown")
    measured, published = result.output.split("## Published")[:2]
    assert "GHN-2" not in measured
    assert "| GHN-2 | 67.52 ± 0.40 |" in published
    assert "not measured by this package" in published


def test_the_only_track_of_a_results_file_need_not_be_named(results: Path) -> None:
    named, alone = (invoke("show", *track, "--results", results) for track in (("--track", "mine"), ()))
    assert alone.exit_code == 0, alone.output
    assert alone.output == named.output
    append_rows(results, [make_row(track="other")])
    several = invoke("show", "--results", results)
    assert isinstance(several.exception, BadInput)
    assert "holds mine, other; name the track" in str(several.exception)


def test_published_figures_are_shown_where_nothing_was_ever_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = invoke("show", "--track", "cifar10", "--format", "markdown")
    assert isinstance(result.exception, BadInput)
    assert "| GHN-2 | 67.52 ± 0.40 |" in result.output


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none.csv", "There is no none.csv."),
        ("new/results.csv", "There is no new/results.csv: nothing has been run into new."),
        ("mine.py", "mine.py is neither a .csv file nor a folder of results."),
    ],
)
def test_results_that_are_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text("pass\n")
    result = invoke("show", "--results", name)
    assert isinstance(result.exception, BadInput)
    assert str(result.exception) == message


def test_published_figures_are_shown_before_anything_is_measured(tmp_path: Path) -> None:
    result = invoke("show", "--track", "cifar10", "--results", tmp_path / "none.csv")
    assert "GHN-2" in result.output
    assert "not measured by this package" in result.output
    assert isinstance(result.exception, BadInput)


def test_a_misspelt_track_meets_the_nearest_one() -> None:
    error = invoke("show", "--track", "digts").exception
    assert isinstance(error, UnknownName)
    assert "Did you mean 'digits'?" in str(error)


def test_validate(results: Path) -> None:
    result = invoke("validate", results)
    assert result.exit_code == 0
    assert "6 rows, no faults (no track: protocol not checked)" in result.output
    result = invoke("validate", results, "--track", "digits")
    assert "row 2, column track: 'mine' is not 'digits'" in result.output
    assert isinstance(result.exception, CorruptFile)
    assert "6 faults, listed above" in str(result.exception)


def name_after_digits(results: Path) -> None:
    version = load_track("digits").version
    results.write_text(results.read_text().replace("mine,1,", f"digits,{version},"))


def keep(results: Path, runs: set[tuple[str, int]]) -> None:
    """Leave only the rows of these (GNN, seed)."""
    rows = [row for row in read_rows(results) if (row.gnn, row.seed) in runs]
    results.unlink()
    append_rows(results, rows)


def test_validate_checks_a_shipped_track(results: Path) -> None:
    name_after_digits(results)
    result = invoke("validate", results)
    assert "row 2, column n_split: 8, but the track evaluates" in result.output
    assert "a, seed 2: no finished row of" in result.output


def test_validate_permits_missing_seeds_when_told(results: Path) -> None:
    keep(results, {("a", 0), ("a", 1), ("b", 0), ("b", 1)})
    name_after_digits(results)
    result = invoke("validate", results, "--unfinished")
    assert "seed 2" not in result.output
    assert "a, seed 1: no finished row of val" in result.output, "a seed that is there must be whole"


def test_reproduce(results: Path, tmp_path: Path) -> None:
    again = tmp_path / "mine" / "results.csv"
    shutil.copytree(results.parent, again.parent)
    again.write_text(again.read_text().replace("2026-11-23T10", "2026-12-01T12"))
    result = invoke("reproduce", again, "--by", "Ada", "--track", "mine", "--results", results)
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert lines[2].split() == ["a", "0", "test", "37.0", "37.0", "+0.0"]
    assert "a difference of at most 3.0 percentage points" in result.output
    shown = invoke("show", "--track", "mine", "--results", results).output
    assert "a (reproduced 3/3)" in shown
    assert "a seed 0, 1, 2: reproduced by Ada on a machine not named, 2026-12-01; " in shown


def test_summary(results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two"):
        shutil.copytree(results.parent, Path("leaderboards") / name)
        path = Path("leaderboards") / name / "results.csv"
        path.write_text(path.read_text().replace("mine,1,", f"{name},1,"))
    result = invoke("summary", "one", "two")
    assert result.exit_code == 0, repr(result.exception)
    lines = result.output.splitlines()
    assert lines[0] == "one v1 beside two v1"
    assert lines[2].split()[:2] == ["b", "1.00"]
    Path("page.md").write_text(f"{START}\n{END}\n")
    assert invoke("summary", "one", "two", "--into", "page.md").exit_code == 0
    assert "### one v1 beside two v1" in Path("page.md").read_text()


def test_html(results: Path) -> None:
    pytest.importorskip("jinja2", reason="part of the report extra")
    assert invoke("html", "--track", "mine", "--results", results).exit_code == 0
    assert (results.parent / "index.html").read_text().startswith("<!doctype html>")


def test_html_into_a_place_that_cannot_be_written(results: Path) -> None:
    pytest.importorskip("jinja2", reason="part of the report extra")
    result = invoke("html", "--track", "mine", "--results", results, "--out", results / "index.html")
    assert isinstance(result.exception, BadInput)
    assert "Cannot write" in str(result.exception)

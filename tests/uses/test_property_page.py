"""The page of property prediction: whole, escaped, with the tables, the baselines and the pictures in it."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from typer.testing import CliRunner

from deepnets_bench.commands import properties as commands
from deepnets_bench.errors import BadInput
from deepnets_bench.uses.properties import bounds
from deepnets_bench.uses.properties.page import render, section
from deepnets_bench.uses.properties.predictions import FEATURES, Predicted, keep_predictions
from deepnets_bench.uses.properties.results import PropertyRow, append_results, read_results
from deepnets_bench.uses.properties.study import kendall
from deepnets_bench.uses.properties.targets import digest_of, read_targets
from tests.uses.test_properties import NO_TIMES, SMALL, write_labels

pytest.importorskip("jinja2", reason="part of the report extra")

HOSTILE = "</script><img src=x onerror=alert(1)>"
NOISE = {("direct", "gin"): 0.02, ("direct", HOSTILE): 0.3, (FEATURES, ""): 0.1, ("depth", ""): 0.5}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "PROTOCOL", SMALL)


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_labels(tmp_path_factory.mktemp("labels") / "labels.csv", 20)


@pytest.fixture
def results(labels: Path, tmp_path: Path) -> Path:
    """Five seeds of two GNNs and two baselines, whose predictions are the labels with more or less noise."""
    parts = read_targets(labels, NO_TIMES, SMALL)
    random, path, made = np.random.default_rng(0), tmp_path / "results.csv", []
    for (method, gnn), noise in NOISE.items():
        for seed in range(5):
            for count in SMALL.labels:
                for name in NO_TIMES:
                    measured = parts[1].values[name]
                    values = measured + noise * random.standard_normal(len(measured))
                    row = PropertyRow(
                        method=method, gnn=gnn, seed=seed, target=name, labels=count, tested=20,
                        tau=kendall(values, measured), cpu_seconds=1, protocol_version=1,
                        labels_digest=digest_of(parts, NO_TIMES), protocol_digest=SMALL.digest(),
                        package_version="0.1.0", torch_version="2.4.0", device="a CPU",
                        timestamp="2026-11-25T00:00:00Z",
                    )  # fmt: skip
                    made.append(Predicted(row, parts[1].index, values))
    keep_predictions(path, made, 20)
    append_results(path, [each.row for each in made])
    return path


def test_the_page_is_one_file_with_all_tables_and_pictures(results, labels):
    text = render(results, labels)
    assert text == render(results, labels), "the same bytes again"
    assert re.findall(r'<section class="view" id="(\w+)">', text) == ["direct", "baselines"]
    assert "<h2>Property prediction · direct · 20 labels</h2>" in text
    assert text.count("Detectable difference of tau") == 1, "baselines are not tested"
    assert "accuracy, against graph features: better gin" in text
    assert "A perfect predictor would reach, by the noise of the labels: accuracy 0." in text
    assert "Machine: a CPU. deepnets-bench 0.1.0, torch 2.4.0; 2026-11-25." in text
    assert "<img src=x" not in text
    assert text.count("</script>") == 1, "no name breaks out of its place"
    assert not re.search(r'(src|href)="(?!data:)', text), "nothing is fetched"
    pictures = [base64.b64decode(found) for found in re.findall(r"data:image/svg\+xml;base64,([^\"]+)", text)]
    assert len(pictures) == 4, "curves and predictions, of GNNs and of baselines"
    assert {ElementTree.fromstring(picture).tag for picture in pictures} == {
        "{http://www.w3.org/2000/svg}svg"
    }


def test_baselines_stand_below_the_gnns_and_cells_sort_by_their_numbers(results, labels):
    rows = read_results(results)
    found = section(results, rows, "direct", labels).view
    assert [row[0].text for row in found.rows] == ["gin", HOSTILE]
    assert [row[0].text for row in found.others] == ["graph features (baseline)"]
    taus = [row.tau for row in rows if (row.gnn, row.target, row.labels) == ("gin", "accuracy", 20)]
    assert found.rows[0][1].value == pytest.approx(np.mean(taus), abs=1e-3)
    assert found.rows[0][2].value == found.rows[0][2].text, "letters"
    assert found.headers[:3] == (("GNN", None), ("accuracy", True), ("letters", None))
    baselines = section(results, rows, "baselines", labels)
    assert [row[0].text for row in baselines.view.rows] == [FEATURES, "depth"]
    assert baselines.view.headers[0] == ("baseline", None)
    assert [picture.caption for picture in baselines.pictures][1] == (
        "Predicted against measured values of graph features, seed 0, 20 labels."
    )


def test_without_labels_or_other_counts_there_are_fewer_pictures_and_a_note(results, labels, tmp_path):
    rows = [row for row in read_results(results) if row.labels == 20]
    assert len(section(results, rows, "direct", labels).pictures) == 1
    found = section(results, rows, "direct", tmp_path / "none.csv")
    assert found.pictures == ()
    assert "The label-noise bound is left out: there are no labels at" in found.view.notes[-1]
    assert len(section(tmp_path / "moved/results.csv", rows, "direct", labels).pictures) == 0


def test_the_command_writes_it_beside_the_results(results, labels, tmp_path):
    arguments = ["html", "--labels", str(labels), "--out"]
    shown = CliRunner().invoke(commands.app, [*arguments, str(results)], catch_exceptions=False)
    assert shown.output == f"wrote {results.with_name('index.html')}\n"
    assert results.with_name("index.html").read_text() == render(results, labels)
    page = tmp_path / "new/page.html"
    CliRunner().invoke(commands.app, [*arguments, str(results), "--page", str(page)], catch_exceptions=False)
    assert page.exists()
    with pytest.raises(BadInput, match="There are no results at"):
        CliRunner().invoke(commands.app, [*arguments, str(tmp_path / "none.csv")], catch_exceptions=False)
    results.write_text(results.read_text().splitlines()[0] + "\n")
    with pytest.raises(BadInput, match="has no rows"):
        render(results, labels)

"""The HTML page: complete and escaped as a file, and used in a headless browser where one is installed."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deepnets_bench.leaderboard.aggregate import Board, boards
from deepnets_bench.leaderboard.inference import analyse_board
from deepnets_bench.leaderboard.levels import Level, chance_level
from deepnets_bench.leaderboard.page import render
from deepnets_bench.leaderboard.page_views import views
from deepnets_bench.leaderboard.results import accuracy_summary
from deepnets_bench.leaderboard.scores import write_scores

from .conftest import failed_row, make_row

pytest.importorskip("jinja2", reason="part of the report extra")

HOSTILE = "</script><img src=x onerror=alert(1)>"


@pytest.fixture
def board(tmp_path: Path) -> Board:
    """Four methods on two splits, three seeds, scores and curves beside them; one timed out."""
    rows = []
    for position, gnn in enumerate(["gat", "mlp", "gin", HOSTILE]):
        for seed in (0, 1, 2):
            scores = {
                split: {i: 0.30 + 0.05 * position + 0.01 * i + 0.002 * seed - drop for i in range(6)}
                for split, drop in (("test", 0.0), ("wide", 0.1))
            }
            config = f"{position}{seed}000000abcdef00"
            name = write_scores(tmp_path / "scores", f"job-{position}-{seed}", scores)
            run = tmp_path / "runs" / f"job-{config[:8]}"
            run.mkdir(parents=True)
            (run / "curve.csv").write_text(
                "step,loss,train_accuracy,val_accuracy,lr,seconds,failures\n"
                f"10,2.3,0.1,,0.001,1,0\n20,1.{seed},0.{position + 2},0.{position + 1},0.001,2,0\n"
            )
            for split, values in scores.items():
                fields = {"gnn": gnn, "seed": seed, "split": split, "scores_file": name, "n_split": 6}
                costs = {
                    "config_hash": config,
                    "train_seconds": 50.0 + position,
                    "gnn_params": 1000 * position,
                }
                rows.append(make_row(**fields, **costs, **accuracy_summary(values)))
    rows.append(failed_row(gnn="gin", seed=3, split="wide", status="timeout", reason="60 minutes"))
    for name, level in (("control:shuffled:gat", 0.25), ("control:untrained:mlp", 0.11)):
        rows += [
            make_row(gnn=name, seed=seed, split=split, accuracy_mean=level)
            for seed in (0, 1, 2)
            for split in ("test", "wide")
        ]
    return boards(rows)[0]


@pytest.fixture
def page(board: Board, tmp_path: Path) -> Path:
    note = "trained by SGD: every network by itself, 1 seed; mean over architectures (test 2, wide 1)."
    levels = [
        chance_level(board, 0.1),
        Level("trained by SGD", {"test": 0.94, "wide": 0.8, "OOD": 0.8}, note),
    ]
    path = tmp_path / "index.html"
    path.write_text(render(board, analyse_board(board), tmp_path, "early training", levels))
    return path


def test_the_page_stands_alone_and_is_escaped(page: Path) -> None:
    text = page.read_text()
    assert "digits v1 · early training" in text
    assert "trained by SGD: every network by itself, 1 seed; mean over architectures (test 2, wide 1)" in text
    assert "seed 3 timeout: 60 minutes" in text
    assert "<img src=x" not in text
    assert text.count("</script>") == 2, "no name breaks out of its place"
    assert not re.search(r'(src|href)="(?!data:)', text), "nothing is fetched"


def test_the_data_of_the_charts(page: Path) -> None:
    match = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text())
    assert match
    data = json.loads(match[1])
    methods = {method["name"]: method for method in data["methods"]}
    assert set(methods) == {"gat", "mlp", "gin", HOSTILE}
    assert methods["gat"]["accuracy"] == pytest.approx({"test": 0.327, "wide": 0.227})
    assert methods["gat"]["scores"]["test"] == pytest.approx([0.302 + 0.01 * i for i in range(6)])
    assert methods["mlp"]["curve"]["loss"] == [[10, 2.3], [20, 1.1]], "mean over seeds"
    assert methods["mlp"]["curve"]["val_accuracy"] == [[20, 0.2]]
    assert list(data["analyses"]) == ["test", "OOD", "wide"]
    runs = data["analyses"]["wide"]
    assert [gnn["name"] for gnn in runs["gnns"]] == [HOSTILE, "gin", "mlp", "gat"], "best first"
    assert runs["gnns"][3]["runs"] == pytest.approx([0.225, 0.227, 0.229])
    assert [gnn["letters"] for gnn in runs["gnns"]] == ["a", "b", "c", "d"]
    assert [gnn["rank"] for gnn in runs["gnns"]] == ["1", "2", "3", "4"]
    assert sum(len(others) for others in runs["pairs"].values()) == 6
    assert runs["pairs"][HOSTILE]["gin"]["significant"]


def test_every_view_has_every_method(board: Board) -> None:
    found = views(board, analyse_board(board), [chance_level(board, 0.1)])
    assert [view.key for view in found] == ["verdict", "all", "test", "wide", "controls", "cost"]
    for view in found:
        assert len(view.rows) == (0 if view.key == "controls" else 4)
        assert all(len(row) == len(view.headers) for row in (*view.rows, *view.others)), view.key
        assert view.notes
    wide = found[3]
    assert [row[0].text for row in wide.rows] == [HOSTILE, "gin", "mlp", "gat"], "best on the split first"
    gin = next(row for row in wide.rows if row[0].text == "gin")
    assert gin[2].text == "32.7 ± 0.2"
    assert (gin[3].text, gin[4].text) == ("b", "2")
    assert gin[5].text == "-10.0 ± 0.0"
    assert gin[6].text == "seed 3 timeout: 60 minutes"


def test_what_is_not_ranked_stands_below_the_gnns(board: Board) -> None:
    by_key = {view.key: view for view in views(board, analyse_board(board), [chance_level(board, 0.1)])}
    names = ["control:shuffled:gat", "control:untrained:mlp", "chance"]
    assert [row[0].text for row in by_key["all"].others] == names
    assert [row[2].text for row in by_key["test"].others] == ["25.0 ± 0.0", "11.0 ± 0.0", "10.0"]
    assert [row[0].text for row in by_key["controls"].others] == names[:2]
    assert "(-7.7" in by_key["controls"].others[0][3].text, "25.0 against 32.7 of gat"
    assert [row[0].text for row in views(board, {})[0].others] == names[:2], "chance is not known"


def test_detectable_differences_stand_under_their_table(board: Board) -> None:
    by_key = {view.key: view for view in views(board, analyse_board(board), [chance_level(board, 0.1)])}
    assert any("Detectable difference" in note for note in by_key["all"].notes)
    for split in ("test", "wide"):
        about = [note for note in by_key[split].notes if note.startswith(f"{split}, all pairs")]
        assert len(about) == 1
        assert "Detectable difference" in about[0]
    rows = [make_row(gnn=gnn, split="val") for gnn in ("a", "b")]
    val = next(view for view in views(boards(rows)[0], {}) if view.key == "val")
    assert val.notes == ("val is for development: choices are made on it, so nothing on it is tested.",)


def test_a_level_that_is_known_has_a_row_on_its_splits(board: Board) -> None:
    by_key = {view.key: view for view in views(board, {}, [Level("trained by SGD", {"test": 0.81})])}
    assert [cell.text for cell in by_key["all"].others[-1]] == ["trained by SGD", "–", "–", "81.0", "–"]


def test_sections_below_the_charts(page: Path) -> None:
    text = page.read_text()
    assert "agreement of halves of the seeds" in text
    assert "Published · CIFAR-10" in text
    assert "not measured by this package" in text


class Browser:
    """A WebDriver session: the few commands these tests need."""

    def __init__(self, port: int, width: int) -> None:
        self.url = f"http://127.0.0.1:{port}/session"
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", f"--window-size={width},1000"]
        always = {
            "goog:chromeOptions": {"args": flags, "mobileEmulation": {"deviceMetrics": {"width": width}}},
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }
        self.url += "/" + self.post("", {"capabilities": {"alwaysMatch": always}})["sessionId"]

    def post(self, path: str, body: dict[str, Any], method: str = "POST") -> Any:
        data = json.dumps(body).encode() if method == "POST" else None
        request = urllib.request.Request(
            self.url + path, data, {"Content-Type": "application/json"}, method=method
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.load(response)["value"]

    def run(self, script: str) -> Any:
        return self.post("/execute/sync", {"script": script, "args": []})

    def log(self, kind: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.post("/se/log", {"type": kind})
        return found


@pytest.fixture(scope="module")
def driver_port() -> Iterator[int]:
    if not (shutil.which("chromedriver") and shutil.which("chromium")):
        pytest.skip("chromium and chromedriver are not installed (Debian: chromium chromium-driver)")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    process = subprocess.Popen(["chromedriver", f"--port={port}"], stdout=subprocess.DEVNULL)
    for _ in range(100):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/status", timeout=1).close()
            break
        except OSError:
            time.sleep(0.1)
    yield port
    process.terminate()
    process.wait(20)


@pytest.fixture(params=[1200, 380], ids=["desktop", "phone"])
def browser(request: pytest.FixtureRequest, driver_port: int, page: Path) -> Iterator[Browser]:
    session = Browser(driver_port, request.param)
    session.post("/url", {"url": page.as_uri()})
    yield session
    session.post("", {}, method="DELETE")


NAMES = """return [...document.querySelectorAll(".view:not([hidden]) tbody:not(.others) tr:not([hidden])")]
           .map(row => row.cells[0].textContent)"""


def test_a_reader_can_use_the_page(browser: Browser) -> None:
    assert browser.run(NAMES) == [HOSTILE, "gin", "mlp", "gat"]
    click = "document.querySelectorAll('.view:not([hidden]) th button')[{}].click()"
    browser.run(click.format(1))
    assert browser.run(NAMES) == [HOSTILE, "gin", "mlp", "gat"], "accuracy: best first at the first click"
    browser.run(click.format(1))
    assert browser.run(NAMES) == ["gat", "mlp", "gin", HOSTILE], "and reversed at the second"
    browser.run(click.format(0))
    assert browser.run(NAMES)[1:] == ["gat", "gin", "mlp"]
    browser.run(
        "const f = document.getElementById('filter'); f.value = 'G'; f.dispatchEvent(new Event('input'))"
    )
    assert browser.run(NAMES) == [HOSTILE, "gat", "gin"], "'img' holds a g"
    browser.run(
        "const v = document.getElementById('view'); v.value = 'cost'; v.dispatchEvent(new Event('change'))"
    )
    assert browser.run(NAMES) == [HOSTILE, "gin", "gat"], "the filter holds in every view"

    assert browser.run("return document.querySelectorAll('#pareto circle').length") == 4
    assert browser.run("return document.querySelectorAll('#curves polyline').length") == 4
    assert browser.run("return document.querySelectorAll('#pairs circle').length") == 6
    assert browser.run("return document.querySelectorAll('#runs circle').length") == 12
    lines = "return ['pareto', 'curves', 'runs'].map(id => document.querySelectorAll(`#${id} .level`).length)"
    assert browser.run(lines) == [0, 1, 0], "only learning curves reach down to chance"
    off = "return [...document.querySelectorAll('#pareto .level-name')].map(text => text.textContent)"
    assert browser.run(off) == ["below: chance 10.0 · untrained mlp 11.0", "above: trained by SGD 94.0"]
    browser.run("document.getElementById('levels').click()")
    assert browser.run(lines) == [3, 1, 3]
    browser.run("document.getElementById('levels').click()")
    names = browser.run("return document.getElementById('levels-names').textContent")
    assert names == "chance, trained by SGD, untrained mlp"
    assert browser.run("return document.querySelectorAll('.view:not([hidden]) .others tr').length") == 2
    overlaps = browser.run(
        """const names = [...document.querySelectorAll('#pareto circle ~ text:not(.level-name)')];
        const boxes = names.map(t => t.getBBox());
        return [boxes.length, boxes.filter((a, i) => boxes.some((b, j) => j > i && a.x < b.x + b.width &&
          b.x < a.x + a.width && a.y + 3 < b.y + b.height && b.y + 3 < a.y + a.height)).length]"""
    )
    assert overlaps == [4, 0], "four names, none over another"
    saved = browser.run(
        """const text = svgFile(document.getElementById('runs'));
        const file = new DOMParser().parseFromString(text, 'image/svg+xml');
        return [file.querySelector('parsererror') === null, text.includes('var('),
          document.querySelectorAll('.save').length]"""
    )
    assert saved == [True, False, 4], "a chart can be saved, with its colours in it"
    browser.run(
        "const s = document.getElementById('split'); s.value = 'wide'; s.dispatchEvent(new Event('change'))"
    )
    browser.run(
        "const v = document.getElementById('view'); v.value = 'test'; v.dispatchEvent(new Event('change'))"
    )
    assert browser.run("return document.getElementById('split').value") == "test", (
        "the charts follow the table"
    )
    verdict = browser.run("return document.getElementById('verdict').textContent")
    assert "A wins 6, ties 0, loses 0" in verdict
    assert "says nothing about other trainings" in verdict
    assert "A − B = +5.0 points" in verdict
    background = "return getComputedStyle(document.body).backgroundColor"
    before = browser.run(background)
    browser.run("document.getElementById('theme').click()")
    assert browser.run(background) != before

    assert browser.run("return document.documentElement.scrollWidth <= innerWidth"), "no sideways scrolling"
    assert browser.log("browser") == [], "no console errors"
    browser.run("console.error('seen')")
    assert len(browser.log("browser")) == 1, "the browser does report errors"
    events = [json.loads(entry["message"])["message"] for entry in browser.log("performance")]
    requests = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    assert requests
    assert all(url.startswith(("file:", "data:")) for url in requests), requests

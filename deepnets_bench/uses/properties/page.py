"""Property prediction as one static HTML page that works offline: tables and pictures of all modes."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from deepnets_bench.errors import BadInput
from deepnets_bench.graphs.drawing import load_pyplot, picture
from deepnets_bench.leaderboard.page_views import Cell, View
from deepnets_bench.leaderboard.report import made_with
from deepnets_bench.leaderboard.table import Table
from deepnets_bench.leaderboard.templates import template
from deepnets_bench.uses.properties.bounds import Bounds, bounds_of
from deepnets_bench.uses.properties.plots import learning_curves, predicted_against_measured
from deepnets_bench.uses.properties.predictions import FEATURES, predictions_path
from deepnets_bench.uses.properties.results import PropertyRow, read_results
from deepnets_bench.uses.properties.tables import MODES, property_table, rows_of_run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BASELINES = "baselines"
_CURVES = "Kendall's tau over the number of labels, mean over seeds ± standard deviation."
_SCATTER = "Predicted against measured values of {name}, seed {seed}, {labels} labels."


@dataclass(frozen=True)
class Picture:
    """An image as a data URI, and the sentence below it."""

    source: str
    caption: str


@dataclass(frozen=True)
class Section:
    """A mode: its table, and the pictures below it."""

    view: View
    pictures: tuple[Picture, ...]


def render(results: Path, labels: Path) -> str:
    """The page of a results file; `labels` is the label file that its rows were made with.

    Raises `BadInput` for a file without rows and what `property_table` does, `MissingExtra` without Jinja2
    or matplotlib.
    """
    page = template("properties.html.j2", __package__)
    load_pyplot()
    rows = read_results(results)
    if not rows:
        raise BadInput(f"{results} has no rows.")
    modes = [mode for mode in MODES if any(row.mode == mode for row in rows)]
    versions = sorted({row.protocol_version for row in rows})
    provenance = made_with(
        (row.device for row in rows),
        (row.package_version for row in rows),
        (row.torch_version for row in rows),
        (row.timestamp for row in rows),
    )
    return page.render(
        title=f"Property prediction · v{', v'.join(map(str, versions))}",
        sections=[section(results, rows, mode, labels) for mode in modes],
        notes=[provenance],
    )


def section(results: Path, rows: Sequence[PropertyRow], mode: str, labels: Path) -> Section:
    """The largest number of labels as a table; pictures where there are several, and predictions.

    Predictions are drawn of the best GNN, or of the features of graphs, against the labels that they were
    made with; without those there is no such picture.
    """
    bounds = bounds_of([row for row in rows if row.mode == mode], labels)
    table = property_table(rows, mode, bounds=bounds)
    pictures = []
    if len({row.labels for row in rows if row.mode == mode}) > 1:
        pictures.append(_picture(learning_curves(rows, mode, bounds.taus), _CURVES))
    drawn = [name for name, *_ in table.rows if (name == FEATURES) == (mode == _BASELINES)]
    if bounds.taus and drawn:
        pictures += _scatter(results, rows_of_run(rows, mode, drawn[0]), labels, bounds)
    return Section(_view(table, mode), tuple(pictures))


def _scatter(results: Path, chosen: Sequence[PropertyRow], labels: Path, bounds: Bounds) -> list[Picture]:
    if not predictions_path(results, chosen[0]).exists():
        return []
    figure = predicted_against_measured(results, chosen, labels, bounds.taus)
    caption = _SCATTER.format(name=chosen[0].name, seed=chosen[0].seed, labels=chosen[0].labels)
    return [_picture(figure, caption)]


def _picture(figure: Figure, caption: str) -> Picture:
    content = b64encode(picture(figure, "svg")).decode()
    return Picture(f"data:image/svg+xml;base64,{content}", caption)


def _view(table: Table, mode: str) -> View:
    """The table with sortable cells; among GNNs, baselines stand below them and are marked."""
    rows, others = [], []
    for name, *cells in table.rows:
        if mode != _BASELINES and name == FEATURES:
            others.append((Cell(f"{name} (baseline)", name), *map(_cell, cells)))
        else:
            rows.append((Cell(name, name), *map(_cell, cells)))
    headers = [(text, None if text == "letters" else True) for text in table.headers[1:]]
    return View(
        mode, table.title, ((table.headers[0], None), *headers), tuple(rows), tuple(others), table.notes
    )


def _cell(text: str) -> Cell:
    """Sorted by the number that the text begins with; a dash comes last."""
    if text == "–":
        return Cell(text, None)
    try:
        return Cell(text, float(text.split(" ")[0]))
    except ValueError:  # letters
        return Cell(text, text)

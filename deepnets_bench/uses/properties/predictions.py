"""Predictions for the tested architectures, kept in files of a few KB beside the rows: predictions/*.csv."""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import numpy as np

from deepnets_bench.errors import BadInput
from deepnets_bench.system.files import reading
from deepnets_bench.system.locks import write_output
from deepnets_bench.uses.properties.results import PropertyRow

FOLDER = "predictions"
FEATURES = "graph features"  # the one method without a GNN whose predictions are kept


@dataclass(frozen=True)
class Predicted:
    """A row, and what it predicted for the tested architectures: their numbers in the split, and values."""

    row: PropertyRow
    index: np.ndarray
    values: np.ndarray


def predictions_path(results: Path, row: PropertyRow) -> Path:
    """The file for all properties of a method, GNN, seed and set of labels; `results` is that of the rows."""
    identity = (*row.key[:6], *row.key[7:])  # without the property
    digest = hashlib.sha256(repr(identity).encode()).hexdigest()[:8]
    name = re.sub(r"[^A-Za-z0-9]+", "-", f"{row.method}-{row.gnn}").strip("-")
    return results.parent / FOLDER / f"{name}-seed{row.seed}-{digest}.csv"


def keep_predictions(results: Path, made: Sequence[Predicted], labels: int) -> None:
    """Write the predictions from `labels` labels of every GNN and of the features of graphs.

    A file has the column index and one for each property, with six digits; `made` holds all of a file's.
    """
    files: dict[Path, list[Predicted]] = {}
    for each in made:
        if each.row.labels == labels and (each.row.gnn or each.row.method == FEATURES):
            files.setdefault(predictions_path(results, each.row), []).append(each)
    for path, group in files.items():
        columns = {each.row.target: dict(zip(each.index, each.values, strict=True)) for each in group}
        write_output(path, _text(group[0].index.tolist(), columns).encode())


def read_predictions(path: Path) -> dict[str, dict[int, float]]:
    """{property: {index of the architecture: prediction}}; raises `BadInput` for a file of another form."""
    with reading(path, "a CSV file of predictions"):
        header, *lines = csv.reader(StringIO(path.read_text(encoding="utf-8")), strict=True)
        if header[:1] != ["index"]:
            raise BadInput(f"{path} holds no predictions: its first column is not 'index'.")
        return {
            name: {int(line[0]): float(line[place]) for line in lines}
            for place, name in enumerate(header[1:], 1)
        }


def _text(index: Sequence[int], columns: dict[str, dict[int, float]]) -> str:
    buffer = StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["index", *columns])
    writer.writerows([i, *(f"{values[i]:.6g}" for values in columns.values())] for i in index)
    return buffer.getvalue()

"""Results of property prediction: one row a method, seed, property and number of labels, as a CSV file."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from io import StringIO
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from deepnets_bench.errors import BadInput
from deepnets_bench.system.files import reading, write_atomically
from deepnets_bench.system.locks import locked

RESULTS = "results.csv"


class PropertyRow(BaseModel):
    """Kendall's tau between predicted and measured values of the test architectures.

    `method` is a head on embeddings (svr, ridge, boosting), 'direct', or a baseline; `gnn` and its options
    and digest are empty for baselines. `target` is the property. `tau` is 0 for predictions that are all
    equal: they order nothing.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: str
    gnn: str = ""
    gnn_options: str = "{}"
    gnn_digest: str = ""
    seed: int = Field(ge=0)
    target: str
    labels: int = Field(ge=1)
    tau: float = Field(ge=-1, le=1)
    tested: int = Field(ge=1)
    cpu_seconds: float = Field(ge=0)
    source: str = ""  # of embeddings: the digest of the hypernetwork's file
    ghn_track: str = ""  # on which it was trained, "digits v3", where the row of its run says so
    labels_digest: str
    protocol_version: int
    protocol_digest: str
    package_version: str
    git_commit: str = ""
    torch_version: str
    device: str
    timestamp: str

    @property
    def name(self) -> str:
        """What is compared: the GNN where there is one, else the method."""
        options = "" if self.gnn_options == "{}" else f" {self.gnn_options}"
        return f"{self.gnn}{options}" if self.gnn else self.method

    @property
    def key(self) -> tuple[str, str, str, str, str, int, str, int, str]:
        """Two rows with one key are the same measurement."""
        return (
            self.method, self.gnn, self.gnn_options, self.gnn_digest, self.source, self.seed, self.target,
            self.labels, self.labels_digest,
        )  # fmt: skip


COLUMNS = tuple(PropertyRow.model_fields)


def read_results(path: Path) -> list[PropertyRow]:
    """All rows; raises `BadInput` for a file of another form and for values out of range."""
    with reading(path, "a CSV file of property prediction"):
        reader = csv.DictReader(StringIO(path.read_text(encoding="utf-8")), strict=True)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise BadInput(f"{path} holds no results of property prediction: its columns are others.")
        rows = []
        for line, row in enumerate(reader, 2):
            try:
                rows.append(PropertyRow.model_validate(row))
            except ValidationError as error:
                first = error.errors()[0]
                place = ".".join(map(str, first["loc"]))
                raise BadInput(f"{path}, line {line}: {place}: {first['msg']}.") from error
    return rows


def append_results(path: Path, rows: Iterable[PropertyRow]) -> None:
    """Add rows in one step under the file's lock; a row that is there already is replaced."""
    with locked(path):
        held = {row.key: row for row in (read_results(path) if path.exists() else [])}
        held |= {row.key: row for row in rows}
        buffer = StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row in held.values():
            values = row.model_dump()
            writer.writerow([_cell(values[name]) for name in COLUMNS])
        write_atomically(path, buffer.getvalue().encode())


def _cell(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)

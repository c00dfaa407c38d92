"""Results of property prediction: one row a method, seed, property and number of labels, as a CSV file."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pydantic import Field

from deepnets_bench.uses.rows import Row, append_rows, read_rows


class PropertyRow(Row):
    """Kendall's tau between predicted and measured values of the test architectures.

    `method` is a head on embeddings (svr, ridge, boosting), 'direct', or a baseline; `gnn` and its options
    and digest are empty for baselines. `target` is the property. `tau` is 0 for predictions that are all
    equal: they order nothing.
    """

    WHAT = "a CSV file of property prediction"
    REFUSAL = "holds no results of property prediction"
    AGAIN = "predict"

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
    def mode(self) -> str:
        """In which table the row stands: its method, or 'baselines' where there is no GNN."""
        return self.method if self.gnn else "baselines"

    @property
    def key(self) -> tuple[str, str, str, str, str, int, str, int, str]:
        """Two rows with one key are the same measurement."""
        return (
            self.method, self.gnn, self.gnn_options, self.gnn_digest, self.source, self.seed, self.target,
            self.labels, self.labels_digest,
        )  # fmt: skip


def read_results(path: Path) -> list[PropertyRow]:
    """All rows; raises what `read_rows` does."""
    return read_rows(path, PropertyRow)


def append_results(path: Path, rows: Iterable[PropertyRow]) -> None:
    """Add rows in one step under the file's lock; a row that is there already is replaced."""
    append_rows(path, PropertyRow, rows)

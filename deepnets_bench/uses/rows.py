"""Rows of measurements as CSV files: one model a kind of file, read whole or refused, written in one step."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from io import StringIO
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from deepnets_bench.errors import BadInput
from deepnets_bench.system.files import reading, write_atomically
from deepnets_bench.system.locks import locked


class Row(BaseModel):
    """A row of a kind of file; its fields are the columns, in their order.

    `WHAT` names the file, `REFUSAL` says what a foreign one is not, `AGAIN` what makes a truncated one anew.
    Numbers are written with `DIGITS` significant digits.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    WHAT: ClassVar[str]
    REFUSAL: ClassVar[str]
    AGAIN: ClassVar[str]
    DIGITS: ClassVar[int] = 6

    @property
    def key(self) -> tuple[Any, ...]:
        """Two rows with one key are the same measurement."""
        raise NotImplementedError

    @classmethod
    def from_cells(cls: type[RowT], cells: Mapping[str, Any]) -> RowT:
        """The row of a line's cells; raises pydantic's `ValidationError`."""
        return cls.model_validate(cells)


RowT = TypeVar("RowT", bound=Row)


def read_rows(path: Path, kind: type[RowT]) -> list[RowT]:
    """All rows of a file.

    Raises `BadInput` for a file that is missing, truncated or of another form, and for a value out of range.
    """
    with reading(path, kind.WHAT):
        text = path.read_text(encoding="utf-8")
        reader = csv.DictReader(StringIO(text), strict=True)
        names, columns = reader.fieldnames or (), tuple(kind.model_fields)
        if tuple(names) != columns:
            missing = [name for name in columns if name not in names]
            what = f"it lacks {', '.join(missing)}" if missing else "its columns are others"
            raise BadInput(f"{path} {kind.REFUSAL}: {what}.")
        if not text.endswith("\n"):
            raise BadInput(f"{path} ends in the middle of a row; remove it, and {kind.AGAIN} again.")
        return [_row(path, line, cells, kind) for line, cells in enumerate(reader, 2)]


def append_rows(path: Path, kind: type[RowT], rows: Iterable[RowT], *, ordered: bool = False) -> None:
    """Add rows in one step under the file's lock; one with the key of another takes its place.

    With `ordered`, the whole file is in the order of the keys.
    """
    with locked(path):
        held = {row.key: row for row in (read_rows(path, kind) if path.exists() else [])}
        held |= {row.key: row for row in rows}
        buffer = StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(kind.model_fields)
        for key in sorted(held) if ordered else held:
            writer.writerow(_cell(value, kind.DIGITS) for value in held[key].model_dump().values())
        write_atomically(path, buffer.getvalue().encode())


def _row(path: Path, line: int, cells: Mapping[str, Any], kind: type[RowT]) -> RowT:
    """The row of a line; an error of no single column is said of the line's first two cells."""
    try:
        return kind.from_cells(cells)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "/".join(map(str, list(cells.values())[:2]))
        message = first["msg"].removeprefix("Value error, ")
        raise BadInput(f"{path}, line {line}: {place}: {message}.") from error


def _cell(value: Any, digits: int) -> str:
    if value is None:
        return ""
    return f"{value:.{digits}g}" if isinstance(value, float) else str(value)

"""The result row and its append-only CSV file: what a run leaves behind and all that a leaderboard reads.

A file is a header and one line a row. Rows are only ever added, under a lock, so several processes may write
to one file. Each time the whole file is replaced in one step, so that a crash or a full disk leaves it as it
was: milliseconds for thousands of rows, after hours of training.
"""

from __future__ import annotations

import codecs
import csv
import glob
import io
import json
import math
import re
import statistics
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from deepnets_bench.errors import BadInput, CorruptFile
from deepnets_bench.system.files import clear_unfinished, reading, write_atomically
from deepnets_bench.system.locks import locked, writable

if TYPE_CHECKING:
    import pandas as pd


def safe_text(value: str) -> str:
    """`value` on one line, and with a leading apostrophe when a spreadsheet would read it as a formula."""
    line = re.sub(r"[\x00-\x1f\x7f\x85\u2028\u2029]+", " ", value).strip()
    return f"'{line}" if line.startswith(("=", "+", "-", "@")) else line


def canonical_json(value: Any) -> str:
    """A JSON object, given as a mapping or as text, in its one canonical spelling (sorted keys, ASCII)."""
    with reading("the text", "a JSON object"):
        parsed = json.loads(value) if isinstance(value, str) else value
    if not isinstance(parsed, Mapping):
        raise ValueError('a JSON object is needed, for example {} or {"heads": 4}')
    try:
        return json.dumps(dict(parsed), sort_keys=True, allow_nan=False)
    except TypeError as error:
        raise ValueError(f"not expressible in JSON: {error}") from None


def _empty_is_missing(value: Any) -> Any:
    return None if value == "" else value


def _not_empty(value: str) -> str:
    if not value:
        raise ValueError("it must not be empty")
    return value


Text = Annotated[str, AfterValidator(safe_text)]
Name = Annotated[str, AfterValidator(safe_text), AfterValidator(_not_empty)]
Count = Annotated[int, Field(ge=0)]
Accuracy = Annotated[float, Field(ge=0, le=1)]
Missing = BeforeValidator(_empty_is_missing)


class ResultRow(BaseModel):
    """One (GNN, seed, split) of one run. Accuracies are fractions in [0, 1]; units are in the names.

    Status `ok` evaluated all `n_split` architectures, `partial` fewer; `failed` and `timeout` rows carry a
    reason and no accuracy. Only `ok` is finished: a job with any other row can be run again.

    `seconds` are wall-clock, `cpu_seconds` those that all threads of a run kept a core busy.
    `tuning_trials` is declared by the one who ran it: how many settings of the GNN were trained on the track
    to find this one, whatever their seeds; 0 if none was tried before.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    track: Name
    track_version: Annotated[int, Field(ge=1)]
    track_digest: Name  # of the whole protocol
    comparable: bool  # False: a smoke run or a changed protocol; never ranked beside comparable rows
    gnn: Name
    gnn_options: Annotated[str, BeforeValidator(canonical_json)] = "{}"
    gnn_digest: Text = ""  # of the GNN's source; empty only where a failed job's could not be read
    edges: Text = ""  # what the GNN sees of a graph, as it declares
    seed: Count
    tuning_trials: Count = 0
    split: Name
    metric: Annotated[str, Field(pattern=r"^top[1-9]\d*$")]  # top5: right is a label among the first five
    status: Literal["ok", "failed", "timeout", "partial"]
    reason: Text = ""
    n_evaluated: Count
    n_split: Count
    accuracy_mean: Annotated[Accuracy | None, Missing] = None
    accuracy_std: Annotated[Accuracy | None, Missing] = None  # over architectures, ddof=1
    accuracy_sem: Annotated[Accuracy | None, Missing] = None
    accuracy_max: Annotated[Accuracy | None, Missing] = None
    accuracy_max_index: Annotated[Count | None, Missing] = None
    ghn_params: Annotated[Count | None, Missing] = None
    gnn_params: Annotated[Count | None, Missing] = None
    steps: Annotated[Count | None, Missing] = None
    train_seconds: Annotated[float | None, Field(ge=0), Missing] = None
    train_cpu_seconds: Annotated[float | None, Field(ge=0), Missing] = None
    eval_seconds: Annotated[float | None, Field(ge=0), Missing] = None
    eval_cpu_seconds: Annotated[float | None, Field(ge=0), Missing] = None
    peak_memory_mb: Annotated[float | None, Field(ge=0), Missing] = None
    scores_file: Text = ""  # the file's name in scores/ beside the results
    dataset_fingerprint: Text = ""  # of graphs and images
    frame_digest: Text = ""  # of a file with the weights of the frame; empty for a track without one
    config_hash: Name  # `identity.hash_config` of this row
    precision: Literal["32", "bf16", "fp16"]
    threads: Annotated[int, Field(ge=1)]  # of PyTorch on the CPU
    device: Text = ""
    package_version: Name
    git_commit: Text = ""
    torch_version: Text = ""
    pyg_version: Text = ""
    dgl_version: Text = ""
    reproduced_by: Text = ""
    # Last, and of fixed length, so that a line cut off anywhere is never a valid row.
    utc_time: Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")]

    @model_validator(mode="after")
    def _outcome_is_consistent(self) -> ResultRow:
        if self.n_evaluated > self.n_split:
            raise ValueError(
                f"n_evaluated is {self.n_evaluated}, more than the split's n_split {self.n_split}"
            )
        if self.status in ("failed", "timeout"):
            if not self.reason:
                raise ValueError(f"a row with status '{self.status}' needs a reason")
            if self.accuracy_mean is not None:
                raise ValueError(f"a row with status '{self.status}' must not carry an accuracy")
            return self
        if self.status == "ok" and self.n_evaluated != self.n_split:
            raise ValueError(f"status is 'ok' but n_evaluated is {self.n_evaluated} of {self.n_split}")
        if self.status == "partial" and self.n_evaluated == self.n_split:
            raise ValueError(f"status is 'partial' but all {self.n_split} architectures were evaluated")
        if self.n_evaluated == 0 or self.accuracy_mean is None or self.accuracy_max is None:
            raise ValueError(f"status '{self.status}' needs accuracy_mean, accuracy_max and n_evaluated")
        if not self.gnn_digest:
            raise ValueError(f"status '{self.status}' needs gnn_digest")
        if self.accuracy_mean > self.accuracy_max + 1e-9:
            raise ValueError(f"accuracy_mean {self.accuracy_mean} is above accuracy_max {self.accuracy_max}")
        if self.n_evaluated > 1:
            if self.accuracy_std is None or self.accuracy_sem is None:
                raise ValueError("accuracy_std and accuracy_sem are needed when more than one was evaluated")
            expected = self.accuracy_std / math.sqrt(self.n_evaluated)
            if not math.isclose(self.accuracy_sem, expected, rel_tol=1e-6, abs_tol=1e-9):
                raise ValueError(f"accuracy_sem {self.accuracy_sem} is not accuracy_std / sqrt(n_evaluated)")
        return self


COLUMNS: tuple[str, ...] = tuple(ResultRow.model_fields)


def accuracy_summary(scores: Mapping[int, float]) -> dict[str, Any]:
    """The row fields computed from {architecture index: accuracy}; std with ddof=1, None for one value."""
    if not scores:
        return {"n_evaluated": 0}
    values = list(scores.values())
    std = statistics.stdev(values) if len(values) > 1 else None
    best = max(scores, key=lambda index: (scores[index], -index))
    return {
        "n_evaluated": len(values),
        "accuracy_mean": statistics.fmean(values),
        "accuracy_std": std,
        "accuracy_sem": None if std is None else std / math.sqrt(len(values)),
        "accuracy_max": scores[best],
        "accuracy_max_index": best,
    }


def append_rows(path: str | Path, rows: Iterable[ResultRow]) -> None:
    """Add `rows` at the end of the results file, on disk when this returns; a missing file is made.

    Safe with any number of writing processes. A line that was cut off is removed with a warning, and a file
    that a spreadsheet has saved gets its plain header and line ends back.
    Raises BadInput for a file that cannot be written, CorruptFile for a header that is not this schema's.
    """
    path, added = Path(path), [_line(row) for row in rows]
    if not added:
        return
    with locked(path), writable(path):
        lines, torn = _sound_lines(path, _existing(path))
        if torn:
            _warn_torn(path, torn, "removed")
        clear_unfinished(path.parent, f"{glob.escape(path.name)}.*")
        write_atomically(path, b"".join(line + b"\n" for line in [_HEADER, *lines[1:], *added]))


def read_rows(path: str | Path) -> list[ResultRow]:
    """All rows of a results file in file order. CorruptFile names the first fault's row and column."""
    rows, faults = check_rows(path)
    if faults:
        more = f" There are {len(faults) - 1} more faults." if len(faults) > 1 else ""
        raise CorruptFile(f"{path}, {faults[0]}.{more}")
    return [row for _, row in rows]


def read_results(path: str | Path) -> pd.DataFrame:
    """The results file as a DataFrame, every row validated; columns `COLUMNS`, errors as in `read_rows`."""
    return rows_frame(read_rows(path))


def run_folders(folder: Path, config_hash: str) -> list[Path]:
    """Where runs of a job keep curve and hypernetwork, beside the results file in `folder`; mostly one."""
    return sorted(folder.glob(f"runs/*-{config_hash[:8]}"))


def rows_frame(rows: Iterable[ResultRow]) -> pd.DataFrame:
    """Rows as a DataFrame with the columns `COLUMNS`; a number that is missing is NaN."""
    import pandas as pd

    frame = pd.DataFrame([row.model_dump() for row in rows], columns=list(COLUMNS))
    measured = list(COLUMNS[COLUMNS.index("accuracy_mean") : COLUMNS.index("peak_memory_mb") + 1])
    return frame.astype(dict.fromkeys(measured, float))


def check_rows(path: str | Path) -> tuple[list[tuple[int, ResultRow]], list[str]]:
    """The valid rows with their row numbers (the header is row 1), and every fault found, in words.

    An unfinished last line is left out with a warning. Raises BadInput when there is no such file,
    CorruptFile when the header is another one.
    """
    path = Path(path)
    lines, torn = _sound_lines(path, _read(path))
    if torn:
        _warn_torn(path, torn, "ignored")
    rows: list[tuple[int, ResultRow]] = []
    faults: list[str] = []
    for number, line in enumerate(lines[1:], start=2):
        try:
            rows.append((number, _parse(line)))
        except ValidationError as error:
            faults += [f"row {number}, {_describe(fault)}" for fault in error.errors()]
        except ValueError as error:
            faults.append(f"row {number}: {error}")
    return rows, faults


_HEADER = ",".join(COLUMNS).encode()


def _line(row: ResultRow) -> bytes:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="").writerow(_cell(value) for value in row.model_dump().values())
    return buffer.getvalue().encode()


def _cell(value: object) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _cells(line: bytes) -> list[str]:
    try:
        return next(csv.reader([line.decode()], strict=True), [])
    except csv.Error as error:
        raise ValueError(f"not a line of CSV ({error})") from None


def _parse(line: bytes) -> ResultRow:
    cells = _cells(line)
    if len(cells) != len(COLUMNS):
        raise ValueError(f"{len(cells)} columns where {len(COLUMNS)} are needed")
    return ResultRow.model_validate(dict(zip(COLUMNS, cells, strict=True)))


def _describe(fault: Any) -> str:
    message = fault["msg"].removeprefix("Value error, ")
    if not fault["loc"]:
        return str(message)
    return f"column {fault['loc'][0]}: {str(fault['input'])[:60]!r} is refused ({message})"


def _sound_lines(path: Path, data: bytes) -> tuple[list[bytes], bytes]:
    """The lines of a file, header first, and apart from them a last one that was cut off, b"" if none was.

    Byte order mark and line ends, which differ where a spreadsheet has saved the file, are left out.
    Raises CorruptFile for a header that is not this schema's.
    """
    lines = data.removeprefix(codecs.BOM_UTF8).splitlines()
    torn = lines.pop() if lines and not data.endswith(b"\n") and _is_cut_off(lines) else b""
    if lines:
        _check_header(path, lines[0])
    return lines, torn


def _is_cut_off(lines: Sequence[bytes]) -> bool:
    """Is the last line, which has no line end, unfinished? A complete row that only lacks its end is not."""
    if len(lines) == 1:
        return lines[0] != _HEADER and _HEADER.startswith(lines[0])
    try:
        _parse(lines[-1])
    except ValueError:
        return True
    return False


def _check_header(path: Path, line: bytes) -> None:
    try:
        found = _cells(line)
    except ValueError:
        found = [line.decode(errors="replace")]
    if tuple(found) == COLUMNS:
        return
    if found[:1] == [COLUMNS[0]] and "gnn_digest" not in found and set(found) < set(COLUMNS):
        raise CorruptFile(
            f"{path} is of an earlier version of deepnets-bench, whose rows lack the digests a board needs "
            "and are not converted: move it away, or run again into another folder (--out)."
        )
    reason = f"it has {len(found)} columns, {len(COLUMNS)} are needed"
    for position, (name, wanted) in enumerate(zip(found, COLUMNS, strict=False), start=1):
        if name != wanted:
            reason = f"column {position} is {name[:40]!r}, not '{wanted}'"
            break
    raise CorruptFile(f"{path} is not a results file of this version: {reason}.")


def _existing(path: Path) -> bytes:
    """The bytes of a file that may be written, none of a missing one."""
    try:
        with open(path, "r+b") as file:
            return file.read()
    except FileNotFoundError:
        return b""


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        where = f": nothing has been run into {path.parent}" if path.parent.name else ""
        raise BadInput(f"There is no {path}{where}.") from None
    except NotADirectoryError:
        raise BadInput(f"{path.parent} is neither a .csv file nor a folder of results.") from None
    except OSError as error:
        raise BadInput(f"Cannot read {path}: {error.strerror}.") from error


def _warn_torn(path: Path, torn: bytes, action: str) -> None:
    text = torn[:60].decode(errors="replace")
    warnings.warn(f"{path}: the last line was cut off by a crash and is {action}: {text!r}", stacklevel=3)

"""Is a results file fit for a leaderboard? Every fault in words, with row and column; nothing is changed."""

from __future__ import annotations

import math
import re
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from deepnets_bench.errors import BadInput
from deepnets_bench.leaderboard.admission import Calibration, admit, stack_of
from deepnets_bench.leaderboard.aggregate import UNTRAINED, method_name
from deepnets_bench.leaderboard.identity import hash_config, job, run, unfinished_runs
from deepnets_bench.leaderboard.reproduction import TOLERANCE, reproductions
from deepnets_bench.leaderboard.results import ResultRow, accuracy_summary, check_rows
from deepnets_bench.leaderboard.scores import read_scores

Numbered = Sequence[tuple[int, ResultRow]]

_DIGEST = "16 hexadecimal digits"
_FORMS: dict[str, tuple[str, str]] = {  # column: (regular expression, the same in words)
    "track_digest": (r"[0-9a-f]{16}", _DIGEST),
    "gnn_digest": (r"([0-9a-f]{16})?", _DIGEST),
    "dataset_fingerprint": (r"([0-9a-f]{16})?", _DIGEST),
    "frame_digest": (r"([0-9a-f]{16})?", f"{_DIGEST} or empty"),
    "config_hash": (r"[0-9a-f]{16}", _DIGEST),
    "git_commit": (r"([0-9a-f]{40}(-dirty)?)?", "a commit's 40 hexadecimal digits, perhaps with -dirty"),
}
_OF_A_RUN = (  # what the rows of one run, one a split, have in common
    *("tuning_trials", "metric", "precision", "threads", "device", "scores_file"),
    *("ghn_params", "gnn_params", "steps", "train_seconds", "train_cpu_seconds", "peak_memory_mb"),
    *("package_version", "git_commit", "torch_version", "pyg_version", "dgl_version"),
)


@dataclass(frozen=True)
class Protocol:
    """What a track version demands of its rows: seeds, and the number of architectures of every split.

    A seed that is not demanded must have all splits too once it has one; without `seeds`, that is all.
    `values` are those of columns that every comparable finished row has, such as steps and track_digest;
    `frame_digest` gives that of a seed; `calibration` says which other stacks are admitted.
    """

    track: str
    version: int
    seeds: tuple[int, ...]
    splits: Mapping[str, int]
    values: Mapping[str, Any] = field(default_factory=dict)
    calibration: Calibration | None = None
    frame_digest: Callable[[int], str] | None = None


def validate(path: Path, protocol: Protocol | None = None) -> list[str]:
    """All faults of a results file and of its scores (in `scores/` beside it); empty when it is fit.

    Without a protocol, seeds, splits and counts are not checked. Raises BadInput when there is no such file,
    CorruptFile when it is not a results file at all.
    """
    with warnings.catch_warnings(record=True) as torn:
        warnings.simplefilter("always")
        rows, faults = check_rows(path)
    if torn:  # readers get along without the line, but a submission is whole
        number = len(path.read_bytes().splitlines())
        faults.append(f"row {number}: the line is cut off; a run died while writing, or a copy is incomplete")
    if not rows and not faults:
        return ["the file holds no rows"]
    faults += _forms(rows)
    faults += _hashes(rows)
    faults += _runs(rows)
    faults += _repeats(rows)
    faults += _datasets(rows)
    faults += _scores(rows, path.parent / "scores")
    faults += _reproductions(rows)
    if protocol:
        faults += _protocol(rows, protocol)
        faults += _completeness(rows, protocol)
    return faults


def _forms(rows: Numbered) -> Iterator[str]:
    """What can be seen of a single cell beyond the schema."""
    for number, row in rows:
        for column in _malformed(row):
            yield f"row {number}, column {column}: '{getattr(row, column)}' is not {_FORMS[column][1]}"
        if row.ghn_params is not None and row.gnn_params is not None and row.gnn_params > row.ghn_params:
            yield (
                f"row {number}, column gnn_params: {row.gnn_params} is more than {row.ghn_params} in "
                "ghn_params, of which it is a part"
            )
        if row.accuracy_max_index is not None and row.accuracy_max_index >= row.n_split:
            yield (
                f"row {number}, column accuracy_max_index: {row.accuracy_max_index} is not below n_split "
                f"{row.n_split}"
            )
        try:
            datetime.strptime(row.utc_time, "%Y-%m-%dT%H:%M:%SZ")
        except ValueError:
            yield f"row {number}, column utc_time: '{row.utc_time}' is no date and time"


def _malformed(row: ResultRow) -> list[str]:
    return [column for column, (form, _) in _FORMS.items() if not re.fullmatch(form, getattr(row, column))]


def _hashes(rows: Numbered) -> Iterator[str]:
    """The configuration's hash follows from other columns, so that damage to any of them shows."""
    for number, row in rows:
        if _malformed(row):
            continue  # which is said already
        recomputed = hash_config(
            track_digest=row.track_digest,
            dataset_fingerprint=row.dataset_fingerprint,
            frame_digest=row.frame_digest,
            gnn=row.gnn,
            gnn_digest=row.gnn_digest,
            gnn_options=row.gnn_options,
            seed=row.seed,
        )
        if row.config_hash != recomputed:
            yield (
                f"row {number}, column config_hash: '{row.config_hash}' is stated, '{recomputed}' follows "
                "from the digests, gnn, gnn_options and seed"
            )


def _runs(rows: Numbered) -> Iterator[str]:
    first: dict[tuple[object, ...], tuple[int, ResultRow]] = {}
    for number, row in rows:
        if row.accuracy_mean is None:
            continue
        at, other = first.setdefault((run(row), row.reproduced_by), (number, row))
        for column in _OF_A_RUN:
            value, expected = getattr(row, column), getattr(other, column)
            if value != expected:
                yield (
                    f"row {number}, column {column}: {value!r} differs from {expected!r} of row {at}, which "
                    "comes from the same run"
                )


def _repeats(rows: Numbered) -> Iterator[str]:
    """A job runs again where it was unfinished, with another stack, and to be reproduced, under a name."""
    unfinished = unfinished_runs(row for _, row in rows)
    last: dict[tuple[object, ...], tuple[int, ResultRow]] = {}
    for number, row in rows:
        if row.status != "ok":
            continue
        work = (row.track, row.track_version, row.comparable, job(row), row.split)
        key = (work, stack_of(row), row.reproduced_by)
        at, original = last.get(key, (number, row))
        if at == number or (run(original) in unfinished and run(row) != run(original)):
            last[key] = number, row
        else:
            yield f"row {number}: repeats row {at} ({_method(row)}, seed {row.seed}, split {row.split})"


def _datasets(rows: Numbered) -> Iterator[str]:
    expected: dict[tuple[str, int], tuple[int, str]] = {}
    for number, row in rows:
        if not row.comparable or row.status != "ok":
            continue
        at, fingerprint = expected.setdefault(
            (row.track, row.track_version), (number, row.dataset_fingerprint)
        )
        if not row.dataset_fingerprint:
            yield f"row {number}, column dataset_fingerprint: it is empty"
        elif row.dataset_fingerprint != fingerprint:
            yield (
                f"row {number}, column dataset_fingerprint: '{row.dataset_fingerprint}' differs from "
                f"'{fingerprint}' of row {at}"
            )


def _scores(rows: Numbered, folder: Path) -> Iterator[str]:
    """Recompute the accuracy columns from the per-architecture scores."""
    files: dict[str, dict[str, dict[int, float]] | str] = {}
    for number, row in rows:
        if row.accuracy_mean is None:
            continue
        name = row.scores_file
        if not name or Path(name).name != name:
            yield f"row {number}, column scores_file: {name!r} is not the name of a file in {folder.name}/"
            continue
        if name not in files:
            try:
                files[name] = read_scores(folder / name)
            except BadInput as error:
                files[name] = str(error).rstrip(".")
        scores = files[name]
        if isinstance(scores, str):
            yield f"row {number}, column scores_file: {scores}"
            continue
        for column, recomputed in accuracy_summary(scores.get(row.split, {})).items():
            stated = getattr(row, column)
            if (stated is None) != (recomputed is None) or (
                stated is not None and not math.isclose(stated, recomputed, rel_tol=1e-9, abs_tol=1e-9)
            ):
                yield f"row {number}, column {column}: {stated} is stated, {recomputed} follows from {name}"


def _reproductions(rows: Numbered) -> Iterator[str]:
    """A row that claims to reproduce another one needs that one, and about its accuracy."""
    everything = [row for _, row in rows]
    for number, row in rows:
        if not row.reproduced_by:
            continue
        pairs = reproductions(everything, [row])
        if not pairs:
            yield f"row {number}, column reproduced_by: there is no original row of this configuration"
        elif abs(pairs[0].difference) > TOLERANCE:
            yield (
                f"row {number}, column accuracy_mean: {row.accuracy_mean} is further than {TOLERANCE} from "
                f"{pairs[0].original.accuracy_mean}, which it claims to reproduce"
            )


def _protocol(rows: Numbered, protocol: Protocol) -> Iterator[str]:
    for number, row in rows:
        if row.track != protocol.track:
            yield f"row {number}, column track: '{row.track}' is not '{protocol.track}'"
        elif row.track_version > protocol.version:
            yield (
                f"row {number}, column track_version: {row.track_version} is newer than version "
                f"{protocol.version}, the newest this package knows"
            )
        elif row.comparable and row.track_version == protocol.version:
            yield from (f"row {number}, {fault}" for fault in _departures(row, protocol))


def _departures(row: ResultRow, protocol: Protocol) -> Iterator[str]:
    """Where a row of the protocol's own version is not as the protocol has it."""
    if row.split not in protocol.splits:
        yield f"column split: '{row.split}' is not one of {', '.join(protocol.splits)}"
    elif row.n_split != protocol.splits[row.split]:
        yield (
            f"column n_split: {row.n_split}, but the track evaluates {protocol.splits[row.split]} "
            f"architectures of split {row.split}"
        )
    values = dict(protocol.values)
    if protocol.frame_digest:
        values["frame_digest"] = protocol.frame_digest(row.seed)
    for column, value_of_track in values.items():
        untrained = column == "steps" and row.gnn.startswith(UNTRAINED)
        value, expected = getattr(row, column), 0 if untrained else value_of_track
        if value != expected and not (value is None and row.status in ("failed", "timeout")):
            yield f"column {column}: {value!r}, but {expected!r} is the track's"


def _completeness(rows: Numbered, protocol: Protocol) -> Iterator[str]:
    """Every method of the current version needs every seed on every split; more seeds are welcome.

    Only rows that a board averages count: those of one source of the GNN, and of stacks that agree.
    """
    current = (protocol.track, protocol.version, True)
    numbers = {id(row): number for number, row in rows}
    originals = [
        row
        for _, row in rows
        if not row.reproduced_by and (row.track, row.track_version, row.comparable) == current
    ]
    admission = admit(originals, protocol.calibration)
    for group in admission.left_out:
        if group.column == "torch_version":  # other columns say themselves what they are; a stack is not seen
            yield f"row {numbers[id(group.rows[0])]}, column torch_version: {group.reason}"
    finished: dict[str, set[tuple[int, str]]] = defaultdict(set)
    for row in admission.rows:
        finished[_method(row)] |= {(row.seed, row.split)} if row.status == "ok" else set()
    for method, found in finished.items():
        for seed in sorted({*protocol.seeds, *(seed for seed, _ in found)}):
            missing = [split for split in protocol.splits if (seed, split) not in found]
            if missing:
                yield f"{method}, seed {seed}: no finished row of {', '.join(missing)}"


def _method(row: ResultRow) -> str:
    return method_name(row.gnn, row.gnn_options)

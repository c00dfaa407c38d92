"""Is a results file fit for a leaderboard? Every fault in words, with row and column; nothing is changed."""

from __future__ import annotations

import math
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from deepnets_bench.errors import BadInput
from deepnets_bench.leaderboard.aggregate import method_name
from deepnets_bench.leaderboard.reproduction import TOLERANCE, reproductions
from deepnets_bench.leaderboard.results import ResultRow, accuracy_summary, check_rows, read_scores

Numbered = Sequence[tuple[int, ResultRow]]


@dataclass(frozen=True)
class Protocol:
    """What a track version demands of its rows: seeds, and the number of architectures of every split.

    A seed that is not demanded must have all splits too once it has one; without `seeds`, that is all.
    """

    track: str
    version: int
    seeds: tuple[int, ...]
    splits: Mapping[str, int]


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
    faults += _repeats(rows)
    faults += _datasets(rows)
    faults += _scores(rows, path.parent / "scores")
    faults += _reproductions(rows)
    if protocol:
        faults += _protocol(rows, protocol)
        faults += _completeness(rows, protocol)
    return faults


def _repeats(rows: Numbered) -> Iterator[str]:
    """A second run of the same work is allowed only to whoever reproduces it, and under their name."""
    first: dict[tuple[object, ...], int] = {}
    for number, row in rows:
        if row.status != "ok":
            continue
        key = (row.track, row.track_version, row.gnn, row.gnn_options, row.seed, row.split)
        original = first.setdefault((*key, row.config_hash, row.comparable, row.reproduced_by), number)
        if original != number:
            yield f"row {number}: repeats row {original} ({_method(row)}, seed {row.seed}, split {row.split})"


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
            if row.split not in protocol.splits:
                yield f"row {number}, column split: '{row.split}' is not one of {', '.join(protocol.splits)}"
            elif row.n_split != protocol.splits[row.split]:
                yield (
                    f"row {number}, column n_split: {row.n_split}, but the track evaluates "
                    f"{protocol.splits[row.split]} architectures of split {row.split}"
                )


def _completeness(rows: Numbered, protocol: Protocol) -> Iterator[str]:
    """Every method of the current version needs every seed on every split; more seeds are welcome."""
    finished: dict[str, set[tuple[int, str]]] = defaultdict(set)
    for _, row in rows:
        if row.reproduced_by:
            continue
        if (row.track, row.track_version, row.comparable) == (protocol.track, protocol.version, True):
            finished[_method(row)] |= {(row.seed, row.split)} if row.status == "ok" else set()
    for method, found in finished.items():
        for seed in sorted({*protocol.seeds, *(seed for seed, _ in found)}):
            missing = [split for split in protocol.splits if (seed, split) not in found]
            if missing:
                yield f"{method}, seed {seed}: no finished row of {', '.join(missing)}"


def _method(row: ResultRow) -> str:
    return method_name(row.gnn, row.gnn_options)

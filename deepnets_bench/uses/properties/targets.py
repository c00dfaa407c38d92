"""Targets: the labels of architectures as one number a property, and the sample that a seed learns from."""

from __future__ import annotations

import hashlib
import shlex
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deepnets_bench.errors import BadInput
from deepnets_bench.harness.protocol.tracks import Track
from deepnets_bench.harness.randomness import Streams
from deepnets_bench.uses.labelling import check_track
from deepnets_bench.uses.labels import PROPERTIES, Label, check_alike, read_labels
from deepnets_bench.uses.properties.protocol import PROTOCOL, Protocol
from deepnets_bench.uses.timing import TIMES, InferenceTime, read_times

SPEED = "speed"
NAMES = (*PROPERTIES, SPEED)
LOWER_IS_BETTER = frozenset({"convergence", SPEED})  # the share of a schedule, and milliseconds
_SAMPLE = "architectures whose labels are known"


@dataclass(frozen=True)
class Targets:
    """Architectures of a split that have all the properties asked for, by their index in the split.

    `values` holds an array a property: the mean over the seeds of the labels; of `speed`, milliseconds of a
    batch. Trainings that never converged count with the whole schedule, 1. `fingerprints` name them.
    """

    split: str
    index: np.ndarray
    fingerprints: tuple[str, ...]
    values: Mapping[str, np.ndarray]
    costs: Mapping[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.index)


def read_targets(
    path: Path, names: Sequence[str] = NAMES, protocol: Protocol = PROTOCOL, track: Track | None = None
) -> tuple[Targets, Targets]:
    """The training and the test architectures of a label file, times from times.csv beside it.

    Raises `BadInput` for labels of several tracks or recipes, or of another track than the one given, for a
    property without labels, too few of them, a seed that has not labelled all, or a constant property.
    """
    if not path.exists():
        both = f"{protocol.train_split},{protocol.test_split}"
        command = _command(path, track.name if track else None, both, protocol.tested)
        raise BadInput(f"There are no labels at {path}; {command} makes them.")
    labels = read_labels(path)
    check_alike(labels, f"The labels of {path}")
    if track is not None:
        for label in labels[:1]:
            check_track(label, track, path)
    times = read_times(path.with_name(TIMES)) if SPEED in names and path.with_name(TIMES).exists() else []
    train = _targets(path, labels, times, protocol.train_split, protocol.labels[-1], names)
    test = _targets(path, labels, times, protocol.test_split, protocol.tested, names)
    return train, test


def digest_of(parts: Sequence[Targets], names: Sequence[str]) -> str:
    """12 hexadecimal digits of the labels and times of training and test architectures."""
    found = hashlib.sha256()
    for part in parts:
        for values in (part.index, *(part.values[name] for name in names)):
            found.update(np.ascontiguousarray(values, dtype=np.float64).tobytes())
    return found.hexdigest()[:12]


def sample_of(count: int, known: int, seed: int) -> np.ndarray:
    """Which `count` of `known` labels a seed learns from: positions in ascending order."""
    order = Streams(("properties", seed)).generator(_SAMPLE, count).permutation(known)
    return np.sort(order[:count])


def _targets(
    path: Path,
    labels: Sequence[Label],
    times: Sequence[InferenceTime],
    split: str,
    count: int,
    names: Sequence[str],
) -> Targets:
    rows: dict[int, list[Label]] = defaultdict(list)
    for label in labels:
        if label.split == split and label.index < count:
            rows[label.index].append(label)
    speeds = {row.index: row for row in times if row.split == split}
    command = _command(path, labels[0].track if labels else None, split, count)
    if SPEED in names and not speeds:
        raise BadInput(
            f"There are no inference times of '{split}' beside {path}; {command} --time makes them."
        )
    if len(rows) < count:
        raise BadInput(
            f"{path} labels {len(rows)} architectures of '{split}', fewer than {count}; {command} makes them."
        )
    _check_whole(path, rows, split, command)
    whole = [index for index, found in sorted(rows.items()) if not any(label.failure for label in found)]
    if len(whole) < count / 2:
        raise BadInput(
            f"Trainings of {count - len(whole)} of {count} architectures of '{split}' in {path} failed: too "
            "many to predict the others."
        )
    if SPEED in names:
        _check_times(path, rows, speeds)
        timed = [index for index in whole if index in speeds]
        if len(timed) < len(whole):
            raise BadInput(
                f"{len(whole) - len(timed)} of {len(whole)} architectures of '{split}' have no times beside "
                f"{path}; {command} --time makes them."
            )
    values = {
        name: np.array([np.mean([getattr(label, name) for label in rows[index]]) for index in whole])
        for name in names
        if name != SPEED
    }
    if SPEED in names:
        values[SPEED] = np.array([speeds[index].milliseconds for index in whole])
    for name, column in values.items():
        if len(column) and np.ptp(column) == 0:
            raise BadInput(
                f"{name} is {column[0]:g} for every architecture of '{split}' in {path}: nothing to predict."
            )
    costs = {
        name: np.array([getattr(rows[index][0], name) for index in whole], np.float64)
        for name in ("parameters", "multiply_adds", "nodes", "depth")
    }
    fingerprints = tuple(rows[index][0].fingerprint for index in whole)
    return Targets(split, np.array(whole), fingerprints, values, costs)


def _command(path: Path, track: str | None, split: str, count: int) -> str:
    of_track = f" --track {track}" if track else ""
    return f"deepnets-bench label --split {split} --count {count}{of_track} --out {shlex.quote(str(path))}"


def _check_whole(path: Path, rows: Mapping[int, Sequence[Label]], split: str, command: str) -> None:
    """Raise `BadInput` where a seed lacks architectures, or two label different ones by one index."""
    seeds = sorted({label.seed for found in rows.values() for label in found})
    lacking = sum(len(found) < len(seeds) for found in rows.values())
    if lacking:
        listed = ",".join(map(str, seeds))
        raise BadInput(
            f"{path} lacks labels of {lacking} architectures of '{split}' with one of the seeds {listed}; "
            f"{command} --seeds {listed} makes them."
        )
    for index, found in rows.items():
        if len({label.fingerprint for label in found}) > 1:
            raise BadInput(
                f"{path} labels different architectures as {split}/{index}; label into another file."
            )


def _check_times(
    path: Path, rows: Mapping[int, Sequence[Label]], speeds: Mapping[int, InferenceTime]
) -> None:
    for index, row in speeds.items():
        if index in rows and rows[index][0].fingerprint != row.fingerprint:
            raise BadInput(f"The times beside {path} are of another architecture {row.split}/{index}.")

"""The published setting: released results and architectures, the paper's grid, five orders of the labels."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from deepnets_bench.compiler.instructions import IMAGENET_FROM
from deepnets_bench.data.manifest import PUBLISHED_VERSION, read_manifest
from deepnets_bench.data.shards import open_split
from deepnets_bench.errors import BadInput
from deepnets_bench.harness.protocol.tracks import Track, load_track
from deepnets_bench.system.files import reading
from deepnets_bench.uses.embeddings import mean_embeddings
from deepnets_bench.uses.properties.heads import SVR_GRID
from deepnets_bench.uses.properties.protocol import Protocol
from deepnets_bench.uses.properties.study import Sink, Study
from deepnets_bench.uses.properties.targets import Targets

if TYPE_CHECKING:
    from deepnets_bench.compiler.program import Program
    from deepnets_bench.ghn.model import GHN

METHOD = "published"
PUBLISHED = Protocol(name=METHOD, labels=(500,), tested=500)
ORDERS = 5  # of the labels: numpy's permutations with the seeds 0 to 3, and that of the file
# Our properties, by their names in the released files; architectures that never converged have 2 there.
KEYS: Mapping[str, str] = MappingProxyType(
    {
        "accuracy": "val_acc",
        "accuracy_noise": "val_acc_noise",
        "convergence": "converge_time",
        "speed": "time",
    }
)
_TRACKS = {10: "cifar10", 1000: "imagenet"}  # by number of classes


@dataclass(frozen=True)
class ReleasedStudy(Study):
    """A released file of results as labels, and imported splits as the architectures that they are of."""

    @cached_property
    def targets(self) -> tuple[Targets, Targets]:
        """Architectures of val and test; raises what `read_released` does, and for other architectures."""
        protocol = self.protocol
        train = read_released(self.labels, protocol.train_split, protocol.labels[-1], self.names)
        test = read_released(self.labels, protocol.test_split, protocol.tested, self.names)
        for part, programs in zip((train, test), self.programs, strict=True):
            _check_same(self.labels, self.data, part, programs)
        return train, test

    @cached_property
    def programs(self) -> tuple[list[Program], list[Program]]:
        """Of the first architectures of val and test, at their own widths."""
        protocol = self.protocol
        wanted = (protocol.train_split, protocol.labels[-1]), (protocol.test_split, protocol.tested)
        train, test = (_programs(self.data, split, count, self.track) for split, count in wanted)
        return train, test


def released_study(labels: Path, data: Path, ghn: GHN, title: str) -> ReleasedStudy:
    """The study for a hypernetwork of CIFAR-10 or ImageNet; raises `BadInput` for another, called `title`."""
    classes = ghn.config.num_classes
    if classes not in _TRACKS:
        raise BadInput(
            f"{title} was trained for {classes} classes; the released results are of CIFAR-10 (10 classes) "
            "and ImageNet (1000)."
        )
    return ReleasedStudy(load_track(_TRACKS[classes]), labels, data, protocol=PUBLISHED)


def predict_as_published(study: ReleasedStudy, ghn: GHN, sink: Sink, identity: Mapping[str, str]) -> None:
    """Five rows a property: the SVR on mean node embeddings, the labels in five orders.

    The order changes the folds of the grid search and nothing else. Other than in the authors' code,
    predictions are not rounded.
    """
    begun = time.process_time()
    vectors, vectors_test = (mean_embeddings(ghn, graphs) for graphs in study.graphs)
    spent = time.process_time() - begun
    train, _ = study.targets
    for order in range(ORDERS):
        rows = order_of(len(train), order)
        found = []
        for name in study.names:
            begun = time.process_time()
            predicted = grid_svr(vectors[rows], train.values[name][rows], vectors_test)
            found.append(
                study.predicted(
                    predicted,
                    name,
                    method=METHOD,
                    seed=order,
                    labels=len(train),
                    cpu_seconds=spent + time.process_time() - begun,
                    **identity,
                )
            )
        sink(study, found)


def order_of(count: int, run: int) -> np.ndarray:
    """The order of `count` labels in a run: that of the file in the last one."""
    if run == ORDERS - 1:
        return np.arange(count)
    return np.random.RandomState(run).permutation(count)


def grid_svr(x: np.ndarray, y: np.ndarray, x_test: np.ndarray) -> np.ndarray:
    """The best support vector regression of the paper's grid by R² over five consecutive folds.

    Vectors and labels are as they are (accuracies in %), so that epsilon and C mean what they did there.
    """
    from sklearn.model_selection import GridSearchCV
    from sklearn.svm import SVR

    search = GridSearchCV(SVR(cache_size=500), dict(SVR_GRID), cv=5).fit(x, y)
    predicted: np.ndarray = search.predict(x_test)
    return predicted


def read_released(path: Path, split: str, count: int, names: Sequence[str]) -> Targets:
    """The first `count` architectures of a split in a released file: JSON, split → index → key → number.

    Raises `BadInput` where architectures or values are missing or all values are equal, `CorruptFile` for
    another form and for an index that is there twice.
    """
    with reading(path, "a released file of results"):
        held = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_without_repetition).get(split)
        if not isinstance(held, dict):
            raise BadInput(f"{path} has no results of split '{split}'.")
        results = {int(index): result for index, result in held.items()}
        if missing := sorted(set(range(count)) - set(results)):
            raise BadInput(
                f"{path} has results of {count - len(missing)} of the first {count} architectures of "
                f"'{split}'; {split}/{missing[0]} is the first one that it lacks."
            )
        columns = {}
        for name, key in (*((name, KEYS[name]) for name in names), ("parameters", "params")):
            lacking = [index for index in range(count) if not _is_number(results[index].get(key))]
            if lacking:
                raise BadInput(f"{path} has no number as '{key}' of {split}/{lacking[0]}.")
            columns[name] = np.array([float(results[index][key]) for index in range(count)])
            if np.ptp(columns[name]) == 0:
                raise BadInput(f"{key} of '{split}' in {path} is the same for all: nothing to predict.")
    costs = {"parameters": columns.pop("parameters")}
    return Targets(split, np.arange(count), ("",) * count, columns, costs)


def _programs(data: Path, split: str, count: int, track: Track) -> list[Program]:
    if not (data / split).exists() or read_manifest(data, split).dataset_version != PUBLISHED_VERSION:
        raise BadInput(
            f"{data} has no released split '{split}': `deepnets-bench import` makes it from the released "
            "metadata (--data names the folder)."
        )
    reader, size = open_split(data, split), track.images.size
    if len(reader) < count:
        raise BadInput(f"Split '{split}' in {data} has {len(reader)} architectures, not {count}.")
    (classes,) = (number for number, name in _TRACKS.items() if name == track.name)
    return [
        record.program(record.width[int(size > IMAGENET_FROM)], size, classes) for record in reader[:count]
    ]


def _check_same(path: Path, data: Path, part: Targets, programs: Sequence[Program]) -> None:
    """Compare numbers of parameters: refuse where most differ, warn where some do."""
    ours = np.array([program.num_params for program in programs])
    (differing,) = (ours != part.costs["parameters"]).nonzero()
    if not len(differing):
        return
    first = int(differing[0])
    text = (
        f"{path} and {data} differ in the numbers of parameters of {len(differing)} of {len(ours)} "
        f"architectures of '{part.split}' (the first: {part.split}/{first}, "
        f"{part.costs['parameters'][first]:,.0f} and {ours[first]:,})"
    )
    if 2 * len(differing) > len(ours):
        raise BadInput(f"{text}: they are of other architectures.")
    warnings.warn(f"{text}.", stacklevel=2)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and bool(np.isfinite(value))


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        repeated = next(key for key in found if sum(key == other for other, _ in pairs) > 1)
        raise ValueError(f"'{repeated}' is there twice")
    return found

"""Labelling: the architectures of splits trained one by one, in parallel, each leaving its row as it ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from deepnets_bench.errors import BadInput, NotFinite, UnknownName, reason_of
from deepnets_bench.harness.protocol.tracks import Track
from deepnets_bench.system.pool import carried_out
from deepnets_bench.uses.going_on import Tally, going_on
from deepnets_bench.uses.labels import Label, append_labels, read_labels
from deepnets_bench.uses.recipe import Recipe
from deepnets_bench.uses.sizes import evaluated_sizes

if TYPE_CHECKING:
    from deepnets_bench.compiler.program import Program
    from deepnets_bench.data.shards import ShardReader
    from deepnets_bench.harness.images.sets import ImageSet
    from deepnets_bench.harness.protocol.tables import Images
    from deepnets_bench.harness.training.splits import StoredNetwork

_ROWS_AT_ONCE = 8  # rows that are written together, but for the last ones


@dataclass(frozen=True)
class LabelTask:
    """One architecture of a split, to be trained with one seed."""

    track: Track
    data: Path
    images: Path | None
    recipe: Recipe
    split: str
    index: int
    seed: int

    @property
    def key(self) -> tuple[str, int, int]:
        """As `Label.key`."""
        return self.split, self.index, self.seed


def label_tasks(
    track: Track,
    splits: Sequence[str],
    count: int,
    seeds: Sequence[int],
    recipe: Recipe,
    data: Path,
    images: Path | None = None,
) -> list[LabelTask]:
    """The first `count` architectures of every split with every seed, which are generated where missing.

    All architectures of a seed come before the next seed. Raises `BadInput` for data that cannot be used.
    """
    from deepnets_bench.generators import SPLIT_NAMES
    from deepnets_bench.generators.generation import generate
    from deepnets_bench.harness.images.loading import fingerprint
    from deepnets_bench.harness.training.splits import StoredArchitectures

    for split in splits:
        if split not in SPLIT_NAMES:
            raise UnknownName("split", split, SPLIT_NAMES)
    fingerprint(track.images, images)
    generate(list(splits), data, count, workers=1, dataset_version=track.dataset_version)
    for split in splits:
        held = StoredArchitectures(data, split, count).node_counts()
        if len(held) < count:
            raise BadInput(f"Split '{split}' in {data} has {len(held)} architectures, not {count}.")
    return [
        LabelTask(track, data.absolute(), images and images.absolute(), recipe, split, index, seed)
        for seed in seeds
        for split in splits
        for index in range(count)
    ]


def run_labelling(
    tasks: Sequence[LabelTask],
    path: Path,
    *,
    workers: int = 1,
    executor: Executor | None = None,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Carry out the tasks that have no row in the file at `path`, `workers` at a time or on an executor.

    Rows of finished trainings are kept whatever happens, and the next call goes on from them. Raises
    `BadInput` for a file with rows of another track, recipe or data, `Interrupted` at Ctrl-C and SIGTERM.
    """
    held = {label.key: label for label in (read_labels(path) if path.exists() else [])}
    for task in tasks[:1]:  # all are of one track and recipe
        for label in {label.made: label for label in held.values()}.values():
            check_track(label, task.track, path)
            _check_recipe(label, task.recipe, path)
    todo = []
    for task in tasks:
        if task.key not in held:
            todo.append(task)
        else:
            _check_same(held[task.key], task, path)
    finished: list[Label] = []
    tally = Tally(len(tasks) - len(todo), len(tasks), report)
    with going_on(tally, "trainings", "rows", path):
        try:
            for label in carried_out(label_one, todo, workers, executor):
                finished.append(label)
                if len(finished) == _ROWS_AT_ONCE:
                    append_labels(path, finished)
                    finished.clear()
                tally.add()
        finally:
            if finished:
                append_labels(path, finished)


def check_track(label: Label, track: Track, path: Path) -> None:
    """Raise `BadInput` where a row of the file at `path` is of another track."""
    if (label.track, label.track_version) != (track.name, track.version):
        raise BadInput(
            f"{path} holds labels of track {label.track} v{label.track_version}, not of {track.name} "
            f"v{track.version}; name their track, or another file."
        )
    if label.track_digest != track.fingerprint():
        raise BadInput(
            f"{path} holds labels of track {track.name} v{track.version} as it was before it was changed; "
            "give it another version, and label into another file."
        )


def _check_recipe(label: Label, recipe: Recipe, path: Path) -> None:
    if label.recipe_digest != recipe.digest():
        raise BadInput(
            f"{path} holds labels of recipe {label.recipe_digest}, not of {recipe.digest()}; label into "
            "another file."
        )


def _check_same(label: Label, task: LabelTask, path: Path) -> None:
    """Raise `BadInput` where a row that is there is of another architecture than the task's."""
    if label.fingerprint != _stored(task.data, task.split, task.index).fingerprint():
        raise BadInput(
            f"{path} labels another architecture as {task.split}/{task.index} than {task.data} has there; "
            "label into another file."
        )


def label_one(task: LabelTask) -> Label:
    """Train and evaluate the architecture of a task on one thread."""
    import torch

    from deepnets_bench.harness.runs.provenance import stamp
    from deepnets_bench.networks.network import Network
    from deepnets_bench.uses.cost import cost_of
    from deepnets_bench.uses.training import NETWORK_WEIGHTS, Training, streams_of, train

    torch.set_num_threads(1)
    track = task.track
    images = images_of(track, task.images)
    network, program, width, part = program_of(task)
    with streams_of(task.seed).seeded(torch.device("cpu"), NETWORK_WEIGHTS):
        module = Network(program)
    failure = ""
    try:
        training = train(module, images, track.images, task.recipe, task.seed, part=part)
    except NotFinite as error:
        training, failure = Training(), reason_of(error)
    cost = cost_of(program, track.images.size)
    ok = not failure
    return Label(
        split=task.split,
        index=task.index,
        fingerprint=network.fingerprint(),
        seed=task.seed,
        accuracy=training.accuracy if ok else None,
        accuracy_noise=training.accuracy_noise if ok else None,
        convergence=training.convergence if ok else None,
        converged=training.converged if ok else None,
        parameters=cost.parameters,
        multiply_adds=cost.multiply_adds,
        nodes=cost.nodes,
        depth=cost.depth,
        train_accuracy=training.curve[-1].train_accuracy if ok else None,
        cpu_seconds=training.cpu_seconds,
        failure=failure,
        track=track.name,
        track_version=track.version,
        track_digest=track.fingerprint(),
        width=width,
        recipe_version=task.recipe.version,
        recipe_digest=task.recipe.digest(),
        part=part,
        **stamp(),
    )


class Sized(NamedTuple):
    """A network at the width at which its track evaluates it, and the part of the images it does so on."""

    network: StoredNetwork
    program: Program
    width: int
    part: str


def program_of(task: LabelTask) -> Sized:
    """The network of a task; splits that the track does not evaluate have its width and test images."""
    track, network = task.track, _stored(task.data, task.split, task.index)
    protocol = track.evaluation.splits.get(task.split)
    classes = images_of(track, task.images).num_classes
    sizes = evaluated_sizes(track, task.split, network.widths, classes)
    part = protocol.images if protocol else "test"
    return Sized(network, network.program(**sizes), sizes["width"], part)


@lru_cache(maxsize=4096)
def _stored(data: Path, split: str, index: int) -> StoredNetwork:
    from deepnets_bench.harness.training.splits import network_of

    return network_of(_reader(data, split)[index])


@lru_cache(maxsize=16)
def _reader(data: Path, split: str) -> ShardReader:
    from deepnets_bench.data.shards import open_split

    return open_split(data, split)


def images_of(track: Track, folder: Path | None) -> ImageSet:
    """The images of a track, of which it evaluates on the first ones of a part; loaded once a process."""
    return _images(track.images, folder, track.evaluation.max_images)


@lru_cache(maxsize=1)
def _images(protocol: Images, folder: Path | None, evaluated: int) -> ImageSet:
    from deepnets_bench.harness.images.loading import load_images

    images = load_images(protocol, folder)
    return replace(images, val=images.val.head(evaluated), test=images.test.head(evaluated))

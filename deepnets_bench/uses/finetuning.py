"""Low-shot fine-tuning: networks trained on a few images a class, from predicted and from random weights."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn

from deepnets_bench.errors import BadInput, NotFinite, reason_of
from deepnets_bench.harness.images.sets import ImageSet
from deepnets_bench.harness.protocol.tracks import Track
from deepnets_bench.harness.runs.provenance import stamp
from deepnets_bench.system.files import short_digest
from deepnets_bench.system.pool import carried_out
from deepnets_bench.uses.finetuning_rows import CurvePoint, FineTuneRow, curves_path, read_fine_tuning
from deepnets_bench.uses.going_on import Tally, going_on
from deepnets_bench.uses.initialisation import initialise, load_ghn, orthogonalise
from deepnets_bench.uses.models import build_for, check_trainable, source_digest
from deepnets_bench.uses.recipe import Recipe
from deepnets_bench.uses.rows import append_rows
from deepnets_bench.uses.shots import draw_shots, split_shots
from deepnets_bench.uses.training import NETWORK_WEIGHTS, Epoch, Training, accuracy, streams_of, train

if TYPE_CHECKING:
    from deepnets_bench.harness.protocol.tables import Images

PREDICTED = ("predicted", "orthogonalised")
INITS = (*PREDICTED, "he", "orthogonal", "random")
RECIPE = Recipe(weight_decay=1e-3)

_OTHER = {  # what differs in a row that cannot stand beside others
    "track": "another track",
    "track_version": "another version of the track",
    "track_digest": "the track as it was before it was changed",
    "images": "other image files",
    "recipe_digest": "another recipe",
    "ghn": "another hypernetwork",
    "settings": "other settings",
    "source": "another source",
}


@dataclass(frozen=True)
class FineTuning:
    """What is the same for all trainings of a study.

    Trainings follow `recipe`, with the learning rate of `rates` that is best on held-out shots, chosen anew
    for every model, initialisation, number of shots and seed. Defaults are those of
    https://arxiv.org/abs/2110.13100, table 6, where it fine-tunes with 100 shots.

    `noise` is that of `orthogonalise`, and comes before it; other initial weights get none.
    `recalibrate` re-estimates running statistics on the shots before the training.
    """

    track: Track
    ghn: Path
    images: Path | None = None
    trust: bool = False
    recipe: Recipe = RECIPE
    rates: tuple[float, ...] = (0.003, 0.01, 0.03, 0.1)
    noise: float = 0.0
    recalibrate: bool = False
    random_classifier: bool = False


@dataclass(frozen=True)
class FineTuneTask:
    """One training: a model by its name, its initial weights, the number of shots a class, and a seed."""

    study: FineTuning
    model: str
    init: str
    shots: int
    seed: int

    @property
    def key(self) -> tuple[str, str, int, int]:
        """As `FineTuneRow.key`."""
        return self.model, self.init, self.shots, self.seed


def fine_tune_tasks(
    study: FineTuning, models: Sequence[str], inits: Sequence[str], shots: Sequence[int], seeds: Sequence[int]
) -> list[FineTuneTask]:
    """All combinations, seed by seed.

    Raises `BadInput` for a model or number of shots that cannot be had, and for settings without effect.
    """
    if study.noise and "orthogonalised" not in inits:
        raise BadInput("Noise is that of orthogonalised weights, which are not among the initial weights.")
    if study.random_classifier and not set(inits).intersection(PREDICTED):
        raise BadInput("A random classifier stands beside predicted weights, and there are none.")
    images = _images(study.track.images, study.images)
    for model in models:
        with streams_of(seeds[0]).seeded(torch.device("cpu"), NETWORK_WEIGHTS):
            module = build_for(model, study.track, images.num_classes)
            check_trainable(module, model, study.track.images.size, images.num_classes)
    for count in shots:
        draw_shots(images, count, seeds[0])
    return [
        FineTuneTask(study, model, init, count, seed)
        for seed in seeds
        for count in shots
        for model in models
        for init in inits
    ]


def run_fine_tuning(
    tasks: Sequence[FineTuneTask],
    path: Path,
    *,
    workers: int = 1,
    executor: Executor | None = None,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Carry out the tasks that have no row in the file at `path`; each leaves its row as it ends, and its
    curve in the file beside it.

    The tasks are those of one study. Raises `BadInput` for rows of another track, recipe, hypernetwork, image
    files or settings, and of other source of a model that is asked for; `Interrupted` at Ctrl-C.
    """
    held = {row.key: row for row in (read_fine_tuning(path) if path.exists() else [])}
    _check_same(list(held.values()), tasks, path)
    todo = [task for task in tasks if task.key not in held]
    tally = Tally(len(tasks) - len(todo), len(tasks), report)
    with going_on(tally, "trainings", "rows", path):
        for row, curve in carried_out(fine_tune, todo, workers, executor):
            append_rows(curves_path(path), CurvePoint, curve)
            append_rows(path, FineTuneRow, [row])  # last: it says that the training is done
            tally.add()


class FineTuned(NamedTuple):
    """What a training gave, and how: no curve where it failed."""

    row: FineTuneRow
    curve: list[CurvePoint]


def fine_tune(task: FineTuneTask) -> FineTuned:
    """Choose the rate on held-out shots, train on all shots, and evaluate on the test images.

    The row of a training that diverges at every rate, or at last at the one chosen, says so.
    """
    torch.set_num_threads(1)
    images = _images(task.study.track.images, task.study.images)
    begun = time.process_time()
    key: dict[str, Any] = {"model": task.model, "init": task.init, "shots": task.shots, "seed": task.seed}
    outcome: dict[str, Any]
    try:
        outcome, curve = _outcome(task, images)
    except NotFinite as error:
        outcome, curve = {"failure": reason_of(error)}, {}
    origin: dict[str, Any] = {**_identity(task.study), **stamp()}
    row = FineTuneRow(
        **key,
        source=source_digest(task.model),
        cpu_seconds=time.process_time() - begun,
        **outcome,
        **origin,
    )
    return FineTuned(row, [CurvePoint(**key, epoch=epoch, accuracy=curve[epoch]) for epoch in sorted(curve)])


def _outcome(task: FineTuneTask, images: ImageSet) -> tuple[dict[str, Any], dict[int, float]]:
    """Rate, and accuracies before and after; the curve as {epoch: accuracy}, after 0, 1, 2, 4, 8, ... epochs.

    Raises `NotFinite` where there are none.
    """
    learning, whole = split_shots(images, task.shots, task.seed)
    trials, reason = {}, ""
    for rate in task.study.rates:
        try:
            trials[rate] = _train(task, _module(task, learning), learning, rate).accuracy
        except NotFinite as error:
            reason = str(error)  # a rate that is too high
    if not trials:
        raise NotFinite(f"At every rate: {reason}")
    best = max(trials, key=trials.__getitem__)
    module = _module(task, whole)
    curve = {0: accuracy(module, images.test)}

    def report(epoch: Epoch) -> None:
        number = epoch.epoch
        if number & (number - 1) == 0 and number < task.study.recipe.epochs:  # a power of two
            curve[number] = accuracy(module, images.test)

    found = _train(task, module, whole, best, report).accuracy
    curve[task.study.recipe.epochs] = found
    outcome = {
        "lr": best,
        "held_out_accuracy": trials[best],
        "initial_accuracy": curve[0],
        "accuracy": found,
    }
    return outcome, curve


def _identity(study: FineTuning) -> dict[str, Any]:
    """What decides the results of a study beside model, weights, shots and seed."""
    settings = {
        "rates": " ".join(f"{rate:g}" for rate in study.rates),
        "noise": f"{study.noise:g}",
        "recalibrate": study.recalibrate,
        "random classifier": study.random_classifier,
    }
    return {
        "track": study.track.name,
        "track_version": study.track.version,
        "track_digest": study.track.fingerprint(),
        "images": _images_digest(study.track.images, study.images),
        "recipe_digest": study.recipe.digest(),
        "ghn": _digest(study.ghn),
        "settings": "; ".join(f"{key} {value}" for key, value in settings.items()),
    }


def _check_same(rows: Sequence[FineTuneRow], tasks: Sequence[FineTuneTask], path: Path) -> None:
    """Raise `BadInput` where a row cannot stand beside those that the tasks are going to make."""
    if not rows or not tasks:
        return
    sources = {task.model: source_digest(task.model) for task in tasks}
    identity = _identity(tasks[0].study)
    for row in rows:
        asked = {**identity, "source": sources.get(row.model, row.source)}
        for name, value in asked.items():
            if getattr(row, name) != value:
                what = f"{_OTHER[name]} of {row.model}" if name == "source" else _OTHER[name]
                raise BadInput(f"{path} holds rows of {what}; give another file (--out).")


def _train(
    task: FineTuneTask,
    module: nn.Module,
    images: ImageSet,
    rate: float,
    report: Callable[[Epoch], None] | None = None,
) -> Training:
    recipe, protocol = replace(task.study.recipe, lr=rate), task.study.track.images
    return train(module, images, protocol, recipe, task.seed, under_noise=False, report=report)


def _module(task: FineTuneTask, images: ImageSet) -> nn.Module:
    """The model with its initial weights; the same ones for every rate."""
    study = task.study
    with streams_of(task.seed).seeded(torch.device("cpu"), NETWORK_WEIGHTS):
        module = build_for(task.model, study.track, images.num_classes)
        size = study.track.images.size
        if task.init not in PREDICTED:
            initialise(module, task.init, (3, size, size), images.num_classes)
        else:
            ghn = load_ghn(study.ghn, study.trust)
            initialise(module, ghn, (3, size, size), -1 if study.random_classifier else images.num_classes)
        if task.init == "orthogonalised":
            orthogonalise(module, study.noise)
    if study.recalibrate:
        from deepnets_bench.networks.recalibration import recalibrate

        try:
            recalibrate(module, [batch for batch, _ in images.train.batches(64)])
        except BadInput as error:  # statistics overflow: the images are such that the module can take them
            raise NotFinite(str(error)) from error
    return module


@lru_cache(maxsize=1)
def _images(protocol: Images, folder: Path | None) -> ImageSet:
    from deepnets_bench.harness.images.loading import load_images

    return load_images(protocol, folder)


@lru_cache(maxsize=1)
def _images_digest(protocol: Images, folder: Path | None) -> str:
    from deepnets_bench.harness.images.loading import fingerprint

    return fingerprint(protocol, folder)


_digest = lru_cache(maxsize=4)(short_digest)

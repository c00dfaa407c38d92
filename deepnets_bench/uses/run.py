"""A training of one network and seed in a folder of its own: checkpoints, curve, weights and result."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from filelock import FileLock, Timeout
from torch import nn

from deepnets_bench.errors import BadInput, RunFailed
from deepnets_bench.harness.images.sets import ImageSet
from deepnets_bench.harness.training.checkpoint import remove_checkpoints
from deepnets_bench.system.files import reading, replacing, write_atomically
from deepnets_bench.system.locks import writable
from deepnets_bench.uses.initialisation import initialise
from deepnets_bench.uses.models import check_trainable
from deepnets_bench.uses.recipe import Recipe
from deepnets_bench.uses.regularisation import check_regularisable
from deepnets_bench.uses.training import NETWORK_WEIGHTS, Epoch, Training, shots, streams_of, train

if TYPE_CHECKING:
    from deepnets_bench.ghn.model import GHN
    from deepnets_bench.harness.protocol.tracks import Track

RESULT, CURVE, WEIGHTS = "result.json", "curve.csv", "weights.safetensors"
_NOTE = "training.json"  # what a folder is for


@dataclass(frozen=True)
class NetworkRun:
    """What is trained: a model by its name, on a track's images, from initial weights by their name.

    `width` is that of an architecture, `source` the digest of the model's file, and `images` that of the
    folder of images, where there are such.
    """

    model: str
    track: Track
    recipe: Recipe
    init: str
    shots: int | None = None  # training images of each class; all when None
    width: int | None = None
    source: str = ""
    images: str = ""

    def identity(self, seed: int) -> dict[str, Any]:
        """All that decides the result, as plain data."""
        return {
            "model": self.model,
            "track": self.track.name,
            "track_version": self.track.version,
            "track_digest": self.track.fingerprint(),
            "init": self.init,
            "shots": self.shots,
            "width": self.width,
            "source": self.source,
            "images": self.images,
            "seed": seed,
            "recipe": self.recipe.to_dict(),
        }


def run_seed(
    run: NetworkRun,
    seed: int,
    build: Callable[[], nn.Module],
    weights: str | GHN,
    images: ImageSet,
    folder: Path,
    report: Callable[[Epoch], None] | None = None,
) -> dict[str, Any]:
    """Train the module that `build` makes; returns the result, which is read where it is there already.

    `weights` are those of `run.init`, loaded. The random weights of a module follow the seed. Raises
    `RunFailed` where another process trains into the folder, `BadInput` where it holds another training.
    """
    with writable(folder):
        folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock", timeout=0)
    try:
        with lock:
            return _held(run, seed, build, weights, images, folder, report)
    except Timeout:
        raise RunFailed(
            f"Another process trains into {folder}; wait until it ends or choose another folder."
        ) from None


def _held(
    run: NetworkRun,
    seed: int,
    build: Callable[[], nn.Module],
    weights: str | GHN,
    images: ImageSet,
    folder: Path,
    report: Callable[[Epoch], None] | None,
) -> dict[str, Any]:
    identity = run.identity(seed)
    _check_folder(folder, identity)
    if (folder / RESULT).exists():
        return _read(folder / RESULT)
    torch.set_num_threads(run.track.training.threads)
    if run.shots is not None:
        images = shots(images, run.shots)
    size = run.track.images.size
    with streams_of(seed).seeded(torch.device("cpu"), NETWORK_WEIGHTS):
        check_trainable(build(), run.model, size, images.num_classes)
    with streams_of(seed).seeded(torch.device("cpu"), NETWORK_WEIGHTS):
        module = build()
        initialise(module, weights, (3, size, size), images.num_classes)
    check_regularisable(module, run.recipe)
    write_atomically(folder / _NOTE, _json(identity))  # after all that can be wrong with what was asked for
    training = train(module, images, run.track.images, run.recipe, seed, folder=folder, report=report)
    result = identity | _outcome(training, module)
    _write(folder, training, module, result)
    remove_checkpoints(folder)
    return result


def _check_folder(folder: Path, identity: dict[str, Any]) -> None:
    """Raise `BadInput` where a folder is for another training."""
    path = folder / _NOTE
    if not path.exists():
        return
    held = _read(path)
    differing = [key for key in identity if held.get(key) != identity[key]]
    if differing:
        raise BadInput(
            f"{folder} holds a training with another {differing[0]}; choose another folder (--out)."
        )


def _outcome(training: Training, module: nn.Module) -> dict[str, Any]:
    from deepnets_bench.harness.runs.provenance import cpu_name, utc_now, versions

    return {
        "accuracy": training.accuracy,
        "accuracy_noise": training.accuracy_noise,
        "convergence": training.convergence,
        "converged": training.converged,
        "cpu_seconds": round(training.cpu_seconds, 3),
        "parameters": sum(parameter.numel() for parameter in module.parameters()),
        **versions(),
        "device": cpu_name(),
        "timestamp": utc_now(),
    }


def _write(folder: Path, training: Training, module: nn.Module, result: dict[str, Any]) -> None:
    """The curve and the weights, and last the result, which says that the training is finished."""
    from safetensors.torch import save_model

    names = [field.name for field in fields(Epoch)]
    rows = [",".join(f"{getattr(row, name):.6g}" for name in names) for row in training.curve]
    write_atomically(folder / CURVE, ("\n".join([",".join(names), *rows]) + "\n").encode())
    with replacing(folder / WEIGHTS) as temporary:
        save_model(module, str(temporary))
    write_atomically(folder / RESULT, _json(result))


def _read(path: Path) -> dict[str, Any]:
    with reading(path, "the result of a training"):
        data: dict[str, Any] = json.loads(path.read_bytes())
        return dict(data)


def _json(data: dict[str, Any]) -> bytes:
    return (json.dumps(data, indent=1) + "\n").encode()

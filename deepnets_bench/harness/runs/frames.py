"""Train a frame by the recipe that a track states, from the dataset to the file and its digest."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from deepnets_bench.errors import BadInput
from deepnets_bench.gnn import identify
from deepnets_bench.harness.protocol.tables import Frame
from deepnets_bench.harness.protocol.tracks import Track, load_track, parse_track
from deepnets_bench.harness.training.splits import StoredArchitectures, prepare_dataset
from deepnets_bench.system.files import write_atomically
from deepnets_bench.system.locks import locked, writable


class TrainedFrame(NamedTuple):
    """The SHA-256 of a frame's file, and the CPU seconds of its training, interruptions included."""

    digest: str
    cpu_seconds: float


def recipe_track(track: Track, frame: Frame) -> Track:
    """The protocol of a frame's training: that of its track from scratch, for the steps of the recipe, with
    the last weights. Raises `BadInput` for a recipe shorter than the warm-up."""
    base = load_track(frame.track) if frame.track else track
    data = base.model_dump(mode="json") | {"frames": []}
    data["training"] |= {"steps": frame.steps}
    data["selection"] |= {"rule": "last", "mean_steps": None}
    return parse_track(data, f"{base.name} for the steps of its frame")


def train_frame(
    track: Track,
    frame: Frame,
    out: Path,
    *,
    data: Path,
    images: Path | None = None,
    device: str = "auto",
    report: Callable[[Any], None] | None = None,
) -> TrainedFrame:
    """Train a frame and write it to `out`.

    An interrupted training goes on from its checkpoint in a hidden folder beside `out`, which is removed at
    the end; the file is the same, byte for byte on one machine's CPU. `report` gets each step's `Progress`.
    Raises `BadInput` where `out` exists or cannot be written, and for what the recipe lacks.
    """
    import torch

    from deepnets_bench.harness.images.loading import load_images
    from deepnets_bench.harness.training.distributed import Compute
    from deepnets_bench.harness.training.frames import FrameTrainer, frame_bytes
    from deepnets_bench.harness.training.scoring import pick_device

    protocol, gnns = recipe_track(track, frame), [identify(name) for name in frame.gnns]
    recipe = {
        "track": protocol.name,
        "track_version": protocol.version,
        "gnns": list(frame.gnns),
        "steps": frame.steps,
        "seed": frame.seed,
    }
    if out.exists():
        raise BadInput(f"{out} exists already; nothing was trained. Give another file with --out.")
    dataset = prepare_dataset(protocol, data, images=images)
    name = _digest([protocol.fingerprint(), dataset.fingerprint, [gnn.digest for gnn in gnns], recipe])
    folder = out.parent / f".{out.name}.{name[:16]}.training"
    with writable(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / "frame"):
        torch.set_num_threads(protocol.training.threads)
        trainer = FrameTrainer(
            protocol,
            gnns,
            StoredArchitectures(dataset.root, "train", protocol.networks.count),
            load_images(protocol.images, images),
            seed=frame.seed,
            compute=Compute(pick_device(device), protocol.training.precision),
            folder=folder,
            report=report,
        )
        trainer.resume()
        state = trainer.run()
        content = frame_bytes(trainer.ghn, recipe)
        with writable(out):
            write_atomically(out, content)
    shutil.rmtree(folder)
    return TrainedFrame(hashlib.sha256(content).hexdigest(), state.cpu_seconds)


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()

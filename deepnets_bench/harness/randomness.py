"""Named random streams: each draw of a run depends on track, seed, name and place in the run alone."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from deepnets_bench.harness.protocol.tracks import Track

# The names, and in brackets the place in the run that follows each in the key.
FRAME_WEIGHTS = "initial weights of the frame"
GNN_WEIGHTS = "initial weights of the GNN"
ARCHITECTURES = "architectures"  # (), read by `MetaBatchSampler`
WIDTHS = "widths"  # (step)
IMAGE_ORDER = "order of images"  # (epoch)
IMAGE_CHANGES = "changes of images"  # (step) for images in memory, else (step, position in the batch)
DROPOUT = "dropout of the classifiers"  # (step, position in the meta-batch)
GNN_TRAINING = "randomness of the GNN in training"  # (step, process)
GNN_EVALUATION = "randomness of the GNN in evaluation"  # (fingerprint of the architecture)


@dataclass(frozen=True)
class Streams:
    """Random streams that share a key; each is named, and independent of how much of the others is used.

    A stream starts from the SHA-256 of the key, its name and its place in the run.
    """

    key: tuple[str | int, ...] = ()

    @classmethod
    def of_run(cls, track: Track, seed: int) -> Streams:
        """The streams of one training; a changed copy of a track (smoke, another precision) has the same."""
        return cls((track.name, track.version, seed))

    def seed(self, name: str, *place: str | int) -> int:
        """A whole number from 0 to 2^63 - 1."""
        return self._digest(name, place) >> 65

    def generator(self, name: str, *place: str | int) -> np.random.Generator:
        """Philox with a key of 128 bits."""
        return np.random.Generator(np.random.Philox(key=self._digest(name, place)))

    @contextmanager
    def seeded(self, device: torch.device, name: str, *place: str | int) -> Iterator[None]:
        """Inside, the global generators of PyTorch (CPU and `device`), NumPy and Python follow a stream.

        Afterwards they are as they were before. PyTorch's CPU generator is seeded by 32 bits.
        """
        seed = self.seed(name, *place)
        python, numpy = random.getstate(), np.random.get_state()
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.default_generator.manual_seed(seed)
            if device.type == "cuda":
                with torch.cuda.device(device):
                    torch.cuda.manual_seed(seed)
            random.seed(seed)
            np.random.seed(seed % (1 << 32))
            try:
                yield
            finally:
                random.setstate(python)
                np.random.set_state(numpy)

    def _digest(self, name: str, place: tuple[str | int, ...]) -> int:
        text = json.dumps([*self.key, name, *place])
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "big")


EVALUATION = Streams()  # the same for all tracks and seeds: a saved hypernetwork does not name its own

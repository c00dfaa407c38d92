"""What a track needs beside images in memory: its generated splits, made where missing, and read."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from deepnets_bench.errors import BadInput, RunFailed
from deepnets_bench.harness.protocol.tracks import Track

if TYPE_CHECKING:
    from deepnets_bench.architecture import Architecture
    from deepnets_bench.compiler.program import Program
    from deepnets_bench.data.shards import GraphRecord
    from deepnets_bench.predefined import ResNet50

_LOCK_SECONDS = 600.0  # for another process that is generating into the same folder


@dataclass(frozen=True)
class Dataset:
    """The generated splits a track needs, under `root`, its folder of images, and a fingerprint of both.

    Images count where they are files that no checksum verifies; `images` is None where they are embedded.
    """

    root: Path
    images: Path | None
    fingerprint: str

    def absolute(self) -> Dataset:
        """The same, for processes in other folders."""
        return replace(
            self, root=self.root.absolute(), images=self.images.absolute() if self.images else None
        )


@dataclass(frozen=True)
class StoredNetwork:
    """An architecture of an evaluation split, and its own width in CIFAR-10 and in ImageNet form."""

    architecture: Architecture | ResNet50
    widths: tuple[int, int]

    def width(self, image_size: int) -> int:
        """Channels of the first cell for images of a size."""
        from deepnets_bench.compiler.instructions import IMAGENET_FROM

        return self.widths[int(image_size > IMAGENET_FROM)]

    def fingerprint(self) -> str:
        """As `Architecture.fingerprint`."""
        return self.architecture.fingerprint()

    def program(self, **sizes: Any) -> Program:
        """As `Architecture.program`."""
        return self.architecture.program(**sizes)


class StoredArchitectures(Sequence["GraphRecord"]):
    """The first `count` networks of a generated split as stored integers, read when they are asked for."""

    def __init__(self, root: Path, split: str, count: int) -> None:
        from deepnets_bench.data.shards import open_split

        self._reader, self._count = open_split(root, split), count

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> GraphRecord: ...

    @overload
    def __getitem__(self, index: slice) -> list[GraphRecord]: ...

    def __getitem__(self, index: int | slice) -> GraphRecord | list[GraphRecord]:
        rows = range(self._count)[index]
        return [self._reader[row] for row in rows] if isinstance(rows, range) else self._reader[rows]

    def node_counts(self) -> np.ndarray:
        """int64 [len]: nodes of each graph."""
        return self._reader.node_counts()[: self._count]


def prepare_dataset(
    track: Track,
    root: Path,
    *,
    images: Path | None = None,
    workers: int = 1,
    on_graphs: Callable[[int, int], None] | None = None,
) -> Dataset:
    """Generate what a track needs and `root` lacks; the files that are there are checked by their checksums.

    `images` is the folder of the track's images, where they are files. `on_graphs(done, total)` reports
    progress. Raises `BadInput` for a folder that holds another dataset version or cannot be written, and
    for images that are missing.
    """
    from deepnets_bench.data.shards import open_split
    from deepnets_bench.generators.generation import generate
    from deepnets_bench.harness.images.loading import fingerprint

    used_images = fingerprint(track.images, images)
    counts = split_counts(track)
    common: dict[str, Any] = {
        "workers": workers,
        "dataset_version": track.dataset_version,
        "lock_timeout": _LOCK_SECONDS,
        "on_shard": on_graphs,
    }
    generate("train", root, counts["train"], **common)
    generate([split for split in counts if split != "train"], root, **common)
    digest = hashlib.sha256(f"version {track.dataset_version}".encode())
    for split, count in counts.items():
        keys = open_split(root, split).column("key")
        if len(keys) < count:
            raise BadInput(
                f"Track '{track.name}' needs {count} graphs of split '{split}'; {root} has {len(keys)}."
            )
        digest.update(f"{split} {count}\n".encode() + keys[:count].tobytes())
    if used_images:
        digest.update(f"images {used_images}\n".encode())
    return Dataset(root, images, digest.hexdigest()[:16])


def require_unchanged(track: Track, dataset: Dataset) -> None:
    """Raise `RunFailed` where the files are no longer those of `dataset`; they are hashed once a process."""
    if prepare_dataset(track, dataset.root, images=dataset.images).fingerprint != dataset.fingerprint:
        raise RunFailed(
            f"The data of track '{track.name}' have changed since this run began; start the run again."
        )


def split_counts(track: Track) -> dict[str, int]:
    """How many graphs of each split a track uses."""
    counts = {"train": track.networks.count}
    for name, split in track.evaluation.splits.items():
        counts[name] = split.count
    counts["val"] = max(counts.get("val", 0), track.selection.count)
    return counts


def load_networks(root: Path, split: str, count: int) -> list[StoredNetwork]:
    """The first `count` networks of a generated evaluation split."""
    from deepnets_bench.data.shards import open_split

    return [network_of(record) for record in open_split(root, split)[:count]]


def network_of(record: GraphRecord) -> StoredNetwork:
    """The network of a stored graph."""
    from deepnets_bench.predefined import ResNet50

    return StoredNetwork(ResNet50() if record.name else record.architecture, record.width)

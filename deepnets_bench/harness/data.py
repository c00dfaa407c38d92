"""The generated splits that a track needs: made where they are missing, and read."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepnets_bench.errors import BadInput
from deepnets_bench.harness.tracks import Track

if TYPE_CHECKING:
    from deepnets_bench.architecture import Architecture

_LOCK_SECONDS = 600.0  # for another process that is generating into the same folder


@dataclass(frozen=True)
class Dataset:
    """The generated splits a track needs, under `root`, and the fingerprint of the graphs it uses."""

    root: Path
    fingerprint: str


def prepare_dataset(
    track: Track, root: Path, *, workers: int = 1, on_graphs: Callable[[int, int], None] | None = None
) -> Dataset:
    """Generate what a track needs and `root` lacks, which takes milliseconds when nothing does.

    `on_graphs(done, total)` reports progress. Raises `BadInput` for a folder that holds another dataset
    version or cannot be written.
    """
    from deepnets_bench.generators.materialise import generate
    from deepnets_bench.shards import open_split

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
    return Dataset(root, digest.hexdigest()[:16])


def split_counts(track: Track) -> dict[str, int]:
    """How many graphs of each split a track uses."""
    counts = {"train": track.networks.count}
    for name, split in track.evaluation.splits.items():
        counts[name] = split.count
    counts["val"] = max(counts.get("val", 0), track.selection.count)
    return counts


def load_architectures(root: Path, split: str, count: int) -> list[Architecture]:
    """The first `count` architectures of a generated split."""
    from deepnets_bench.shards import open_split

    reader = open_split(root, split)
    return [reader[index].architecture for index in range(count)]

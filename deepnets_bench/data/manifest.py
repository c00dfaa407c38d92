"""Manifests: what a finished split consists of, and files that are written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import shlex
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deepnets_bench.errors import BadInput, CorruptFile
from deepnets_bench.system.files import reading, write_atomically

FORMAT = "deepnets-bench graphs"
FORMAT_VERSION = 2
MANIFEST = "manifest.json"
SUFFIX = ".h5"
LOCK = ".generate.lock"  # of a dataset folder, held by whoever writes to it
_TIME_STAMP_NS = 2_000_000_000  # the coarsest that file systems keep
_SOUND: set[tuple[object, ...]] = set()  # files whose checksum was right, and what they looked like then
PUBLISHED_VERSION = 0  # dataset version of imported splits; generated ones count from 1


@dataclass(frozen=True)
class ShardEntry:
    """A shard as its manifest lists it; `content` is a checksum of the columns, whatever the file layout."""

    file: str
    start: int
    stop: int
    bytes: int
    sha256: str
    content: str

    def fault(self, folder: Path) -> str | None:
        """What is wrong with the file in `folder`, a sentence; None where it is as it was written."""
        path = folder / self.file
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return f"{path} is missing; generate the split again."
        except OSError as error:
            return f"{path} cannot be read: {error.strerror}."
        if len(data) != self.bytes:
            return f"{path} has {len(data)} bytes instead of {self.bytes}; generate the split again."
        if hashlib.sha256(data).hexdigest() != self.sha256:
            return f"{path} was changed: its checksum does not fit the manifest; generate the split again."
        return None

    def new_fault(self, folder: Path) -> str | None:
        """As `fault`, but a file that this process found sound is read again only after it was written to."""
        path = (folder / self.file).absolute()
        try:
            status = path.stat()
        except OSError:
            return self.fault(folder)
        state = (path, status.st_ino, status.st_size, status.st_mtime_ns, self.bytes, self.sha256)
        if state in _SOUND:
            return None
        fault = self.fault(folder)
        # The time stamp of a younger file could be that of another write.
        if fault is None and time.time_ns() - status.st_mtime_ns > _TIME_STAMP_NS:
            _SOUND.add(state)
        return fault


@dataclass(frozen=True)
class Manifest:
    """What a finished split consists of."""

    split: str
    dataset_version: int
    package_version: str
    shard_size: int
    shards: tuple[ShardEntry, ...]

    @property
    def count(self) -> int:
        """Number of graphs."""
        return self.shards[-1].stop if self.shards else 0

    @property
    def fingerprint(self) -> str:
        """32 hexadecimal digits that name the stored graphs and the bounds of their shards."""
        text = "\n".join([self.split, str(self.dataset_version), *(shard.content for shard in self.shards)])
        return hashlib.sha256(text.encode()).hexdigest()[:32]


def shard_name(split: str, start: int, stop: int) -> str:
    """File name of the shard of graphs start..stop-1."""
    return f"{split}-{start:08d}-{stop:08d}{SUFFIX}"


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write `manifest.json`; from then on the split counts as finished."""
    data: dict[str, Any] = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "count": manifest.count,
        "fingerprint": manifest.fingerprint,
        **asdict(manifest),
    }
    data["checksum"] = _json_checksum(data)
    write_atomically(folder / MANIFEST, (json.dumps(data, indent=1) + "\n").encode())


def read_manifest(root: str | Path, split: str) -> Manifest:
    """The manifest of `ROOT/<split>`; raises `BadInput` without one, `CorruptFile` where it was altered."""
    path = Path(root) / split / MANIFEST
    with reading(path, "a manifest of deepnets-bench"):
        try:
            data = json.loads(path.read_bytes())
        except FileNotFoundError:
            raise no_finished_split(root, split) from None
        return _manifest(path, split, data)


def _manifest(path: Path, split: str, data: Any) -> Manifest:
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise CorruptFile(f"{path} is not a manifest of deepnets-bench.")
    check_version(path, data.get("format_version"))
    if data.pop("checksum", None) != _json_checksum(data):
        raise CorruptFile(
            f"{path} was changed after it was written (its checksum does not fit); "
            "delete it and generate the split again."
        )
    entries = tuple(ShardEntry(**entry) for entry in data["shards"])
    manifest = Manifest(
        data["split"], data["dataset_version"], data["package_version"], data["shard_size"], entries
    )
    bounds = [0] + [entry.stop for entry in entries]
    sound = (
        manifest.split == split
        and data["count"] == manifest.count
        and data["fingerprint"] == manifest.fingerprint
        and isinstance(manifest.dataset_version, int)
        and isinstance(manifest.shard_size, int)
        and all(isinstance(entry.bytes, int) for entry in entries)
        and all(
            entry.start == start == i * manifest.shard_size < entry.stop <= start + manifest.shard_size
            and entry.file == shard_name(split, entry.start, entry.stop)
            for i, (start, entry) in enumerate(zip(bounds, entries, strict=False))
        )
    )
    if not sound:
        raise CorruptFile(f"{path} contradicts itself.")
    return manifest


def finished_splits(root: str | Path) -> list[str]:
    """Names of the splits under `root` that have a manifest, sorted."""
    return sorted(path.parent.name for path in Path(root).glob(f"*/{MANIFEST}"))


def no_finished_split(root: str | Path, split: str | None = None) -> BadInput:
    """The error where `root` has no finished split, or not the one asked for; it says what makes one."""
    held = ", ".join(finished_splits(root))
    command = f"deepnets-bench generate --split {'SPLIT' if held else 'val'} --out {shlex.quote(str(root))}"
    if held:
        return BadInput(f"{root} holds no finished split '{split}', but {held}; {command} makes another one.")
    wanted = f" '{split}'" if split else ""
    return BadInput(f"{root} holds no finished split{wanted}; {command} makes one.")


def check_version(path: Path, version: Any) -> None:
    """Raise `CorruptFile` for a format version this package cannot read."""
    if not isinstance(version, (int, np.integer)):
        raise CorruptFile(f"{path} does not say which format version it has.")
    if version > FORMAT_VERSION:
        raise CorruptFile(
            f"{path} has format version {version}, newer than the {FORMAT_VERSION} this package reads; "
            "upgrade deepnets-bench."
        )
    if version < FORMAT_VERSION:
        raise CorruptFile(
            f"{path} has format version {version}, older than the {FORMAT_VERSION} this package reads; "
            "delete its folder and generate the split again."
        )


def _json_checksum(data: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

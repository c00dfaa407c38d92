"""HDF5 shards of graphs and their manifest: format, writing and reading (no torch).

A split is a folder `ROOT/<split>/` of shards `<split>-<start>-<stop>.h5` and a `manifest.json`, written
last: a split is what its manifest lists. A shard holds one flat array a column and no group a graph;
`<column>_offset[i] : <column>_offset[i + 1]` is graph i's part of the first four, its row in the others:

    op            primitive of every node (index into PRIMITIVES), nodes in topological order, cell by cell
    cell_size     number of nodes of every cell
    edge          the predecessors of every node, as distances in node numbers, largest first (`packing`);
                  nodes that join several (sum, concat, cse) are preceded by how many, `input` and `pos_enc`
                  have none, all others one
    architecture  integers of `architecture.encode`; empty for a network that is known by name only
    width         channels of the first cell in CIFAR-10 and in ImageNet form
    num_params    parameters at these widths (fc_dim 256, 10 and 1000 classes), dead branches included
    key           128-bit canonical key of the architecture (`canonical.canonical_key`)

Columns are contiguous and uncompressed: a reader maps the file and touches only the pages of the graphs it
is asked for. Opening a split reads its manifest and nothing else.

Reading: `open_split(root, split)` → `ShardReader` with `len`, `[i]` → `GraphRecord`, `column(name)`.
"""

from __future__ import annotations

import hashlib
import io
import json
import mmap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import h5py
import numpy as np
from numpy.typing import NDArray

from deepnets_bench.architecture import Architecture, decode
from deepnets_bench.compiler import instructions as ir
from deepnets_bench.compiler.program import NetworkSize, Program, compile_code
from deepnets_bench.data.graph_codec import MAX_NODES, PROBLEMS, pack_edges, unpack
from deepnets_bench.data.manifest import (
    FORMAT,
    FORMAT_VERSION,
    ShardEntry,
    check_version,
    read_manifest,
    shard_name,
)
from deepnets_bench.errors import BadInput, CorruptFile
from deepnets_bench.predefined import ResNet50
from deepnets_bench.system.files import reading, write_atomically

Columns = Mapping[str, NDArray[Any]]
# Some graphs: lengths [graphs, 4] of their ragged columns, these four, then width, num_params and key.
Part = tuple[NDArray[Any], ...]

RAGGED = ("op", "cell_size", "edge", "architecture")
DTYPES: dict[str, np.dtype[Any]] = {
    **{f"{name}_offset": np.dtype("<u4") for name in RAGGED},
    **{"op": np.dtype("u1"), "cell_size": np.dtype("<u2"), "edge": np.dtype("u1")},
    **{"architecture": np.dtype("<u2"), "width": np.dtype("<u2")},
    **{"num_params": np.dtype("<i8"), "key": np.dtype("<u8")},
}
_ALIGNMENT = 64


@dataclass(frozen=True)
class GraphRecord:
    """One stored graph: everything but parameter names and shapes, which its architecture gives.

    `op` uint8 [N], `cell` int16 [N], `edge_index` int64 [2, E] with source < target sorted by
    (target, source); `width` and `num_params` of the CIFAR-10 and the ImageNet form. `encoded` (int32,
    `architecture.encode`) is empty where the network is known by `name`.
    """

    index: int
    name: str | None
    encoded: NDArray[np.int32]
    op: NDArray[np.uint8]
    cell: NDArray[np.int16]
    edge_index: NDArray[np.int64]
    width: tuple[int, int]
    num_params: tuple[int, int]

    @property
    def num_nodes(self) -> int:
        return len(self.op)

    @property
    def fc_layers(self) -> int:
        """Linear layers of the classifier; a network that is known by name has one."""
        return int(self.encoded[ir.FC_LAYERS]) if self.name is None else 1

    def program(
        self, width: int, image_size: int = 32, num_classes: int = 10, fc_dim: int | None = None
    ) -> Program:
        """Compile the stored integers; arguments as `Architecture.program`, for sizes that were checked."""
        if self.name is not None:
            return ResNet50().program(width, image_size, num_classes, fc_dim)
        return compile_code(self.encoded, NetworkSize(width, image_size, num_classes, fc_dim))

    @property
    def architecture(self) -> Architecture:
        """Raises `BadInput` where the network is known by name only."""
        if self.name is not None:
            raise BadInput(f"'{self.name}' is not built from cells; see deepnets_bench.predefined.")
        return decode(self.encoded)


def write_shard(
    folder: Path,
    split: str,
    start: int,
    columns: Columns,
    dataset_version: int,
    names: Mapping[int, str] | None = None,
) -> ShardEntry:
    """Write one shard, complete or not at all, and return its entry for the manifest.

    `names` maps graph numbers within the shard to the names of networks without an encoding. The bytes
    depend on the arguments only. Raises `OSError` where the disk refuses.
    """
    n_graphs = len(columns["key"])
    content = content_checksum(columns)
    image = io.BytesIO()
    # The 1.10 file format checks its own metadata.
    with h5py.File(
        image, "w", libver=("v110", "v110"), alignment_threshold=1, alignment_interval=_ALIGNMENT
    ) as file:
        for key, value in {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "dataset_version": dataset_version,
            "split": split,
            "start": start,
            "stop": start + n_graphs,
            "content": content,
            "names": json.dumps({str(i): name for i, name in (names or {}).items()}),
        }.items():
            # Texts of fixed length: others lie in a heap, where a damaged byte can hold HDF5 for ever.
            file.attrs[key] = np.bytes_(value) if isinstance(value, str) else value
        for name, dtype in DTYPES.items():
            file.create_dataset(name, data=np.ascontiguousarray(columns[name], dtype=dtype))
    data = image.getvalue()
    stop = start + n_graphs
    name = shard_name(split, start, stop)
    write_atomically(folder / name, data)
    return ShardEntry(name, start, stop, len(data), hashlib.sha256(data).hexdigest(), content)


def graph_part(
    op: NDArray[Any],
    cell: NDArray[Any],
    edge_index: NDArray[np.int64],
    code: NDArray[Any],
    width: Sequence[int],
    num_params: Sequence[int],
    key: NDArray[np.uint64],
) -> Part | None:
    """One graph as a part of a shard; None where it does not fit the format."""
    packed = np.empty(3 * edge_index.shape[1] + len(op), np.uint8)
    end = pack_edges(op, *edge_index, packed, 0) if len(op) <= MAX_NODES else -1
    if end < 0:
        return None
    sizes = np.bincount(cell)
    lengths = np.array([[len(op), len(sizes), end, len(code)]])
    return (lengths, op, sizes, packed[:end], code, *(np.atleast_2d(row) for row in (width, num_params, key)))


def join_parts(parts: Sequence[Part]) -> dict[str, NDArray[Any]]:
    """The columns of a shard from those of its graphs, in order."""
    names = (*RAGGED, "width", "num_params", "key")
    lengths, *values = (np.concatenate(column) for column in zip(*parts, strict=True))
    columns = {name: column.astype(DTYPES[name]) for name, column in zip(names, values, strict=True)}
    for name, length in zip(RAGGED, lengths.T, strict=True):
        columns[f"{name}_offset"] = np.concatenate([[0], np.cumsum(length)]).astype(DTYPES[f"{name}_offset"])
    return columns


def content_checksum(columns: Columns) -> str:
    """SHA-256 over names, shapes and values of all columns."""
    digest = hashlib.sha256()
    for name, dtype in sorted(DTYPES.items()):
        values = np.ascontiguousarray(columns[name], dtype=dtype)
        digest.update(f"{name} {dtype.str} {values.shape}\n".encode())
        digest.update(values.data if values.size else b"")
    return digest.hexdigest()


def open_split(root: str | Path, split: str) -> ShardReader:
    """Open a finished split; raises `BadInput` where there is none."""
    return ShardReader(root, split)


class Shard:
    """One mapped shard file. Pages are read when touched; a fork may inherit it and a pickle reopens it."""

    def __init__(self, path: Path, split: str, start: int, stop: int) -> None:
        self.path = path
        self._arguments = (path, split, start, stop)
        n_graphs = stop - start
        with reading(path, "a shard"):
            attributes, self.columns = _map_columns(path)
            for name, value in {"split": split, "start": start, "stop": stop}.items():
                if attributes[name] != value:
                    raise CorruptFile(f"{path} is not the file its name says: {name} is {attributes[name]}.")
            self.dataset_version = attributes["dataset_version"]
            self.content = attributes["content"]
            self.names = {int(i): str(name) for i, name in json.loads(attributes["names"]).items()}
        for name in RAGGED:
            offsets = self.columns[f"{name}_offset"]
            ends = len(offsets) == n_graphs + 1 and offsets[0] == 0 and offsets[-1] == len(self.columns[name])
            if not ends or np.any(offsets[1:] < offsets[:-1]):
                raise CorruptFile(f"{path} has offsets of '{name}' that are out of range.")
        for name in ("width", "num_params", "key"):
            if self.columns[name].shape != (n_graphs, 2):
                raise CorruptFile(f"{path} has a column '{name}' of the wrong shape.")

    def __reduce__(self) -> tuple[Any, ...]:
        return Shard, self._arguments

    def entry(self) -> ShardEntry:
        """The entry of this file in a manifest; reads all of it."""
        _, _, start, stop = self._arguments
        data = self.path.read_bytes()
        content = content_checksum(self.columns)
        return ShardEntry(self.path.name, start, stop, len(data), hashlib.sha256(data).hexdigest(), content)

    def record(self, i: int, index: int) -> GraphRecord:
        """Graph i of this shard, checked; raises `CorruptFile`."""
        problem, op, cell, edge_index, encoded = unpack(*(self._part(name, i) for name in RAGGED))
        name = self.names.get(i)
        if problem or (len(encoded) == 0) != (name is not None):
            what = PROBLEMS[problem or len(PROBLEMS) - 1]
            raise CorruptFile(f"{self.path} holds {what} in graph {index}; generate it again.")
        width, num_params = self.columns["width"][i].tolist(), self.columns["num_params"][i].tolist()
        return GraphRecord(index, name, encoded, op, cell, edge_index, tuple(width), tuple(num_params))

    def _part(self, name: str, i: int) -> NDArray[Any]:
        offsets = self.columns[f"{name}_offset"]
        return self.columns[name][offsets[i] : offsets[i + 1]]


class ShardReader(Sequence[GraphRecord]):
    """The graphs of a finished split, by number. Shards are opened when first needed."""

    def __init__(self, root: str | Path, split: str) -> None:
        self.folder = Path(root) / split
        self.manifest = read_manifest(root, split)
        self.split = split
        self._starts = np.array([entry.start for entry in self.manifest.shards])
        self._shards: dict[int, Shard] = {}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_shards": {}}

    def __len__(self) -> int:
        return self.manifest.count

    @overload
    def __getitem__(self, index: int) -> GraphRecord: ...

    @overload
    def __getitem__(self, index: slice) -> list[GraphRecord]: ...

    def __getitem__(self, index: int | slice) -> GraphRecord | list[GraphRecord]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        i = int(index)
        i = i + len(self) if i < 0 else i
        if not 0 <= i < len(self):
            raise IndexError(f"Split '{self.split}' has {len(self)} graphs; there is no number {index}.")
        number = i // self.manifest.shard_size
        return self.shard(number).record(i - self.manifest.shards[number].start, i)

    def shard(self, number: int) -> Shard:
        """A shard, opened and checked against the manifest; raises `CorruptFile`."""
        shard = self._shards.get(number)
        if shard is None:
            entry = self.manifest.shards[number]
            if fault := entry.new_fault(self.folder):
                raise CorruptFile(fault)
            shard = Shard(self.folder / entry.file, self.split, entry.start, entry.stop)
            self._shards[number] = shard
        return shard

    def shards(self) -> Iterator[Shard]:
        """All shards in order, each opened for as long as the caller keeps it."""
        for number in range(len(self.manifest.shards)):
            known = number in self._shards
            yield self.shard(number)
            if not known:
                del self._shards[number]

    def node_counts(self) -> NDArray[np.int64]:
        """[len] nodes of each graph, which depend neither on widths nor on the size of images."""
        return np.concatenate(
            [np.diff(shard.columns["op_offset"].astype(np.int64)) for shard in self.shards()]
        )

    def column(self, name: str) -> NDArray[Any]:
        """A column without offsets, all graphs together: width, num_params or key [len, 2]."""
        return np.concatenate([np.array(shard.columns[name]) for shard in self.shards()])


def _map_columns(path: Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Attributes of a shard file, and its columns as views of the mapped file; raises anything."""
    with h5py.File(path, "r", locking=False) as file:
        attributes = plain_attributes(file)
        layout = {
            name: (item.dtype, item.shape, item.id.get_offset())
            for name in DTYPES
            # Other links lead elsewhere, even to other files.
            if isinstance(file.get(name, getlink=True), h5py.HardLink)
            and isinstance(item := file[name], h5py.Dataset)
        }
    if attributes.get("format") != FORMAT:
        raise CorruptFile(f"{path} is an HDF5 file, but not one of deepnets-bench.")
    check_version(path, attributes.get("format_version"))
    with open(path, "rb") as handle:
        mapped = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
    columns = {}
    for name, dtype in DTYPES.items():
        found, shape, offset = layout.get(name, (None, (), None))
        size = int(np.prod(shape, dtype=object))
        start = (offset or 0) if size else 0  # no space is allocated for an empty column
        end = start + size * dtype.itemsize
        if found != dtype or not shape or end > len(mapped) or (size and not start):
            raise CorruptFile(f"{path} lacks a sound column '{name}'.")
        values = np.frombuffer(mapped, dtype, size, start).reshape(shape)
        columns[name] = values if values.flags.aligned else values.copy()
    return attributes, columns


def plain_attributes(file: h5py.File) -> dict[str, Any]:
    """The attributes that are one integer or one text of fixed length; HDF5 cannot be trusted with others."""
    plain: dict[str, Any] = {}
    for name in file.attrs:
        attribute = file.attrs.get_id(name)
        kind = attribute.get_type()
        if attribute.shape != ():
            continue
        if isinstance(kind, h5py.h5t.TypeIntegerID):
            plain[name] = int(file.attrs[name])
        elif isinstance(kind, h5py.h5t.TypeStringID) and not kind.is_variable_str():
            plain[name] = file.attrs[name].decode()
    return plain

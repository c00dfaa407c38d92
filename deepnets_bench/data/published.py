"""Import of the officially released DeepNets-1M files into our shards (no torch).

The released files (Knyazev et al., NeurIPS 2021) are `deepnets1m_*_meta.json`, alone or in
`deepnets1m_meta.tar.gz`, with the architectures, and `deepnets1m_*.hdf5` with a group `<split>/<index>` a
graph: `adj` uint8 [N, N] of distances and `nodes` uint16 [N, 3] of primitive, cell and name. Graphs are
rebuilt from the architectures, because the stored ones have known defects (attention and excitation nodes
that are missing, rows in another order than the adjacency); with the HDF5 files given, the two are compared
and differences counted by kind.
"""

from __future__ import annotations

import json
import shutil
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple

import h5py
import numpy as np
from filelock import FileLock, Timeout

from deepnets_bench import __version__
from deepnets_bench.architecture import Architecture, decode, encode
from deepnets_bench.compiler.canonical import canonical_key
from deepnets_bench.data.graph_codec import MAX_NODES
from deepnets_bench.data.manifest import (
    LOCK,
    PUBLISHED_VERSION,
    Manifest,
    finished_splits,
    read_manifest,
    write_manifest,
)
from deepnets_bench.data.published_graphs import StoredNames, compare
from deepnets_bench.data.shards import Part, graph_part, join_parts, write_shard
from deepnets_bench.errors import BadInput, CorruptFile, RunFailed, UnknownName
from deepnets_bench.graphs.graph import ComputationGraph
from deepnets_bench.system.files import reading

# Factors of the stored width in CIFAR-10 and in ImageNet form; None: the split stores no widths.
SPLITS: dict[str, tuple[int, int] | None] = {
    "train": None,
    "search": None,
    **dict.fromkeys(("val", "test", "deep", "dense", "bnfree"), (1, 1)),
    "wide": (4, 2),
}
TRAINING_WIDTH = 32  # what the released training networks are counted at
_FORMS = (("cifar10", 32, 10), ("imagenet", 224, 1000))
_SHARD_SIZE = 10_000


class _Network(NamedTuple):
    """One entry of a metadata file, small enough to hold a million."""

    code: bytes  # int32, `architecture.encode`
    width: int | None
    num_nodes: int | None
    num_params: tuple[int | None, ...]  # by form


@dataclass
class ImportReport:
    """What was found of one split: graphs read, graphs compared, and by kind (graphs, items) that differ."""

    split: str
    count: int
    compared: int = 0
    equal: int = 0
    graphs: Counter[str] = field(default_factory=Counter)
    items: Counter[str] = field(default_factory=Counter)

    def add(self, found: Mapping[str, int]) -> None:
        """Count the differences of one graph."""
        for kind, number in found.items():
            self.graphs[kind] += 1
            self.items[kind] += number


class _Split(NamedTuple):
    """A split of a metadata file; an entry that is no architecture is the error it raised."""

    file: str
    networks: list[_Network | BadInput]
    names: StoredNames


def import_published(
    files: Sequence[str | Path],
    root: str | Path,
    on_graphs: Callable[[int, int], None] | None = None,
) -> list[ImportReport]:
    """Turn released files into splits of our own under `root`, marked with dataset version 0.

    `files` are metadata (.json, or archives of them) and any number of HDF5 files. All splits of the
    metadata are imported; `on_graphs(done, total)` is called now and then. Raises `BadInput` where a split
    exists already or a file is not of the released form, and then leaves `root` as it was but for splits
    that were finished before.
    """
    root = Path(root)
    metadata = [Path(file) for file in files if not _is_hdf5(Path(file))]
    if not metadata:
        raise BadInput("import needs a metadata file, deepnets1m_*_meta.json or deepnets1m_meta.tar.gz.")
    splits = _read_metadata(metadata)
    _refuse_existing(root, splits)
    total = sum(len(split.networks) for split in splits.values())
    done = 0
    reports = []
    with ExitStack() as stack:
        stored = _open_graphs([Path(file) for file in files if _is_hdf5(Path(file))], stack)
        if unknown := sorted(stored.keys() - splits.keys()):
            raise BadInput(f"{stored[unknown[0]].filename} holds split '{unknown[0]}', the metadata do not.")
        try:
            root.mkdir(parents=True, exist_ok=True)
            stack.enter_context(FileLock(root / LOCK, timeout=0))
            _refuse_existing(root, splits)
            for name, split in splits.items():
                report = ImportReport(name, len(split.networks))
                folder = root / f".{name}.import.tmp"
                shutil.rmtree(folder, ignore_errors=True)  # of an import that was killed
                folder.mkdir()
                try:
                    entries = []
                    for start in range(0, len(split.networks), _SHARD_SIZE):
                        stop = min(start + _SHARD_SIZE, len(split.networks))
                        columns = _columns(name, split, range(start, stop), stored.get(name), report)
                        entries.append(write_shard(folder, name, start, columns, PUBLISHED_VERSION))
                        done += stop - start
                        if on_graphs is not None:
                            on_graphs(done, total)
                    manifest = Manifest(name, PUBLISHED_VERSION, __version__, _SHARD_SIZE, tuple(entries))
                    write_manifest(folder, manifest)
                    folder.rename(root / name)
                finally:
                    shutil.rmtree(folder, ignore_errors=True)
                reports.append(report)
        except Timeout:
            raise RunFailed(f"Another process is writing to {root}; wait until it ends.") from None
        except (PermissionError, NotADirectoryError, FileExistsError) as error:
            raise BadInput(f"{root} is not a folder this user can write to ({error.strerror}).") from error
        except OSError as error:
            raise RunFailed(f"Writing to {root} failed: {error.strerror or error}.") from error
    return reports


def _refuse_existing(root: Path, splits: Mapping[str, _Split]) -> None:
    for name in splits:
        if (root / name).exists():
            raise BadInput(
                f"{root / name} exists and import overwrites nothing; choose another folder (--out)."
            )
    for name in finished_splits(root):
        if read_manifest(root, name).dataset_version != PUBLISHED_VERSION:
            raise BadInput(
                f"{root} holds generated splits, which do not mix with released ones; "
                "choose another folder (--out)."
            )


def _is_hdf5(path: Path) -> bool:
    return path.suffix in (".hdf5", ".h5")


def _read_metadata(paths: Sequence[Path]) -> dict[str, _Split]:
    splits: dict[str, _Split] = {}
    for path in paths:
        with reading(path, "an archive" if path.suffix != ".json" else "a JSON file"):
            for name, file in _json_files(path):
                for split, found in _read_json(name, file).items():
                    if split in splits:
                        raise BadInput(f"Both {splits[split].file} and {name} hold split '{split}'.")
                    splits[split] = found
    if not splits:
        raise BadInput(f"{paths[0]} holds no metadata of DeepNets-1M.")
    return splits


def _json_files(path: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """The JSON files that a path stands for: itself, or the members of an archive."""
    if path.suffix == ".json":
        with open(path, "rb") as file:
            yield str(path), file
    elif path.name.endswith((".tar.gz", ".tgz", ".tar")):
        with tarfile.open(path) as archive:
            for member in archive:
                inside = archive.extractfile(member) if member.name.endswith("_meta.json") else None
                if inside is not None:
                    yield f"{path}:{member.name}", inside
    else:
        raise BadInput(f"{path} is none of .json, .tar.gz, .tgz, .tar, .hdf5 and .h5.")


def _read_json(name: str, file: IO[bytes]) -> dict[str, _Split]:
    with reading(name, "a JSON file"):
        data = json.load(file, object_hook=_shrink)
    if not isinstance(data, dict):
        raise CorruptFile(f"{name} is not a metadata file of DeepNets-1M.")
    splits = {}
    for split, content in data.items():
        if split not in SPLITS:
            raise UnknownName("split", split, SPLITS, f"in {name}")
        networks = content.get("nets") if isinstance(content, dict) else None
        whole = isinstance(networks, list) and all(isinstance(n, (_Network, BadInput)) for n in networks)
        if not networks or not whole:
            raise CorruptFile(f"{name} lists no networks of split '{split}' as the released files do.")
        splits[split] = _Split(name, networks, StoredNames.from_json(content.get("meta")))
    return splits


def _shrink(data: dict[str, Any]) -> Any:
    """Called for every JSON object: one that describes a network becomes a `_Network`."""
    if "genotype" not in data:
        return data
    try:
        code = encode(Architecture.from_dict(data)).tobytes()
        counts = data.get("num_params", {})
        if not isinstance(counts, dict):
            counts = {"cifar10": counts}
        num_params = tuple(_count(counts, form) for form, _, _ in _FORMS)
        return _Network(code, _count(data, "C"), _count(data, "num_nodes"), num_params)
    except BadInput as error:
        return error


def _count(data: Mapping[str, Any], key: str) -> int | None:
    value = data.get(key)
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    raise BadInput(f"{key} must be a whole number, not {value!r}.")


def _open_graphs(paths: Sequence[Path], stack: ExitStack) -> dict[str, StoredSplit]:
    found: dict[str, StoredSplit] = {}
    for path in paths:
        with reading(path, "an HDF5 file"):
            if not path.exists():
                raise BadInput(f"{path} does not exist.")
            file = stack.enter_context(h5py.File(path, "r", locking=False))
            groups = {name: group for name, group in file.items() if isinstance(group, h5py.Group)}
        if not groups:
            raise CorruptFile(f"{path} is an HDF5 file, but holds no split of DeepNets-1M.")
        for name, group in groups.items():
            if name in found:
                raise BadInput(f"Both {found[name].filename} and {path} hold split '{name}'.")
            found[name] = StoredSplit(str(path), group)
    return found


class StoredSplit(NamedTuple):
    """The group of a split in a released HDF5 file."""

    filename: str
    group: Any

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray] | None:
        """(adj [N, N], nodes [N, 3]) of a graph; None where there is none, `CorruptFile` for another form."""
        foreign = CorruptFile(f"{self.filename} holds no graph of DeepNets-1M at {self.group.name}/{index}.")
        with reading(self.filename, f"an HDF5 file with a graph at {self.group.name}/{index}"):
            group = self.group.get(str(index))
            if group is None:
                return None
            stored = group["adj"], group["nodes"]
            n = stored[1].shape[0]
            sound = all(data.dtype.kind in "iu" for data in stored) and n <= MAX_NODES
            if not sound or stored[0].shape != (n, n) or stored[1].shape != (n, 3):
                raise foreign  # before memory is taken for it
            adj, nodes = (data[()] for data in stored)
        if n and (adj.min() < 0 or adj.max() > MAX_NODES or nodes.min() < 0 or nodes.max() >= 2**31):
            raise foreign
        return adj.astype(np.int64), nodes.astype(np.int64)


def _columns(
    name: str, split: _Split, indices: range, stored: StoredSplit | None, report: ImportReport
) -> dict[str, np.ndarray]:
    """The columns of a shard; differences are added to the report."""
    parts: list[Part] = []
    for index in indices:
        network = split.networks[index]
        try:
            if isinstance(network, BadInput):
                raise network
            arch = decode(np.frombuffer(network.code, np.int32))
            widths = _widths(name, network)
            graph, counts = _rebuild(arch, widths)
        except BadInput as error:
            raise BadInput(f"Network {index} of split '{name}' in {split.file}: {error}") from error
        code = encode(arch)
        key = np.array(canonical_key(code), np.uint64)
        part = graph_part(graph.op, graph.cell, graph.edge_index, code, widths, counts, key)
        if part is None:
            raise BadInput(f"Network {index} of split '{name}' in {split.file} is too large to store.")
        parts.append(part)

        differences = {
            f"num_params {form}": 1
            for (form, _, _), ours, theirs in zip(_FORMS, counts, network.num_params, strict=True)
            if theirs is not None and theirs != ours
        }
        if network.num_nodes is not None and network.num_nodes != graph.num_nodes:
            differences["num_nodes"] = abs(network.num_nodes - graph.num_nodes)
        report.add(differences)
        if stored is not None:
            pair = stored.read(index)
            found = {"no stored graph": 1} if pair is None else compare(graph, *pair, split.names)
            report.add(found)
            report.compared += 1
            report.equal += not found
    return join_parts(parts)


def _widths(split: str, network: _Network) -> tuple[int, int]:
    factors = SPLITS[split]
    if factors is None:
        return TRAINING_WIDTH, TRAINING_WIDTH
    if network.width is None:
        raise BadInput(
            "it has no width C, as files of the released generator lack it but released files do not."
        )
    if not 0 < network.width < 2**13:
        raise BadInput(f"C must be a whole number from 1 to 8191, not {network.width}.")
    return network.width * factors[0], network.width * factors[1]


def _rebuild(arch: Architecture, widths: tuple[int, int]) -> tuple[ComputationGraph, tuple[int, ...]]:
    """The graph (in CIFAR-10 form, as stored in our shards) and the parameters in both forms."""
    programs = [
        arch.program(width, size, classes) for width, (_, size, classes) in zip(widths, _FORMS, strict=True)
    ]
    if not all(program.valid for program in programs):
        raise BadInput("nothing leads from its input to its logits.")
    return ComputationGraph.from_program(programs[0]), tuple(program.num_params for program in programs)

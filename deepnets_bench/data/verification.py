"""Proof that a dataset folder is whole and right: checksums, every graph, disjoint splits (no torch)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deepnets_bench.compiler import instructions as ir
from deepnets_bench.compiler.canonical import canonical_key
from deepnets_bench.compiler.jit import kernel
from deepnets_bench.compiler.lowering import count_params, emit, live_rows
from deepnets_bench.data.graph_codec import PROBLEMS, unpack
from deepnets_bench.data.manifest import SUFFIX, Manifest, finished_splits, no_finished_split, read_manifest
from deepnets_bench.data.shards import RAGGED, Shard, content_checksum
from deepnets_bench.errors import CorruptFile
from deepnets_bench.graphs.folding import assemble

Keys = NDArray[np.uint64]

# Pairs that may share architectures: wide is made of test's, and only evaluation has to be unseen.
MAY_SHARE = ({"test", "wide"}, {"train", "search"})
_PROBLEMS = (
    *PROBLEMS,
    "a graph that is not its architecture's",
    "a key that is not its architecture's",
    "a number of parameters that is not its architecture's",
)


@dataclass(frozen=True)
class SplitReport:
    """What was found of one split; `duplicates` counts graphs equal to an earlier one of the split."""

    manifest: Manifest
    bytes: int
    duplicates: int


@dataclass(frozen=True)
class Verification:
    """`problems` is empty where all is well; each is one sentence."""

    splits: tuple[SplitReport, ...]
    problems: tuple[str, ...]


def verify(root: str | Path, on_shard: Callable[[int, int], None] | None = None) -> Verification:
    """Read all splits under `root` and check everything that can be checked.

    Lengths and checksums of all files against the manifests, missing and unlisted shards, every graph
    against its architecture, keys, numbers of parameters, and that no architecture occurs in two splits
    that must be disjoint. `on_shard(graphs done, graphs in all)` is called after each shard. Raises
    `BadInput` where there is no finished split.
    """
    root = Path(root)
    names = finished_splits(root)
    if not names:
        raise no_finished_split(root)
    problems = [
        f"{folder} holds shards but no manifest; generate it again to finish it."
        for folder in sorted({path.parent for path in root.glob(f"*/*{SUFFIX}")})
        if folder.name not in names
    ]
    manifests = []
    for name in names:
        try:
            manifests.append(read_manifest(root, name))
        except CorruptFile as error:
            problems.append(str(error))
    if len({manifest.dataset_version for manifest in manifests}) > 1:
        problems.append(f"{root} mixes dataset versions.")
    done, total = 0, sum(manifest.count for manifest in manifests)
    reports, keys = [], {}
    for manifest in manifests:
        folder = root / manifest.split
        listed = {entry.file for entry in manifest.shards}
        extra = sorted(path for path in folder.glob(f"*{SUFFIX}") if path.name not in listed)
        problems += [f"{path} is not listed in the manifest." for path in extra]
        parts = []
        for number, entry in enumerate(manifest.shards):
            try:
                parts.append(_verify_shard(folder, manifest, number))
            except CorruptFile as error:
                problems.append(str(error))
            done += entry.stop - entry.start
            if on_shard is not None:
                on_shard(done, total)
        keys[manifest.split] = np.concatenate([np.empty((0, 2), np.uint64), *parts])
        size = sum(entry.bytes for entry in manifest.shards)
        reports.append(SplitReport(manifest, size, count_duplicates(keys[manifest.split])))
    problems += _overlaps(keys)
    return Verification(tuple(reports), tuple(problems))


def count_duplicates(keys: Keys) -> int:
    """Number of rows of [n, 2] that occurred before."""
    ordered = keys[np.lexsort((keys[:, 1], keys[:, 0]))]
    return int((ordered[1:] == ordered[:-1]).all(axis=1).sum())


def count_shared(keys: Keys, others: Keys) -> int:
    """Number of different rows that occur in both [n, 2] and [m, 2]."""
    candidates = keys[np.isin(keys[:, 0], others[:, 0])]
    return len({tuple(row) for row in candidates.tolist()} & {tuple(row) for row in others.tolist()})


def _verify_shard(folder: Path, manifest: Manifest, number: int) -> Keys:
    """Keys [n, 2] of a sound shard; raises `CorruptFile`."""
    entry = manifest.shards[number]
    path = folder / entry.file
    if fault := entry.fault(folder):
        raise CorruptFile(fault)
    shard = Shard(path, manifest.split, entry.start, entry.stop)
    columns = shard.columns
    if shard.dataset_version != manifest.dataset_version or content_checksum(columns) != entry.content:
        raise CorruptFile(f"{path} is not the shard its manifest lists.")
    named = np.zeros(entry.stop - entry.start, np.bool_)
    named[[i for i in shard.names if 0 <= i < len(named)]] = True
    problem, i = _first_problem(
        tuple(columns[name] for name in RAGGED),
        tuple(columns[f"{name}_offset"] for name in RAGGED),
        (columns["width"], columns["num_params"], columns["key"], named),
    )
    if problem:
        raise CorruptFile(f"{path} holds {_PROBLEMS[problem]} in graph {entry.start + i}; generate it again.")
    return np.array(columns["key"])


def _overlaps(keys: dict[str, Keys]) -> list[str]:
    problems = []
    for a, b in combinations(sorted(keys), 2):
        if {a, b} not in MAY_SHARE and (shared := count_shared(keys[a], keys[b])):
            problems.append(f"{shared} architectures occur both in {a} and in {b}.")
    if {"test", "wide"} <= keys.keys():
        n = min(len(keys["test"]), len(keys["wide"]))
        if not np.array_equal(keys["test"][:n], keys["wide"][:n]):
            problems.append("wide is not made of the first architectures of test.")
    return problems


@kernel()
def _first_problem(ragged, offsets, rows):  # type: ignore[no-untyped-def]
    """(index into _PROBLEMS, graph) of the first unsound graph of a shard; (0, -1) where there is none."""
    op, cell_size, edge, architecture = ragged
    op_at, cell_at, edge_at, architecture_at = offsets
    width, num_params, key, named = rows
    for i in range(len(key)):
        problem, primitives, cell, edge_index, code = unpack(
            op[op_at[i] : op_at[i + 1]],
            cell_size[cell_at[i] : cell_at[i + 1]],
            edge[edge_at[i] : edge_at[i + 1]],
            architecture[architecture_at[i] : architecture_at[i + 1]],
        )
        if problem:
            return problem, i
        if (len(code) == 0) != named[i]:
            return 4, i
        if named[i]:
            continue
        cifar, imagenet, fc_dim = np.int64(width[i, 0]), np.int64(width[i, 1]), np.int64(code[ir.FC_DIM])
        table, args, rows, n_args, valid = emit(code, cifar, np.int64(32), np.int64(10), fc_dim)
        if not valid or count_params(table, rows) != num_params[i, 0]:
            return 7, i
        table, args = table[:rows], args[:n_args]
        rebuilt_op, rebuilt_cell, _, rebuilt_edges = assemble(table, args, live_rows(table, args))
        if (
            len(rebuilt_op) != len(primitives)
            or rebuilt_edges.shape != edge_index.shape
            or not np.all(rebuilt_op == primitives)
            or not np.all(rebuilt_cell == cell)
            or not np.all(rebuilt_edges == edge_index)
        ):
            return 5, i
        table, args, rows, n_args, valid = emit(code, imagenet, np.int64(224), np.int64(1000), fc_dim)
        if count_params(table, rows) != num_params[i, 1]:
            return 7, i
        high, low = canonical_key(code)
        if key[i, 0] != high or key[i, 1] != low:
            return 6, i
    return 0, -1

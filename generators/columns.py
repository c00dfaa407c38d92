"""From random streams to the columns of a shard, at numba speed."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepnets_bench.architecture import encode
from deepnets_bench.compiler.canonical import canonical_key
from deepnets_bench.compiler.jit import kernel
from deepnets_bench.compiler.lowering import live_rows
from deepnets_bench.data.graph_codec import MAX_NODES, pack_edges
from deepnets_bench.data.shards import Part, graph_part, join_parts
from deepnets_bench.errors import RunFailed
from deepnets_bench.generators.recipes import (
    CIFAR_CLASSES,
    CIFAR_SIZE,
    IMAGENET_CLASSES,
    IMAGENET_SIZE,
    WIDTH,
    Split,
    draw,
    evaluation_width,
    key_share,
    num_params,
    stream_key,
)
from deepnets_bench.graphs.folding import assemble
from deepnets_bench.predefined import ResNet50, predefined

Columns = dict[str, NDArray[Any]]

_STRIDE = 500  # graphs between two looks at the clock and at Ctrl-C


def sampled_columns(split: Split, start: int, stop: int, dataset_version: int) -> Columns:
    """The columns of graphs start..stop-1 of a sampled split; raises `RunFailed` for a graph too large."""
    key, share = stream_key(split, dataset_version), key_share(split)
    parts: list[Part] = []
    for first in range(start, stop, _STRIDE):
        last = min(first + _STRIDE, stop)
        parts.append(_columns(key, first, last, split.recipe, share, split.evaluation, split.scale))
        if len(parts[-1][0]) == 0:
            raise RunFailed(f"A graph of '{split.name}' from {first} to {last - 1} is too large to store.")
    return join_parts(parts)


def predefined_columns() -> tuple[Columns, dict[int, str]]:
    """The columns of the predefined split, and the names of its networks that have no encoding."""
    parts: list[Part] = []
    names = {}
    for i, (arch, width) in enumerate(predefined()):
        encoded = np.empty(0, np.int32)
        key = np.frombuffer(bytes.fromhex(arch.fingerprint()), "<u8")
        if isinstance(arch, ResNet50):
            names[i] = "resnet50"
        else:
            encoded = encode(arch)
            key = np.array(canonical_key(encoded), np.uint64)
        graph = arch.graph(width=width, image_size=CIFAR_SIZE, num_classes=CIFAR_CLASSES)
        counts = [
            arch.program(width=width, image_size=size, num_classes=classes).num_params
            for size, classes in ((CIFAR_SIZE, CIFAR_CLASSES), (IMAGENET_SIZE, IMAGENET_CLASSES))
        ]
        part = graph_part(graph.op, graph.cell, graph.edge_index, encoded, (width, width), counts, key)
        if part is None:
            raise RunFailed(f"Graph {i} of the predefined split is too large to store.")
        parts.append(part)
    return join_parts(parts), names


@kernel()
def _columns(key, start, stop, recipe, share, evaluation, scale):  # type: ignore[no-untyped-def]
    """(lengths [n, 4] of the ragged columns, these columns, width, num_params, key); empty where a graph
    does not fit."""
    n = stop - start
    lengths = np.zeros((n, 4), np.int64)
    width = np.full((n, 2), WIDTH, np.int64)
    counts = np.empty((n, 2), np.int64)
    keys = np.empty((n, 2), np.uint64)
    ops = np.empty(256 * n, np.uint8)
    sizes = np.empty(16 * n, np.uint16)
    packed = np.empty(512 * n, np.uint8)
    codes = np.empty(64 * n, np.uint16)
    used = np.zeros(4, np.int64)
    for i in range(n):
        code, table, args, counts[i, 0], counts[i, 1] = draw(key, np.uint64(start + i), recipe, share)
        op, cell, _, edges = assemble(table, args, live_rows(table, args))
        n_cells = np.int64(cell[-1]) + 1
        if len(op) > MAX_NODES:
            return lengths[:0], ops, sizes, packed, codes, width, counts, keys
        ops = _grown(ops, used[0] + len(op))
        sizes = _grown(sizes, used[1] + n_cells)
        packed = _grown(packed, used[2] + 3 * edges.shape[1] + len(op))
        codes = _grown(codes, used[3] + len(code))
        ops[used[0] : used[0] + len(op)] = op
        sizes[used[1] : used[1] + n_cells] = 0
        for c in cell:
            sizes[used[1] + c] += 1
        end = pack_edges(op, edges[0], edges[1], packed, used[2])
        if end < 0:
            return lengths[:0], ops, sizes, packed, codes, width, counts, keys
        codes[used[3] : used[3] + len(code)] = code
        lengths[i, 0], lengths[i, 1] = len(op), n_cells
        lengths[i, 2], lengths[i, 3] = end - used[2], len(code)
        used += lengths[i]
        if evaluation:
            base = evaluation_width(code, counts[i, 0])
            width[i, 0], width[i, 1] = base * scale[0], base * scale[1]
            counts[i, 0] = num_params(code, width[i, 0], CIFAR_SIZE, CIFAR_CLASSES)
            counts[i, 1] = num_params(code, width[i, 1], IMAGENET_SIZE, IMAGENET_CLASSES)
        keys[i, 0], keys[i, 1] = canonical_key(code)
    return (
        lengths, ops[: used[0]], sizes[: used[1]], packed[: used[2]], codes[: used[3]], width, counts, keys
    )  # fmt: skip


@kernel()
def _grown(values, needed):  # type: ignore[no-untyped-def]
    """The values in an array of at least the needed length."""
    if needed <= len(values):
        return values
    larger = np.empty(max(needed, 2 * len(values)), values.dtype)
    larger[: len(values)] = values
    return larger

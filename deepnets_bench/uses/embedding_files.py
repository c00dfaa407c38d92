"""Files of node embeddings: what a trained hypernetwork makes of the graphs of evaluation splits."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deepnets_bench.errors import UnknownName
from deepnets_bench.system.files import replacing
from deepnets_bench.system.locks import writable
from deepnets_bench.uses.sizes import evaluated_sizes

if TYPE_CHECKING:
    from deepnets_bench.ghn.model import GHN
    from deepnets_bench.graphs.graph import ComputationGraph
    from deepnets_bench.harness.protocol.tracks import Track

FORMAT = "deepnets-bench embeddings 1"


def evaluation_graphs(
    track: Track, splits: Sequence[str], count: int, data: Path, num_classes: int
) -> dict[str, list[ComputationGraph]]:
    """{split: graphs of its first `count` architectures, all if there are fewer}, built as `track` evaluates
    them.

    Splits are generated in `data` where they are missing. Raises `UnknownName` for one the track lacks.
    """
    from deepnets_bench.generators.generation import generate
    from deepnets_bench.graphs.graph import ComputationGraph
    from deepnets_bench.harness.training.splits import StoredArchitectures, load_networks

    known = track.evaluation.splits
    for split in splits:
        if split not in known:
            raise UnknownName("split", split, known, f"of track '{track.name}'")
    generate(list(splits), data, workers=1, dataset_version=track.dataset_version)
    found = {}
    for split in splits:
        held = min(count, len(StoredArchitectures(data, split, count).node_counts()))
        found[split] = [
            ComputationGraph.from_program(
                network.program(**evaluated_sizes(track, split, network.widths, num_classes))
            )
            for network in load_networks(data, split, held)
        ]
    return found


def write_embeddings(
    path: Path,
    ghn: GHN,
    graphs: Mapping[str, Sequence[ComputationGraph]],
    about: Mapping[str, Any],
    nodes: bool = True,
) -> None:
    """Write a compressed .npz file, whole or not at all: for each split `SPLIT/mean`, float32 [graphs, hid].

    With `nodes` also the state of every node, `SPLIT/nodes`, float32 [nodes of all graphs, hid], and
    `SPLIT/ptr`, int64 [graphs + 1]: graph i has the nodes from ptr[i] to ptr[i + 1]. States are those of
    `GHN.node_states`. `about` (plain values) is kept as JSON in `about`; the same input gives the same bytes.
    Raises `BadInput` for a path that cannot be written.
    """
    from deepnets_bench.uses.properties.embeddings import mean_embeddings, node_embeddings

    arrays: dict[str, np.ndarray] = {
        "about": np.array(json.dumps({"format": FORMAT, **about}, sort_keys=True))
    }
    for split, of in graphs.items():
        arrays[f"{split}/mean"] = mean_embeddings(ghn, of)
        if nodes:
            states = node_embeddings(ghn, of)
            arrays[f"{split}/nodes"] = np.concatenate(states)
            arrays[f"{split}/ptr"] = np.cumsum([0, *map(len, states)], dtype=np.int64)
    with writable(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def about(checkpoint: Path, ghn: GHN, track: Track) -> dict[str, Any]:
    """What a file of embeddings says of where they come from."""
    return {
        "checkpoint": hashlib.sha256(checkpoint.read_bytes()).hexdigest(),
        "gnn": ghn.config.gnn,
        "gnn_options": dict(ghn.config.gnn_options),
        "track": track.name,
        "track_version": track.version,
        "dataset_version": track.dataset_version,
    }

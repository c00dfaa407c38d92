"""Files of node embeddings: what a trained hypernetwork makes of the graphs of evaluation splits."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from deepnets_bench.errors import BadInput, DeepNetsError, UnknownName
from deepnets_bench.harness.runs.job import GHN_FILE
from deepnets_bench.system.files import reading, replacing
from deepnets_bench.system.locks import writable
from deepnets_bench.uses.sizes import check_image_form, evaluated_sizes

if TYPE_CHECKING:
    from deepnets_bench.ghn.model import GHN
    from deepnets_bench.graphs.graph import ComputationGraph
    from deepnets_bench.harness.protocol.tracks import Track

EMBEDDINGS = "embeddings.npz"  # beside a hypernetwork


class About(BaseModel):
    """Where embeddings come from: a hypernetwork (the SHA-256 of its file), and graphs as a track has them.

    `sizes` are those of `evaluated_sizes` for each split; a width of 0 stands for each network's stored one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["deepnets-bench embeddings 1"] = "deepnets-bench embeddings 1"
    checkpoint: str
    gnn: str
    gnn_options: dict[str, Any]
    gnn_digest: str
    track: str
    track_version: int
    dataset_version: int
    sizes: dict[str, dict[str, int]]


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
    about: About,
    nodes: bool = True,
) -> None:
    """Write a compressed .npz file, whole or not at all: for each split `SPLIT/mean`, float32 [graphs, hid].

    With `nodes` also the state of every node, `SPLIT/nodes`, float32 [nodes of all graphs, hid], and
    `SPLIT/ptr`, int64 [graphs + 1]: graph i has the nodes from ptr[i] to ptr[i + 1]. States are those of
    `GHN.node_states`. `about` is kept as JSON; the same input gives the same bytes. Raises `BadInput` for a
    path that cannot be written.
    """
    from deepnets_bench.uses.embeddings import mean_embeddings, node_embeddings

    arrays: dict[str, np.ndarray] = {"about": np.array(about.model_dump_json())}
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


def about(checkpoint: Path, ghn: GHN, track: Track, splits: Iterable[str]) -> About:
    """What a file says of the embeddings that a hypernetwork, read from `checkpoint`, makes of splits."""
    config = ghn.config
    return About(
        checkpoint=hashlib.sha256(checkpoint.read_bytes()).hexdigest(),
        gnn=config.gnn or config.own_gnn,
        gnn_options=dict(config.gnn_options),
        gnn_digest=config.gnn_digest,
        track=track.name,
        track_version=track.version,
        dataset_version=track.dataset_version,
        sizes={split: _sizes(track, split, config.num_classes) for split in splits},
    )


@dataclass(frozen=True)
class Embeddings:
    """A file of embeddings; `means` are those of the graphs of each split, float32 [graphs, hid]."""

    path: Path
    about: About
    means: Mapping[str, np.ndarray]

    def of(self, track: Track, split: str, index: np.ndarray, num_classes: int) -> np.ndarray:
        """float32 [len(index), hid]: of these graphs, if the file has them as `track` evaluates them.

        Raises `BadInput` where it has them in other sizes or of another dataset, and where it holds fewer.
        """
        means, about = self.means.get(split, ()), self.about
        if len(index) and len(means) <= index.max():
            needed = index.max() + 1
            raise BadInput(
                f"{self.path} has embeddings of {len(means)} graphs of '{split}'; {needed} are needed."
            )
        wanted = _sizes(track, split, num_classes), track.dataset_version
        if (about.sizes.get(split), about.dataset_version) != wanted:
            raise BadInput(
                f"{self.path} has embeddings of graphs of track '{about.track}', which are of other sizes "
                f"than those of '{track.name}'."
            )
        return np.asarray(means)[index]


def read_embeddings(path: Path) -> Embeddings:
    """A file of `write_embeddings`; raises `BadInput` where there is none, `CorruptFile` for another one."""
    with reading(path, "a file of embeddings"), np.load(path, allow_pickle=False) as file:
        about = About.model_validate_json(str(file["about"]))
        means = {name.removesuffix("/mean"): file[name] for name in file.files if name.endswith("/mean")}
        return Embeddings(path, about, means)


class Embedder:
    """Writes files of embeddings of the first `count` graphs of splits, as a track evaluates them.

    Splits are generated in `data` where they are missing; `nodes` as in `write_embeddings`.
    """

    def __init__(self, track: Track, splits: Sequence[str], count: int, data: Path, *, nodes: bool) -> None:
        self._track, self._splits, self._count, self._data = track, splits, count, data
        self._nodes = nodes
        self._graphs: dict[int, dict[str, list[ComputationGraph]]] = {}  # by number of classes

    def write(self, checkpoint: Path, target: Path, trust: bool = False) -> dict[str, int]:
        """Write what a hypernetwork makes of them; returns how many graphs of each split there are.

        Raises what `GHN.load`, `evaluation_graphs` and `write_embeddings` do.
        """
        from deepnets_bench.ghn.model import GHN

        ghn = GHN.load(checkpoint, trust)
        check_image_form(ghn, checkpoint, self._track)
        classes = ghn.config.num_classes
        if classes not in self._graphs:
            self._graphs[classes] = evaluation_graphs(
                self._track, self._splits, self._count, self._data, classes
            )
        graphs = self._graphs[classes]
        write_embeddings(target, ghn, graphs, about(checkpoint, ghn, self._track, graphs), self._nodes)
        return {split: len(of) for split, of in graphs.items()}

    def keep(self, folders: Iterable[Path]) -> list[str]:
        """Write the file beside each hypernetwork that has none, or an older one; returns what failed."""
        failures = []
        for folder in folders:
            path, target = folder / GHN_FILE, folder / EMBEDDINGS
            if not path.exists() or (target.exists() and target.stat().st_mtime >= path.stat().st_mtime):
                continue
            try:
                self.write(path, target, trust=True)  # whoever runs a grid has just run its GNNs
            except DeepNetsError as error:
                failures.append(f"No embeddings of {path}: {error}")
        return failures


def _sizes(track: Track, split: str, num_classes: int) -> dict[str, int]:
    return evaluated_sizes(track, split, (0, 0), num_classes)

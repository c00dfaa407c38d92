"""Search: all architectures of a split ranked by properties predicted from a hypernetwork's embeddings."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from deepnets_bench.errors import BadInput
from deepnets_bench.harness.protocol.tracks import Track
from deepnets_bench.system.files import clear_unfinished, reading, replacing, short_digest
from deepnets_bench.system.locks import writable, write_output
from deepnets_bench.system.pool import carried_out
from deepnets_bench.uses.going_on import Tally, going_on
from deepnets_bench.uses.properties.targets import LOWER_IS_BETTER
from deepnets_bench.uses.sizes import evaluated_sizes

if TYPE_CHECKING:
    from deepnets_bench.ghn.model import GHN
    from deepnets_bench.uses.properties.study import Study

SPLIT = "search"
_NO_WORSE = 0.1  # share of all architectures that is no worse than the best
CHUNK = 2000  # architectures of a file of embeddings


@dataclass(frozen=True)
class ChunkTask:
    """Architectures `start` to `stop` of the split, whose embeddings go into a file."""

    track: Track
    data: Path
    ghn: Path
    trust: bool
    start: int
    stop: int
    path: Path


@dataclass(frozen=True)
class Found:
    """An architecture of the split with its predicted properties."""

    index: int
    fingerprint: str
    predicted: dict[str, float]


def embeddings_of_split(
    track: Track,
    data: Path,
    ghn: Path,
    count: int,
    folder: Path,
    *,
    trust: bool = False,
    workers: int = 1,
    executor: Executor | None = None,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> np.ndarray:
    """float32 [count, hid]: mean node embeddings of the first `count` architectures, made where missing.

    Files of 2,000 are kept in `folder`, in one named by the digests of track and hypernetwork, so that
    an interrupted search goes on. Raises `BadInput` for data that cannot be used, `Interrupted` at Ctrl-C.
    """
    from deepnets_bench.generators.generation import generate

    generate(SPLIT, data, count, workers=workers, dataset_version=track.dataset_version)
    place = folder / f"embeddings-{track.name}-v{track.version}-{track.fingerprint()}-{short_digest(ghn)}"
    with writable(place):
        place.mkdir(parents=True, exist_ok=True)
        clear_unfinished(place)
    tasks = [
        ChunkTask(track, data.absolute(), ghn.absolute(), trust, start, min(start + CHUNK, count), path)
        for start in range(0, count, CHUNK)
        for path in [place.absolute() / f"{start}-{min(start + CHUNK, count)}.npy"]
    ]
    todo = [task for task in tasks if not task.path.exists()]
    tally = Tally(count - sum(task.stop - task.start for task in todo), count, report)
    with going_on(tally, "architectures", "embeddings", place):
        for task in carried_out(embed_chunk, todo, workers, executor):
            tally.add(task.stop - task.start)
    return np.concatenate([_read(task) for task in tasks])


def predict_properties(
    study: Study, ghn: GHN, vectors: np.ndarray, head: str = "svr"
) -> dict[str, np.ndarray]:
    """Properties of architectures with these embeddings, learnt from all labelled ones of a study.

    The code of https://arxiv.org/abs/2110.13100 refits on the training and the test architectures together.
    """
    from deepnets_bench.uses.embeddings import mean_embeddings
    from deepnets_bench.uses.properties.heads import HEADS

    known = np.concatenate([mean_embeddings(ghn, graphs) for graphs in study.graphs])
    train, test = study.targets
    return {
        name: HEADS[head](known, np.concatenate([train.values[name], test.values[name]]), vectors, 0)
        for name in study.names
    }


def best(predicted: dict[str, np.ndarray], name: str, top: int, no_worse: str | None = None) -> list[int]:
    """Indices of the `top` best architectures: highest accuracy, smallest time, earliest convergence.

    With `no_worse`, only among the best tenth by that property. The best one alone would leave no choice, and
    is the best by its error as much as by itself; the median would allow to lose half of what can be had.
    """
    order = np.argsort(_gain(predicted, name), kind="stable")[::-1]
    if no_worse is not None:
        gain = _gain(predicted, no_worse)
        order = order[gain[order] >= np.quantile(gain, 1 - _NO_WORSE)]
    return [int(index) for index in order[:top]]


def pareto_front(predicted: dict[str, np.ndarray], first: str, second: str) -> list[int]:
    """Indices of the architectures that no other beats in one property without losing in the other."""
    a, b = _gain(predicted, first), _gain(predicted, second)
    front, highest = [], -np.inf
    for index in np.lexsort((-b, -a)):  # by the first property, then by the second, best first
        if b[index] > highest:
            front.append(int(index))
            highest = b[index]
    return front


def found(data: Path, indices: Sequence[int], predicted: dict[str, np.ndarray]) -> list[Found]:
    """The architectures at these indices."""
    from deepnets_bench.data.shards import open_split
    from deepnets_bench.harness.training.splits import network_of

    reader = open_split(data, SPLIT)
    return [
        Found(
            index,
            network_of(reader[index]).fingerprint(),
            {name: float(values[index]) for name, values in predicted.items()},
        )
        for index in indices
    ]


def write_found(path: Path, rows: Sequence[Found]) -> None:
    """A CSV file: rank, index, fingerprint and the predicted properties."""
    names = list(rows[0].predicted) if rows else []
    buffer = StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["rank", "split", "index", "fingerprint", *(f"predicted_{name}" for name in names)])
    for rank, row in enumerate(rows, 1):
        values = [f"{row.predicted[name]:.6g}" for name in names]
        writer.writerow([rank, SPLIT, row.index, row.fingerprint, *values])
    write_output(path, buffer.getvalue().encode())


def _gain(predicted: dict[str, np.ndarray], name: str) -> np.ndarray:
    return -predicted[name] if name in LOWER_IS_BETTER else predicted[name]


def embed_chunk(task: ChunkTask) -> ChunkTask:
    """Write the embeddings of a chunk, on one thread; returns the task."""
    import torch

    from deepnets_bench.data.shards import open_split
    from deepnets_bench.graphs.graph import ComputationGraph
    from deepnets_bench.uses.embeddings import mean_embeddings
    from deepnets_bench.uses.initialisation import load_ghn

    torch.set_num_threads(1)
    ghn = load_ghn(task.ghn, task.trust)
    graphs = []
    for record in open_split(task.data, SPLIT)[task.start : task.stop]:
        sizes = evaluated_sizes(task.track, SPLIT, record.width, ghn.config.num_classes)
        graphs.append(ComputationGraph.from_program(record.program(**sizes)))
    vectors = mean_embeddings(ghn, graphs)
    with replacing(task.path) as temporary, temporary.open("wb") as file:
        np.save(file, vectors)
    return task


def _read(task: ChunkTask) -> np.ndarray:
    with reading(task.path, "a file of embeddings"):
        vectors: np.ndarray = np.load(task.path, allow_pickle=False)
        if len(vectors) != task.stop - task.start:
            raise BadInput(f"{task.path} holds {len(vectors)} embeddings; remove it, and search again.")
    return vectors

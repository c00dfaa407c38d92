"""The study: every method on every property, number of labels and seed, each leaving its rows as it ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import kendalltau

from deepnets_bench.errors import BadInput
from deepnets_bench.gnn import identify
from deepnets_bench.graphs.graph import ComputationGraph
from deepnets_bench.harness.runs.job import build_ghn
from deepnets_bench.harness.runs.provenance import stamp
from deepnets_bench.leaderboard.results import canonical_json
from deepnets_bench.uses.embeddings import mean_embeddings
from deepnets_bench.uses.labelling import LabelTask, images_of, label_tasks, program_of
from deepnets_bench.uses.labels import COSTS
from deepnets_bench.uses.properties.direct import predict_directly
from deepnets_bench.uses.properties.features import graph_features
from deepnets_bench.uses.properties.heads import HEADS, Head, boosting, constant, signed
from deepnets_bench.uses.properties.predictions import FEATURES, Predicted, keep_predictions
from deepnets_bench.uses.properties.protocol import PROTOCOL, Protocol
from deepnets_bench.uses.properties.results import PropertyRow, append_results, read_results
from deepnets_bench.uses.properties.targets import NAMES, Targets, digest_of, read_targets, sample_of
from deepnets_bench.uses.properties.zero_cost import SCORES, zero_cost_scores
from deepnets_bench.uses.recipe import RECIPES

if TYPE_CHECKING:
    from deepnets_bench.compiler.program import Program
    from deepnets_bench.ghn.model import GHN
    from deepnets_bench.gnn import GNNIdentity
    from deepnets_bench.harness.protocol.tracks import Track
    from deepnets_bench.uses.embedding_files import Embeddings

_UNTRAINED_GNN = "ghn2"
_UNTRAINED = f"untrained {_UNTRAINED_GNN}, svr"
_MEAN = "mean of labels"
_IDENTITY = ("gnn", "gnn_options", "gnn_digest", "source")
Sink = Callable[["Study", list[Predicted]], None]
Vectors = tuple[np.ndarray, np.ndarray]  # one row for each training and each test architecture


@dataclass(frozen=True)
class Study:
    """Labels and the architectures that they are of, as the track of the labels builds them."""

    track: Track
    labels: Path
    data: Path
    images: Path | None = None
    names: tuple[str, ...] = NAMES
    protocol: Protocol = PROTOCOL

    @cached_property
    def targets(self) -> tuple[Targets, Targets]:
        """Training and test architectures; raises what `read_targets` does, and for other architectures."""
        train, test = read_targets(self.labels, self.names, self.protocol, self.track)
        for part in (train, test):
            for index, fingerprint in zip(part.index.tolist(), part.fingerprints, strict=True):
                if program_of(self._tasks[part.split][index]).network.fingerprint() != fingerprint:
                    raise BadInput(
                        f"{self.labels} labels another architecture as {part.split}/{index} than "
                        f"{self.data} has."
                    )
        return train, test

    @cached_property
    def digest(self) -> str:
        """12 hexadecimal digits of the labels and times that were used."""
        return digest_of(self.targets, self.names)

    @cached_property
    def programs(self) -> tuple[list[Program], list[Program]]:
        """Of the training and the test architectures."""
        train, test = (
            [program_of(self._tasks[part.split][index]).program for index in part.index.tolist()]
            for part in self.targets
        )
        return train, test

    @cached_property
    def graphs(self) -> tuple[list[ComputationGraph], list[ComputationGraph]]:
        """Of the training and the test architectures."""
        train, test = ([ComputationGraph.from_program(p) for p in programs] for programs in self.programs)
        return train, test

    def row(self, **values: Any) -> PropertyRow:
        """A row with what is the same for all rows of this study."""
        common = {
            "labels_digest": self.digest,
            "protocol_version": self.protocol.version,
            "protocol_digest": self.protocol.digest(),
            "tested": len(self.targets[1]),
            **stamp(),
        }
        return PropertyRow.model_validate(common | values)

    def predicted(self, values: np.ndarray, name: str, **columns: Any) -> Predicted:
        """The row of predictions of a property, and they themselves."""
        test = self.targets[1]
        tau = kendall(values, test.values[name])
        return Predicted(self.row(target=name, tau=tau, **columns), test.index, values)

    def counts(self) -> list[int]:
        """Numbers of labels; the largest one is all that there are."""
        known = len(self.targets[0])
        return [min(count, known) for count in self.protocol.labels]

    @cached_property
    def _tasks(self) -> dict[str, list[LabelTask]]:
        protocol, recipe = self.protocol, RECIPES[self.track.images.dataset]
        return {
            split: label_tasks(self.track, [split], count, [0], recipe, self.data, self.images)
            for split, count in (
                (protocol.train_split, protocol.labels[-1]),
                (protocol.test_split, protocol.tested),
            )
        }


def kendall(predicted: np.ndarray, measured: np.ndarray) -> float:
    """Kendall's tau-b; 0 for predictions that are all equal, which order nothing."""
    tau = kendalltau(predicted, measured).statistic
    return 0.0 if np.isnan(tau) else float(tau)


def baselines(study: Study, seeds: Sequence[int], path: Path) -> None:
    """Costs, features of graphs, an untrained hypernetwork, zero-cost scores, and the mean of the labels.

    Only what the results file at `path` lacks is made.
    """
    train, test = study.targets
    sink, todo = sink_of(path), partial(missing, path, study, seeds=seeds)
    for name in COSTS:
        columns = (train.costs[name][:, None], test.costs[name][:, None])
        _fit(study, name, signed, columns, todo(name), sink)
    nothing = (np.zeros((len(train), 1)), np.zeros((len(test), 1)))
    _fit(study, _MEAN, constant, nothing, todo(_MEAN), sink)
    if left := todo(FEATURES):
        features = [np.stack([graph_features(graph) for graph in graphs]) for graphs in study.graphs]
        _fit(study, FEATURES, boosting, (features[0], features[1]), left, sink)
    for seed in todo(_UNTRAINED):
        classes = images_of(study.track, study.images).num_classes
        ghn = build_ghn(study.track, identify(_UNTRAINED_GNN), num_classes=classes, seed=seed)
        _fit(study, _UNTRAINED, HEADS["svr"], embedded(study, ghn), [seed], sink)
    for seed in sorted({seed for name in SCORES for seed in todo(name)}):
        scores = [_zero_cost(study, programs, seed) for programs in study.programs]
        for name in SCORES:
            _fit(study, name, signed, (scores[0][name], scores[1][name]), [seed], sink)


def embedded(study: Study, ghn: GHN) -> Vectors:
    """Mean embeddings of the architectures of a study; raises what `mean_embeddings` does."""
    train, test = (mean_embeddings(ghn, graphs) for graphs in study.graphs)
    return train, test


def kept(study: Study, embeddings: Embeddings) -> Vectors:
    """Those that a file keeps; raises `BadInput` where it has other graphs, or fewer."""
    classes = images_of(study.track, study.images).num_classes
    train, test = (embeddings.of(study.track, part.split, part.index, classes) for part in study.targets)
    return train, test


def frozen(
    study: Study, embed: Callable[[], Vectors], seed: int, sink: Sink, identity: Mapping[str, str]
) -> None:
    """Every head on the embeddings of a hypernetwork, which stands for `seed`."""
    begun = time.process_time()
    vectors = embed()
    spent = time.process_time() - begun
    for method, head in HEADS.items():
        _fit(study, method, head, vectors, [seed], sink, spent, **identity)


def direct(study: Study, gnn: GNNIdentity, seeds: Sequence[int], sink: Sink) -> None:
    """A GNN trained on the labels, for every number of them and every seed."""
    train, _ = study.targets
    for seed in seeds:
        for count in study.counts():
            begun = time.process_time()
            rows = sample_of(count, len(train), seed)
            predicted = predict_directly(
                gnn,
                [study.graphs[0][row] for row in rows],
                {name: train.values[name][rows] for name in study.names},
                study.graphs[1],
                seed,
                study.protocol,
            )
            spent = time.process_time() - begun
            made = [
                study.predicted(
                    predicted[name],
                    name,
                    method="direct",
                    seed=seed,
                    labels=count,
                    cpu_seconds=spent,
                    **columns_of(gnn),
                )
                for name in study.names
            ]
            sink(study, made)


def columns_of(gnn: GNNIdentity) -> dict[str, str]:
    """The columns of a row that say which GNN it is of."""
    return {"gnn": gnn.name, "gnn_options": canonical_json(gnn.options), "gnn_digest": gnn.digest}


def missing(
    path: Path,
    study: Study,
    method: str,
    seeds: Sequence[int],
    identity: Mapping[str, str] = MappingProxyType({}),
) -> list[int]:
    """The seeds for which a results file lacks rows of a method on these labels.

    `identity` are the columns that say of which GNN and hypernetwork. Raises `BadInput` where the file has
    such rows of another source of the GNN, or of another hypernetwork.
    """
    gnn, options, digest, source = (
        identity.get(name, PropertyRow.model_fields[name].default) for name in _IDENTITY
    )
    rows = [
        row
        for row in (read_results(path) if path.exists() else [])
        if (row.method, row.gnn, row.gnn_options) == (method, gnn, options)
        and (row.labels_digest, row.protocol_digest) == (study.digest, study.protocol.digest())
        and row.seed in seeds
    ]
    for row in rows:
        if (row.gnn_digest, row.source) != (digest, source):
            other = "hypernetwork with" if row.gnn_digest == digest else "source of"
            raise BadInput(
                f"{path} holds results of another {other} GNN {row.name}, seed {row.seed}; keep each in a "
                "file of its own (--out)."
            )
    held = {(row.seed, row.target, row.labels) for row in rows}
    wanted = [(name, count) for name in study.names for count in study.counts()]
    return [seed for seed in seeds if any((seed, *each) not in held for each in wanted)]


def sink_of(path: Path) -> Sink:
    """Append rows to a results file, and keep predictions from the largest number of labels beside it."""

    def sink(study: Study, made: list[Predicted]) -> None:
        keep_predictions(path, made, study.counts()[-1])
        append_results(path, [each.row for each in made])

    return sink


def _fit(
    study: Study,
    method: str,
    head: Head,
    vectors: Vectors,
    seeds: Sequence[int],
    sink: Sink,
    spent: float = 0.0,
    **identity: str,
) -> None:
    train, _ = study.targets
    for seed in seeds:
        made = []
        for count in study.counts():
            known = sample_of(count, len(train), seed)
            for name in study.names:
                begun = time.process_time()
                predicted = head(vectors[0][known], train.values[name][known], vectors[1], seed)
                made.append(
                    study.predicted(
                        predicted,
                        name,
                        method=method,
                        seed=seed,
                        labels=count,
                        cpu_seconds=spent + time.process_time() - begun,
                        **identity,
                    )
                )
        sink(study, made)


def _zero_cost(study: Study, programs: Sequence[Program], seed: int) -> dict[str, np.ndarray]:
    images, labels = next(iter(images_of(study.track, study.images).train.batches(64)))
    found = [zero_cost_scores(program, images, labels, seed) for program in programs]
    return {name: np.array([[scores[name]] for scores in found]) for name in SCORES}

"""DeepNets-1M for PyTorch: graphs of a split, batches of graphs, and meta-batches under a node cap."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Sampler
from torch_geometric.data import Data, Dataset

from deepnets_bench.errors import BadInput, CorruptFile
from deepnets_bench.graph import ComputationGraph
from deepnets_bench.ir import HEADS, IMAGENET_FROM
from deepnets_bench.predefined import ResNet50
from deepnets_bench.program import check_sizes, compile_code
from deepnets_bench.shards import GraphRecord, open_split
from deepnets_bench.widths import PAPER_RULES, width_rule

TRAINING_SPLITS = ("train", "search")


class GraphBatch(Data):
    """Graphs of architectures side by side, as a GNN of the benchmark sees them.

    All tensors are int64 and on one device; N nodes, E edges and P pairs in B graphs:

    - `op` [N]: primitive, an index into `PRIMITIVES`; `cell` [N]
    - `shape` [N, 4]: (out, in, height, width) of the node's parameter, zeros where there is none
    - `edge_index` [2, E]: (source, target) in dataflow direction
    - `virtual_edge_index` [2, P], `distance` [P]: pairs with a directed path of at most the cutoff, real
      edges included at distance 1
    - `batch` [N]: graph of each node; `ptr` [B + 1]: first node of each graph; `level` [N]: longest path
      from a source of the graph, so that edges go to higher levels
    - `num_graphs`; `graphs`: the `ComputationGraph`s, with names and shapes of their parameters

    Nodes of a graph are contiguous and in a topological order, edges sorted by (target, source).
    """

    @classmethod
    def from_graphs(cls, graphs: Sequence[ComputationGraph], virtual_edges: int | None = 50) -> GraphBatch:
        """Join graphs; `virtual_edges` is the cutoff distance, None or 1 for real edges only."""
        if not graphs:
            raise BadInput("A batch needs at least one graph.")
        sizes = np.array([graph.num_nodes for graph in graphs])
        ptr = np.concatenate([[0], np.cumsum(sizes)])
        if virtual_edges is not None and virtual_edges > 1:
            pairs = [graph.shortest_paths(virtual_edges) for graph in graphs]
        else:
            pairs = [(graph.edge_index, np.ones(graph.num_edges, np.int64)) for graph in graphs]
        batch = cls()
        # `Data` looks for a property of the name of every attribute it is given; that would take longer than
        # all the rest for a single graph.
        batch._store._mapping.update(
            op=_joined([graph.op for graph in graphs]),
            cell=_joined([graph.cell for graph in graphs]),
            shape=_joined([graph.shape for graph in graphs]),
            level=_joined([graph.level for graph in graphs]),
            edge_index=_joined_edges([torch.from_numpy(graph.edge_index) for graph in graphs], ptr),
            virtual_edge_index=_joined_edges([torch.from_numpy(index) for index, _ in pairs], ptr),
            distance=_joined([distance for _, distance in pairs]),
            batch=torch.from_numpy(np.repeat(np.arange(len(graphs)), sizes)),
            ptr=torch.from_numpy(ptr),
            num_nodes=int(ptr[-1]),
            num_graphs=len(graphs),
            graphs=list(graphs),
        )
        return batch

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle all tensors as one: a `DataLoader` passes each tensor of a worker's batch in a file of its
        own, which costs the receiver more than reading the graphs."""
        values = dict(self._store._mapping)
        packed = [key for key, value in values.items() if _is_packable(value)]
        tensors = [values.pop(key) for key in packed]
        layout = [(key, tensor.shape) for key, tensor in zip(packed, tensors, strict=True)]
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors]) if tensors else None
        return _unpickled, (type(self), flat, layout, values)


def _is_packable(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.dtype == torch.int64 and value.device.type == "cpu"


def _unpickled(
    kind: type[GraphBatch],
    flat: torch.Tensor | None,
    layout: list[tuple[str, torch.Size]],
    values: dict[str, Any],
) -> GraphBatch:
    batch = kind()
    if flat is not None:
        parts = flat.split([shape.numel() for _, shape in layout])
        values |= {key: part.view(shape) for (key, shape), part in zip(layout, parts, strict=True)}
    batch._store._mapping.update(values)
    return batch


def _joined(parts: Sequence[np.ndarray]) -> torch.Tensor:
    joined = parts[0] if len(parts) == 1 else np.concatenate(parts)
    return torch.from_numpy(joined.astype(np.int64, copy=False))


def _joined_edges(parts: Sequence[torch.Tensor], starts: np.ndarray) -> torch.Tensor:
    """Edge lists side by side, each with its start added to the numbers of its nodes, in one copy."""
    if len(parts) == 1:
        return parts[0]
    joined = torch.empty(2, sum(part.shape[1] for part in parts), dtype=torch.int64)
    end = 0
    for part, start in zip(parts, starts.tolist(), strict=False):
        begin, end = end, end + part.shape[1]
        torch.add(part, start, out=joined[:, begin:end])
    return joined


class DeepNets1M(Dataset):
    """A generated split of DeepNets-1M as a `torch_geometric` dataset.

    Each item is a `GraphBatch` of one graph with, beside, `index`, `width` and `fc_dim` (integers);
    `DeepNets1M.collate` joins items into one batch, for `DataLoader(..., collate_fn=DeepNets1M.collate)`.
    Opening a split reads its manifest; shard files are mapped when a graph of theirs is first asked for, and
    in every worker of a `DataLoader` anew.

    Networks of the training splits are sized anew each epoch by the rules of the paper (`widths.py`), a
    function of (seed, epoch, index) alone; those of the other splits have their stored width. `width` and
    `fc_dim` override either. `image_size` up to 64 reads the CIFAR-10 form, above the ImageNet form.

    | split | graphs | nodes | degree | path | differs from train in |
    | --- | ---: | ---: | ---: | ---: | --- |
    | train | 1,000,000 | 183.1 ± 88.9 | 2.29 | 14.6 | |
    | search | 100,000 | 248.6 ± 121.3 | 2.33 | 16.5 | 6-20 cells, 1-6 steps a cell |
    | val | 500 | 184.1 ± 96.6 | 2.30 | 14.4 | |
    | test | 500 | 192.8 ± 98.0 | 2.31 | 14.5 | |
    | wide | 100 | 177.7 ± 101.6 | 2.31 | 14.5 | 4 times the width of test (2 in ImageNet form) |
    | deep | 100 | 369.6 ± 186.6 | 2.31 | 25.5 | 10-36 cells |
    | dense | 100 | 331.9 ± 184.5 | 2.40 | 15.5 | 2-10 steps a cell |
    | bnfree | 100 | 127.8 ± 74.2 | 2.42 | 10.2 | no norm |
    | predefined | 2 | 127.5 ± 1.5 | 2.27 | 10.9 | ResNet-50 and a Vision Transformer |

    Means over graphs (train and search: their first 1,000), ± the standard deviation; degree and shortest
    path between nodes with edges taken as undirected.

    Raises `BadInput` if the split was not generated or a size cannot be built, `CorruptFile` for damaged
    files.
    """

    num_classes: int = 10  # of the networks; `torch_geometric` has a property of this name

    def __init__(
        self,
        root: str | Path,
        split: str,
        virtual_edges: int | None = 50,
        image_size: int = 32,
        num_classes: int = 10,
        width: int | None = None,
        fc_dim: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_sizes(HEADS if width is None else width, image_size, num_classes, fc_dim, is_vit=True)
        self.reader = open_split(root, split)
        self.split = split
        self.virtual_edges = virtual_edges
        self.image_size, self.num_classes = image_size, num_classes
        self.width, self.fc_dim = width, fc_dim
        self.seed = seed
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Draw other widths for training networks from now on (not in workers that are already running)."""
        self.epoch = epoch
        self._random = np.random.Generator(np.random.Philox(key=(self.seed, epoch)))
        self._stream: dict[str, Any] = dict(self._random.bit_generator.state)

    def len(self) -> int:
        return len(self.reader)

    def get(self, idx: int) -> GraphBatch:
        record = self.reader[idx]
        width, fc_dim = self.sizes(record)
        if record.name is None:
            program = compile_code(record.encoded, width, self.image_size, self.num_classes, fc_dim)
        else:
            program = ResNet50().program(width, self.image_size, self.num_classes, fc_dim)
        graph = ComputationGraph.from_program(program) if program.valid else None
        if graph is None or not _same(graph, record):
            raise CorruptFile(
                f"Graph {idx} in {self.reader.folder} does not fit its architecture; generate it again."
            )
        item = GraphBatch.from_graphs([graph], self.virtual_edges)
        item._store._mapping.update(index=record.index, width=width, fc_dim=fc_dim)
        return item

    def sizes(self, record: GraphRecord) -> tuple[int, int | None]:
        """(width, fc_dim) of a network: given, drawn for training, or stored; None keeps fc_dim as it is."""
        width, fc_dim = self.width, self.fc_dim
        imagenet = int(self.image_size > IMAGENET_FROM)
        if self.split in TRAINING_SPLITS and (width is None or fc_dim is None):
            rule = width_rule(record.encoded.tolist(), record.num_params[imagenet], PAPER_RULES)
            self._stream["state"]["counter"][0] = record.index
            self._random.bit_generator.state = self._stream
            drawn = rule.draw(self._random)
            return width or drawn[0], fc_dim or drawn[1]
        stored = record.width[imagenet]
        if width is None and (stored < HEADS or stored % 2):
            raise CorruptFile(
                f"Graph {record.index} in {self.reader.folder} has the width {stored}; generate it again."
            )
        return width or stored, fc_dim

    def node_counts(self) -> np.ndarray:
        """int64 [len(self)]: nodes of each graph, as `MetaBatchSampler` needs them; opens every shard."""
        return self.reader.node_counts()[list(self.indices())]

    @staticmethod
    def collate(items: Sequence[GraphBatch]) -> GraphBatch:
        """Join single graphs into one batch; `index`, `width` and `fc_dim` become lists."""
        batch = GraphBatch.from_graphs([graph for item in items for graph in item.graphs], None)
        batch.virtual_edge_index = _joined_edges(
            [item.virtual_edge_index for item in items], batch.ptr.numpy()
        )
        batch.distance = torch.cat([item.distance for item in items])
        for key in ("index", "width", "fc_dim"):
            batch[key] = [item[key] for item in items]
        return batch


def _same(graph: ComputationGraph, record: GraphRecord) -> bool:
    """Are nodes, cells and edges those of the file? Compared as bytes: the arrays have the same types."""
    return (
        graph.op.tobytes() == record.op.tobytes()
        and graph.cell.tobytes() == record.cell.tobytes()
        and graph.edge_index.tobytes() == record.edge_index.tobytes()
    )


class MetaBatchSampler(Sampler[list[int]]):
    """Endless meta-batches of graph numbers: reshuffled each epoch, those above the node cap left out whole.

    `num_nodes` [graphs] are the sizes, `max_nodes` the cap on their sum (2200 in the paper for meta-batches
    of 8). The order depends on the seed alone. Raises `BadInput` where no meta-batch can fit.
    """

    def __init__(
        self,
        num_nodes: Sequence[int] | np.ndarray,
        meta_batch_size: int,
        max_nodes: int | None = 2200,
        seed: int = 0,
    ) -> None:
        self.num_nodes = np.asarray(num_nodes)
        self.meta_batch_size, self.max_nodes, self.seed = meta_batch_size, max_nodes, seed
        if not 1 <= meta_batch_size <= len(self.num_nodes):
            raise BadInput(f"meta_batch_size must be from 1 to {len(self.num_nodes)}, not {meta_batch_size}.")
        smallest = int(np.sort(self.num_nodes)[:meta_batch_size].sum())
        if max_nodes is not None and smallest > max_nodes:
            raise BadInput(
                f"No {meta_batch_size} graphs fit into {max_nodes} nodes: the smallest have {smallest}."
            )

    def __iter__(self) -> Iterator[list[int]]:
        size = self.meta_batch_size
        epoch = 0
        while True:
            order = np.random.Generator(np.random.Philox(key=(self.seed, epoch))).permutation(
                len(self.num_nodes)
            )
            for start in range(0, len(order) - size + 1, size):
                chosen = order[start : start + size]
                if self.max_nodes is None or self.num_nodes[chosen].sum() <= self.max_nodes:
                    yield chosen.tolist()
            epoch += 1

"""DeepNets-1M for PyTorch: graphs of a split, batches of graphs, and meta-batches under a node cap."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Sampler
from torch_geometric.data import Data, Dataset

from deepnets_bench.errors import BadInput
from deepnets_bench.graph import ComputationGraph
from deepnets_bench.ir import IMAGENET_FROM
from deepnets_bench.predefined import ResNet50
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
        return cls(
            op=_tensor([graph.op for graph in graphs]),
            cell=_tensor([graph.cell for graph in graphs]),
            shape=_tensor([graph.shape for graph in graphs]),
            level=_tensor([graph.level for graph in graphs]),
            edge_index=_tensor([g.edge_index + start for g, start in zip(graphs, ptr, strict=False)], axis=1),
            virtual_edge_index=_tensor(
                [e + start for (e, _), start in zip(pairs, ptr, strict=False)], axis=1
            ),
            distance=_tensor([distance for _, distance in pairs]),
            batch=torch.from_numpy(np.repeat(np.arange(len(graphs)), sizes)),
            ptr=torch.from_numpy(ptr),
            num_nodes=int(ptr[-1]),
            num_graphs=len(graphs),
            graphs=list(graphs),
        )


def _tensor(parts: list[np.ndarray], axis: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.concatenate(parts, axis=axis, dtype=np.int64))


class DeepNets1M(Dataset):
    """A generated split of DeepNets-1M as a `torch_geometric` dataset.

    Each item is a `GraphBatch` of one graph with, beside, `index`, `width` and `fc_dim` (integers);
    `DeepNets1M.collate` joins items into one batch, for `DataLoader(..., collate_fn=DeepNets1M.collate)`.

    Networks of the training splits are sized anew each epoch by the rules of the paper (`widths.py`), a
    function of (seed, epoch, index) alone; those of the other splits have their stored width. `width` and
    `fc_dim` override either. `image_size` up to 64 reads the CIFAR-10 form, above the ImageNet form.

    | split | networks | from train by |
    | --- | --- | --- |
    | train, search | 1,000,000, 100,000 | |
    | val, test | 500, 500 | same distribution |
    | wide | 100 | 4 times the width |
    | deep, dense, bnfree | 100 each | 10-36 cells; 2-10 steps a cell; no norm |
    | predefined | 2 | ResNet-50 and a Vision Transformer |

    Raises `BadInput` if the split was not generated, `CorruptFile` for damaged files.
    """

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
        self.reader = open_split(root, split)
        self.split = split
        self.virtual_edges = virtual_edges
        self.image_size, self.num_classes = image_size, num_classes
        self.width, self.fc_dim = width, fc_dim
        self.seed, self.epoch = seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Draw other widths for training networks from now on."""
        self.epoch = epoch

    def len(self) -> int:
        return len(self.reader)

    def get(self, idx: int) -> GraphBatch:
        record = self.reader[idx]
        width, fc_dim = self.sizes(record)
        graph = self.architecture(record).graph(width, self.image_size, self.num_classes, fc_dim)
        if not np.array_equal(graph.edge_index, record.edge_index):
            raise BadInput(f"Graph {idx} of split '{self.split}' does not fit its architecture.")
        item = GraphBatch.from_graphs([graph], self.virtual_edges)
        item.index, item.width, item.fc_dim = record.index, width, fc_dim
        return item

    def architecture(self, record: GraphRecord) -> Any:
        """The `Architecture` (or `ResNet50`) of a stored graph."""
        return record.architecture if record.name is None else ResNet50()

    def sizes(self, record: GraphRecord) -> tuple[int, int | None]:
        """(width, fc_dim) of a network: given, drawn for training, or stored; None keeps fc_dim as it is."""
        width, fc_dim = self.width, self.fc_dim
        imagenet = int(self.image_size > IMAGENET_FROM)
        if self.split in TRAINING_SPLITS and (width is None or fc_dim is None):
            rule = width_rule(record.architecture, record.num_params[imagenet], PAPER_RULES)
            random = np.random.Generator(np.random.Philox(key=(self.seed, self.epoch), counter=record.index))
            drawn = rule.draw(random)
            return width or drawn[0], fc_dim or drawn[1]
        return width or record.width[imagenet], fc_dim

    @staticmethod
    def collate(items: Sequence[GraphBatch]) -> GraphBatch:
        """Join single graphs into one batch; `index`, `width` and `fc_dim` become lists."""
        graphs = [graph for item in items for graph in item.graphs]
        batch = GraphBatch.from_graphs(graphs, None)
        starts = batch.ptr.tolist()
        batch.virtual_edge_index = torch.cat(
            [item.virtual_edge_index + start for item, start in zip(items, starts, strict=False)], 1
        )
        batch.distance = torch.cat([item.distance for item in items])
        for key in ("index", "width", "fc_dim"):
            batch[key] = [item[key] for item in items]
        return batch


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

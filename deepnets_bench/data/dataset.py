"""DeepNets-1M for PyTorch: graphs of a split, batches of graphs, and meta-batches under a node cap."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import Sampler
from torch_geometric.data import Dataset

from deepnets_bench.compiler.instructions import HEADS, IMAGENET_FROM
from deepnets_bench.compiler.program import NetworkSize
from deepnets_bench.data.graph_batch import GraphBatch, Transform, transformed
from deepnets_bench.data.shards import GraphRecord, open_split
from deepnets_bench.data.widths import PAPER_RULES, draw_sizes
from deepnets_bench.errors import BadInput, CorruptFile
from deepnets_bench.graphs.graph import ComputationGraph

__all__ = ["DeepNets1M", "GraphBatch", "MetaBatchSampler"]

TRAINING_SPLITS = ("train", "search")


class DeepNets1M(Dataset):
    """A generated split of DeepNets-1M as a `torch_geometric` dataset.

    Each item is a `GraphBatch` of one graph with, beside, `index`, `width` and `fc_dim` (integers);
    `torch_geometric.loader.DataLoader` joins items into batches, and `torch.utils.data.DataLoader` does with
    `collate_fn=DeepNets1M.collate`. `transform` (a callable Data → Data, as those of
    `torch_geometric.transforms`) is applied to each item that is read; what it adds or changes is in the
    batches too. It must keep the nodes and their order, as parameters belong to nodes.
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

    Raises `BadInput` if the split was not generated, a size cannot be built or `pre_transform` or
    `pre_filter` is given, which have no files of their own to write; `CorruptFile` for damaged files.
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
        transform: Transform | None = None,
        pre_transform: None = None,
        pre_filter: None = None,
    ) -> None:
        if pre_transform is not None or pre_filter is not None:
            name, instead = (
                ("pre_filter", "choose graphs by number, dataset[[0, 5, 7]]")
                if pre_transform is None
                else ("pre_transform", "give it as transform")
            )
            raise BadInput(
                f"{name} would change the generated files, which others read and checksums verify; {instead}."
            )
        super().__init__(transform=transform)
        size = NetworkSize(HEADS if width is None else width, image_size, num_classes, fc_dim)
        size.check(is_vit=True)
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

    def __getitem__(self, idx: Any) -> Any:
        if isinstance(idx, (int, np.integer)) or (isinstance(idx, (Tensor, np.ndarray)) and idx.ndim == 0):
            item = self.get(self.indices()[idx])
            return item if self.transform is None else transformed(item, self.transform)
        return self.index_select(idx)

    def get(self, idx: int) -> GraphBatch:
        record = self.reader[idx]
        width, fc_dim = self.sizes(record)
        program = record.program(width, self.image_size, self.num_classes, fc_dim)
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
            self._stream["state"]["counter"][0] = record.index
            self._random.bit_generator.state = self._stream
            drawn = draw_sizes(record.encoded, record.num_params[imagenet], PAPER_RULES, self._random)
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
        """Join items into one batch; `index`, `width` and `fc_dim` become lists.

        `torch_geometric`'s own loader makes the same tensors, and tensors of the three numbers.
        """
        return GraphBatch.join(items)


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

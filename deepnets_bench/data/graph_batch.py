"""Graphs side by side as torch_geometric data: joined, taken apart, and changed by transforms."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from torch_geometric.data import Batch, Data

from deepnets_bench.errors import BadInput
from deepnets_bench.graphs.graph import ComputationGraph

Transform = Callable[[Any], Any]  # Data → Data, as those of torch_geometric.transforms

NODE_FIELDS = ("op", "cell", "shape", "level")
PAIR_FIELDS = ("virtual_edge_index", "distance")
NUMBERS = ("index", "width", "fc_dim")  # of an item of DeepNets1M
FIELDS = frozenset({*NODE_FIELDS, *PAIR_FIELDS, "edge_index", "batch", "ptr", "num_nodes", "graphs"})
_PLAIN = FIELDS | frozenset(NUMBERS)


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

    Nodes of a graph are contiguous and in a topological order, edges sorted by (target, source) unless a
    transform changed them. What transforms add stands beside these fields. A batch of one graph is also an
    item: `torch_geometric`'s loader and `Batch.from_data_list` join items to a `GraphBatch`.
    """

    @classmethod
    def from_graphs(cls, graphs: Sequence[ComputationGraph], virtual_edges: int | None = 50) -> GraphBatch:
        """Join graphs; `virtual_edges` is the cutoff distance, None or 1 for real edges only."""
        if not graphs:
            raise BadInput("A batch needs at least one graph.")
        if virtual_edges is not None and virtual_edges != 1:
            pairs = [graph.shortest_paths(virtual_edges) for graph in graphs]
        else:
            pairs = [(graph.edge_index, np.ones(graph.num_edges, np.int64)) for graph in graphs]
        ptr, batch = _places([graph.num_nodes for graph in graphs])
        joined = cls._of(
            op=_joined([graph.op for graph in graphs]),
            cell=_joined([graph.cell for graph in graphs]),
            shape=_joined([graph.shape for graph in graphs]),
            level=_joined([graph.level for graph in graphs]),
            edge_index=_joined_edges([torch.from_numpy(graph.edge_index) for graph in graphs], ptr),
            virtual_edge_index=_joined_edges([torch.from_numpy(index) for index, _ in pairs], ptr),
            distance=_joined([distance for _, distance in pairs]),
            batch=torch.from_numpy(batch),
            ptr=torch.from_numpy(ptr),
            num_nodes=int(ptr[-1]),
            graphs=list(graphs),
        )
        joined._know_to_ascend()
        return joined

    @classmethod
    def join(cls, items: Sequence[GraphBatch]) -> GraphBatch:
        """Join items, with all that transforms added to them or changed; numbers of items become lists.

        Raises `BadInput` for items that do not have the same attributes.
        """
        keys = set(items[0]._store._mapping)
        for item in items:
            if differing := keys ^ set(item._store._mapping):
                raise BadInput(
                    f"Only some of the graphs have {', '.join(sorted(differing))}; all must have it."
                )
        numbers = {key: [item._store._mapping[key] for item in items] for key in NUMBERS if key in keys}
        if keys <= _PLAIN:
            batch = cls._join_plain(items)
        else:
            batch = Batch.from_data_list(list(items))  # of a class made of Batch and this one
        batch._store._mapping.update(numbers)
        return batch

    @classmethod
    def _join_plain(cls, items: Sequence[GraphBatch]) -> GraphBatch:
        graphs = [graph for item in items for graph in item.graphs]
        ptr, batch = _places([graph.num_nodes for graph in graphs])
        parts = [item._store._mapping for item in items]
        starts = np.concatenate([[0], np.cumsum([part["num_nodes"] for part in parts])])
        joined = cls._of(
            **{key: torch.cat([part[key] for part in parts]) for key in (*NODE_FIELDS, "distance")},
            edge_index=_joined_edges([part["edge_index"] for part in parts], starts),
            virtual_edge_index=_joined_edges([part["virtual_edge_index"] for part in parts], starts),
            batch=torch.from_numpy(batch),
            ptr=torch.from_numpy(ptr),
            num_nodes=int(ptr[-1]),
            graphs=graphs,
        )
        if all(item._known_to_ascend for item in items):
            joined._know_to_ascend()
        return joined

    @classmethod
    def _of(cls, **fields: Any) -> GraphBatch:
        batch = cls()
        # `Data` looks for a property of the name of every attribute it is given; that would take longer than
        # all the rest for a single graph.
        batch._store._mapping.update(fields)
        return batch

    @property
    def graphs(self) -> list[ComputationGraph]:
        """The graph of each node range between two entries of `ptr`."""
        stored = self._store._mapping.get("graphs", [])  # `Batch.from_data_list` makes a list of lists
        return [graph for part in stored for graph in (part if isinstance(part, list) else (part,))]

    @property
    def ptr(self) -> torch.Tensor:
        """int64 [B + 1]: the first node of each graph, and the number of nodes."""
        stored = self._store._mapping.get("ptr")  # missing where `Batch` took this graph out again
        return self.op.new_tensor([0, self.num_nodes]) if stored is None else stored

    @property
    def num_graphs(self) -> int:
        """The number of graphs, B."""
        return self.ptr.numel() - 1

    @property
    def edges_ascend(self) -> bool:
        """Whether every edge leads to a node of a higher level, as in all graphs that no transform changed.

        For these it is known without looking at the edges, for which the host would wait for the device.
        """
        if not self._known_to_ascend:
            ends = self.edge_index.clamp(0, len(self.level) - 1)  # a transform may name nodes that are none
            source, target = self.level[ends]
            return bool(((source < target) & (ends == self.edge_index)).all())
        return True

    @property
    def _known_to_ascend(self) -> bool:
        known = getattr(self, "_ascending", None)  # the edges and levels of which it was known
        return known is not None and known[0] is self.edge_index and known[1] is self.level

    def _know_to_ascend(self) -> None:
        fields = self._store._mapping  # as in `_of`: attributes of `Data` take their time
        self.__dict__["_ascending"] = (fields["edge_index"], fields["level"])

    def to(self, *args: Any, **kwargs: Any) -> GraphBatch:
        """As `torch_geometric.data.Data.to`: all tensors, in place."""
        known = self._known_to_ascend
        moved: GraphBatch = super().to(*args, **kwargs)
        if known:
            moved._know_to_ascend()
        return moved

    def to_data_list(self) -> list[GraphBatch]:
        """The graphs one by one, as items."""
        return split(self)

    def get_example(self, idx: int) -> GraphBatch:
        """One graph, as an item."""
        return split(self)[idx]

    def __getitem__(self, key: Any) -> Any:
        return self.get_example(key) if isinstance(key, int) else super().__getitem__(key)

    def __inc__(self, key: str, value: Any, *args: Any, **kwargs: Any) -> Any:
        if key == "batch" and self.num_graphs > 1:
            raise BadInput(
                "Batches are joined by GraphBatch.join or DeepNets1M.collate, which keep all graphs."
            )
        return 0 if key == "index" else super().__inc__(key, value, *args, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle all tensors as one: a `DataLoader` passes each tensor of a worker's batch in a file of its
        own, which costs the receiver more than reading the graphs."""
        values = dict(self._store._mapping)
        packed = [key for key, value in values.items() if _is_packable(value)]
        tensors = [values.pop(key) for key in packed]
        layout = [(key, tensor.shape) for key, tensor in zip(packed, tensors, strict=True)]
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors]) if tensors else None
        return _unpickled, (type(self), flat, layout, values)


def split(batch: GraphBatch) -> list[GraphBatch]:
    """The graphs of a batch one by one, with what was added to them before they were joined."""
    sliced = "_slice_dict" in vars(batch._store)
    parts = Batch.to_data_list(batch) if sliced else [GraphBatch() for _ in range(batch.num_graphs)]
    ptr, graphs = batch.ptr.tolist(), batch.graphs
    graph_of = {key: batch.batch[batch[key][1]] for key in ("edge_index", "virtual_edge_index")}
    for i, (part, start, stop) in enumerate(zip(parts, ptr, ptr[1:], strict=False)):
        edges, pairs = (index == i for index in graph_of.values())
        part._store._mapping.update(
            {key: batch[key][start:stop] for key in NODE_FIELDS},
            edge_index=batch.edge_index[:, edges] - start,
            virtual_edge_index=batch.virtual_edge_index[:, pairs] - start,
            distance=batch.distance[pairs],
            batch=torch.zeros_like(batch.batch[start:stop]),
            ptr=batch.ptr.new_tensor([0, stop - start]),
            num_nodes=stop - start,
            graphs=graphs[i : i + 1],
        )
        numbers = {key: batch[key][i] for key in NUMBERS if key in batch}
        part._store._mapping.update(
            {
                key: int(number) if isinstance(number, torch.Tensor) else number
                for key, number in numbers.items()
            }
        )
    return parts


def transformed(item: GraphBatch, transform: Transform) -> GraphBatch:
    """An item as `transform` makes it; the item itself stays as it was.

    Raises `BadInput` where the outcome is no graph of the same nodes: parameters belong to nodes.
    """
    given = copy.copy(item)
    # Without virtual edges the pairs are as many as the edges: transforms take them for edge attributes.
    hidden = PAIR_FIELDS if item.distance.numel() == item.edge_index.shape[1] else ()
    for key in hidden:
        del given[key]
    found = transform(given)
    if not isinstance(found, GraphBatch):
        raise BadInput(
            f"{_name(transform)} returns {type(found).__name__}; a transform of architectures must return "
            "the graph that it was given, with more or other attributes."
        )
    found._store._mapping.update({key: item[key] for key in hidden})
    if lost := sorted(FIELDS - set(found._store._mapping)):
        raise BadInput(f"{_name(transform)} takes {', '.join(lost)} away, which hypernetworks read.")
    if found.num_nodes != item.num_nodes:
        raise BadInput(
            f"{_name(transform)} makes {found.num_nodes} nodes of {item.num_nodes}; parameters belong to "
            "nodes, whose number and order must stay."
        )
    for key in NODE_FIELDS:
        if not torch.equal(found[key].cpu(), item[key]):
            raise BadInput(
                f"{_name(transform)} changes '{key}'; parameters belong to nodes, whose order, "
                f"{', '.join(NODE_FIELDS)} must stay."
            )
    return found


@torch.no_grad()
def transform_batch(batch: GraphBatch, transform: Transform, seed: int | None = None) -> GraphBatch:
    """A batch with `transform` applied to each of its graphs on the CPU; raises as `transformed`.

    With a `seed`, PyTorch's generator starts from it for every graph and is afterwards as it was.
    """
    device = batch.op.device
    items = []
    with torch.autocast("cpu", enabled=False):
        for item in split(copy.copy(batch).to("cpu")):
            with nullcontext() if seed is None else torch.random.fork_rng(devices=[]):
                if seed is not None:
                    torch.default_generator.manual_seed(seed)
                items.append(transformed(item, transform))
    found = GraphBatch.join(items).to(device)
    for key, value in batch._store._mapping.items():  # what was added to the batch as a whole
        if key not in found._store._mapping:
            found[key] = value
    return found


def _name(transform: Transform) -> str:
    return f"Transform {getattr(transform, '__name__', None) or repr(transform)}"


def _is_packable(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.dtype == torch.int64 and value.device.type == "cpu"


def _unpickled(
    kind: type[GraphBatch],
    flat: torch.Tensor | None,
    layout: list[tuple[str, torch.Size]],
    values: dict[str, Any],
) -> GraphBatch:
    if flat is not None:
        parts = flat.split([shape.numel() for _, shape in layout])
        values |= {key: part.view(shape) for (key, shape), part in zip(layout, parts, strict=True)}
    return kind._of(**values)


def _places(sizes: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """(ptr, batch) of graphs with these numbers of nodes."""
    ptr = np.array([0, *accumulate(sizes)])
    return ptr, np.repeat(np.arange(len(sizes)), sizes)


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

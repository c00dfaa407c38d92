"""Variants of a batch that a GNN is checked with: graphs alone, nodes renumbered, edges shuffled."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from deepnets_bench.data.dataset import GraphBatch

_NODE_FIELDS = ("op", "cell", "shape", "level")
_FIELDS = (*_NODE_FIELDS, "edge_index", "virtual_edge_index", "distance", "batch", "ptr")


def tensors(batch: GraphBatch) -> dict[str, Tensor]:
    """The documented tensors of a batch by name."""
    return {name: getattr(batch, name) for name in _FIELDS}


def rebuilt(batch: GraphBatch, /, **changes: Any) -> GraphBatch:
    """A copy of the documented fields in fresh memory, so that nothing cached on `batch` is reused."""
    values: dict[str, Any] = {name: tensor.clone() for name, tensor in tensors(batch).items()}
    values |= {"num_graphs": batch.num_graphs, "graphs": batch.graphs, **changes}
    return type(batch)(**values)


def select(batch: GraphBatch, index: int) -> GraphBatch:
    """One graph of a batch as a batch of its own."""
    start, stop = int(batch.ptr[index]), int(batch.ptr[index + 1])
    inside = {
        name: (getattr(batch, name)[1] >= start) & (getattr(batch, name)[1] < stop)
        for name in ("edge_index", "virtual_edge_index")
    }
    return rebuilt(
        batch,
        **{name: getattr(batch, name)[start:stop].clone() for name in _NODE_FIELDS},
        edge_index=batch.edge_index[:, inside["edge_index"]] - start,
        virtual_edge_index=batch.virtual_edge_index[:, inside["virtual_edge_index"]] - start,
        distance=batch.distance[inside["virtual_edge_index"]],
        batch=torch.zeros_like(batch.batch[start:stop]),
        ptr=batch.ptr.new_tensor([0, stop - start]),
        num_graphs=1,
        graphs=batch.graphs[index : index + 1],
    )


def topological_order(batch: GraphBatch) -> Tensor:
    """int64 [N]: another topological order of the nodes, drawn at random; each graph's input stays first."""
    n = len(batch.op)
    within = 1 + torch.randperm(n)
    within[batch.ptr[:-1].cpu()] = 0
    priority = (batch.batch.cpu() * (n + 1) + within).tolist()
    followers: list[list[int]] = [[] for _ in range(n)]
    waiting = [0] * n
    for source, target in batch.edge_index.t().tolist():
        followers[source].append(target)
        waiting[target] += 1
    ready = [(priority[node], node) for node in range(n) if not waiting[node]]
    heapq.heapify(ready)
    order = []
    while ready:
        _, node = heapq.heappop(ready)
        order.append(node)
        for target in followers[node]:
            waiting[target] -= 1
            if not waiting[target]:
                heapq.heappush(ready, (priority[target], target))
    return torch.tensor(order)


def permute(batch: GraphBatch, order: Tensor) -> GraphBatch:
    """The batch with node `order[i]` renamed to `i`; edge lists sorted again by (target, source)."""
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order), device=order.device)
    changes: dict[str, Any] = {name: getattr(batch, name)[order] for name in _NODE_FIELDS}
    for name in ("edge_index", "virtual_edge_index"):
        index = rank[getattr(batch, name)]
        by_target = (index[1] * len(order) + index[0]).argsort()
        changes[name] = index[:, by_target]
        if name == "virtual_edge_index":
            changes["distance"] = batch.distance[by_target]
    return rebuilt(batch, **changes, graphs=[])


def shuffled_edges(batch: GraphBatch) -> GraphBatch:
    """The same graphs with both edge lists in random order."""
    device = batch.op.device
    real = torch.randperm(batch.edge_index.shape[1]).to(device)
    virtual = torch.randperm(batch.virtual_edge_index.shape[1]).to(device)
    return rebuilt(
        batch,
        edge_index=batch.edge_index[:, real],
        virtual_edge_index=batch.virtual_edge_index[:, virtual],
        distance=batch.distance[virtual],
    )

"""The gated graph network as written in the specification: the oracle of the fast one, and its opponent.

It steps node by node (the i-th nodes of all graphs of the batch together, as the public reference
does) and runs the message MLP once per edge.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import torch
from scipy.sparse import csr_array
from scipy.sparse.csgraph import shortest_path
from torch import Tensor

from deepnets_bench.ghn.gated.module import GatedGNN


def gated(gnn: GatedGNN, x: Tensor, batch: SimpleNamespace) -> Tensor:
    """x [N, dim] -> [N, dim] with the weights of `gnn`."""
    ptr = batch.ptr
    position = torch.arange(len(x)) - ptr[batch.batch]
    relations = [(gnn.mlp, batch.edge_index, torch.ones(batch.edge_index.shape[1]))]
    if gnn.mlp_ve is not None:
        relations.append((gnn.mlp_ve, batch.virtual_edge_index, batch.distance))
    steps = range(int(ptr.diff().max()))
    h = x
    for reverse in (False, True):
        incoming = []
        for mlp, edge_index, distance in relations:
            source, target = edge_index.flip(0) if reverse else edge_index
            order = torch.argsort(position[target], stable=True)
            sizes = torch.bincount(position[target], minlength=len(steps)).tolist()
            weight = 1 / distance.to(x.dtype)
            columns = (tensor[order].split(sizes) for tensor in (source, target, weight))
            incoming.append((mlp, *columns))
        for step in reversed(steps) if reverse else steps:
            nodes = ptr[:-1][ptr.diff() > step] + step
            message = torch.zeros(len(nodes), x.shape[1], dtype=x.dtype)
            for mlp, source, target, weight in incoming:
                row = torch.searchsorted(nodes, target[step])
                message = message.index_add(0, row, mlp(h[source[step]]) * weight[step][:, None])
            h = h.index_copy(0, nodes, gnn.gru(message, h[nodes]))
    return h


def make_batch(edges: list[tuple[int, np.ndarray]], cutoff: int = 50) -> SimpleNamespace:
    """A batch of graphs given as (number of nodes, edges [E, 2] with source < target)."""
    one_hop, virtual, distance, level, start = [], [], [], [], 0
    for n, pairs in edges:
        pairs = np.unique(np.asarray(pairs, np.int64).reshape(-1, 2), axis=0)
        adjacency = csr_array((np.ones(len(pairs)), pairs.T.astype(np.int32)), shape=(n, n))
        hops = shortest_path(adjacency, method="D", unweighted=True)
        target, source = np.nonzero(((hops > 0) & (hops <= cutoff)).T)
        virtual.append(np.stack([source, target]) + start)
        distance.append(hops[source, target])
        one_hop.append(pairs[np.lexsort(pairs.T)].T + start)
        levels = np.zeros(n, np.int64)
        for u, v in pairs[np.lexsort(pairs.T)]:
            levels[v] = max(levels[v], levels[u] + 1)
        level.append(levels)
        start += n
    sizes = torch.tensor([n for n, _ in edges])
    return SimpleNamespace(
        edge_index=torch.from_numpy(np.concatenate(one_hop, 1)),
        virtual_edge_index=torch.from_numpy(np.concatenate(virtual, 1)),
        distance=torch.from_numpy(np.concatenate(distance)).long(),
        level=torch.from_numpy(np.concatenate(level)),
        batch=torch.repeat_interleave(torch.arange(len(edges)), sizes),
        ptr=torch.nn.functional.pad(sizes.cumsum(0), (1, 0)),
    )


def random_graph(rng: np.random.Generator, nodes: int) -> tuple[int, np.ndarray]:
    """A DAG like a training network's: chains that branch, and sums that join two of them again."""
    pairs, ends = [], [0]
    for v in range(1, nodes):
        kind = rng.choice(["join", "branch", "extend"], p=[0.2, 0.15, 0.65])
        if kind == "join" and len(ends) > 1:
            pairs += [(ends.pop(rng.integers(len(ends))), v), (ends.pop(rng.integers(len(ends))), v)]
            ends.append(v)
        elif kind == "branch":
            pairs.append((int(rng.integers(max(0, v - 12), v)), v))
            ends.append(v)
        else:
            end = rng.integers(len(ends))
            pairs.append((ends[end], v))
            ends[end] = v
    return nodes, np.array(pairs).reshape(-1, 2)

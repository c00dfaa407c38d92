"""Algorithms on directed acyclic graphs as arrays of edges, at numba speed: levels, distances, degrees."""

from __future__ import annotations

import numpy as np

from deepnets_bench.compiler.jit import kernel

LONGEST_DISTANCE = 65_533  # distances are counted in 16 bits, up to two more than the cutoff


@kernel()
def node_levels(edge_index, num_nodes):  # type: ignore[no-untyped-def]
    """int64 [N]: longest path that ends in each node; edges sorted by target, source < target."""
    level = np.zeros(num_nodes, np.int64)
    for e in range(edge_index.shape[1]):
        u, v = edge_index[0, e], edge_index[1, e]
        level[v] = max(level[v], level[u] + 1)
    return level


@kernel()
def shortest_paths(edge_index, num_nodes, cutoff):  # type: ignore[no-untyped-def]
    """Directed distances 1..cutoff as (edge_index int64 [2, P], distance int64 [P]), by (target, source).

    The cutoff is at most `LONGEST_DISTANCE`, and edges must be sorted by target with source < target. The
    distances to a node are one more than the smallest of those to its predecessors, so one pass in
    topological order is enough.
    """
    far = np.uint16(cutoff + 1)  # any longer distance, or no path
    to = np.full((num_nodes, num_nodes), far, np.uint16)
    e = 0
    n_edges = edge_index.shape[1]
    pairs = 0
    for v in range(num_nodes):
        row = to[v]
        while e < n_edges and edge_index[1, e] == v:
            u = edge_index[0, e]
            previous = to[u]
            for w in range(u):
                row[w] = min(row[w], previous[w] + np.uint16(1))
            row[u] = 1
            e += 1
        for w in range(v):
            pairs += row[w] <= cutoff
    index = np.empty((2, pairs), np.int64)
    distance = np.empty(pairs, np.int64)
    p = 0
    for v in range(num_nodes):
        for w in range(v):
            if to[v, w] <= cutoff:
                index[0, p], index[1, p], distance[p] = w, v, to[v, w]
                p += 1
    return index, distance


@kernel()
def degree_and_path(edge_index, num_nodes):  # type: ignore[no-untyped-def]
    """(mean degree, mean shortest path between different nodes) of a graph, edges taken as undirected."""
    n_edges = edge_index.shape[1]
    start = np.zeros(num_nodes + 1, np.int64)
    for e in range(n_edges):
        start[edge_index[0, e] + 1] += 1
        start[edge_index[1, e] + 1] += 1
    start = np.cumsum(start)
    neighbour = np.empty(2 * n_edges, np.int64)
    fill = start[:-1].copy()
    for e in range(n_edges):
        u, v = edge_index[0, e], edge_index[1, e]
        neighbour[fill[u]] = v
        fill[u] += 1
        neighbour[fill[v]] = u
        fill[v] += 1
    total, pairs = 0, 0
    queue = np.empty(num_nodes, np.int64)
    for origin in range(num_nodes):
        distance = np.full(num_nodes, -1, np.int64)
        distance[origin] = 0
        queue[0] = origin
        head, tail = 0, 1
        while head < tail:
            u = queue[head]
            head += 1
            total += distance[u]
            for k in range(start[u], start[u + 1]):
                v = neighbour[k]
                if distance[v] < 0:
                    distance[v] = distance[u] + 1
                    queue[tail] = v
                    tail += 1
        pairs += tail - 1
    return 2 * n_edges / num_nodes, total / max(pairs, 1)

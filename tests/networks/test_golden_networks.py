"""Every network of tests/golden: nodes, edges, distances, parameters, logits (the 32-pixel form)."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch

import deepnets_bench as dnb
from tests import golden

ENTRIES = [
    pytest.param(entry, id=f"{entry['split']}-{entry['index']}-{224 if entry['imagenet'] else 32}")
    for entry in golden.load("networks")
]


def sizes(entry: dict[str, Any]) -> dict[str, int]:
    form = {"image_size": 224, "num_classes": 1000} if entry["imagenet"] else {}
    return {"width": entry["C"], **form}


def canonical_edges(labels: list[str], edges: list[tuple[int, int]]) -> Counter[tuple[str, str]]:
    """Edges between nodes named by their parameter or, without one, by their labelled neighbourhood."""
    n = len(labels)
    for _ in range(12):  # Weisfeiler-Leman refinement over both directions
        parents: list[list[str]] = [[] for _ in range(n)]
        children: list[list[str]] = [[] for _ in range(n)]
        for u, v in edges:
            parents[v].append(labels[u])
            children[u].append(labels[v])
        labels = [
            label if "." in label else f"{hash((label, *sorted(parents[i]), '|', *sorted(children[i])))}"
            for i, label in enumerate(labels)
        ]
    return Counter((labels[u], labels[v]) for u, v in edges)


@pytest.mark.parametrize("entry", ENTRIES)
def test_graph(entry: dict[str, Any]) -> None:
    graph = dnb.Architecture.from_dict(entry["net_args"]).graph(**sizes(entry))
    nodes = Counter()
    for op, name, shape in zip(graph.op, graph.param_name, graph.shape.tolist(), strict=True):
        primitive = dnb.PRIMITIVES[op]
        nodes[name or primitive, primitive, tuple(shape)] += 1
    expected = Counter()
    for _, name, primitive, shape in entry["nodes"]:
        padded = tuple([*shape, 1, 1, 1][:4]) if shape else (0, 0, 0, 0)
        expected[name, primitive, padded] += 1
    assert nodes == expected
    ours = [name or dnb.PRIMITIVES[op] for op, name in zip(graph.op, graph.param_name, strict=True)]
    theirs = [name for _, name, _, _ in entry["nodes"]]
    edges = [tuple(edge) for edge in graph.edge_index.T.tolist()]
    assert canonical_edges(ours, edges) == canonical_edges(theirs, [tuple(e) for e in entry["edges"]])
    _, distance = graph.shortest_paths(cutoff=59)
    assert np.bincount(distance, minlength=60).tolist() == entry["spd_histogram"]


@pytest.mark.parametrize("entry", ENTRIES)
def test_parameters(entry: dict[str, Any]) -> None:
    program = dnb.Architecture.from_dict(entry["net_args"]).program(**sizes(entry))
    assert {k: list(v) for k, v in program.param_shapes.items()} == entry["params"]
    assert program.num_params == entry["n_params"]
    assert program.valid


@pytest.mark.parametrize("entry", ENTRIES)
def test_logits(entry: dict[str, Any]) -> None:
    if "logits" not in entry:
        pytest.skip("expected logits exist for the 32-pixel form only")
    net = dnb.Architecture.from_dict(entry["net_args"]).build(**sizes(entry)).eval()
    assert {k: list(v.shape) for k, v in net.named_parameters()} == entry["params"]
    params = golden_parameters(entry["params"])
    images = golden.images()
    with torch.no_grad():
        single = net.run(images.float(), {k: v.float() for k, v in params.items()})
        double = net.run(images, params)
    golden.assert_logits_agree(single, double, entry["logits"])


def golden_parameters(shapes: dict[str, list[int]]) -> dict[str, torch.Tensor]:
    params = {}
    for j, name in enumerate(sorted(shapes)):
        shape = shapes[name]
        numel = int(np.prod(shape))
        base = torch.sin(0.61803398875 * torch.arange(numel, dtype=torch.float64) + j).view(shape)
        if len(shape) > 1:
            params[name] = base * (2 / (numel / shape[0])) ** 0.5
        elif name.endswith("weight"):
            params[name] = 1 + 0.1 * base
        else:
            params[name] = 0.1 * base
    return params

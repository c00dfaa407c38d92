"""Statistics of graphs: the golden figures, and tables that show them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from deepnets_bench.data.shards import open_split
from deepnets_bench.data.statistics import (
    architecture_table,
    split_statistics,
    statistics_tables,
)
from deepnets_bench.generators import generate
from deepnets_bench.graphs.algorithms import degree_and_path
from deepnets_bench.predefined import predefined


def printed(*renderables: object, width: int = 110) -> str:
    console = Console(width=width)
    with console.capture() as capture:
        console.print(*renderables)
    return capture.get()


def words(text: str) -> set[str]:
    return {word for word in text.split() if "─" not in word}


def test_degree_and_path_of_a_triangle_with_a_tail() -> None:
    edges = np.array([[0, 0, 1, 2], [1, 2, 2, 3]])
    degree, path = degree_and_path(edges, 4)
    assert degree == 2
    assert path == (1 + 1 + 2 + 1 + 2 + 1) / 6


@pytest.mark.parametrize(
    ("network", "degree", "path"),
    [(0, 2.238095238095238, 11.193269841269842), (1, 2.294573643410853, 10.700096899224807)],
)
def test_published_figures_of_the_predefined_networks(network: int, degree: float, path: float) -> None:
    arch, width = predefined()[network]
    graph = arch.graph(width=width)
    assert degree_and_path(graph.edge_index, graph.num_nodes) == pytest.approx((degree, path), rel=1e-14)


def test_statistics_of_a_split(tmp_path: Path) -> None:
    generate(["train", "bnfree"], tmp_path, num=60)
    train, bnfree = (split_statistics(open_split(tmp_path, name), sample=50) for name in ("train", "bnfree"))
    assert (train.count, train.sampled) == (60, 50)
    nodes = [record.num_nodes for record in open_split(tmp_path, "train")[:50]]
    assert train.nodes == (min(nodes), max(nodes), np.mean(nodes), np.std(nodes))
    assert bnfree.without_norm == 1 > train.without_norm
    assert 2.1 < train.degree[0] < 2.5
    (table,) = statistics_tables([train, bnfree], 110)
    text = printed(table)
    assert f"{train.nodes[2]:.1f} ± {train.nodes[3]:.1f}" in text
    assert "192.3 ± 94.9" in text
    assert "135.1 ± 78.1" in text

    tables = statistics_tables([train, bnfree], 80)
    narrow = printed(*tables, width=80)
    assert "…" not in narrow
    assert max(map(len, narrow.splitlines())) <= 80
    assert words(narrow) == words(text)
    assert [table.row_count for table in tables] == [4, 2]  # nothing was published of the networks


def test_description_of_an_architecture() -> None:
    resnet, vit = (arch for arch, _ in predefined())
    text = printed(architecture_table(vit, 128, 32))
    assert vit.fingerprint() in text
    assert "1,012,234" in text
    assert "none 0, msa 1" in text
    assert "129, 148" in text
    assert "23,520,842" in printed(architecture_table(resnet, 64, 32))

"""Pictures: layouts without overlaps, the same bytes twice, one sentence where nothing can be drawn."""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from deepnets_bench import ComputationGraph
from deepnets_bench.cli import main
from deepnets_bench.data.plots import Distributions, draw_statistics
from deepnets_bench.errors import BadInput, MissingExtra
from deepnets_bench.generators import sample
from deepnets_bench.generators.generation import generate
from deepnets_bench.graphs.drawing import draw_graph, save_figure
from deepnets_bench.graphs.layout import Layout, layered_layout
from deepnets_bench.predefined import predefined

matplotlib = pytest.importorskip("matplotlib", reason="needs the extra 'report'")
matplotlib.use("agg")

GRAPHS = {
    "train": lambda: sample("train", 0).graph(),
    "dense": lambda: sample("dense", 2).graph(),
    "vit": lambda: predefined()[1][0].graph(),
    "resnet": lambda: predefined()[0][0].graph(),  # not made of cells
}


@pytest.fixture(scope="module", params=sorted(GRAPHS))
def drawn(request: pytest.FixtureRequest) -> tuple[ComputationGraph, Layout]:
    graph = GRAPHS[request.param]()
    return graph, layered_layout(graph)


def test_nodes_do_not_overlap_and_stay_inside(drawn: tuple[ComputationGraph, Layout]) -> None:
    graph, layout = drawn
    gap = np.linalg.norm(layout.position[:, None] - layout.position[None], axis=2)
    gap[np.diag_indices(graph.num_nodes)] = np.inf
    assert gap.min() > 0.99
    left, bottom, right, top = layout.bounds
    assert np.all((layout.position > (left, bottom)) & (layout.position < (right, top)))


def test_lines_lead_from_every_source_to_its_target(drawn: tuple[ComputationGraph, Layout]) -> None:
    graph, layout = drawn
    lines = {}
    for source, points in (*layout.curves, *layout.turns):
        lines.setdefault((source, points[0]), set()).add(points[-1])
    for u, v in graph.edge_index.T.tolist():
        reached, todo = set(), [tuple(layout.position[u].tolist())]
        while todo:
            at = todo.pop()
            reached.add(at)
            todo += [end for end in lines.get((u, at), ()) if end not in reached]
        assert tuple(layout.position[v].tolist()) in reached
    assert all(start[0] < end[0] for _, (start, end) in layout.curves)  # dataflow goes to the right


def test_cells_are_boxes_that_do_not_overlap() -> None:
    arch = sample("train", 0)
    blocks = layered_layout(arch.graph()).blocks
    assert [block.label for block in blocks] == ["stem", *(f"cell {i}" for i in range(arch.n_cells)), "head"]
    for i, a in enumerate(blocks):
        for b in blocks[:i]:
            (x, y, width, height), (x2, y2, width2, height2) = a.box, b.box
            apart = x >= x2 + width2 or x2 >= x + width or y >= y2 + height2 or y2 >= y + height
            assert apart


def test_legend_counts_primitives() -> None:
    graph = predefined()[1][0].graph()
    ax = graph.draw()
    texts = {text.get_text() for text in ax.get_legend().get_texts()}
    assert {"sum (21)", "msa (10)", "input (1)", "pos_enc (1)"} <= texts
    assert sum(int(text.split("(")[1][:-1]) for text in texts) == graph.num_nodes
    matplotlib.pyplot.close(ax.figure)


def test_given_axes_are_used() -> None:
    figure, axes = matplotlib.pyplot.subplots(1, 2)
    assert draw_graph(sample("train", 0).graph(), axes[1]) is axes[1]
    assert not axes[0].collections
    matplotlib.pyplot.close(figure)


def test_the_same_graph_gives_the_same_bytes(tmp_path: Path) -> None:
    graph = sample("bnfree", 1).graph()
    for suffix, magic in (("svg", b"<?xml"), ("pdf", b"%PDF"), ("png", b"\x89PNG")):
        paths = [tmp_path / f"{i}.{suffix}" for i in range(2)]
        for path in paths:
            save_figure(draw_graph(graph).figure, path)
        first, second = (path.read_bytes() for path in paths)
        assert first.startswith(magic)
        assert first == second
    assert len(list(tmp_path.iterdir())) == 6  # no temporary file is left


def split(name: str, nodes: list[float]) -> Distributions:
    values = np.array(nodes)
    return Distributions(name, values, values / 100, values / 10, values * 1e4)


def test_statistics_set_every_split_before_train() -> None:
    train = split("train", list(range(50, 300, 5)))
    figure = draw_statistics([split("deep", list(range(100, 600, 20))), train, split("val", [60.0, 70.0])])
    axes = np.array(figure.axes).reshape(2, 4)
    assert [ax.get_ylabel() for ax in axes[:, 0]] == ["val", "deep"]
    assert len(axes[0, 0].patches) == 1  # train; two networks are lines
    (behind, front) = (patch.get_data() for patch in axes[1, 0].patches)
    assert behind.values.sum() == pytest.approx(1)
    assert front.values.sum() == pytest.approx(1)
    assert front.edges @ np.append(front.values, 0) > behind.edges @ np.append(behind.values, 0)
    matplotlib.pyplot.close(figure)
    with pytest.raises(BadInput, match="no split"):
        draw_statistics([])


def command(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["deepnets-bench", *map(str, arguments)])
    with pytest.raises(SystemExit) as exit_:
        main()
    return int(exit_.value.code or 0)


@pytest.mark.parametrize(
    ("low", "high"), [(2e6, 4e6), (2.6e6, 2.9e6), (3e4, 2e8), (1e3, 1e12), (40, 700), (5, 5)]
)
def test_labels_of_logarithmic_axes_are_few_and_do_not_overlap(low: float, high: float) -> None:
    values = np.geomspace(low, high, 30)
    same = {"nodes": values, "degree": values, "path": values, "num_params": values}
    figure = draw_statistics([Distributions(name, **same) for name in ("val", "test")])
    figure.canvas.draw()
    for ax in figure.axes[-4:]:
        labels = [label for label in ax.get_xticklabels(which="both") if label.get_text()]
        assert 2 <= len(labels) <= 6, ax.get_xlabel()
        boxes = [label.get_window_extent() for label in labels]
        assert all(a.x1 < b.x0 for a, b in pairwise(boxes)), ax.get_xlabel()
    names = [ax.xaxis.label.get_window_extent() for ax in figure.axes[-4:]]
    assert all(a.x1 < b.x0 for a, b in pairwise(names))
    matplotlib.pyplot.close(figure)


def test_command_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generate(["train", "val"], tmp_path / "data", 12)
    assert command(monkeypatch, "inspect", "train/0", "--draw", tmp_path / "graph.svg") == 0
    assert (tmp_path / "graph.svg").stat().st_size > 10_000
    assert command(monkeypatch, "inspect", tmp_path / "data", "--stats", tmp_path / "stats.png") == 0
    assert (tmp_path / "stats.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("inspect", "train/0", "--draw", "out.gif"), "must end in .png, .svg or .pdf"),
        (("inspect", "train/0", "--draw", "absent/out.png"), "The folder absent of out.png does not exist"),
        (("inspect", "train/0", "--stats", "out.png"), "is one architecture"),
        (("inspect", "data", "--draw", "out.png"), "for a folder there is --stats"),
    ],
)
def test_what_cannot_be_drawn_is_one_sentence(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    sentence: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    generate("val", tmp_path / "data", 1)
    assert command(monkeypatch, *arguments) == 2
    errors = capsys.readouterr().err
    assert sentence in errors
    assert errors.count("\n") == 1
    assert not list(tmp_path.glob("*.*"))


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(MissingExtra, match=r"deepnets-bench\[report\]"):
        sample("train", 0).graph().draw()

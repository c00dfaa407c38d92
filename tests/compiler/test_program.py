"""Programs and graphs: the figures of the specification, and structure that every architecture must have."""

from __future__ import annotations

from collections import Counter

import networkx
import numpy as np
import pytest
from hypothesis import given, settings

from deepnets_bench import PRIMITIVES, Architecture, BadInput, ComputationGraph, Genotype
from deepnets_bench.predefined import DARTS, PDARTS, VIT, ResNet50
from tests.strategies import architectures, sampled

# The genotype X of the specification.
X = Genotype(
    normal=(("sep_conv_3x3", 1), ("none", 0), ("skip_connect", 2), ("cse", 0)),
    normal_concat=(2, 3),
    reduce=(("max_pool_3x3", 0), ("skip_connect", 1), ("dil_conv_5x5", 2), ("conv_7x1_1x7", 0)),
    reduce_concat=(2, 3),
)
CIFAR = {"image_size": 32, "num_classes": 10}
IMAGENET = {"image_size": 224, "num_classes": 1000}


def architecture_x(stem_type: int, stem_pool: bool, glob_avg: bool) -> Architecture:
    return Architecture(
        X, n_cells=4, ks=5, norm="bnorm", fc_layers=2, fc_dim=64,
        stem_type=stem_type, stem_pool=stem_pool, glob_avg=glob_avg,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("sizes", "glob_avg", "expected"),
    [
        (CIFAR, True, (505_626, 505_626, 505_226)),
        (CIFAR, False, (1_537_818, 751_386, 750_986)),
        ({"image_size": 224, "num_classes": 10}, True, (492_506, 492_506, 505_226)),
        ({"image_size": 224, "num_classes": 10}, False, (3_687_386, 1_278_938, 1_291_658)),
    ],
)
def test_parameter_counts_of_x(sizes: dict[str, int], glob_avg: bool, expected: tuple[int, ...]) -> None:
    stems = ((0, False), (0, True), (1, False))
    counts = [architecture_x(*stem, glob_avg).program(32, **sizes).num_params for stem in stems]
    assert tuple(counts) == expected


@pytest.mark.parametrize(
    ("genotype", "width", "n_cells", "stem_type", "sizes", "params", "nodes", "edges"),
    [
        (DARTS, 36, 20, 0, CIFAR, 3_349_342, 794, 935),
        (DARTS, 36, 20, 1, CIFAR, 3_356_596, 800, 942),
        (DARTS, 48, 14, 0, IMAGENET, None, 542, 641),
        (DARTS, 48, 14, 1, IMAGENET, 4_718_752, 548, 648),
        (PDARTS, 36, 20, 0, CIFAR, 3_433_798, None, None),
        (PDARTS, 48, 14, 1, IMAGENET, 4_944_352, None, None),
    ],
)
def test_named_genotypes(
    genotype: Genotype,
    width: int,
    n_cells: int,
    stem_type: int,
    sizes: dict[str, int],
    params: int | None,
    nodes: int | None,
    edges: int | None,
) -> None:
    arch = Architecture(genotype, n_cells=n_cells, stem_type=stem_type)
    graph = arch.graph(width, **sizes)
    if params is not None:
        assert arch.program(width, **sizes).num_params == params
    if nodes is not None:
        assert (graph.num_nodes, graph.num_edges) == (nodes, edges)


def undirected(graph: ComputationGraph) -> tuple[float, float]:
    """Average degree and average shortest path of the undirected graph."""
    plain = graph.to_networkx().to_undirected()
    return 2 * graph.num_edges / graph.num_nodes, networkx.average_shortest_path_length(plain)


def test_vit_figures() -> None:
    vit = Architecture(VIT, n_cells=12, preproc=False, C_mult=1)
    assert vit.program(128).num_params == 1_012_234
    assert vit.program(128, **IMAGENET).num_params == 1_244_392
    graph = vit.graph(128)
    assert (graph.num_nodes, graph.num_edges) == (129, 148)
    assert undirected(graph) == pytest.approx((2.294573643410853, 10.700096899224807), rel=1e-14)
    _, distance = graph.shortest_paths(50)
    assert (len(distance), distance.sum(), distance.max()) == (8254, 98275, 30)


def test_resnet50_figures() -> None:
    resnet = ResNet50()
    assert resnet.program().num_params == 23_520_842
    assert resnet.program(**IMAGENET).num_params == 25_557_032
    graph = resnet.graph()
    assert (graph.num_nodes, graph.num_edges) == (126, 141)
    assert undirected(graph) == pytest.approx((2.238095238095238, 11.193269841269842), rel=1e-14)
    imagenet = resnet.graph(**IMAGENET)
    assert (imagenet.num_nodes, imagenet.num_edges) == (127, 142)


def test_x_figures() -> None:
    graph = architecture_x(1, False, True).graph(32)
    assert (graph.num_nodes, graph.num_edges) == (88, 104)
    assert undirected(graph)[1] == pytest.approx(8.822100313479623, rel=1e-14)
    _, distance = graph.shortest_paths(50)
    assert (len(distance), distance.sum(), distance.max()) == (3109, 30986, 26)


def test_darts_distances_at_two_cutoffs() -> None:
    graph = Architecture(DARTS, n_cells=20).graph(36)
    assert len(graph.shortest_paths(50)[1]) == 293_941
    _, distance = graph.shortest_paths(250)
    assert (len(distance), distance.max()) == (294_801, 59)


@pytest.mark.parametrize(
    ("op", "nodes", "edges"),
    [
        ("sep_conv_3x3", 6, 6),
        ("dil_conv_3x3", 3, 3),
        ("conv_3x3", 2, 2),
        ("conv_7x1_1x7", 3, 3),
        ("cse", 5, 6),
        ("msa", 12, 14),
        ("skip_connect", 0, 0),
        ("max_pool_3x3", 1, 1),
    ],
)
def test_nodes_and_edges_of_an_operation(op: str, nodes: int, edges: int) -> None:
    """The worked examples: an operation in the one normal cell of a network, against one with a skip."""

    def size(name: str) -> tuple[int, int]:
        skip = (("skip_connect", 1), ("none", 0))
        # The msa on a dead branch keeps the stem the same for all operations.
        normal = ((name, 1), ("none", 0), ("msa", 0), ("none", 1))
        graph = Architecture(
            Genotype(normal, (2,), (*skip, *skip), (2,)), n_cells=1, norm="bnorm", C_mult=1
        ).graph(16)
        return graph.num_nodes, graph.num_edges

    n, e = size(op)
    n0, e0 = size("skip_connect")
    assert (n - n0, e - e0) == (nodes, edges)


@settings(max_examples=150)
@given(architectures())
def test_structure_of_any_valid_architecture(arch: Architecture) -> None:
    check_structure(arch)


@settings(max_examples=100)
@given(sampled)
def test_structure_of_any_sampled_architecture(arch: Architecture) -> None:
    assert arch.program(32).valid
    check_structure(arch)


def check_structure(arch: Architecture) -> None:
    for sizes in (CIFAR, IMAGENET, {"image_size": 16, "num_classes": 10}):
        program = arch.program(16, **sizes)
        if not program.valid:
            continue
        graph = ComputationGraph.from_program(program)
        source, target = graph.edge_index
        assert (source < target).all()
        order = np.lexsort((source, target))
        assert (order == np.arange(graph.num_edges)).all()
        plain = graph.to_networkx()
        ops = [PRIMITIVES[op] for op in graph.op]
        # Every node lies on a path from the input to the logits, positional encodings aside.
        assert networkx.ancestors(plain, graph.num_nodes - 1) == set(range(graph.num_nodes - 1))
        below = networkx.descendants(plain, 0) | {0}
        assert {i for i in range(graph.num_nodes) if i not in below} <= {
            i for i, op in enumerate(ops) if op == "pos_enc"
        }
        degree = Counter(target.tolist())
        for node, op in enumerate(ops):
            if op in ("sum", "concat", "cse"):
                assert degree[node] >= 2
            else:
                assert degree[node] == (0 if op in ("input", "pos_enc") else 1)
        assert ops[0] == "input"
        assert ops[-2:] == ["conv", "bias"]
        assert (graph.level[target] > graph.level[source]).all()
        # The network's parameters are those of the graph and those of dead operations.
        names = {name for name in graph.param_name if name}
        norms = {n[: -len("weight")] + "bias" for n, op in zip(graph.param_name, ops, strict=True)
                 if op in ("bn", "ln") and n}  # fmt: skip
        dead = {
            f"{module}.{part}"
            for module in program.module_names(np.flatnonzero(~program.live & (program.table[:, 2] > 0)))
            for part in ("weight", "bias")
        }
        assert names | norms == set(program.param_shapes) - dead
        for name, shape in zip(graph.param_name, graph.param_shape, strict=True):
            assert name is None or program.param_shapes[name] == shape
        assert program.num_params == sum(int(np.prod(s)) for s in program.param_shapes.values())


@settings(max_examples=40)
@given(sampled)
def test_distances_are_those_of_breadth_first_search(arch: Architecture) -> None:
    graph = arch.graph(32)
    edge_index, distance = graph.shortest_paths(7)
    found = dict(zip(map(tuple, edge_index.T.tolist()), distance.tolist(), strict=True))
    expected = {
        (source, target): length
        for source, lengths in networkx.all_pairs_shortest_path_length(graph.to_networkx(), cutoff=7)
        for target, length in lengths.items()
        if length > 0
    }
    assert found == expected
    assert (np.lexsort((edge_index[0], edge_index[1])) == np.arange(len(distance))).all()


def graph_of_edges(num_nodes: int, edges: list[tuple[int, int]]) -> ComputationGraph:
    """Nothing but nodes and edges, the latter sorted by (target, source)."""
    zeros = np.zeros(num_nodes, np.int64)
    nothing: list[None] = [None] * num_nodes
    index = np.array(edges, np.int64).reshape(-1, 2).T
    return ComputationGraph(zeros, zeros, nothing, nothing, zeros, index, 0, 0)


@pytest.mark.parametrize("cutoff", [3, 4, 5, 32_766, 32_767, 65_533, 65_535, 2**40, np.int64(2**62), 10**30])
def test_a_cutoff_beyond_all_paths_returns_the_reachable_pairs(cutoff: int) -> None:
    # 0 → 1 → 3 → 4 and 0 → 3; no path leads to 2, nor from it.
    edge_index, distance = graph_of_edges(5, [(0, 1), (0, 3), (1, 3), (3, 4)]).shortest_paths(cutoff)
    assert edge_index.T.tolist() == [[0, 1], [0, 3], [1, 3], [0, 4], [1, 4], [3, 4]]
    assert distance.tolist() == [1, 1, 1, 2, 2, 1]


def test_the_longest_path_of_a_chain_is_found_up_to_the_cutoff() -> None:
    chain = graph_of_edges(300, [(node, node + 1) for node in range(299)])
    assert chain.shortest_paths(10**6)[1].max() == 299
    assert chain.shortest_paths(298)[1].max() == 298
    assert len(chain.shortest_paths(298)[1]) == 300 * 299 // 2 - 1


@pytest.mark.parametrize("cutoff", [0, -1, -(10**30), 2.5, 50.0, float("nan"), float("inf"), "50", None])
def test_a_cutoff_that_is_no_distance_is_one_sentence(cutoff: object) -> None:
    with pytest.raises(BadInput, match="a whole number of at least 1, not"):
        graph_of_edges(2, [(0, 1)]).shortest_paths(cutoff)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"width": 0}, "width must be a positive whole number"),
        ({"width": 9}, "width must be even"),
        ({"width": 4}, "at least 8 with attention"),
        ({"image_size": 30}, "image_size must be a multiple of 8"),
        ({"image_size": 100}, "image_size must be a multiple of 8 from 16 to 64, or of 32 above"),
        ({"num_classes": 0}, "num_classes must be a positive whole number"),
        ({"fc_dim": 0}, "fc_dim must be a positive whole number"),
        ({"width": 1.5}, "width must be a positive whole number"),
    ],
)
def test_impossible_sizes_are_one_sentence(sizes: dict[str, int], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        Architecture(VIT, n_cells=4, preproc=False, C_mult=1).graph(**sizes)


def test_an_empty_output_cannot_be_built() -> None:
    nothing = (("none", 0), ("none", 1))
    arch = Architecture(Genotype(nothing, (2,), nothing, (2,)), n_cells=4, C_mult=1)
    assert not arch.program(32).valid
    with pytest.raises(BadInput, match="empty output"):
        arch.build(32)
    with pytest.raises(BadInput, match="empty output"):
        arch.graph(32)

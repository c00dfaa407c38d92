"""Transforms that a GNN declares: they reach its forward, count in its checks, and nothing is dropped."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch_geometric.transforms as T
from torch import Tensor, nn
from torch_geometric.data import Data

from deepnets_bench import GHN, Architecture, GraphBatch
from deepnets_bench.data.graph_batch import transform_batch
from deepnets_bench.errors import BadInput
from deepnets_bench.gnn import spec_of
from deepnets_bench.gnn.adapters import edges_of
from deepnets_bench.gnn.check import check, small_batch
from deepnets_bench.gnn.transform import Transforming, declared_transform
from deepnets_bench.predefined import DARTS

WALK = T.Compose([T.ToUndirected(), T.AddRandomWalkPE(4, attr_name="pe")])


@pytest.fixture(scope="module")
def batch() -> GraphBatch:
    return small_batch()


class Native(nn.Module):
    transform: Any = WALK

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.encode = nn.Linear(4, dim)

    def forward(self, x: Tensor, batch: Any) -> Tensor:
        return x + self.encode(batch.pe)


class PyG(Native):
    def forward(self, x: Tensor, edge_index: Tensor, pe: Tensor) -> Tensor:  # type: ignore[override]
        messages = torch.zeros_like(x).index_add(0, edge_index[1], x[edge_index[0]])
        return x + messages + self.encode(pe)


class DGL(Native):
    def forward(self, g: Any, x: Tensor) -> Tensor:  # type: ignore[override]
        return x + self.encode(g.ndata["pe"])


def random_signs(data: Data) -> Data:
    data.pe = torch.randint(0, 2, (1, 4)) * 2.0 - torch.ones(data.num_nodes, 4)
    return data


def by_hand(batch: GraphBatch) -> Tensor:
    """Return probabilities of a walk over undirected edges, from powers of the transition matrix."""
    rows = []
    for graph in batch.graphs:
        adjacency = torch.zeros(graph.num_nodes, graph.num_nodes, dtype=torch.float64)
        adjacency[tuple(torch.from_numpy(graph.edge_index))] = 1
        adjacency = torch.maximum(adjacency, adjacency.T)
        step = adjacency / adjacency.sum(1, keepdim=True)
        rows.append(torch.stack([torch.linalg.matrix_power(step, k).diag() for k in range(1, 5)], 1))
    return torch.cat(rows).float()


@pytest.mark.parametrize("kind", [Native, PyG, DGL])
def test_what_it_adds_reaches_forward(kind: type[Native], batch: GraphBatch) -> None:
    if kind is DGL:
        pytest.importorskip("dgl")
    torch.manual_seed(0)
    spec = spec_of("mine", kind)
    module = spec.build(8)
    x = torch.randn(len(batch.op), 8)
    (encode,) = (layer for name, layer in module.named_modules() if name.endswith("encode"))
    expected = x + encode(by_hand(batch))
    if kind is PyG:
        both = edges_of(batch, "both").index
        expected = expected + torch.zeros_like(x).index_add(0, both[1], x[both[0]])
    torch.testing.assert_close(module(x, batch), expected)
    assert "pe" not in batch
    assert [result for result in check(spec, 8, batch=batch) if result.problem] == []


def test_undirected_edges_are_fed_once_with_their_direction(batch: GraphBatch) -> None:
    changed = transform_batch(batch, T.ToUndirected())
    assert changed.num_edges == 2 * batch.num_edges

    def listed(one: GraphBatch) -> list[tuple[int, ...]]:
        edges = edges_of(one, "both")
        return sorted(map(tuple, torch.stack([*edges.index, edges.type, edges.weight.long()], 1).tolist()))

    assert listed(changed) == listed(batch)
    forward = edges_of(changed, "forward")
    assert torch.equal(forward.index, changed.edge_index)
    assert torch.equal(forward.type == 0, batch.level[forward.index[0]] < batch.level[forward.index[1]])
    loops = edges_of(transform_batch(batch, T.AddSelfLoops()), "both")
    assert loops.index.shape[1] == 2 * batch.num_edges + batch.num_nodes


def test_in_training_it_draws_from_the_generator_else_from_a_fixed_seed(batch: GraphBatch) -> None:
    class Signs(Native):
        transform = staticmethod(random_signs)

    spec = spec_of("signs", Signs)
    module, x = spec.build(8), torch.zeros(len(batch.op), 8)
    outputs = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        outputs.append(module(x, batch))
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])
    module.eval()
    torch.manual_seed(3)
    state = torch.random.get_rng_state()
    assert torch.equal(module(x, batch), module(x, batch))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert [result for result in check(spec, 8, batch=batch) if result.problem] == []


def test_what_forward_cannot_see_is_refused(batch: GraphBatch) -> None:
    class Unread(PyG):
        transform = T.AddRandomWalkPE(4)

        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:  # type: ignore[override]
            return x

    class Lacking(PyG):
        transform = T.AddRandomWalkPE(4)

    class Features(PyG):
        transform = T.Compose([WALK, T.Constant()])

    class Fewer(Native):
        transform = T.VirtualNode()

    x = torch.zeros(len(batch.op), 8)
    for kind, sentence in (
        (Unread, "'mine' adds random_walk_pe, which its forward does not take"),
        (Lacking, "needs 'pe', which neither a computation graph nor its transform has; that adds random"),
        (Features, r"adds 'x', a name that its forward has for something else; .* \(attr_name=...\)"),
        (Fewer, r"VirtualNode\(\) makes \d+ nodes of \d+; parameters belong to nodes"),
    ):
        with pytest.raises(BadInput, match=sentence):
            spec_of("mine", kind).build(8)(x, batch)

    class Undeclared(PyG):
        transform = None

    with pytest.raises(BadInput, match="needs 'pe', which a computation graph does not have"):
        spec_of("mine", Undeclared).build(8)


def test_what_counts_as_a_declaration() -> None:
    class Function(Native):
        transform = random_signs

    class Lambda(Native):
        transform = lambda data: data  # noqa: E731

    class Method(Native):
        def transform(self, x: Tensor) -> Tensor:
            return x

    class Option(Native):
        def __init__(self, dim: int, steps: int = 7) -> None:
            super().__init__(dim)
            self.transform = T.AddRandomWalkPE(steps)

    assert declared_transform(Function(4)) is random_signs
    assert declared_transform(Lambda(4)) is Lambda.transform
    assert declared_transform(Method(4)) is None
    assert declared_transform(nn.ModuleDict({"transform": nn.Linear(4, 4)})) is None
    assert declared_transform(Option(4, 5)).walk_length == 5  # type: ignore[union-attr]


def test_a_hypernetwork_predicts_with_it_wherever_a_graph_comes_from(batch: GraphBatch) -> None:
    torch.manual_seed(0)
    ghn = GHN.from_config("ghn2", gnn="gps").eval()
    assert isinstance(ghn.gnn, Transforming)
    arch = Architecture(DARTS, n_cells=3)
    graph = arch.graph(width=16)
    predicted = ghn.predict(arch, width=16)
    written = {name: torch.empty_like(tensor) for name, tensor in predicted.items()}
    ghn.write(graph, written)
    with torch.no_grad():
        called = ghn(GraphBatch.from_graphs([graph]))[0]
        user = transform_batch(GraphBatch.from_graphs([graph]), T.AddRandomWalkPE(3, attr_name="mine"))
        composed = ghn(user)[0]
        ghn.gnn.module.module.encode.weight.zero_()
        without = ghn(GraphBatch.from_graphs([graph]))[0]
    for other in (written, called, composed):
        assert all(torch.equal(predicted[name], other[name]) for name in predicted)
    assert any(not torch.equal(predicted[name], without[name]) for name in predicted)


def test_a_module_that_was_built_elsewhere_keeps_its_transform(batch: GraphBatch) -> None:
    config = GHN.from_config("mlp").config
    for gnn in (Native(32), PyG(32), spec_of("mine", PyG).build(32)):
        ghn = GHN(config, gnn=gnn)
        assert len(ghn(batch)) == 3
        assert sum(isinstance(module, Transforming) for module in ghn.modules()) == 1

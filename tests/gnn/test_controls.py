"""Controls: the same GNN with other draws, on shuffled places, and at a matched size."""

import pytest
import torch
from torch import nn

from deepnets_bench.data.dataset import GraphBatch
from deepnets_bench.errors import BadInput, UnknownName
from deepnets_bench.gnn import catalogue, identify, is_registered, resolve
from deepnets_bench.gnn.check import check, small_batch
from deepnets_bench.gnn.controls import node_of_place

SPECS, _ = catalogue()
INSTALLED = [spec.name for spec in SPECS if not spec.missing]
DIM = 16


@pytest.fixture(scope="module")
def batch():
    return small_batch()


@pytest.fixture(scope="module")
def x(batch):
    return torch.randn(batch.num_nodes, DIM, generator=torch.Generator().manual_seed(0))


def built(name: str, **options) -> nn.Module:
    torch.manual_seed(0)
    return resolve(name).build(DIM, **options).eval()


def count(module: nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())


@torch.no_grad()
def output(module, x, batch):
    return module(x, batch)


@pytest.mark.parametrize("name", INSTALLED)
def test_the_contract_holds_for_the_controls_of_every_gnn(name, batch):
    for kind, options in (("same", {}), ("shuffled", {}), ("matched", {"params": 20_000})):
        found = check(resolve(f"control:{kind}:{name}"), DIM, options=options, batch=batch)
        broken = {result.name for result in found if result.problem}
        # Where a node is put depends on its number: a function of the graph as this package numbers it. GHN-3
        # takes the first node for the input, so it depends on the order that is drawn where there are others.
        numbered = kind == "shuffled" or name == "ghn3"
        assert broken <= ({"node permutation"} if numbered else set()), found


@pytest.mark.parametrize("name", ["gat", "transformer"])
def test_the_same_gnn_differs_by_its_own_random_numbers_alone(name, batch, x):
    gnn, same, again = built(name), built(f"control:same:{name}"), built(f"control:same:{name}")
    own = {key.removeprefix("gnn."): value for key, value in same.state_dict().items()}
    assert {key: value.shape for key, value in own.items()} == {
        key: value.shape for key, value in gnn.state_dict().items()
    }
    weights = [key for key, value in own.items() if value.dim() > 1]
    assert weights
    assert not any(torch.equal(own[key], gnn.state_dict()[key]) for key in weights)
    assert all(torch.equal(value, same.state_dict()[key]) for key, value in again.state_dict().items())
    same.gnn.load_state_dict(gnn.state_dict())
    assert torch.equal(output(same, x, batch), output(gnn, x, batch))


def test_the_same_gnn_draws_otherwise_in_training_and_leaves_the_generator_one_number_on(batch, x):
    class Noisy(nn.Module):
        edges = "none"

        def __init__(self, dim):
            super().__init__()

        def forward(self, x, batch):
            return x + torch.rand_like(x) * self.training

    from deepnets_bench.gnn import REGISTRY, register, spec_of

    register(spec_of("noisy-of-this-test", Noisy))
    try:
        gnn, same = built("noisy-of-this-test").train(), built("control:same:noisy-of-this-test").train()
        torch.manual_seed(1)
        plain = gnn(x, batch)
        torch.manual_seed(1)
        other, following = same(x, batch), torch.rand(3)
        torch.manual_seed(1)
        assert torch.equal(same(x, batch), other)
        assert not torch.equal(other, plain)
        torch.manual_seed(1)
        torch.randint(2**63 - 1, ())
        assert torch.equal(torch.rand(3), following)
    finally:
        del REGISTRY["noisy-of-this-test"]


def test_every_node_takes_a_place_of_its_own_graph_whatever_it_is_batched_with(batch):
    place = node_of_place(batch)
    assert torch.equal(place.sort().values, torch.arange(batch.num_nodes))
    assert torch.equal(batch.batch[place], batch.batch)
    assert (place != torch.arange(len(place))).float().mean() > 0.9
    alone = node_of_place(GraphBatch.from_graphs([batch.graphs[1]]))
    start, stop = batch.ptr[1], batch.ptr[2]
    assert torch.equal(place[start:stop] - start, alone)
    wider = GraphBatch.from_graphs([batch.graphs[1]], virtual_edges=1)
    assert torch.equal(node_of_place(wider), alone)


def test_shuffled_means_that_states_come_from_the_edges_of_another_node(batch, x):
    """One step of mean aggregation by hand: node v, at place p, hears the nodes at the places next to p."""

    class Hears(nn.Module):
        edges = "forward"

        def __init__(self, dim):
            super().__init__()

        def forward(self, x, batch):
            source, target = batch.edge_index
            assert torch.equal(batch.level[source] < batch.level[target], torch.ones_like(source, dtype=bool))
            Hears.op = batch.op
            return torch.zeros_like(x).index_add(0, target, x[source])

    from deepnets_bench.gnn import spec_of
    from deepnets_bench.gnn.controls import control_of

    module = control_of("shuffled", spec_of("hears", Hears)).build(DIM)
    node = node_of_place(batch)
    expected = torch.zeros_like(x)
    for source, target in batch.edge_index.t().tolist():
        expected[node[target]] += x[node[source]]
    torch.testing.assert_close(module(x, batch), expected)
    assert torch.equal(Hears.op, batch.op[node])  # operations go with their nodes


def test_what_sees_no_edges_is_not_changed_by_shuffling_and_what_does_is(batch, x):
    assert torch.allclose(output(built("control:shuffled:mlp"), x, batch), output(built("mlp"), x, batch))
    for name in ("ghn1", "ghn2", "ghn3", "gat", "gps"):
        shuffled, plain = built(f"control:shuffled:{name}"), built(name)
        assert (output(shuffled, x, batch) - output(plain, x, batch)).abs().max() > 1e-3


@pytest.mark.parametrize("name", INSTALLED)
def test_matched_sizes_are_within_the_budget_and_near_it(name):
    module = resolve(f"control:matched:{name}").build(32, params=20_000)
    assert 0.7 * 20_000 < count(module) <= 20_000


def test_matched_options_go_to_the_gnn_and_mistakes_are_named():
    shallow = built("control:matched:gat", params=20_000, layers=2)
    assert (
        shallow.gnn.module.stack.layers[0].in_channels
        > built("control:matched:gat", params=20_000).gnn.module.stack.layers[0].in_channels
    )
    for name, options, error, message in (
        ("control:matched:gat", {}, BadInput, "needs a value for params"),
        ("control:matched:gat", {"params": "many"}, BadInput, "must be a whole number above 0"),
        ("control:matched:gat", {"params": 10}, BadInput, "has at most 10 parameters: its smallest one has"),
        ("control:matched:gat", {"params": 9000, "depth": 2}, UnknownName, "option 'depth' of GNN 'gat'"),
        ("control:shuffled:gat", {"depth": 2}, UnknownName, "option 'depth' of GNN 'gat'"),
        ("control:shufled:gat", {}, UnknownName, "Unknown control 'shufled'. Did you mean 'shuffled'"),
        ("control:same", {}, BadInput, "A control is named control:KIND:GNN"),
        ("control:same:gatt", {}, UnknownName, "Unknown GNN 'gatt'. Did you mean 'gat'"),
    ):
        with pytest.raises(error, match=message.replace("(", r"\(")):
            resolve(name).build(DIM, **options)


def test_identity_is_of_the_gnn_and_of_the_control(tmp_path):
    gnn, same, shuffled = (identify(name) for name in ("gat", "control:same:gat", "control:shuffled:gat"))
    assert len({gnn.digest, same.digest, shuffled.digest}) == 3
    assert same.edges == gnn.edges
    assert is_registered("control:same:gat")
    assert not is_registered("control:same:./mine.py:MyGNN")
    mine = tmp_path / "mine.py"
    mine.write_text("class MyGNN:\n    edges = 'none'\n")
    before = identify(f"control:same:{mine}:MyGNN")
    mine.write_text("class MyGNN:\n    edges = 'both'\n")
    after = identify(f"control:same:{mine}:MyGNN")
    assert (before.edges, after.edges) == ("none", "both")
    assert before.digest != after.digest

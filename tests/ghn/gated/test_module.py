"""GatedGNN against the node-by-node oracle, hand-computed numbers and gradcheck."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from deepnets_bench.errors import BadInput
from deepnets_bench.ghn.gated import numba
from deepnets_bench.ghn.gated.module import GatedGNN, NodeMLP
from tests.ghn import oracle

Sweeps = Callable[[GatedGNN, Tensor, SimpleNamespace], Tensor]
implementations = pytest.mark.parametrize(
    "run", [GatedGNN.forward, GatedGNN.by_level], ids=["compiled", "by_level"]
)
with_virtual_edges = pytest.mark.parametrize("virtual_edges", [True, False], ids=["ve", "1hop"])

CHAIN = np.array([(0, 1), (1, 2)])
NO_EDGES = np.zeros((0, 2), np.int64)


def batch_of(*sizes: int, seed: int = 0) -> SimpleNamespace:
    rng = np.random.default_rng(seed)
    return oracle.make_batch([oracle.random_graph(rng, n) for n in sizes])


def output_and_gradients(run: Sweeps, gnn: GatedGNN, x: Tensor, batch: SimpleNamespace) -> list[Tensor]:
    x = x.clone().requires_grad_()
    out = run(gnn, x, batch)
    # Distinct weights per element: a sum would hide errors that cancel.
    weights = torch.linspace(-1, 1, out.numel(), dtype=x.dtype).view_as(out)
    inputs = [x, *gnn.parameters()]
    return [out.detach(), *torch.autograd.grad((out * weights).sum(), inputs, materialize_grads=True)]


@implementations
@with_virtual_edges
@pytest.mark.parametrize("dim", [32, 7])
def test_equals_the_oracle(run: Sweeps, virtual_edges: bool, dim: int) -> None:
    torch.manual_seed(0)
    gnn, batch = GatedGNN(dim, virtual_edges), batch_of(60, 1, 90, 2, 75)
    x = torch.randn(len(batch.batch), dim)
    expected = output_and_gradients(oracle.gated, gnn, x, batch)
    for actual, wanted in zip(output_and_gradients(run, gnn, x, batch), expected, strict=True):
        torch.testing.assert_close(actual, wanted, rtol=1e-5, atol=1e-5 * max(1.0, float(wanted.abs().max())))


def test_gradients_of_a_large_batch_keep_their_accuracy() -> None:
    """Sums over thousands of nodes that nearly cancel, against float64."""
    torch.manual_seed(0)
    gnn, batch = GatedGNN(32), batch_of(*range(130, 258, 4))
    x = torch.randn(len(batch.batch), 32)
    actual = output_and_gradients(GatedGNN.forward, gnn, x, batch)
    expected = output_and_gradients(GatedGNN.forward, copy.deepcopy(gnn).double(), x.double(), batch)
    for one, exact in zip(actual, expected, strict=True):
        assert (one - exact).abs().max() <= 1.5e-6 * exact.abs().max()


@implementations
@with_virtual_edges
def test_gradcheck(run: Sweeps, virtual_edges: bool) -> None:
    torch.manual_seed(0)
    gnn, batch = GatedGNN(3, virtual_edges).double(), batch_of(6, 1, 4)
    x = torch.randn(len(batch.batch), 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, *_: run(gnn, x, batch), (x, *gnn.parameters()))


@implementations
def test_hand_computed_chain(run: Sweeps) -> None:
    """mlp = 0.2 and mlp_ve = 0.3 everywhere, and a GRU that returns tanh(message)."""
    gnn, batch = GatedGNN(2), oracle.make_batch([(3, CHAIN)])
    assert gnn.mlp_ve is not None
    with torch.no_grad():
        for parameter in gnn.parameters():
            parameter.zero_()
        gnn.mlp.fc[2].bias.fill_(0.2)
        gnn.mlp_ve.fc[2].bias.fill_(0.3)
        gnn.gru.bias_ih[2:4] = -100.0
        gnn.gru.weight_ih[4:] = torch.eye(2)
    # After the backward sweep node 0 has heard from 1 (both sums) and 2 (0.3 / 2), node 2 from nobody.
    expected = [math.tanh(0.2 + 0.3 + 0.3 / 2), math.tanh(0.2 + 0.3), 0.0]
    states = run(gnn, torch.zeros(3, 2), batch)
    torch.testing.assert_close(states, torch.tensor(expected)[:, None].expand(3, 2))


def test_state_dict_names_and_shapes() -> None:
    gru = {"gru.weight_ih": (96, 32), "gru.weight_hh": (96, 32), "gru.bias_ih": (96,), "gru.bias_hh": (96,)}
    mlp = {"fc.0.weight": (16, 32), "fc.0.bias": (16,), "fc.2.weight": (32, 16), "fc.2.bias": (32,)}
    heads = {f"{head}.{name}": shape for head in ("mlp", "mlp_ve") for name, shape in mlp.items()}
    shapes = {name: tuple(value.shape) for name, value in GatedGNN(32).state_dict().items()}
    assert shapes == gru | heads
    one_hop = {name: tuple(value.shape) for name, value in GatedGNN(32, False).state_dict().items()}
    assert one_hop.keys() == {name for name in shapes if not name.startswith("mlp_ve")}
    assert one_hop["mlp.fc.0.weight"] == (32, 32)
    assert list(NodeMLP(32).state_dict()) == list(mlp)


def test_node_mlp_ends_with_relu_and_ignores_edges() -> None:
    mlp, x = NodeMLP(8), torch.randn(20, 8)
    assert (mlp(x) >= 0).all()
    torch.testing.assert_close(mlp(x, batch_of(20))[3], mlp(x[3]))


@implementations
@pytest.mark.parametrize("graphs", [[(1, NO_EDGES)], [(3, NO_EDGES)], [(2, CHAIN[:1]), (1, NO_EDGES)]])
def test_few_or_no_edges(run: Sweeps, graphs: list[tuple[int, np.ndarray]]) -> None:
    gnn, batch = GatedGNN(6), oracle.make_batch(graphs)
    x = torch.randn(len(batch.batch), 6)
    expected = output_and_gradients(oracle.gated, gnn, x, batch)
    for actual, wanted in zip(output_and_gradients(run, gnn, x, batch), expected, strict=True):
        torch.testing.assert_close(actual, wanted, rtol=1e-5, atol=1e-5)


@implementations
def test_any_layout_and_any_order_of_edges_and_nodes(run: Sweeps) -> None:
    gnn, batch = GatedGNN(8), batch_of(30, 40)
    x = torch.randn(8, len(batch.batch)).t()
    expected = run(gnn, x.contiguous(), batch)
    torch.testing.assert_close(run(gnn, x, batch), expected)

    one_hop, virtual = torch.randperm(batch.edge_index.shape[1]), torch.randperm(len(batch.distance))
    batch.edge_index = batch.edge_index[:, one_hop]
    batch.virtual_edge_index, batch.distance = batch.virtual_edge_index[:, virtual], batch.distance[virtual]
    torch.testing.assert_close(run(gnn, x, batch), expected)

    new_place = torch.randperm(len(x))
    old_place = new_place.argsort()
    batch.edge_index = new_place[batch.edge_index]
    batch.virtual_edge_index = new_place[batch.virtual_edge_index]
    batch.level = batch.level[old_place]
    torch.testing.assert_close(run(gnn, x[old_place], batch)[new_place], expected)


@implementations
def test_a_batch_equals_its_graphs_one_by_one(run: Sweeps) -> None:
    rng = np.random.default_rng(0)
    graphs = [oracle.random_graph(rng, n) for n in (30, 1, 50)]
    gnn, x = GatedGNN(8), torch.randn(81, 8)
    features = x.split([30, 1, 50])
    alone = [run(gnn, part, oracle.make_batch([g])) for part, g in zip(features, graphs, strict=True)]
    torch.testing.assert_close(run(gnn, x, oracle.make_batch(graphs)), torch.cat(alone))


def test_bit_for_bit_reproducible() -> None:
    gnn, x = GatedGNN(32), torch.randn(150, 32)
    first, second = (output_and_gradients(GatedGNN.forward, gnn, x, batch_of(90, 60)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@implementations
def test_features_without_gradient(run: Sweeps) -> None:
    gnn, batch = GatedGNN(8), batch_of(30)
    run(gnn, torch.randn(30, 8), batch).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in gnn.parameters())
    with torch.inference_mode():
        assert not run(gnn, torch.randn(30, 8), batch).requires_grad


def test_the_schedule_is_kept_while_the_edges_stay_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    built = []
    build = numba.schedule
    monkeypatch.setattr(numba, "schedule", lambda *args: built.append(args) or build(*args))
    gnn, batch, x = GatedGNN(8), batch_of(30), torch.randn(30, 8)
    gnn(gnn(x, batch), batch)
    assert len(built) == 1
    batch.distance = batch.distance * 2
    torch.testing.assert_close(gnn(x, batch), oracle.gated(gnn, x, batch), rtol=1e-5, atol=1e-5)
    assert len(built) == 2


def test_autocast_does_not_lower_the_precision_of_the_states() -> None:
    gnn, batch, x = GatedGNN(8), batch_of(30), torch.randn(30, 8)

    def autocast_forward(gnn: GatedGNN, x: Tensor, batch: SimpleNamespace) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            lowered = torch.nn.functional.linear(x, torch.eye(8))
            assert lowered.dtype == torch.bfloat16
            torch.testing.assert_close(gnn(lowered, batch), gnn(lowered.float(), batch), rtol=0, atol=0)
            return gnn(x, batch)

    expected = output_and_gradients(GatedGNN.forward, gnn, x, batch)
    for actual, wanted in zip(output_and_gradients(autocast_forward, gnn, x, batch), expected, strict=True):
        assert actual.dtype == torch.float32
        torch.testing.assert_close(actual, wanted, rtol=0, atol=0)


@implementations
@pytest.mark.parametrize("edge", [(2, 0), (1, 1), (0, 3), (-1, 2)])
def test_edges_that_do_not_lead_upwards_are_refused(run: Sweeps, edge: tuple[int, int]) -> None:
    batch = oracle.make_batch([(3, CHAIN)])
    batch.edge_index = torch.cat([batch.edge_index, torch.tensor(edge)[:, None]], 1)
    with pytest.raises(BadInput, match="edge"):
        run(GatedGNN(8), torch.randn(3, 8), batch)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@with_virtual_edges
def test_on_a_gpu_equals_the_oracle_and_repeats_bit_for_bit(virtual_edges: bool) -> None:
    torch.manual_seed(0)
    gnn, batch = GatedGNN(32, virtual_edges), batch_of(60, 1, 90)
    x = torch.randn(len(batch.batch), 32)
    expected = output_and_gradients(oracle.gated, gnn, x, batch)
    on_gpu = SimpleNamespace(**{key: value.cuda() for key, value in vars(batch).items()})
    torch.use_deterministic_algorithms(True)
    try:
        first, second = (
            output_and_gradients(GatedGNN.forward, gnn.cuda(), x.cuda(), on_gpu) for _ in range(2)
        )
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    for actual, wanted in zip(first, expected, strict=True):
        tolerance = 1e-5 * max(1.0, float(wanted.abs().max()))
        torch.testing.assert_close(actual.cpu(), wanted, rtol=1e-5, atol=tolerance)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sigmoid_is_accurate_and_keeps_nan(dtype: type[np.floating]) -> None:
    x = np.concatenate([np.linspace(-50, 50, 4001), [-np.inf, np.inf, -1e4, 1e4, 0, np.nan]]).astype(dtype)
    expected = torch.from_numpy(x.astype(np.float64)).sigmoid().numpy()
    numba._sigmoid(x)
    np.testing.assert_allclose(x, expected, rtol=0, atol=2 * np.finfo(dtype).eps)
    assert np.isnan(x[-1])

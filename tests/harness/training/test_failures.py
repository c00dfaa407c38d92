"""One failure policy: want of memory and values that are not finite fail one network, all else the job."""

import math

import pytest
import torch
from torch import nn

from deepnets_bench.errors import BadInput, NotFinite
from deepnets_bench.gnn import identify
from deepnets_bench.harness.images.sets import digits
from deepnets_bench.harness.runs.job import build_ghn
from deepnets_bench.harness.training import evaluation
from deepnets_bench.harness.training.evaluation import evaluate
from deepnets_bench.harness.training.failures import is_network_failure, require_finite
from tests.harness.conftest import tiny_track
from tests.harness.training.test_trainer import make_trainer, weights

SIZES = {"width": 8, "fc_dim": 16, "num_classes": 10}


@pytest.mark.parametrize(
    ("error", "is_failure"),
    [
        (NotFinite("the loss is nan"), True),
        (torch.OutOfMemoryError("CUDA out of memory."), True),
        (MemoryError(), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"), True),
        (RuntimeError("CUDA error: device-side assert triggered"), False),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (RuntimeError("The size of tensor a (3) must match the size of tensor b (4)"), False),
        (BadInput("GNN 'mine': forward returns list where a tensor [N, dim] is expected."), False),
        (ValueError("out of memory"), False),
        (KeyboardInterrupt(), False),
    ],
)
def test_what_is_the_failure_of_one_network(error, is_failure):
    assert is_network_failure(error) == is_failure


def test_predictions_that_are_not_finite_are_named():
    good = {"a": torch.ones(3), "b": torch.zeros(2, 2)}
    require_finite([])
    require_finite([good, good])
    require_finite([{"a": torch.full((3,), 3e38)}])  # whose square is not finite, but who itself is
    for value in (math.nan, math.inf, -math.inf):
        bad = {"a": torch.ones(3), "b": torch.tensor([[0.0, 1.0], [value, 0.0]])}
        with pytest.raises(NotFinite, match="Predicted parameters are NaN or infinite") as caught:
            require_finite([good, bad, good, bad])
        assert caught.value.graphs == (1, 3)


class Fragile(nn.Module):
    """Fails for graphs of `nodes` nodes: its states are NaN, or so large that the decoder's are infinite."""

    def __init__(self, dim: int, nodes: int, how: str = "nan") -> None:
        super().__init__()
        self.nodes, self.how = nodes, how
        self.norm = nn.BatchNorm1d(dim)
        self.linear = nn.Linear(dim, dim)

    def forward(self, x, batch):
        x = x + self.linear(self.norm(x))
        sizes = batch.ptr[1:] - batch.ptr[:-1]
        fails = (sizes == self.nodes)[batch.batch][:, None]
        if self.how == "nan":
            return x.masked_fill(fails, math.nan)
        return x.clamp(-1, 1) * torch.where(fails, 3.4e38, 1.0)


def fragile_trainer(architectures, how, sampled=None):
    """A trainer whose GNN fails for the second network of the first step, and the step's sampled."""
    track = tiny_track(
        ghn={"config": "ghn1"},  # which has no layer norm between the GNN and the decoders
        training={"clip_grad_norm": 1e9},
        networks={"meta_batch_size": 3, "max_meta_batch_nodes": 400},
    )
    trainer = make_trainer(track, architectures, "mlp")
    sampled = next(trainer.sampler.from_step(0))
    sizes = [trainer._build(network)[0].num_nodes for network in sampled]
    assert len(set(sizes)) == 3
    torch.manual_seed(0)
    trainer.ghn.gnn = Fragile(8, sizes[2], how)
    return trainer, sampled


@pytest.mark.parametrize("how", ["nan", "inf"])
def test_a_graph_that_is_not_finite_fails_alone_and_spares_the_gradient_of_the_others(architectures, how):
    trainer, sampled = fragile_trainer(architectures, how)
    loss, _, n_ran = trainer._step(0, sampled, lr=0.0)
    assert (n_ran, trainer.state.failures) == (2, 1)
    reason = {"nan": "forward returns NaN or infinity", "inf": "Predicted parameters are NaN or infinite"}
    assert reason[how] in trainer.state.last_failure
    others, _ = fragile_trainer(architectures, how)
    expected, _, _ = others._step(0, sampled[:2], lr=0.0)
    assert others.state.failures == 0
    assert loss == expected
    for (name, found), weight in zip(trainer.ghn.named_parameters(), others.ghn.parameters(), strict=True):
        assert (found.grad is None) == (weight.grad is None), name
        if weight.grad is not None:
            assert weight.grad.isfinite().all(), name
            assert torch.equal(found.grad, weight.grad), name
    for found, buffer in zip(trainer.ghn.buffers(), others.ghn.buffers(), strict=True):
        assert torch.equal(found, buffer)  # the running statistics of the batch norm are among them


def test_a_step_whose_graphs_all_fail_changes_nothing_and_counts_each(architectures):
    trainer, sampled = fragile_trainer(architectures, "nan")
    before = weights(trainer)
    loss, _, n_ran = trainer._step(0, [sampled[2]], lr=0.1)
    assert math.isnan(loss)
    assert (n_ran, trainer.state.failures) == (0, 1)
    assert torch.equal(weights(trainer), before)


@pytest.mark.parametrize(
    "error",
    [RuntimeError("CUDA error: device-side assert triggered"), RuntimeError("shapes differ"), KeyError("x")],
)
def test_any_other_error_of_a_network_ends_training_and_evaluation(tiny, architectures, monkeypatch, error):
    import deepnets_bench.harness.training.accumulation as accumulation

    def fail(*args, **kwargs):
        raise error

    for module in (accumulation, evaluation):
        monkeypatch.setattr(module, "execute", fail)
    trainer = make_trainer(tiny, architectures)
    with pytest.raises(type(error)):
        trainer.run()
    assert trainer.state.failures == 0
    for training in (True, False):
        trainer.ghn.train(training)
        with pytest.raises(type(error)):
            evaluate(trainer.ghn, architectures["test"], digits(16).test.head(4), **SIZES, batch_size=4)
        assert trainer.ghn.training is training


@pytest.mark.parametrize("how", ["nan", "inf"])
def test_in_evaluation_a_graph_that_is_not_finite_fails_alone(architectures, how):
    track = tiny_track(ghn={"config": "ghn1"})
    ghn = build_ghn(track, identify("mlp"), 10)
    graphs = [arch.graph(image_size=16, **SIZES) for arch in architectures["test"]]
    ghn.gnn = Fragile(8, graphs[1].num_nodes, how)
    data = digits(16).test.head(16)
    result = evaluate(ghn, architectures["test"], data, **SIZES, batch_size=16)
    assert sorted(result.accuracies) == [0, 2]
    assert list(result.failures) == [1]
    assert "NaN or infini" in result.reason
    ghn.gnn.nodes = 0
    whole = evaluate(ghn, architectures["test"], data, **SIZES, batch_size=16)
    assert {i: whole.accuracies[i] for i in (0, 2)} == result.accuracies


def test_an_output_of_a_wrong_form_ends_the_evaluation(tiny, architectures):
    ghn = build_ghn(tiny, identify("mlp"), 10)
    ghn.gnn = nn.Linear(8, 7)
    ghn.gnn.forward = lambda x, batch: x[:, 1:]
    with pytest.raises(BadInput, match="forward returns shape"):
        evaluate(ghn, architectures["test"], digits(16).test.head(4), **SIZES, batch_size=4)


class RandomFeatures(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.drawn = []

    def forward(self, x, batch):
        noise = torch.rand_like(x)
        self.drawn.append(noise[0, 0].item())
        return x + noise


def test_a_gnn_that_draws_is_evaluated_the_same_again_and_in_any_order(tiny, architectures):
    ghn = build_ghn(tiny, identify("mlp"), 10)
    ghn.gnn = RandomFeatures()
    networks = [*architectures["test"], *architectures["val"]]
    first = evaluate(ghn, networks, digits(16).test, **SIZES, batch_size=64)
    torch.rand(5)
    again = evaluate(ghn, networks[::-1], digits(16).test, **SIZES, batch_size=64)
    assert [first.accuracies[i] for i in range(6)] == [again.accuracies[5 - i] for i in range(6)]
    drawn = ghn.gnn.drawn
    assert drawn[:6] == drawn[:5:-1]
    assert len(set(drawn)) == 6
    assert first.cpu_seconds > 0

"""Training: the gradient is that of the mean loss, interruptions change nothing, failures are counted."""

import csv
import math
import signal
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from deepnets_bench.data.dataset import GraphBatch
from deepnets_bench.errors import BadInput, RunFailed, reason_of
from deepnets_bench.gnn import identify
from deepnets_bench.harness.images.sets import LabelledImages, digits, training_batch
from deepnets_bench.harness.protocol.schedule import learning_rate
from deepnets_bench.harness.randomness import DROPOUT
from deepnets_bench.harness.runs.job import build_ghn
from deepnets_bench.harness.training.accumulation import GradientAccumulator
from deepnets_bench.harness.training.checkpoint import checkpoints, load_checkpoint
from deepnets_bench.harness.training.curve import CURVE_COLUMNS
from deepnets_bench.harness.training.trainer import Trainer
from tests.harness.conftest import tiny_track


def make_trainer(track, architectures, gnn="ghn2", seed=0, images=None, **options) -> Trainer:
    torch.set_num_threads(1)
    ghn = build_ghn(track, identify(gnn), 10, seed)
    return Trainer(
        track,
        ghn,
        architectures["train"],
        images or digits(16),
        seed=seed,
        validation=architectures["val"],
        **options,
    )


def weights(trainer) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in trainer.ghn.parameters()])


def curve(folder) -> list[dict[str, str]]:
    with open(folder / "curve.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_gradient_is_that_of_the_mean_loss(architectures):
    track = tiny_track(training={"clip_grad_norm": 1e9})
    trainer = make_trainer(track, architectures)
    sampled = next(trainer.sampler.from_step(0))
    loss, _, n_ran = trainer._step(0, sampled, lr=0.0)
    ours = [None if p.grad is None else p.grad.clone() for p in trainer.ghn.parameters()]

    # The definition: run the networks on live predictions and differentiate the mean in one go.
    trainer.optimiser.zero_grad()
    images, labels = training_batch(trainer.images.train, 0, 16, 1, trainer.streams)
    nets, graphs = [], []
    for network in sampled:
        sizes = {"width": network.width, "image_size": 16, "num_classes": 10, "fc_dim": network.fc_dim}
        nets.append(trainer.architectures[network.index].build(**sizes).train())
        graphs.append(trainer.architectures[network.index].graph(**sizes))
    predicted = trainer.ghn(GraphBatch.from_graphs(graphs))
    losses = []
    for position, (net, params) in enumerate(zip(nets, predicted, strict=True)):
        with trainer.streams.seeded(torch.device("cpu"), DROPOUT, 0, position):
            losses.append(F.cross_entropy(net.run(images, params), labels))
    (sum(losses) / len(losses)).backward()
    assert n_ran == 2
    assert loss == pytest.approx(sum(loss.item() for loss in losses) / 2, rel=1e-5)
    for mine, weight in zip(ours, trainer.ghn.parameters(), strict=True):
        if weight.grad is None:
            assert mine is None or not mine.any()
        else:
            torch.testing.assert_close(mine, weight.grad, rtol=1e-4, atol=1e-6)


def test_training_lowers_the_loss(architectures):
    track = tiny_track(
        training={"steps": 40, "lr": 0.01},
        networks={"max_meta_batch_nodes": None},
        selection={"interval": 40},
        images={"shift": 0},
    )
    seen = []
    small = [arch for arch in architectures["train"] if arch.n_cells < 6 and arch.norm != "none"][:2]
    few = replace(digits(16), train=digits(16).train.head(16))
    make_trainer(track, {**architectures, "train": small}, "mlp", images=few, report=seen.append).run()
    losses = [progress.loss for progress in seen]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def test_the_same_seed_gives_the_same_weights_and_another_seed_does_not(tiny, architectures):
    first, again, other = (make_trainer(tiny, architectures, seed=seed) for seed in (1, 1, 2))
    for trainer in (first, again, other):
        trainer.run()
    assert torch.equal(weights(first), weights(again))
    assert not torch.equal(weights(first), weights(other))


@pytest.mark.parametrize("stop", [1, 3, 4])
def test_an_interrupted_and_resumed_training_equals_an_uninterrupted_one(tiny, architectures, tmp_path, stop):
    whole = make_trainer(tiny, architectures, folder=tmp_path / "whole")
    whole.run()

    def interrupt(progress) -> None:
        if progress.step == stop:
            signal.raise_signal(signal.SIGINT)

    cut = make_trainer(tiny, architectures, folder=tmp_path / "cut", report=interrupt)
    with pytest.raises(KeyboardInterrupt):
        cut.run()
    resumed = make_trainer(tiny, architectures, folder=tmp_path / "cut")
    torch.manual_seed(99)  # a resumed process has another random state
    assert resumed.resume() == stop
    resumed.run()
    assert torch.equal(weights(whole), weights(resumed))
    columns = [name for name in CURVE_COLUMNS if name != "seconds"]
    for expected, found in zip(curve(tmp_path / "whole"), curve(tmp_path / "cut"), strict=True):
        assert [expected[name] for name in columns] == [found[name] for name in columns]


def test_a_damaged_checkpoint_falls_back_to_the_one_before(tiny, architectures, tmp_path):
    make_trainer(tiny, architectures, folder=tmp_path).run()
    newest, before = checkpoints(tmp_path)
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1
    newest.write_bytes(data)
    trainer = make_trainer(tiny, architectures, folder=tmp_path)
    with pytest.warns(UserWarning, match=f"{newest.name} is damaged"):
        assert trainer.resume() == int(before.stem.split("-")[1])


def test_checkpoints_of_another_stack_are_removed(tiny, architectures, tmp_path, monkeypatch):
    make_trainer(tiny, architectures, folder=tmp_path).run()
    monkeypatch.setattr(torch, "__version__", "1.0")
    with pytest.warns(UserWarning, match="of another PyTorch or deepnets-bench; training starts anew"):
        assert make_trainer(tiny, architectures, folder=tmp_path).resume() == 0
    assert checkpoints(tmp_path) == []


def test_a_resumed_optimiser_counts_its_steps_on_the_host(tiny, architectures, tmp_path):
    """Meta stands for any device: the moments of weights are there, but not the counts, which Adam reads."""
    make_trainer(tiny, architectures, folder=tmp_path).run()
    trainer = make_trainer(tiny, architectures, folder=tmp_path)
    trainer.ghn.to("meta")
    trainer.optimiser = torch.optim.Adam(trainer.ghn.parameters())
    trainer.optimiser.load_state_dict(load_checkpoint(tmp_path)["optimiser"])
    for state in trainer.optimiser.state.values():
        assert (state["step"].device.type, state["exp_avg"].device.type) == ("cpu", "meta")


def test_a_checkpoint_of_another_seed_is_refused(tiny, architectures, tmp_path):
    make_trainer(tiny, architectures, folder=tmp_path).run()
    with pytest.raises(BadInput, match="another protocol or seed"):
        make_trainer(tiny, architectures, seed=1, folder=tmp_path).resume()


def test_networks_that_fail_are_counted_and_beyond_the_limit_the_run_fails(tiny, architectures, monkeypatch):
    import deepnets_bench.harness.training.accumulation as module

    execute, calls = module.execute, iter(range(1000))

    def failing(steps, images, params, training, fast):
        if next(calls) in (0, 3):
            raise RuntimeError("out of memory\nand a long explanation")
        return execute(steps, images, params, training, fast=fast) * (math.nan if failing.nan else 1)

    failing.nan = False
    monkeypatch.setattr(module, "execute", failing)
    trainer = make_trainer(tiny, architectures)
    assert trainer.run().failures == 2
    assert torch.isfinite(weights(trainer)).all()

    failing.nan = True
    trainer = make_trainer(tiny, architectures)
    with pytest.raises(
        RunFailed, match="step 1: more than 2 networks failed, the last one because the loss is nan"
    ):
        trainer.run()
    assert trainer.state.failures == 4


def test_best_val_keeps_the_weights_of_the_best_validation(architectures, monkeypatch):
    import deepnets_bench.harness.training.trainer as module
    from deepnets_bench.harness.training.evaluation import Evaluation

    accuracies = iter([0.5, 0.2])
    monkeypatch.setattr(module, "evaluate", lambda *args, **kwargs: Evaluation({0: next(accuracies)}))
    at_best = []

    def remember(progress) -> None:
        if progress.step == 3:
            at_best.append(weights(trainer).clone())

    trainer = make_trainer(tiny_track(selection={"rule": "best-val"}), architectures, report=remember)
    state = trainer.run()
    assert (state.best_step, state.best_accuracy) == (3, 0.5)
    assert torch.equal(weights(trainer), at_best[0])


def test_the_penalty_adds_the_mean_norm_of_predicted_parameters_to_the_loss(architectures):
    gradients, losses = {}, {}
    for penalty in (0.0, 0.5):
        track = tiny_track(training={"clip_grad_norm": 1e9, "predicted_norm_penalty": penalty})
        trainer = make_trainer(track, architectures)
        sampled = next(trainer.sampler.from_step(0))
        losses[penalty], _, _ = trainer._step(0, sampled, lr=0.0)
        gradients[penalty] = [
            torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in trainer.ghn.parameters()
        ]
    trainer.optimiser.zero_grad()
    predicted = trainer.ghn(GraphBatch.from_graphs([trainer._build(network)[0] for network in sampled]))
    norms = [p.square().sum().sqrt() for params in predicted for p in params.values()]
    (0.5 * sum(norms) / 2).backward()
    assert losses[0.0] == losses[0.5]  # the curve shows the cross-entropy
    for without, with_penalty, weight in zip(
        gradients[0.0], gradients[0.5], trainer.ghn.parameters(), strict=True
    ):
        expected = torch.zeros_like(weight) if weight.grad is None else weight.grad
        torch.testing.assert_close(with_penalty - without, expected, rtol=1e-3, atol=1e-4)


def test_the_images_that_validate_are_taken_once_for_the_whole_training(tiny, architectures, monkeypatch):
    trainer = make_trainer(tiny, architectures)
    monkeypatch.setattr(LabelledImages, "head", None)
    assert trainer.run().val_accuracy is not None
    assert len(trainer.validation_images) == tiny.selection.images


def test_virtual_edges_are_those_of_the_track_where_the_gnn_reads_them(architectures):
    track = tiny_track(ghn={"virtual_edges": 3}, training={"steps": 1, "warmup_steps": 0})
    for gnn, cutoff in (("ghn2", 3), ("mlp", 1)):
        trainer = make_trainer(track, architectures, gnn)
        assert trainer.ghn.virtual_edges == cutoff
        distances = set()
        trainer.ghn.gnn.register_forward_pre_hook(
            lambda module, inputs, seen=distances: seen.add(int(inputs[1].distance.max()))
        )
        trainer.run()  # a step and a validation
        assert distances == {cutoff}


def leaf_gradients(trainer, monkeypatch) -> list[torch.Tensor]:
    """The gradients of each network of step 0, as they go into the hypernetwork, one vector each."""
    found = []
    run = GradientAccumulator._run_network

    def record(self, steps, params, *rest):
        outcome = run(self, steps, params, *rest)
        found.append(torch.cat([p.grad.flatten() for p in params.values() if p.grad is not None]))
        return outcome

    with monkeypatch.context() as patch:
        patch.setattr(GradientAccumulator, "_run_network", record)
        trainer._step(0, next(trainer.sampler.from_step(0)), lr=0.0)
    return found


def test_no_network_outweighs_the_others(architectures, monkeypatch):
    limit = 0.5
    free = leaf_gradients(make_trainer(tiny_track(), architectures), monkeypatch)
    track = tiny_track(training={"clip_network_grad_norm": limit})
    clipped = leaf_gradients(make_trainer(track, architectures), monkeypatch)
    assert any(gradient.norm() > limit for gradient in free)
    for before, after in zip(free, clipped, strict=True):
        expected = before * min(1.0, limit / before.norm().item())
        torch.testing.assert_close(after, expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("limit", [1.0, None])
def test_a_network_whose_gradient_is_not_finite_leaves_the_step_to_the_others(
    architectures, monkeypatch, limit
):
    trainer = make_trainer(tiny_track(training={"clip_network_grad_norm": limit}), architectures)
    sampled = next(trainer.sampler.from_step(0))
    before, n_clips = weights(trainer), 0
    clip = trainer.accumulate._clip

    def make_the_first_infinite(leaves):
        nonlocal n_clips
        n_clips += 1
        leaves = list(leaves)
        if n_clips == 1:
            leaves[0].grad.fill_(math.inf)
        return clip(leaves)

    monkeypatch.setattr(trainer.accumulate, "_clip", make_the_first_infinite)
    _, _, n_ran = trainer._step(0, sampled, lr=1e-3)
    assert n_ran == len(sampled) - 1
    assert trainer.state.failures == 1
    assert "gradient" in trainer.state.last_failure
    after = weights(trainer)
    assert torch.isfinite(after).all()
    assert not torch.equal(before, after)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB."),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes."),
        MemoryError(),
    ],
    ids=["cuda", "cpu", "python"],
)
@pytest.mark.parametrize("where", ["network", "forward", "backward"])
def test_want_of_memory_is_skipped_and_counted(tiny, architectures, monkeypatch, error, where):
    trainer = make_trainer(tiny, architectures)
    before = weights(trainer)

    def fail(*_):
        raise error

    if where == "network":
        monkeypatch.setattr(trainer.accumulate, "_run_network", fail)
    elif where == "forward":
        trainer.ghn.register_forward_hook(fail)
    else:
        trainer.ghn.decoder_1d.register_full_backward_hook(fail)
    loss, _, n_ran = trainer._step(0, next(trainer.sampler.from_step(0)), lr=0.1)
    assert math.isnan(loss)
    assert n_ran == 0
    assert trainer.state.failures == (2 if where == "network" else 1)
    assert trainer.state.last_failure == reason_of(error)
    assert torch.equal(weights(trainer), before)


def test_other_errors_of_the_hypernetwork_end_the_training(tiny, architectures):
    trainer = make_trainer(tiny, architectures)
    trainer.ghn.register_forward_hook(lambda *_: [][0])
    with pytest.raises(IndexError):
        trainer.run()


def test_learning_rate_schedules_by_hand(tiny):
    cosine = tiny.training.model_copy(update={"lr": 1.0, "steps": 10, "warmup_steps": 2})
    assert [learning_rate(cosine, step) for step in (0, 1, 2, 6)] == pytest.approx([0.5, 1.0, 1.0, 0.5])
    steps = cosine.model_copy(update={"schedule": "milestones", "milestones": (0.5, 0.8)})
    assert [learning_rate(steps, step) for step in (4, 5, 7, 8)] == pytest.approx([1, 0.1, 0.1, 0.01])
    constant = cosine.model_copy(update={"schedule": "constant"})
    assert learning_rate(constant, 9) == 1.0
    # GHN-3: three epochs of warm-up from 1e-5, of which the last is just past the top of the cosine.
    epochs = cosine.model_copy(update={"steps": 14, "warmup_steps": 6, "epoch_steps": 2})
    assert [learning_rate(epochs, step) for step in (0, 1, 2, 3)] == pytest.approx(
        [1e-5, 1e-5, 0.500005, 0.500005]
    )
    past = 0.5 * (1 + math.cos(math.pi / 4))
    assert [learning_rate(epochs, step) for step in (4, 5, 6, 10)] == pytest.approx([past, past, 1.0, 0.5])


def test_a_schedule_by_epochs_needs_whole_epochs():
    ghn3 = {"steps": 20, "warmup_steps": 4, "epoch_steps": 2}
    assert tiny_track(training=ghn3).as_smoke().training.epoch_steps is None
    for change, reason in (
        ({"steps": 21}, "must be multiples of epoch_steps"),
        ({"warmup_steps": 2}, "0 or at least two epochs"),
        ({"schedule": "constant"}, "is for the cosine schedule"),
    ):
        with pytest.raises(BadInput, match=reason):
            tiny_track(training=ghn3 | change)

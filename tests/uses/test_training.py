"""Training of one network: worked values, convergence, resuming to the bit, initial weights, costs."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from torch import nn

from deepnets_bench.errors import BadInput, NotFinite, RunFailed, UnknownName
from deepnets_bench.generators import sample
from deepnets_bench.harness.images.sets import ImageSet, digits
from deepnets_bench.harness.randomness import Streams
from deepnets_bench.uses import run as runs
from deepnets_bench.uses.cost import cost_of
from deepnets_bench.uses.initialisation import initialise, load_initialisation, name_of
from deepnets_bench.uses.recipe import Recipe, recipe_of
from deepnets_bench.uses.training import Epoch, _cut_out, accuracy, logits_of, shots, train
from tests.harness.conftest import tiny_track

PROTOCOL = tiny_track().images


@pytest.fixture(scope="module")
def images() -> ImageSet:
    held = digits()
    return dataclasses.replace(
        held, train=held.train.head(64), val=held.val.head(32), test=held.test.head(32)
    )


def linear() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 10))


def small() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return sample("test", 1).build(8, 16, 10, 16)


def test_rates_fall_by_a_cosine_from_epoch_to_epoch():
    recipe = Recipe(epochs=4, lr=0.2)
    assert [recipe.rate(epoch) for epoch in range(4)] == pytest.approx(
        [0.2, 0.170711, 0.1, 0.029289], abs=1e-6
    )


def test_a_training_is_sgd_with_momentum_decay_and_clipping(images):
    """Worked by hand: two steps of one epoch on a linear model."""
    recipe = Recipe(epochs=1, batch_size=32, lr=0.5, momentum=0.9, weight_decay=0.01, clip_grad_norm=0.1)
    module, mine = linear(), linear()
    result = train(module, images, PROTOCOL, recipe, seed=3)
    protocol, streams = PROTOCOL.model_copy(update={"batch_size": 32}), Streams(("training of a network", 3))
    weights = list(mine.parameters())
    moments = [torch.zeros_like(weight) for weight in weights]
    losses = []
    for step in range(2):
        x, y = images.training_batch(step, streams, protocol)
        loss = torch.nn.functional.cross_entropy(mine(x), y)
        losses.append(loss.item())
        grads = torch.autograd.grad(loss, weights)
        norm = math.sqrt(sum(grad.square().sum().item() for grad in grads))
        assert norm > 0.1
        with torch.no_grad():
            for weight, grad, moment in zip(weights, grads, moments, strict=True):
                moment.mul_(0.9).add_(grad * 0.1 / (norm + 1e-6) + 0.01 * weight)
                weight.sub_(0.5 * moment)
    for trained, expected in zip(module.parameters(), weights, strict=True):
        assert torch.allclose(trained, expected, atol=1e-6)
    assert [(row.epoch, row.lr) for row in result.curve] == [(1, 0.5)]
    assert result.curve[0].loss == pytest.approx(sum(losses) / 2)
    with torch.no_grad():
        logits = mine(images.test.images)
    assert result.accuracy == (logits.argmax(1) == images.test.labels).float().mean().item()


def test_a_network_learns_and_converges_when_an_epoch_of_steps_says_so(images):
    recipe = Recipe(epochs=12, batch_size=16, lr=0.05, converged_at=0.5)
    result = train(linear(), images, PROTOCOL, recipe, seed=0)
    assert result.converged
    assert result.accuracy > 0.4
    first = next(row.epoch for row in result.curve if row.train_accuracy >= 0.5)
    assert first - 1 < result.convergence * recipe.epochs <= first
    never = train(linear(), images, PROTOCOL, dataclasses.replace(recipe, epochs=1, converged_at=1.0), seed=0)
    assert (never.converged, never.convergence) == (False, 1.0)


def test_a_resumed_training_equals_one_that_was_not_interrupted(images, tmp_path):
    recipe = Recipe(epochs=3, batch_size=16)
    whole = small()
    expected = train(whole, images, PROTOCOL, recipe, seed=1)

    def stop(row: Epoch) -> None:
        if row.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(small(), images, PROTOCOL, recipe, seed=1, folder=tmp_path, report=stop)
    resumed, seen = small(), []
    result = train(resumed, images, PROTOCOL, recipe, seed=1, folder=tmp_path, report=seen.append)
    assert [row.epoch for row in seen] == [3]
    for a, b in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert (result.accuracy, result.accuracy_noise) == (expected.accuracy, expected.accuracy_noise)
    with pytest.raises(BadInput, match="another recipe or seed"):
        train(small(), images, PROTOCOL, recipe, seed=2, folder=tmp_path)


def test_noise_lowers_accuracy_and_a_part_can_be_chosen(images):
    recipe = Recipe(epochs=12, batch_size=16, lr=0.05, noise=0.5)
    module = linear()
    result = train(module, images, PROTOCOL, recipe, seed=0, part="val")
    assert result.accuracy == accuracy(module, images.val)
    assert result.accuracy_noise < result.accuracy


def test_a_loss_that_is_not_finite_ends_a_training(images):
    module = linear()
    with torch.no_grad():
        next(module.parameters()).fill_(math.inf)
    with pytest.raises(NotFinite, match="at step 1"):
        train(module, images, PROTOCOL, Recipe(epochs=1), seed=0)


def test_shots_are_the_first_images_of_each_class(images):
    few = shots(images, 3)
    assert torch.bincount(few.train.labels).tolist() == [3] * 10
    first = (images.train.labels == 4).nonzero().flatten()[:3]
    assert torch.equal(few.train.images[few.train.labels == 4], images.train.images[first])
    with pytest.raises(BadInput, match="fewer than 60 shots"):
        shots(images, 60)


def test_a_square_is_cut_out_of_every_image():
    pictures = torch.ones(50, 3, 16, 16)
    cut = _cut_out(pictures, 4, Streams(), 0)
    blank = (cut == 0).all(1).sum((1, 2))
    assert blank.max() == 16
    assert blank.min() >= 4  # a centre in a corner leaves a quarter
    assert not torch.equal(cut, _cut_out(pictures, 4, Streams(), 1))


@pytest.mark.parametrize("how", ["he", "orthogonal"])
def test_initial_weights(how):
    module = nn.Sequential(nn.Conv2d(16, 64, 3), nn.BatchNorm2d(64), nn.Linear(64, 64))
    bias = module[0].bias.clone()
    initialise(module, how, (16, 8, 8), 64)
    assert torch.equal(module[0].bias, bias)
    if how == "he":
        assert module[0].weight.std().item() == pytest.approx(math.sqrt(2 / (16 * 9)), rel=0.05)
    else:
        weight = module[0].weight.flatten(1)
        assert torch.allclose(weight @ weight.T, torch.eye(64), atol=1e-5)


def test_a_hypernetwork_gives_initial_weights_and_leaves_a_classifier_of_other_classes(tmp_path):
    from deepnets_bench import GHN

    ghn = GHN.from_config({"gnn": "mlp", "hid": 8, "max_shape": [8, 8, 3, 3], "num_classes": 10})
    ghn.save(tmp_path / "ghn.safetensors")
    loaded = load_initialisation(str(tmp_path / "ghn.safetensors"))
    assert name_of(str(tmp_path / "ghn.safetensors")).startswith("ghn.safetensors ")
    for classes, left in ((10, False), (7, True)):
        module, before = (sample("test", 1).build(8, 16, classes, 16) for _ in range(2))
        before.load_state_dict(module.state_dict())
        initialise(module, loaded, (3, 16, 16), classes)
        names = [
            name
            for name, value in module.named_parameters()
            if not torch.equal(value, before.get_parameter(name))
        ]
        assert names
        last = max(name for name in dict(module.named_parameters()) if name.startswith("classifier"))
        assert (last not in names) == left


def test_unknown_initial_weights_and_recipes_are_refused():
    with pytest.raises(BadInput, match="random, he, orthogonal or a hypernetwork's checkpoint, not 'xavier'"):
        load_initialisation("xavier")
    with pytest.raises(UnknownName, match="field of a recipe"):
        recipe_of("digits", steps=3)
    with pytest.raises(BadInput, match="momentum of a recipe must be a number from 0 to 1, not 2"):
        Recipe(momentum=2)
    with pytest.raises(BadInput, match=r"epochs of a recipe must be a whole number, not 2\.5"):
        Recipe(epochs=2.5)
    assert recipe_of("digits", epochs=None) == recipe_of("digits")
    assert recipe_of("digits", epochs=9).digest() != recipe_of("digits").digest()


def test_the_first_tensor_of_a_modules_output_holds_the_logits():
    class Nested(nn.Module):
        def __init__(self, output: object) -> None:
            super().__init__()
            self.output = output

        def forward(self, images: torch.Tensor) -> object:
            return self.output

    logits, pictures = torch.zeros(2, 10), torch.zeros(2, 3, 16, 16)
    for output in (logits, (logits, None), {"aux": None, "out": logits}, {"logits": [logits]}):
        assert logits_of(Nested(output), pictures) is logits
    with pytest.raises(BadInput, match="returns no tensor"):
        logits_of(Nested({"features": logits}), pictures)
    with pytest.raises(BadInput, match=r"returns a tensor \[2, 10, 4, 4\], not logits"):
        logits_of(Nested(torch.zeros(2, 10, 4, 4)), pictures)


def test_costs_are_those_of_the_operations():
    """By hand: every convolution out · in / groups · kernel · pixels, every linear layer out · in."""
    from deepnets_bench.compiler import instructions as ir

    arch = sample("test", 1)
    program = arch.program(8, 16, 10, 16)
    network = arch.build(8, 16, 10, 16)
    counted = 0

    def count(module: nn.Module, shape: torch.Size, out: torch.Size) -> int:
        return math.prod(out[1:]) * math.prod(shape[1:])

    from deepnets_bench.networks import operations

    original = operations.F.conv2d, operations.F.linear

    def conv2d(x, weight, *args, **kwargs):
        nonlocal counted
        y = original[0](x, weight, *args, **kwargs)
        counted += y[0].numel() * weight[0].numel()
        return y

    def linear_(x, weight, *args):
        nonlocal counted
        y = original[1](x, weight, *args)
        counted += y[0].numel() * weight.shape[1]
        return y

    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(operations.F, "conv2d", conv2d)
        patch.setattr(operations.F, "linear", linear_)
        network.run(torch.zeros(2, 3, 16, 16), dict(network.named_parameters()))
    assert not (program.table[:, ir.KIND] == ir.ATTENTION).any()
    cost = cost_of(program, 16)
    assert cost.multiply_adds == counted
    assert cost.parameters == sum(p.numel() for p in network.parameters())
    graph = arch.graph(8, 16, 10, 16)
    assert (cost.nodes, cost.depth) == (graph.num_nodes, int(graph.level.max()) + 1)


def test_a_run_keeps_its_result_and_refuses_another_in_its_folder(images, tmp_path):
    track = tiny_track()
    run = runs.NetworkRun("linear", track, Recipe(epochs=1, batch_size=16), "random")
    first = runs.run_seed(run, 0, linear, "random", images, tmp_path / "a")
    assert {path.name for path in (tmp_path / "a").iterdir() if path.name[0] != "."} == {
        "training.json", "result.json", "curve.csv", "weights.safetensors",
    }  # fmt: skip
    assert (tmp_path / "a/curve.csv").read_text().splitlines()[
        0
    ] == "epoch,lr,loss,train_accuracy,cpu_seconds"
    again = runs.run_seed(run, 0, lambda: pytest.fail("trained again"), "random", images, tmp_path / "a")
    assert again == first
    with pytest.raises(BadInput, match="holds a training with another seed"):
        runs.run_seed(run, 1, linear, "random", images, tmp_path / "a")
    (tmp_path / "a/result.json").write_text("{")
    with pytest.raises(BadInput, match="truncated or not the result of a training"):
        runs.run_seed(run, 0, linear, "random", images, tmp_path / "a")


def test_two_trainings_in_one_folder_are_refused(images, tmp_path):
    from filelock import FileLock

    (tmp_path / "a").mkdir()
    run = runs.NetworkRun("linear", tiny_track(), Recipe(epochs=1), "random")
    with FileLock(Path(tmp_path / "a/.lock")), pytest.raises(RunFailed, match="Another process trains"):
        runs.run_seed(run, 0, linear, "random", images, tmp_path / "a")

"""Drop-path and the auxiliary classifier: counts and probabilities by hand, and trainings that resume."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from deepnets_bench.architecture import Architecture, Genotype
from deepnets_bench.compiler import instructions as ir
from deepnets_bench.compiler.primitives import CELL_OPS
from deepnets_bench.errors import BadInput
from deepnets_bench.generators import sample
from deepnets_bench.harness.images.sets import ImageSet, digits
from deepnets_bench.networks.network import Network
from deepnets_bench.predefined import DARTS, predefined
from deepnets_bench.uses.recipe import Recipe, recipe_of
from deepnets_bench.uses.regularisation import RegularisedNetwork, auxiliary_head, run_network
from deepnets_bench.uses.training import Epoch, train
from tests.harness.conftest import tiny_track

PROTOCOL = tiny_track().images
VIT = predefined()[1][0]


@pytest.fixture(scope="module")
def images() -> ImageSet:
    held = digits()
    return dataclasses.replace(
        held, train=held.train.head(64), val=held.val.head(32), test=held.test.head(32)
    )


def one_cell(*ops: str) -> Architecture:
    """One cell of one step, of two operations on the stem."""
    pairs = tuple((op, state) for state, op in enumerate(ops))
    return Architecture(Genotype(pairs, (2,), pairs, (2,)), n_cells=1, norm="none", C_mult=1, preproc=False)


def randomness() -> np.random.Generator:
    return np.random.default_rng(0)


def seeded(architecture: Architecture, *size: int) -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return architecture.build(*size)


def small() -> Network:
    return seeded(sample("test", 1), 8, 16, 10, 16)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_darts_has_the_published_number_of_parameters_with_an_auxiliary_classifier():
    network = Architecture(DARTS, n_cells=20).build(36, 32, 10)
    assert count(network) == 3_349_342
    regularised = RegularisedNetwork(network, auxiliary=True, image_size=32)
    assert count(regularised) == 3_825_768
    assert count(network) == 3_349_342


@pytest.mark.parametrize(
    ("architecture", "width", "size", "channels", "side", "window"),
    [
        # Of 20 cells, the 6th and the 13th halve the image: the auxiliary classifier reads 4 states of 4 · C.
        (Architecture(DARTS, n_cells=20), 8, 32, 128, 8, (5, 3)),
        (Architecture(DARTS, n_cells=20, stem_type=1), 8, 32, 128, 4, (2, 2)),
        (Architecture(DARTS, n_cells=20, stem_pool=True), 8, 32, 128, 4, (2, 2)),
        (Architecture(DARTS, n_cells=14, stem_type=1), 8, 224, 128, 7, (5, 2)),
        (Architecture(DARTS, n_cells=20), 8, 16, 128, 4, (2, 2)),
        (Architecture(DARTS, n_cells=20, stem_type=1), 8, 16, 128, 2, (2, 2)),
        (VIT, 16, 32, 16, 11, (5, 3)),
        (VIT, 16, 16, 16, 6, (5, 3)),
    ],
)
def test_an_auxiliary_classifier_fits_every_form(architecture, width, size, channels, side, window):
    network = architecture.build(width, size, 7)
    regularised = RegularisedNetwork(network, auxiliary=True, image_size=size)
    assert regularised._shape_of_tapped(size) == (channels, side)
    head = regularised.auxiliary_head
    pool = next(layer for layer in head if isinstance(layer, nn.AvgPool2d))
    assert (pool.kernel_size, pool.stride) == window
    averaged = any(isinstance(layer, nn.AdaptiveAvgPool2d) for layer in head)
    assert averaged == (side not in (8, 4, 7))
    assert sum(isinstance(layer, nn.BatchNorm2d) for layer in head) == (1 if size == 224 else 2)
    logits, auxiliary = regularised(torch.zeros(2, 3, size, size), 0.0, randomness())
    assert logits.shape == auxiliary.shape == (2, 7)


def test_a_network_without_norms_has_an_auxiliary_classifier_without():
    network = one_cell("conv_3x3", "skip_connect").build(8, 16, 10)
    head = auxiliary_head(network.program, (8, 16), 16)
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in head)


def test_an_auxiliary_classifier_reads_the_cell_after_two_thirds_of_the_network():
    for n_cells, expected in ((20, 13), (4, 2), (1, 0)):
        table = Architecture(DARTS, n_cells=n_cells).program(8, 32, 10).table
        (row,) = np.flatnonzero(table[:, ir.ROLE] & ir.AUXILIARY_INPUT)
        assert (table[row, ir.CELL], table[row, ir.KIND]) == (expected, ir.CONCAT)


def test_paths_are_the_values_of_operations_and_no_identities():
    """By hand: of 8 operations a cell, a normal cell of DARTS has two skips, a reduction three."""
    program = Architecture(DARTS, n_cells=3).program(8, 32, 10)
    dropped = np.flatnonzero(program.table[:, ir.ROLE] & ir.OP_VALUE)
    by_cell = np.bincount(program.table[dropped, ir.CELL], minlength=3).tolist()
    assert by_cell == [6, 5, 5]  # the skips of a reduction read state 2, so that they do not halve


@pytest.mark.parametrize("op", [op for op in CELL_OPS if op != "none"])
def test_every_operation_has_one_path_but_identities(op):
    table = one_cell(op, "none").program(8, 16, 10).table
    paths = np.flatnonzero(table[:, ir.ROLE] & ir.OP_VALUE)
    assert len(paths) == (op != "skip_connect")
    if len(paths):
        assert paths[0] == len(table) - 3  # before the mean and the classifier


def test_an_image_keeps_a_path_or_loses_it_whole():
    """By hand: two convolutions of the same stem are added; each is doubled or gone at a rate of 1/2."""
    network = seeded(one_cell("conv_3x3", "conv_1x1"), 8, 16, 10)
    regularised = RegularisedNetwork(network, auxiliary=False, image_size=16)
    pictures = torch.randn(64, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    kept: list[torch.Tensor] = []

    def watching(step, run):
        kept.append(torch.stack([run.values[row] for row in step.inputs], 1))
        return run.values[step.inputs[0]] + run.values[step.inputs[1]]

    def sums(steps):
        return tuple(
            step._replace(operation=watching) if network.program.table[step.row, ir.KIND] == ir.SUM else step
            for step in steps
        )

    run_network(network, pictures, sums(network.steps))
    run_network(network, pictures, sums(regularised._steps(0.5, randomness(), [])))
    whole, dropped = kept
    random = randomness()
    factors = torch.stack([torch.from_numpy(random.random(64) >= 0.5) for _ in range(2)], 1)
    assert 0.3 < factors.float().mean() < 0.7
    assert torch.allclose(dropped, whole * 2 * factors[:, :, None, None, None])


def test_without_a_rate_or_in_evaluation_a_network_is_as_it_was():
    network = small()
    regularised = RegularisedNetwork(network, auxiliary=True, image_size=16).train()
    pictures = torch.randn(4, 3, 16, 16)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        logits, auxiliary = regularised(pictures, 0.0, randomness())
        torch.manual_seed(1)
        assert torch.equal(logits, run_network(network, pictures))
    assert auxiliary is not None


def test_the_rate_rises_with_the_epoch():
    recipe = Recipe(epochs=600, drop_path=0.2)
    assert [recipe.drop_rate(epoch) for epoch in (0, 300, 599)] == pytest.approx([0, 0.1, 0.2 * 599 / 600])


def test_recipes_without_them_keep_the_digest_of_earlier_results():
    assert recipe_of("digits").digest() == "b3899eec0446"
    assert recipe_of("digits", auxiliary=0.4).digest() != recipe_of("digits").digest()
    assert recipe_of("digits", drop_path=0.2).to_dict()["drop_path"] == 0.2
    with pytest.raises(BadInput, match="drop_path of a recipe must be a number from 0 to 1, not 2"):
        Recipe(drop_path=2)


def test_the_loss_has_the_auxiliary_classifiers_share(images):
    """By hand: the first step's loss is that of the network plus 0.4 times that of the classifier."""
    batch = dataclasses.replace(images, train=images.train.head(32))
    losses = {}
    for weight in (0.0, 0.4, 0.8):
        recipe = Recipe(epochs=1, batch_size=32, auxiliary=weight)
        losses[weight] = train(small(), batch, PROTOCOL, recipe, seed=0).curve[0].loss
    share = (losses[0.8] - losses[0.0]) / 2
    assert losses[0.4] - losses[0.0] == pytest.approx(share, rel=1e-4)
    assert share / 0.4 == pytest.approx(np.log(10), rel=0.5)


def test_a_regularised_training_resumes_to_the_bit(images, tmp_path):
    recipe = Recipe(epochs=3, batch_size=16, auxiliary=0.4, drop_path=0.5)
    whole = small()
    expected = train(whole, images, PROTOCOL, recipe, seed=1)

    def stop(row: Epoch) -> None:
        if row.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(small(), images, PROTOCOL, recipe, seed=1, folder=tmp_path, report=stop)
    resumed = small()
    result = train(resumed, images, PROTOCOL, recipe, seed=1, folder=tmp_path)
    assert [row.loss for row in result.curve] == [row.loss for row in expected.curve]
    assert whole.state_dict().keys() == small().state_dict().keys()
    for a, b in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    plain = train(small(), images, PROTOCOL, Recipe(epochs=3, batch_size=16), seed=1)
    assert plain.curve[2].loss != expected.curve[2].loss


def test_modules_without_cells_are_refused(images):
    linear = nn.Sequential(nn.Flatten(), nn.Linear(768, 10))
    resnet = predefined()[0][0].build(8, 16, 10)
    for module in (linear, resnet):
        for field in ("auxiliary", "drop_path"):
            with pytest.raises(BadInput, match="for architectures made of cells"):
                train(module, images, PROTOCOL, Recipe(epochs=1, **{field: 0.2}), seed=0)

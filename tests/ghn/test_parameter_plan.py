import dataclasses

import numpy as np
import pytest
import torch

from deepnets_bench.compiler.primitives import BN, CONV, INPUT, POS_ENC
from deepnets_bench.data.dataset import GraphBatch
from deepnets_bench.errors import BadInput
from deepnets_bench.ghn import parameter_plan
from deepnets_bench.ghn.decoders import KernelGroup
from deepnets_bench.ghn.model import GHN
from deepnets_bench.graphs.graph import ComputationGraph
from tests.ghn import naive
from tests.ghn.networks import ATTENTION, BARE, CONVOLUTIONS

ARCHITECTURES = [CONVOLUTIONS, ATTENTION, BARE]
# The second is exceeded by channels (with a rest and as a multiple) and by windows.
MAX_SHAPES = [(64, 64, 11, 11), (24, 10, 3, 3)]


def ghn_of(max_shape: tuple[int, ...], **settings: object) -> GHN:
    torch.manual_seed(0)
    return GHN.from_config({"max_shape": max_shape, "hid": 16, **settings})


@pytest.mark.parametrize("max_shape", MAX_SHAPES)
@pytest.mark.parametrize("weight_norm", [True, False])
def test_batched_prediction_equals_one_tensor_at_a_time(
    max_shape: tuple[int, ...], weight_norm: bool
) -> None:
    ghn = ghn_of(max_shape, weight_norm=weight_norm).double()
    graphs = [arch.graph(width=16, image_size=16, num_classes=10) for arch in ARCHITECTURES]
    batch = GraphBatch.from_graphs(graphs)
    states = ghn.node_states(batch).detach()
    loss = naive_loss = torch.zeros(())
    for graph, predicted, x in zip(
        graphs, ghn(batch), states.split([g.num_nodes for g in graphs]), strict=True
    ):
        expected = naive.predict(ghn, graph, x)
        assert list(predicted) == list(expected)
        for name, tensor in expected.items():
            torch.testing.assert_close(predicted[name], tensor)
            wave = torch.arange(tensor.numel()).double().sin().view(tensor.shape)
            loss, naive_loss = loss + (predicted[name] * wave).sum(), naive_loss + (tensor * wave).sum()
    decoders = [ghn.decoder, ghn.decoder_1d, ghn.bias_class]
    weights = [weight for decoder in decoders for weight in decoder.parameters()]
    torch.testing.assert_close(
        torch.autograd.grad(loss, weights, allow_unused=True),
        torch.autograd.grad(naive_loss, weights, allow_unused=True),
    )


def test_plan_predicts_every_live_parameter_at_its_shape() -> None:
    for arch in ARCHITECTURES:
        network = arch.build(width=16, image_size=16, num_classes=10)
        params = ghn_of((64, 64, 7, 7)).predict(arch, width=16, image_size=16)
        shapes = {name: tensor.shape for name, tensor in network.named_parameters()}
        assert params.keys() <= shapes.keys()
        assert all(tensor.shape == shapes[name] for name, tensor in params.items())


def test_batch_equals_single() -> None:
    ghn = ghn_of((64, 64, 7, 7))
    graphs = [arch.graph(width=24, image_size=16, num_classes=10) for arch in ARCHITECTURES]
    together = ghn(GraphBatch.from_graphs(graphs))
    for graph, params in zip(graphs, together, strict=True):
        alone = ghn(GraphBatch.from_graphs([graph]))[0]
        torch.testing.assert_close(params, alone, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "scale"),
    [
        ((8, 4, 3, 3), (2 / 36) ** 0.5),
        ((8, 1, 5, 5), (1 / 25) ** 0.5),
        ((8, 4, 1, 7), (1 / 28) ** 0.5),
        ((8, 4, 7, 1), (2 / 28) ** 0.5),
        ((8, 1), 2**0.5),
        ((10, 64), (2 / 64) ** 0.5),
    ],
)
def test_kernel_scale(shape: tuple[int, ...], scale: float) -> None:
    assert parameter_plan.kernel_scale(shape) == pytest.approx(scale)


def test_tiles_repeat_with_a_rest() -> None:
    prediction = torch.arange(6.0).view(1, 2, 3, 1, 1)
    group = KernelGroup(0, 1, (5, 4), (5, 4, 1, 1), (2, 3), (1, 1))
    first, second = [0.0, 1, 2, 0], [3.0, 4, 5, 3]
    assert parameter_plan.fit(prediction, group)[0].tolist() == [first, second, first, second, first]


def test_position_embedding_of_a_token_sequence() -> None:
    """(1, n, d): positions row by row behind one random row for the class token."""
    maps = torch.arange(8.0).view(1, 1, 2, 2, 2)  # [n, 1, d, height, width]
    group = KernelGroup(0, 1, (1, 5, 2), (1, 2, 2, 2), (1, 2), (2, 2))
    rows = parameter_plan.fit(maps, group)[0, 0]
    assert rows[1:].tolist() == [[0, 4], [1, 5], [2, 6], [3, 7]]
    assert rows[0].abs().max() < 0.2


def test_position_encoding_is_not_scaled_at_any_size() -> None:
    graph = ComputationGraph(
        op=np.array([INPUT, POS_ENC, CONV, BN], np.uint8),
        cell=np.zeros(4, np.int16),
        param_name=[None, "pos_enc.weight", "conv.weight", "bn.weight"],
        param_shape=[None, (1, 8, 6, 6), (8, 3, 3, 3), (8,)],
        shape=np.array([[0, 0, 0, 0], [1, 8, 6, 6], [8, 3, 3, 3], [8, 1, 1, 1]]),
        edge_index=np.array([[0, 1], [2, 2]]),
        class_weight=-1,
        class_bias=-1,
    )
    plan = parameter_plan.make_plan([graph], (64, 64, 7, 7), 10, weight_norm=True)
    scales = dict(zip((g.shape for g in plan.kernel_groups), plan.kernel_scale, strict=True))
    assert scales == {(1, 8, 6, 6): 1.0, (8, 3, 3, 3): pytest.approx((2 / 27) ** 0.5)}
    assert plan.names == [["pos_enc.weight", "conv.weight", "bn.weight", "bn.bias"]]


def test_classifier_of_another_size_is_refused() -> None:
    with pytest.raises(BadInput, match=r"10 classes, but classifier.* has 12 outputs"):
        ghn_of((64, 64, 7, 7)).predict(dataclasses.replace(BARE), num_classes=12)

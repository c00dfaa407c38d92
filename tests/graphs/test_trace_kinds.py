"""Kinds of parameters and outputs that foreign modules have: in the graph, or left with the true reason."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from deepnets_bench.errors import BadInput
from deepnets_bench.graphs.graph import ComputationGraph
from deepnets_bench.graphs.tracing.reasons import CLASS_TOKEN
from deepnets_bench.graphs.tracing.trace import Trace, trace
from tests.graphs.test_trace import Block, edges, head, labels

PLAIN = ["input", "0.weight", "0.bias", "1.weight", "1.bias", "glob_avg", "2.2.weight", "2.2.bias"]


def around(layer: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), layer, head(8))


class Standardised(nn.Conv2d):
    """Weight standardisation as in BiT: mean 0 and variance 1 of each filter, written out."""

    def forward(self, x: Tensor) -> Tensor:
        var, mean = torch.var_mean(self.weight, dim=(1, 2, 3), keepdim=True, unbiased=False)
        return F.conv2d(x, (self.weight - mean) * torch.rsqrt(var + 1e-10), self.bias)


class Scaled(nn.Conv2d):
    """Weight standardisation as in NFNets, by batch norm of the filters, with a gain."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.gain = nn.Parameter(torch.ones(self.out_channels, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        filters = self.weight.reshape(1, self.out_channels, -1)
        weight = F.batch_norm(filters, None, None, (self.gain * 0.2).view(-1), training=True, momentum=0.0)
        return F.conv2d(x, weight.reshape_as(self.weight), self.bias)


class Equalised(nn.Conv2d):
    """A learning rate equal for all layers, as in StyleGAN: the weight times a constant."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight * 0.1, self.bias)


@pytest.mark.parametrize(
    "reparametrise",
    [
        parametrizations.weight_norm,
        parametrizations.spectral_norm,
        parametrizations.orthogonal,
        nn.utils.weight_norm,
        nn.utils.spectral_norm,
        lambda conv: prune.random_unstructured(conv, "weight", 0.5),
    ],
)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_reparametrised_weight_is_one_node(reparametrise: Callable[[nn.Module], nn.Module]) -> None:
    module = around(reparametrise(nn.Conv2d(8, 8, 3)))
    before = {name: value.clone() for name, value in module.state_dict().items()}
    weight = module.eval()[1].weight.clone()  # in training mode a spectral norm goes on with each reading
    graph = trace(module)
    plain = trace(around(nn.Conv2d(8, 8, 3)))
    assert labels(graph) == PLAIN
    assert graph.left == {}
    assert graph.param_shape == plain.param_shape
    assert (graph.shape == plain.shape).all()
    assert (graph.edge_index == plain.edge_index).all()
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    assert torch.equal(module[1].weight, weight)  # not a tensor of the tracing
    module(torch.randn(2, 3, 8, 8))


def test_weights_computed_in_the_forward_pass() -> None:
    assert labels(trace(around(Standardised(8, 8, 3)))) == PLAIN
    graph = trace(around(Scaled(8, 8, 3)))
    assert labels(graph) == PLAIN
    assert "the weight of a convolution is computed from it" in graph.left["1.gain"]
    graph = trace(around(Equalised(8, 8, 3)))
    assert labels(graph) == [*PLAIN[:3], "conv", *PLAIN[4:]]
    assert graph.shape[3].tolist() == [8, 8, 3, 3]
    assert graph.param_shape[3] is None
    assert list(graph.left) == ["1.weight"]
    assert "computed from it (mul)" in graph.left["1.weight"]


def test_parameters_of_a_parametrization_are_no_weights() -> None:
    class LowRank(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Parameter(torch.zeros(8, 2)), nn.Parameter(torch.zeros(2, 8))

        def forward(self, weight: Tensor) -> Tensor:
            return weight + self.a @ self.b

    module = nn.Sequential(nn.Flatten(), nn.Linear(48, 8), nn.Linear(8, 8), nn.Linear(8, 10))
    nn.utils.parametrize.register_parametrization(module[2], "weight", LowRank())
    left = trace(module, (3, 4, 4)).left
    assert left.keys() == {"2.parametrizations.weight.0.a", "2.parametrizations.weight.0.b"}
    assert set(left.values()) == {"a setting of the parametrization of '2.weight'"}


def test_a_shared_weight_is_named_once() -> None:
    conv = nn.Conv2d(3, 3, 1)
    recurrent = trace(nn.Sequential(conv, nn.ReLU(), conv, head(3)))
    tied = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), head(3))
    tied[1].weight = tied[0].weight
    for graph, bias in ((recurrent, "bias"), (trace(tied), "1.bias")):
        assert graph.left == {}
        assert labels(graph)[:5] == ["input", "0.weight", "0.bias", "conv", bias]
        assert graph.shape[1:5].tolist() == [[3, 3, 1, 1], [3, 1, 1, 1]] * 2
        assert graph.param_shape[1:4] == [(3, 3, 1, 1), (3,), None]


def test_tied_decoder_reads_its_weight_transposed() -> None:
    module = Block(
        lambda m, x: F.linear(m.fc(x.flatten(1)), m.fc.weight.t()), fc=nn.Linear(48, 8, bias=False)
    )
    graph = trace(module, (3, 4, 4))
    assert labels(graph) == ["input", "fc.weight", "conv"]
    assert graph.shape[1:].tolist() == [[8, 48, 1, 1], [48, 8, 1, 1]]
    assert graph.left == {}


def sequence(layer: Callable[[Any, Tensor], Tensor], **children: nn.Module | nn.Parameter) -> Trace:
    """Trace 16 tokens of 8 channels through `layer`, a mean and a classifier."""

    def forward(m: Any, x: Tensor) -> Tensor:
        return m.head(layer(m, m.patches(x).flatten(2).transpose(1, 2)).mean(1))

    return trace(Block(forward, patches=nn.Conv2d(3, 8, 8, 8), head=nn.Linear(8, 10), **children))


def parameter(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.zeros(shape))


def test_multihead_attention() -> None:
    def own(**options: Any) -> Trace:
        attention = nn.MultiheadAttention(8, 2, batch_first=True, **options)
        return sequence(lambda m, x: m.a(x, x, x)[0], a=attention)

    names = ["a.in_proj_weight", "a.in_proj_bias", "msa", "a.out_proj.weight", "a.out_proj.bias"]
    assert labels(own())[3:8] == names
    assert own().left == {}
    assert own(add_bias_kv=True).left == dict.fromkeys(("a.bias_k", "a.bias_v"), CLASS_TOKEN)
    # Query, key and value of different tensors are three layers of parts of one parameter.
    graph = sequence(
        lambda m, x: m.a(m.q(x), m.k(x), x)[0],
        a=nn.MultiheadAttention(8, 2, batch_first=True),
        q=nn.LayerNorm(8),
        k=nn.LayerNorm(8),
    )
    assert labels(graph)[3:9] == ["q.weight", "k.weight", "conv", "conv", "conv", "msa"]
    assert graph.shape[5:8].tolist() == [[8, 8, 1, 1]] * 3
    assert "a part of it is the weight of a linear layer" in graph.left["a.in_proj_weight"]
    assert "the bias of a layer is computed from it (chunk)" in graph.left["a.in_proj_bias"]


def masked(m: Any, x: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(x, x, x, attn_mask=m.table)


def written_out(m: Any, x: Tensor) -> Tensor:
    """Query and key of one producer, as those of a layer that makes all three."""
    scores = (x @ x.transpose(1, 2)).unsqueeze(1)
    scores = scores * m.table.exp() if m.table.ndim == 1 else scores + m.table
    return scores.softmax(-1)[:, 0] @ x


@pytest.mark.parametrize(
    ("layer", "shape", "reason"),
    [
        (masked, (16, 16), "enters the scores of attention"),
        (lambda m, x: F.scaled_dot_product_attention(m.table, x, x), (4, 8), "attended to without"),
        (written_out, (1, 2, 16, 16), "enters the scores of attention"),
        (written_out, (1,), "enters the scores of attention"),
        (lambda m, x: x + m.table, (16, 8), "added to features, but not as"),
        (lambda m, x: x + m.table[:, 1:], (1, 17, 8), "added to features after slice"),
        (lambda m, x: x * m.table, (16, 8), "multiplied with features, but not as a scale of channels"),
        (lambda m, x: x + F.embedding(torch.arange(16), m.table), (16, 8), "features after embedding"),
        (lambda m, x: torch.cat([m.table.repeat(2, 1, 1), x], 1), (1, 1, 8), CLASS_TOKEN),
        (lambda m, x: F.rms_norm(x, (8,), m.table), (8,), "operation 'rms_norm', which is no node type"),
    ],
)
def test_tables_of_transformers(layer: Any, shape: tuple[int, ...], reason: str) -> None:
    graph = sequence(layer, table=parameter(*shape))
    assert list(graph.left) == ["table"]
    assert reason in graph.left["table"]
    assert "pos_enc" not in labels(graph)


@pytest.mark.parametrize("first", ["token", "features"])
def test_token_written_into_a_sequence(first: str) -> None:
    def layer(m: Any, x: Tensor) -> Tensor:
        y = x.new_zeros(len(x), 17, 8)
        for part in (first, "features" if first == "token" else "token"):
            if part == "token":
                y[:, :1] = m.token
            else:
                y[:, 1:] = x
        return y

    graph = sequence(layer, token=parameter(1, 1, 8))
    assert graph.left == {"token": CLASS_TOKEN}
    assert labels(graph)[3] == "glob_avg"


def test_linear_layer_stored_transposed() -> None:
    graph = sequence(lambda m, x: x @ m.weight + m.bias, weight=parameter(8, 8), bias=parameter(8))
    assert labels(graph)[3:5] == ["conv", "bias"]
    assert "stored as (inputs, outputs)" in graph.left["weight"]


@dataclass
class Output:
    aux: Any
    logits: Any
    epoch: int = 3


@pytest.mark.parametrize(
    "pack",
    [
        lambda features, aux, logits: (features, logits, aux),
        lambda features, aux, logits: [[features], {"a": logits}, aux],
        lambda features, aux, logits: {"aux": aux, "logits": logits},
        lambda features, aux, logits: {"aux": aux, "out": logits},
        lambda features, aux, logits: Output(aux, logits),
        lambda features, aux, logits: SimpleNamespace(aux=aux, logits=logits),
    ],
)
def test_all_outputs_are_traced(pack: Any) -> None:
    def forward(m: Any, x: Tensor) -> Any:
        features = m.body(x).mean((2, 3))
        aux = m.aux(features)
        return pack(features, aux, m.head(features))

    module = Block(forward, body=nn.Conv2d(3, 8, 1), aux=nn.Linear(8, 10), head=nn.Linear(8, 10))
    graph = trace(module)
    assert graph.left == {}
    assert labels(graph) == [
        *("input", "body.weight", "body.bias", "glob_avg", "aux.weight", "aux.bias"),
        *("head.weight", "head.bias"),
    ]
    assert {("glob_avg", "aux.weight"), ("glob_avg", "head.weight")} < edges(graph)
    assert graph.param_name[graph.class_weight] == "head.weight"
    assert graph.param_name[graph.class_bias] == "head.bias"


def test_from_module_names_what_is_left() -> None:
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.PReLU(), head(8))
    sentence = (
        r"3 parameters are no part of the graph \(1\.weight and 1 more: enters through operation 'group_"
    )
    with pytest.warns(UserWarning, match=sentence) as caught:
        graph = ComputationGraph.from_module(module)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert graph.left.keys() == {"1.weight", "1.bias", "2.weight"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ComputationGraph.from_module(around(nn.BatchNorm2d(8))).left == {}


def test_parametrization_that_fails_is_named() -> None:
    class Fails(nn.Module):
        def forward(self, weight: Tensor) -> Tensor:
            if weight.device.type == "cpu" and self.training is False:
                raise RuntimeError("only in training")
            return weight

    module = around(nn.Conv2d(8, 8, 3))
    nn.utils.parametrize.register_parametrization(module[1], "weight", Fails(), unsafe=True)
    with pytest.raises(BadInput, match=r"could not be traced .*: only in training"):
        trace(module)

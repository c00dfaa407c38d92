"""Tracing foreign modules: graphs counted by hand, published figures, equality with a Program, bad input."""

from __future__ import annotations

from typing import Any

import networkx as nx
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import deepnets_bench as dnb
from deepnets_bench.errors import BadInput
from deepnets_bench.graphs.graph import ComputationGraph
from deepnets_bench.graphs.tracing.reasons import CLASS_TOKEN, LAYER_SCALE
from deepnets_bench.graphs.tracing.trace import Trace, trace
from tests import golden

torchvision = pytest.importorskip("torchvision", reason="tracing torchvision models needs torchvision")


def labels(graph: ComputationGraph | Trace) -> list[str]:
    return [name or dnb.PRIMITIVES[op] for op, name in zip(graph.op, graph.param_name, strict=True)]


def edges(graph: ComputationGraph | Trace) -> set[tuple[str, str]]:
    names = labels(graph)
    return {(names[u], names[v]) for u, v in graph.edge_index.T}


class Block(nn.Module):
    """A module whose forward pass is the function given."""

    def __init__(self, forward: Any, **children: nn.Module | nn.Parameter) -> None:
        super().__init__()
        for name, child in children.items():
            setattr(self, name, child)
        self.function = forward

    def forward(self, x: Tensor) -> Any:
        return self.function(self, x)


def adapt_to_cifar(resnet: nn.Module) -> nn.Module:
    resnet.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
    resnet.maxpool = nn.Identity()
    return resnet


def on_meta(name: str) -> nn.Module:
    # RegNet computes its widths with tensors.
    from torchvision.models.regnet import BlockParams

    widths = BlockParams.from_init_params
    with pytest.MonkeyPatch.context() as patch, torch.device("meta"):
        patch.setattr(BlockParams, "from_init_params", lambda **kw: on_cpu(widths, **kw))
        return torchvision.models.get_model(name, weights=None)


def on_cpu(function: Any, **kwargs: Any) -> Any:
    with torch.device("cpu"):
        return function(**kwargs)


# Published figures: nodes, edges, average degree, average undirected path.
@pytest.mark.parametrize(
    ("adapt", "size", "expected"),
    [
        (adapt_to_cifar, 32, (126, 141, 2.238095238095238, 11.193269841269842)),
        (lambda net: net, 224, (127, 142, 2 * 142 / 127, None)),
    ],
)
def test_resnet50(adapt: Any, size: int, expected: tuple[Any, ...]) -> None:
    graph = ComputationGraph.from_module(adapt(on_meta("resnet50")), (3, size, size))
    assert graph.left == {}
    undirected = graph.to_networkx().to_undirected()
    figures = (graph.num_nodes, graph.num_edges, 2 * graph.num_edges / graph.num_nodes)
    assert figures == expected[:3]
    if expected[3]:
        assert nx.average_shortest_path_length(undirected) == pytest.approx(expected[3], rel=1e-14)
    assert graph.param_name[graph.class_weight] == "fc.weight"
    assert graph.param_name[graph.class_bias] == "fc.bias"
    assert graph.class_bias == graph.num_nodes - 1


@pytest.mark.parametrize(
    "entry",
    [
        pytest.param(entry, id=f"{entry['split']}-{entry['index']}")
        for entry in golden.load("networks")
        if not entry["imagenet"]
    ],
)
def test_network_equals_its_program(entry: dict[str, Any]) -> None:
    arch = dnb.Architecture.from_dict(entry["net_args"])
    expected = arch.graph(width=entry["C"])
    with torch.device("meta"):
        network = arch.build(width=entry["C"])
    result = trace(network)
    for attribute in ("op", "cell", "shape", "edge_index"):
        assert np.array_equal(getattr(result, attribute), getattr(expected, attribute)), attribute
    for attribute in ("param_name", "param_shape", "class_weight", "class_bias"):
        assert getattr(result, attribute) == getattr(expected, attribute), attribute
    assert set(result.left.values()) <= {"does not contribute to the output"}


def head(c: int) -> nn.Module:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c, 10))


HEAD = ["glob_avg", "head.2.weight", "head.2.bias"]


def test_residual_block_with_every_kind_of_convolution() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        x = m.stem(x)
        y = m.norm(m.depthwise(F.relu(x)))
        y = y + m.dilated(x)
        return m.head(m.pool(y))

    graph = trace(
        Block(
            forward,
            stem=nn.Conv2d(3, 8, 3),
            depthwise=nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False),
            norm=nn.BatchNorm2d(8),
            dilated=nn.Conv2d(8, 8, 3, padding=2, groups=4, dilation=2, bias=False),
            pool=nn.MaxPool2d(2),
            head=head(8),
        )
    )
    assert labels(graph) == [
        *("input", "stem.weight", "stem.bias", "depthwise.weight", "norm.weight", "dilated.weight"),
        *("sum", "max_pool", *HEAD),
    ]
    assert [dnb.PRIMITIVES[op] for op in graph.op[:6]] == [
        "input",
        "conv",
        "bias",
        "sep_conv",
        "bn",
        "dil_conv",
    ]
    assert graph.edge_index.T.tolist() == [
        *([0, 1], [1, 2], [2, 3], [3, 4], [2, 5], [4, 6], [5, 6], [6, 7], [7, 8], [8, 9], [9, 10]),
    ]
    assert graph.shape.tolist() == [
        *([0, 0, 0, 0], [8, 3, 3, 3], [8, 1, 1, 1], [8, 1, 3, 3], [8, 1, 1, 1], [8, 2, 3, 3]),
        *([0, 0, 0, 0], [1, 1, 3, 3], [0, 0, 0, 0], [10, 8, 1, 1], [10, 1, 1, 1]),
    ]
    assert graph.param_shape[9] == (10, 8)


def test_sums_and_concatenations_of_one_producer_fold() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        x = m.stem(x)
        first, second = x.chunk(2, 1)
        x = torch.cat([second, first], 1) + x.flip(1)
        return m.head(torch.cat([x, m.branch(x)], 1))

    graph = trace(
        Block(
            forward, stem=nn.Conv2d(3, 8, 1, bias=False), branch=nn.Conv2d(8, 8, 1, bias=False), head=head(16)
        )
    )
    assert labels(graph) == ["input", "stem.weight", "branch.weight", "concat", *HEAD]
    assert graph.edge_index.T.tolist()[:4] == [[0, 1], [1, 2], [1, 3], [2, 3]]


def test_squeeze_and_excitation_is_one_node_without_its_mean() -> None:
    from torchvision.ops import SqueezeExcitation

    graph = trace(nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), SqueezeExcitation(8, 4), *head(8)))
    assert labels(graph) == [
        *("input", "0.weight", "1.fc1.weight", "1.fc1.bias", "1.fc2.weight", "1.fc2.bias", "cse", "glob_avg"),
        *("4.weight", "4.bias"),
    ]
    assert {("0.weight", "1.fc1.weight"), ("0.weight", "cse"), ("1.fc2.bias", "cse")} < edges(graph)


def attention(m: Any, x: Tensor) -> Tensor:
    """Separate query, key and value, the scores written out with a mask and a query-dependent bias."""
    x = m.stem(x).flatten(2).transpose(1, 2)
    q, k, v = m.q(x), m.k(x), m.v(x)
    scores = q @ k.transpose(1, 2) / 3 + q.mean(-1, keepdim=True)
    scores = scores.masked_fill(torch.ones(scores.shape[-1], dtype=torch.bool), 0)
    return m.fc((F.dropout(scores.softmax(-1)) @ v).mean(1))


def test_attention_written_out() -> None:
    linear = {name: nn.Linear(8, 8, bias=False) for name in "qkv"}
    module = Block(attention, stem=nn.Conv2d(3, 8, 8, 8, bias=False), fc=nn.Linear(8, 10), **linear)
    graph = trace(module)
    assert labels(graph) == [
        *(
            "input",
            "stem.weight",
            "q.weight",
            "k.weight",
            "v.weight",
            "msa",
            "glob_avg",
            "fc.weight",
            "fc.bias",
        )
    ]
    assert {(f"{name}.weight", "msa") for name in "qkv"} < edges(graph)


def test_vision_transformer_of_torchvision() -> None:
    from torchvision.models import VisionTransformer

    result = trace(VisionTransformer(32, 8, 1, 2, 16, 24, num_classes=10))
    layer = "encoder.layers.encoder_layer_0."
    assert labels(result) == [
        *(
            "input",
            "conv_proj.weight",
            "conv_proj.bias",
            "encoder.pos_embedding",
            "sum",
            layer + "ln_1.weight",
        ),
        *(layer + "self_attention.in_proj_weight", layer + "self_attention.in_proj_bias", "msa"),
        *(layer + "self_attention.out_proj.weight", layer + "self_attention.out_proj.bias", "sum"),
        *(layer + "ln_2.weight", layer + "mlp.0.weight", layer + "mlp.0.bias", layer + "mlp.3.weight"),
        *(layer + "mlp.3.bias", "sum", "encoder.ln.weight", "heads.head.weight", "heads.head.bias"),
    ]
    # 17 positions, the class token's included, are a 4×4 map.
    assert result.shape[3].tolist() == [1, 16, 4, 4]
    assert result.param_shape[3] == (1, 17, 16)
    assert result.left == {"class_token": CLASS_TOKEN}


def test_pool_after_the_classifier_moves_in_front_of_it() -> None:
    graph = trace(on_meta("squeezenet1_1"), (3, 224, 224))
    assert labels(graph)[-4:] == ["concat", "glob_avg", "classifier.1.weight", "classifier.1.bias"]
    assert graph.edge_index.T.tolist()[-3:] == [[61, 62], [62, 63], [63, 64]]


def test_pool_after_another_convolution_stays() -> None:
    graph = trace(nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1)))
    assert labels(graph) == ["input", "0.weight", "0.bias", "glob_avg"]


def test_features_written_into_slices() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        y = x.new_zeros(2, 8, 32, 32)
        y[:, :4] = m.a(x)
        y[:, 4:] = m.b(x)
        y[:, :1].mul_(2)
        return m.head(y)

    children = {name: nn.Conv2d(3, 4, 1, bias=False) for name in "ab"}
    graph = trace(Block(forward, head=head(8), **children))
    assert labels(graph) == ["input", "a.weight", "b.weight", "concat", *HEAD]


def test_linear_layer_written_out_and_structured_output() -> None:
    def forward(m: Any, x: Tensor) -> dict[str, Any]:
        x = x.flatten(1) @ m.weight.t() + m.bias
        return {"probabilities": [x.softmax(-1)], "hidden": x}

    weight, bias = nn.Parameter(torch.zeros(10, 3 * 4 * 4)), nn.Parameter(torch.zeros(10))
    graph = trace(Block(forward, weight=weight, bias=bias), (3, 4, 4))
    assert labels(graph) == ["input", "weight", "bias"]
    assert (graph.class_weight, graph.class_bias) == (1, 2)


def test_outputs_without_classifier() -> None:
    graph = trace(nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8)))
    assert (graph.class_weight, graph.class_bias) == (-1, -1)
    for dense in (nn.Conv2d(3, 8, 3), nn.Conv2d(3, 8, 1, bias=False)):  # a map of classes is no classifier
        graph = trace(nn.Sequential(nn.Conv2d(3, 3, 3), dense))
        assert (graph.class_weight, graph.class_bias) == (-1, -1)
    decoder = nn.Sequential(nn.Flatten(), nn.Linear(48, 4), nn.Linear(4, 48), nn.Unflatten(1, (3, 4, 4)))
    assert trace(decoder, (3, 4, 4)).class_weight == -1
    tokens = Block(lambda m, x: m.fc(x.flatten(2).transpose(1, 2)), fc=nn.Linear(3, 10))
    assert trace(tokens, (3, 4, 4)).class_weight == -1


def test_classifiers() -> None:
    body = nn.Conv2d(3, 8, 3)
    for layers in (
        [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10)],
        [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10), nn.Softmax(1)],
        [nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 10, 1), nn.Flatten()],
        [nn.Conv2d(8, 10, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()],
    ):
        graph = trace(nn.Sequential(body, *layers))
        assert [dnb.PRIMITIVES[op] for op in graph.op] == [
            "input",
            "conv",
            "bias",
            "glob_avg",
            "conv",
            "bias",
        ]
        assert (graph.class_weight, graph.class_bias) == (4, 5)


@pytest.mark.parametrize(
    ("layer", "left"),
    [
        (nn.GroupNorm(2, 8), {"1.weight": "group_norm", "1.bias": "group_norm"}),
        (nn.LayerNorm((8, 4, 4)), dict.fromkeys(("1.weight", "1.bias"), "layer_norm over 8×4×4 values; the")),
        (nn.PReLU(), {"1.weight": "prelu"}),
        (nn.ConvTranspose2d(8, 8, 1, bias=False), {"1.weight": "conv_transpose2d"}),
        (nn.InstanceNorm2d(8, affine=True), {"1.weight": "instance_norm", "1.bias": "instance_norm"}),
        (nn.InstanceNorm2d(8), {}),
        (
            nn.Sequential(nn.Unflatten(1, (1, 8)), nn.Conv3d(1, 1, 1, bias=False), nn.Flatten(1, 2)),
            {"1.1.weight": "conv3d"},
        ),
        (
            nn.Sequential(nn.Flatten(2), nn.Conv1d(8, 8, 1, bias=False), nn.Unflatten(2, (4, 4))),
            {"1.1.weight": "conv1d"},
        ),
        (Block(lambda m, x: x * m.scale, scale=nn.Parameter(torch.ones(8, 1, 1))), {"1.scale": LAYER_SCALE}),
        (
            Block(lambda m, x: x, unused=nn.Linear(2, 2, bias=False)),
            {"1.unused.weight": "does not contribute"},
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_parameters_without_node_are_reported(layer: nn.Module, left: dict[str, str]) -> None:
    result = trace(nn.Sequential(nn.Conv2d(3, 8, 1), layer, *head(8)), (3, 4, 4))
    assert labels(result) == ["input", "0.weight", "0.bias", "glob_avg", "4.weight", "4.bias"]
    assert result.left.keys() == left.keys()
    for name, reason in left.items():
        assert reason in result.left[name]


def test_the_module_is_left_as_it_was() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        m.norm.running_mean.add_(1)
        return m.head(m.norm(m.conv(x)))

    module = Block(forward, conv=nn.Conv2d(3, 8, 1), norm=nn.BatchNorm2d(8), head=head(8)).half()
    module.norm.eval()
    state = {name: value.clone() for name, value in module.state_dict().items()}
    tensors = dict(module.named_parameters())
    trace(module)
    assert [m.training for m in (module, module.head, module.norm)] == [True, True, False]
    assert all(module.get_parameter(name) is tensor for name, tensor in tensors.items())
    assert all(torch.equal(state[name], value) for name, value in module.state_dict().items())
    assert all(p.requires_grad for p in module.parameters())


def test_tracing_does_not_need_gradients_or_composite_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same graphs from the lower-level operations PyTorch shows outside inference mode."""
    names = ("resnet18", "vit_b_32", "efficientnet_b0", "swin_t")
    modules = [on_meta(name) for name in names]
    expected = [trace(module, (3, 224, 224)) for module in modules]
    monkeypatch.setattr(torch, "inference_mode", torch.no_grad)
    for module, graph in zip(modules, expected, strict=True):
        lowered = trace(module, (3, 224, 224))
        assert labels(lowered) == labels(graph)
        assert np.array_equal(lowered.edge_index, graph.edge_index)


@pytest.mark.parametrize(
    ("module", "input_shape", "message"),
    [
        (nn.ReLU(), (3, 32, 32), "ReLU has no parameters"),
        (torch.relu, (3, 32, 32), "Only a torch.nn.Module"),
        (nn.Conv2d(3, 8, 1), (3, 32), "input_shape must be three positive whole numbers"),
        (nn.Conv2d(3, 8, 1), (3, 0, 32), "input_shape must be three positive whole numbers"),
        (nn.Conv2d(3, 8, 1), 32, "input_shape must be three positive whole numbers"),
        (nn.Conv2d(1, 8, 1), (3, 32, 32), r"Conv2d could not be traced on images of shape \(3, 32, 32\)"),
        (nn.Embedding(9, 8), (3, 32, 32), "Embedding could not be traced on images"),
        (nn.LSTM(3, 8), (3, 32, 32), "LSTM could not be traced on images"),
        (nn.Conv2d(3, 8, 1, dtype=torch.complex64), (3, 32, 32), "'weight' is torch.complex64"),
        (nn.LazyConv2d(8, 1), (3, 32, 32), "'weight' is not initialised"),
        (
            Block(lambda m, x: m.a(x) if x.sum() > 0 else x, a=nn.Conv2d(3, 8, 1)),
            (3, 8, 8),
            "reads the values",
        ),
        (
            Block(lambda m, x: m.a(x[x > 0]), a=nn.Linear(8, 8)),
            (3, 8, 8),
            "reads the values|could not be traced",
        ),
        (
            Block(lambda m, x: m.a.weight.sum(), a=nn.Conv2d(3, 8, 1)),
            (3, 8, 8),
            "does not depend on the input",
        ),
        (Block(lambda m, x: F.relu(x), a=nn.Conv2d(3, 8, 1)), (3, 8, 8), "No parameter between"),
        (
            Block(lambda m, x: torch.zeros(2, 8, 8, 8).add_(m.a(x)), a=nn.Conv2d(3, 8, 1)),
            (3, 8, 8),
            "writes features into a tensor on the CPU",
        ),
    ],
)
def test_bad_input(module: Any, input_shape: Any, message: str) -> None:
    with pytest.raises(BadInput, match=message) as caught:
        trace(module, input_shape)
    assert "\n" not in str(caught.value)


# Models with parameters that have no node type: relative position tables, their networks, logit scales.
INCOMPLETE = {"maxvit_t", *(f"swin{v}_{s}" for v in ("", "_v2") for s in "tsb")}


@pytest.mark.stress
def test_every_classification_model_of_torchvision() -> None:
    names = torchvision.models.list_models(torchvision.models)
    for name in names:
        size = 299 if name == "inception_v3" else 224
        result = trace(on_meta(name), (3, size, size))
        reasons = set(result.left.values()) - {LAYER_SCALE, CLASS_TOKEN}
        if name in ("googlenet", "inception_v3"):  # auxiliary classifiers do not run in evaluation mode
            reasons.remove("does not contribute to the output")
        assert bool(reasons) == (name in INCOMPLETE), (name, reasons)
        targets, sources = set(result.edge_index[1]), set(result.edge_index[0])
        without_input = {labels(result)[v] for v in set(range(len(result.op))) - targets}
        assert without_input <= {"input", "encoder.pos_embedding"}
        assert sources == set(range(len(result.op) - 1))
    assert len(set(names) - INCOMPLETE) >= 70

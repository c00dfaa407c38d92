import pytest
import torch
from torch import Tensor, nn

from deepnets_bench.data.dataset import GraphBatch
from deepnets_bench.errors import BadInput, NotFinite, UnknownName
from deepnets_bench.ghn.config import GHNConfig
from deepnets_bench.ghn.model import GHN
from tests.ghn.networks import ATTENTION, BARE, CONVOLUTIONS


@pytest.fixture(scope="module")
def batch() -> GraphBatch:
    graphs = [arch.graph(width=16, image_size=16, num_classes=10) for arch in (CONVOLUTIONS, ATTENTION)]
    return GraphBatch.from_graphs(graphs)


@pytest.mark.parametrize(
    ("name", "num_classes", "count"),
    [
        ("ghn1", 10, 1_620_668),
        ("ghn1", 1000, 2_319_624),
        ("ghn2", 10, 1_620_764),
        ("ghn2", 1000, 2_319_720),
        ("mlp", 10, 1_614_396),
        ("ghn3-t", 10, 4_531_500),
        ("ghn3-t", 1000, 6_906_632),
        ("ghn3-s", 1000, 35_810_368),
        ("ghn3-l", 1000, 214_668_960),
        ("ghn3-xl", 1000, 654_365_184),
    ],
)
def test_parameter_counts_are_the_published_ones(name: str, num_classes: int, count: int) -> None:
    with torch.device("meta"):
        ghn = GHN.from_config(name, num_classes=num_classes)
    assert sum(weight.numel() for weight in ghn.parameters()) == count


@pytest.mark.parametrize(
    "config",
    ["ghn1", "ghn2", "mlp", {"decoder": "mlp", "max_shape": (16, 16, 5, 5)}, "ghn3-t"],
    ids=["ghn1", "ghn2", "mlp", "mlp-decoder", "ghn3-t"],
)
def test_every_weight_learns(config: str | dict[str, object], batch: GraphBatch) -> None:
    ghn = GHN.from_config(config)
    loss = sum(tensor.square().sum() for params in ghn(batch) for tensor in params.values())
    loss.backward()
    for name, weight in ghn.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.isfinite().all(), name


def test_plug_in_takes_the_place_of_the_graph_network(batch: GraphBatch) -> None:
    ghn = GHN.from_config("ghn2", gnn="gcn")
    assert "gru" not in str(ghn.gnn)
    assert len(ghn(batch)) == 2
    given = GHN(GHNConfig(), gnn=nn.Linear(32, 32))
    assert isinstance(given.gnn, nn.Linear)


class Broken(nn.Module):
    def __init__(self, fault: str) -> None:
        super().__init__()
        self.fault = fault

    def forward(self, x: Tensor, batch: GraphBatch) -> object:
        return {
            "narrow": x[:, :3],
            "list": [x],
            "integers": x.long(),
            "double": x.double(),
            "nan": x / 0 - x / 0,
            "device": x.to("meta"),
        }[self.fault]


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("narrow", r"GNN 'Broken': forward returns shape \[\d+, 3\] where \[N, dim\] = \[\d+, 32\]"),
        ("list", "GNN 'Broken': forward returns list"),
        ("integers", "GNN 'Broken': forward returns torch.int64 where the node states"),
        ("double", "GNN 'Broken': forward returns torch.float64 where the node states are torch.float32"),
        ("device", "GNN 'Broken': forward returns a tensor on meta where the node states are on cpu"),
    ],
)
def test_broken_gnn_is_named(fault: str, sentence: str, batch: GraphBatch) -> None:
    with pytest.raises(BadInput, match=sentence):
        GHN(GHNConfig(), gnn=Broken(fault))(batch)


class Partial(nn.Module):
    def forward(self, x: Tensor, batch: GraphBatch) -> Tensor:
        return torch.where(batch.batch[:, None] == 1, x / 0, x)


def test_graphs_whose_states_are_not_finite_are_named(batch: GraphBatch) -> None:
    nodes = int(batch.ptr[2] - batch.ptr[1])
    sentence = f"GNN 'Partial': forward returns NaN or infinity for {nodes} nodes"
    with pytest.raises(NotFinite, match=sentence) as caught:
        GHN(GHNConfig(), gnn=Partial())(batch)
    assert caught.value.graphs == (1,)


def test_virtual_edges_are_computed_up_to_the_cutoff_of_the_configuration(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert GHN.from_config("ghn2").virtual_edges == 50
    assert GHN.from_config({"virtual_edges": 7, "ve": False}).virtual_edges == 1
    ghn = GHN.from_config({"virtual_edges": 2, "hid": 8, "max_shape": (8, 8, 3, 3)})
    largest = []
    forward = ghn.gnn.forward

    def watched(x: Tensor, seen: GraphBatch) -> Tensor:
        largest.append(int(seen.distance.max()))
        return forward(x, seen)

    monkeypatch.setattr(ghn.gnn, "forward", watched)
    ghn.predict(CONVOLUTIONS, width=16, image_size=16)
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.LazyLinear(10))
    module(torch.zeros(1, 3, 8, 8))
    ghn.initialize(module, (3, 8, 8))
    assert largest == [2, 2]


def test_prediction_of_a_network_runs_and_needs_no_gradient() -> None:
    torch.manual_seed(0)
    params = GHN.from_config("ghn2").predict(BARE, width=16, image_size=16)
    assert not any(tensor.requires_grad for tensor in params.values())
    logits = BARE.build(width=16, image_size=16, num_classes=10).run(torch.randn(2, 3, 16, 16), params)
    assert logits.shape == (2, 10)


def test_prediction_is_the_same_under_autocast(batch: GraphBatch) -> None:
    ghn = GHN.from_config("ghn2")
    expected = ghn(batch)
    with torch.autocast("cpu", torch.bfloat16):
        predicted = ghn(batch)
    torch.testing.assert_close(predicted, expected)


def test_unknown_names_list_the_choices() -> None:
    with pytest.raises(UnknownName, match=r"Did you mean 'ghn2'.*Choices: ghn1, ghn2, mlp, ghn3-t"):
        GHN.from_config("ghn-2")
    with pytest.raises(UnknownName, match="Choices: conv, mlp"):
        GHN.from_config({"decoder": "cnv"})


@pytest.mark.parametrize(
    "config",
    [
        {"max_shape": (64, 64, 11)},
        {"hid": 30},
        {"num_classes": 0},
        {"hypernet": "graphormer"},
        {"hypernet": "graphormer", "layers": 3, "heads": 5},
        {"hidden": 32},
        {"virtual_edges": 0},
    ],
)
def test_unusable_settings_are_refused(config: dict[str, object]) -> None:
    with pytest.raises(BadInput):
        GHN.from_config(config)


def test_initialize_fills_a_foreign_network_and_names_the_rest() -> None:
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False),
        nn.BatchNorm2d(8),
        nn.GroupNorm(2, 8),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 10),
    )
    before = {name: weight.detach().clone() for name, weight in module.named_parameters()}
    report = GHN.from_config("ghn2").initialize(module, (3, 32, 32))
    assert report.predicted == ["0.weight", "1.weight", "1.bias", "5.weight", "5.bias"]
    assert set(report.left) == {"2.weight", "2.bias"}
    for name, weight in module.named_parameters():
        assert torch.equal(weight, before[name]) == (name in report.left), name


def test_initialize_leaves_a_network_of_other_classes_alone() -> None:
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 7))
    before = [weight.detach().clone() for weight in module.parameters()]
    with pytest.raises(BadInput, match=r"10 classes, but 3\.weight has 7 outputs"):
        GHN.from_config("ghn2").initialize(module)
    assert all(torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True))

"""Hypernetworks with given weights against expected states, parameters and logits (tests/golden)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import deepnets_bench as dnb
from tests import golden
from tests.golden import TOLERANCE

EXPECTED = golden.load("ghn")
ITEMS = [
    pytest.param(name, item, id=f"{name}-{item.get('torchvision') or item['split'] + str(item['index'])}")
    for name in EXPECTED
    for item in EXPECTED[name]["items"]
]


@pytest.fixture(scope="module")
def ghns() -> dict[str, dnb.GHN]:
    return {name: filled(dnb.GHN.from_config(entry["config"])) for name, entry in EXPECTED.items()}


def filled(ghn: dnb.GHN) -> dnb.GHN:
    """Set the weights by the formulas of tests/golden/README.md."""
    state = ghn.state_dict()
    for j, (name, tensor) in enumerate(sorted(state.items())):
        base = np.sin(0.61803398875 * np.arange(tensor.numel()) + j).reshape(tensor.shape)
        *_, module, kind = name.split(".")
        if tensor.dim() > 1:
            value = base if "embed" in name else 1.5 * base * np.sqrt(tensor.shape[0] / tensor.numel())
        else:
            is_norm_weight = module in ("ln", "ln1", "ln2") and kind == "weight"
            value = 1 + 0.1 * base if is_norm_weight else 0.1 * base
        tensor.copy_(torch.from_numpy(value))
    return ghn


def network_and_graph(item: dict[str, Any]) -> tuple[Any, dnb.ComputationGraph]:
    if "net_args" in item:
        arch = dnb.Architecture.from_dict(item["net_args"])
        return arch.build(width=item["C"]).eval(), arch.graph(width=item["C"])
    models = pytest.importorskip("torchvision.models")
    module = getattr(models, item["torchvision"])(num_classes=10)
    module.conv1 = torch.nn.Conv2d(3, 64, 3, padding=1, bias=False)  # adapted to 32×32
    module.maxpool = torch.nn.Identity()
    return module.train(), dnb.ComputationGraph.from_module(module, (3, 32, 32))


def logits(network: Any, params: dict[str, Tensor], dtype: torch.dtype) -> Tensor:
    images = golden.images()
    params = {name: tensor.to(dtype) for name, tensor in params.items()}
    if isinstance(network, dnb.Network):
        return network.run(images.to(dtype), params)
    buffers = {name: buffer.to(dtype) if buffer.is_floating_point() else buffer for name, buffer in
               network.named_buffers()}  # fmt: skip
    return torch.func.functional_call(network, {**buffers, **params}, images.to(dtype))


@pytest.mark.parametrize("name", EXPECTED)
def test_state_dict_has_the_published_names_and_shapes(name: str, ghns: dict[str, dnb.GHN]) -> None:
    shapes = {key: list(tensor.shape) for key, tensor in ghns[name].state_dict().items()}
    assert shapes == EXPECTED[name]["state_dict_shapes"]


@pytest.mark.parametrize(("name", "item"), ITEMS)
@torch.no_grad()
def test_prediction(name: str, item: dict[str, Any], ghns: dict[str, dnb.GHN]) -> None:
    ghn = ghns[name]
    network, graph = network_and_graph(item)
    batch = dnb.GraphBatch.from_graphs([graph], virtual_edges=ghn.virtual_edges)
    states = ghn.node_states(batch)
    mean = torch.tensor(item["embedding_mean"])
    torch.testing.assert_close(states.mean(0), mean, rtol=0, atol=TOLERANCE * mean.abs().max().item())
    assert states.norm().item() == pytest.approx(item["embedding_norm"], rel=TOLERANCE)

    params = ghn(batch)[0]
    assert params.keys() == item["params"].keys()
    for key, expected in item["params"].items():
        tensor = params[key]
        assert list(tensor.shape) == expected["shape"], key
        values = [tensor.mean(), *tensor.flatten()[:3], tensor.flatten()[-1]]
        wanted = [expected["mean"], *expected["first"], expected["last"]]
        typical = expected["norm"] / tensor.numel() ** 0.5  # root mean square of the elements
        assert values == pytest.approx(wanted, rel=TOLERANCE, abs=TOLERANCE * typical), key
        assert tensor.norm().item() == pytest.approx(expected["norm"], rel=TOLERANCE), key

    if "logits" in item:
        single, double = (logits(network, params, dtype) for dtype in (torch.float32, torch.float64))
        golden.assert_logits_agree(single, double, item["logits"])

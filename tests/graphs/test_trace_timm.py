"""Graphs of models of timm, an optional library that is no dependency: their parameters are all predicted."""

from __future__ import annotations

import pytest
import torch

from deepnets_bench.graphs.tracing.reasons import CLASS_TOKEN, LAYER_SCALE
from deepnets_bench.graphs.tracing.trace import trace

timm = pytest.importorskip("timm", reason="timm is not installed (pip install timm)")

# Nodes, for models that torchvision also has: the same as those of torchvision's (docs/torchvision.md).
MODELS = {
    "convnext_tiny": 161,
    "deit3_small_patch16_224": None,
    "deit_tiny_patch16_224": 164,  # as vit_b_16, at another width
    "densenet121": 307,
    "efficientnet_b0": 191,
    "mixer_s16_224": None,
    "mobilenetv3_large_100": None,
    "regnety_008": None,
    "resnet50": 127,
    "resnext50_32x4d": 127,
    "seresnet50": None,
    "vit_small_patch16_224": 164,
}


@pytest.mark.parametrize(("name", "nodes"), MODELS.items())
def test_every_parameter_has_a_node(name: str, nodes: int | None) -> None:
    with torch.device("meta"):
        module = timm.create_model(name, pretrained=False)
    result = trace(module, (3, 224, 224))
    assert set(result.left.values()) <= {LAYER_SCALE, CLASS_TOKEN}
    assert nodes in (None, len(result.op))
    last = [result.param_name[node] for node in (result.class_weight, result.class_bias)]
    assert last == [f"{module.default_cfg['classifier']}.{leaf}" for leaf in ("weight", "bias")]

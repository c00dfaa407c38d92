"""Evaluation: accuracies equal those computed by hand; failures are told, never averaged."""

import pytest
import torch

from deepnets_bench.harness import evaluation as module
from deepnets_bench.harness.evaluation import evaluate
from deepnets_bench.harness.images import LabelledImages, digits
from deepnets_bench.harness.jobs import build_ghn

SIZES = {"width": 8, "fc_dim": 16, "num_classes": 10}


@pytest.fixture(scope="module")
def ghn(tiny):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    return build_ghn(tiny, "ghn2", {}, 10)


def test_accuracy_equals_predict_and_run_in_batches(ghn, architectures):
    data = digits(16).test.head(40)
    result = evaluate(ghn, architectures["test"], data, **SIZES, virtual_edges=50, batch_size=16)
    assert not result.failures
    for index, arch in enumerate(architectures["test"]):
        params = ghn.predict(arch, image_size=16, **SIZES)
        net = arch.build(image_size=16, **SIZES).eval()
        with torch.no_grad():
            logits = torch.cat([net.run(images, params) for images in data.images.split(16)])
        assert result.accuracies[index] == int((logits.argmax(1) == data.labels).sum()) / 40
    assert ghn.training


def test_logits_that_are_not_finite_are_wrong_whatever_their_label(ghn, architectures, monkeypatch):
    logits = torch.tensor([[0.0, 1.0], [float("nan"), 0.0], [2.0, 1.0], [1.0, float("inf")]])
    monkeypatch.setattr(module, "execute", lambda *args, **kwargs: logits)
    data = LabelledImages(torch.zeros(4, 3, 16, 16), torch.tensor([1, 0, 0, 1]))
    result = evaluate(ghn, architectures["test"][:1], data, **SIZES, virtual_edges=50, batch_size=4)
    assert result.accuracies == {0: 0.5}


def test_a_network_that_fails_is_reported_and_the_others_are_evaluated(ghn, architectures, monkeypatch):
    execute, calls = module.execute, iter(range(10))

    def failing(*args, **kwargs):
        if next(calls) == 1:
            raise torch.OutOfMemoryError("no memory\nfor this")
        return execute(*args, **kwargs)

    monkeypatch.setattr(module, "execute", failing)
    data = digits(16).test.head(16)
    result = evaluate(ghn, architectures["test"], data, **SIZES, virtual_edges=50, batch_size=16)
    assert sorted(result.accuracies) == [0, 2]
    assert result.failures == {1: "OutOfMemoryError: no memory"}
    assert result.mean == pytest.approx((result.accuracies[0] + result.accuracies[2]) / 2)

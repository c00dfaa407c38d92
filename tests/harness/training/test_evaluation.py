"""Evaluation: accuracies equal those computed by hand; failures are reported, never averaged."""

import pytest
import torch

from deepnets_bench.errors import BadInput
from deepnets_bench.gnn import identify
from deepnets_bench.harness.images.sets import LabelledImages, digits
from deepnets_bench.harness.runs.job import build_ghn
from deepnets_bench.harness.training import evaluation as module
from deepnets_bench.harness.training.evaluation import evaluate
from deepnets_bench.harness.training.splits import StoredNetwork

SIZES = {"width": 8, "fc_dim": 16, "num_classes": 10}


@pytest.fixture(scope="module")
def ghn(tiny):
    torch.set_num_threads(1)
    return build_ghn(tiny, identify("ghn2"), 10)


def test_accuracy_equals_predict_and_run_in_batches(ghn, architectures):
    data = digits(16).test.head(40)
    result = evaluate(ghn, architectures["test"], data, **SIZES, batch_size=16)
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
    result = evaluate(ghn, architectures["test"][:1], data, **SIZES, batch_size=4)
    assert result.accuracies == {0: 0.5}
    assert result.not_finite == [0]
    assert result.reason == (
        "1 architectures gave logits that are not finite, which count as wrong (the first one, 0)"
    )


def test_a_network_that_fails_is_reported_and_the_others_are_evaluated(ghn, architectures, monkeypatch):
    execute, calls = module.execute, iter(range(10))

    def failing(*args, **kwargs):
        if next(calls) == 1:
            raise torch.OutOfMemoryError("no memory\nfor this")
        return execute(*args, **kwargs)

    monkeypatch.setattr(module, "execute", failing)
    data = digits(16).test.head(2)
    result = evaluate(ghn, architectures["test"], data, **SIZES, batch_size=2)
    assert sorted(result.accuracies) == [0, 2]
    assert result.failures == {1: "OutOfMemoryError: no memory"}
    assert result.reason == "architecture 1: OutOfMemoryError: no memory"
    assert result.mean == pytest.approx((result.accuracies[0] + result.accuracies[2]) / 2)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        MemoryError(),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"),
        RuntimeError(
            "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
        ),
    ],
)
def test_a_network_that_runs_out_of_memory_gets_smaller_batches_and_the_row_says_so(
    ghn, architectures, monkeypatch, error
):
    execute = module.execute

    def limited(steps, images, *args, **kwargs):
        if len(images) > 8:
            raise error
        return execute(steps, images, *args, **kwargs)

    data = digits(16).test.head(24)
    small = evaluate(ghn, architectures["test"][:2], data, **SIZES, batch_size=8)
    monkeypatch.setattr(module, "execute", limited)
    result = evaluate(ghn, architectures["test"][:2], data, **SIZES, batch_size=32)
    assert result.accuracies == small.accuracies
    assert result.batch_sizes == {0: 8, 1: 8}
    assert not result.failures
    assert not small.reason
    assert result.reason == (
        "2 architectures ran out of memory and were evaluated with smaller batches, which changes accuracies "
        "(the first one, 0, with 8 images)"
    )


def test_a_network_that_fits_in_no_batch_has_failed(ghn, architectures, monkeypatch):
    sizes = []

    def never(steps, images, *args, **kwargs):
        sizes.append(len(images))
        raise torch.OutOfMemoryError("no memory")

    monkeypatch.setattr(module, "execute", never)
    data = digits(16).test.head(20)
    result = evaluate(ghn, architectures["test"][:1], data, **SIZES, batch_size=16)
    assert sizes == [16, 8, 4, 2]
    assert result.failures == {0: "OutOfMemoryError: no memory"}


def test_top_k_counts_labels_among_the_highest(ghn, architectures, monkeypatch):
    logits = torch.tensor([[4.0, 3, 2, 1], [4, 3, 2, 1], [4, 3, 2, 1], [float("nan"), 3, 2, 1]])
    monkeypatch.setattr(module, "execute", lambda *args, **kwargs: logits)
    data = LabelledImages(torch.zeros(4, 3, 16, 16), torch.tensor([0, 1, 2, 1]))
    for top_k, accuracy in ((1, 0.25), (2, 0.5), (3, 0.75)):
        result = evaluate(ghn, architectures["test"][:1], data, **SIZES, batch_size=4, top_k=top_k)
        assert result.accuracies == {0: accuracy}
    with pytest.raises(BadInput, match="Every prediction would be right: top_k is 10 for 10 classes"):
        evaluate(ghn, [], data, **SIZES, batch_size=4, top_k=10)


def test_stored_networks_are_evaluated_at_their_own_width(ghn, architectures, monkeypatch):
    data = digits(16).test.head(16)
    arch = architectures["test"][0]
    common = {"fc_dim": 16, "num_classes": 10, "batch_size": 16}
    stored = evaluate(ghn, [StoredNetwork(arch, (24, 8))], data, width="stored", **common)
    assert stored.accuracies == evaluate(ghn, [arch], data, width=24, **common).accuracies
    assert StoredNetwork(arch, (24, 8)).width(224) == 8
    with pytest.raises(BadInput, match="has no width of its own"):
        evaluate(ghn, [arch], data, width="stored", **common)

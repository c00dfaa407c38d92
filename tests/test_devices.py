"""What runs on a GPU, without one: tensors on "cuda" that have shapes and no values.

Reading a value from such a tensor raises, so these tests also say where the host waits for the device.
"""

import warnings

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from deepnets_bench.data.dataset import GraphBatch
from deepnets_bench.generators import sample
from deepnets_bench.ghn.gated import triton as loops
from deepnets_bench.ghn.gated.module import GatedGNN, _on_gpu
from deepnets_bench.ghn.model import GHN
from deepnets_bench.harness.images.sets import LabelledImages
from deepnets_bench.harness.training import evaluation
from deepnets_bench.networks.network import execute, unpack

pytest.importorskip("triton", reason="PyTorch came without Triton")
SIZES = {"width": 16, "image_size": 32, "num_classes": 10, "fc_dim": 32}
CUDA = torch.device("cuda", 0)


@pytest.fixture
def fake():
    """A mode in which tensors on a GPU that is not there can be made and used, with others beside."""
    return FakeTensorMode(allow_non_fake_inputs=True)


def on_cuda(mode, module, device=CUDA):
    """The module with weights and buffers of the same form on the GPU that is not there."""
    with mode:
        for part in module.modules():
            for name, weight in part._parameters.items():
                if weight is not None:
                    part._parameters[name] = nn.Parameter(torch.empty_like(weight, device=device))
            for name, buffer in part._buffers.items():
                part._buffers[name] = torch.empty_like(buffer, device=device)
    return module


@pytest.fixture(scope="module")
def architectures():
    return [sample("train", index) for index in range(3)]


@pytest.mark.parametrize("gnn", ["ghn2", "mlp", "ghn1", "gin", "ghn3"])
def test_a_meta_batch_is_predicted_and_run_without_waiting(fake, architectures, gnn):
    ghn = on_cuda(fake, GHN.from_config("ghn2", gnn=gnn))
    graphs = [arch.graph(**SIZES) for arch in architectures]
    batch = GraphBatch.from_graphs(graphs, virtual_edges=ghn.virtual_edges)
    with fake:
        predictions = ghn(batch.to(CUDA), check=False)
        images = torch.empty(8, 3, 32, 32, device=CUDA)
        for arch, graph, params in zip(architectures, graphs, predictions, strict=True):
            program = arch.program(**SIZES)
            assert len(params) >= sum(name is not None for name in graph.param_name)
            for name, tensor in params.items():
                assert (tuple(tensor.shape), tensor.device) == (tuple(program.param_shapes[name]), CUDA)
            for training in (True, False):
                logits = execute(unpack(program), images, params, training=training)
                assert (logits.shape, logits.device) == ((8, 10), CUDA)


@pytest.mark.parametrize("gnn", ["ghn2", "mlp", "ghn3"])
def test_gradients_are_computed_without_waiting(fake, architectures, gnn):
    """On a CPU without values: PyTorch differentiates nothing on a GPU that is not there."""
    ghn = on_cuda(fake, GHN.from_config("ghn2", gnn=gnn), torch.device("cpu"))
    batch = GraphBatch.from_graphs([arch.graph(**SIZES) for arch in architectures], ghn.virtual_edges)
    with fake:
        outputs, gradients = [], []
        for arch, predicted in zip(architectures, ghn(batch, check=False), strict=True):
            leaves = {name: tensor.detach().requires_grad_() for name, tensor in predicted.items()}
            logits = execute(unpack(arch.program(**SIZES)), torch.empty(8, 3, 32, 32), leaves, training=True)
            nn.functional.cross_entropy(logits, torch.empty(8, dtype=torch.int64)).backward()
            outputs += predicted.values()
            gradients += [leaf.grad for leaf in leaves.values()]
        torch.autograd.backward(outputs, gradients)
    assert all(weight.grad.shape == weight.shape for weight in ghn.gnn.parameters())


def test_the_check_of_states_waits_once(fake, architectures):
    ghn = on_cuda(fake, GHN.from_config("ghn2", gnn="mlp"))
    batch = GraphBatch.from_graphs([architectures[0].graph(**SIZES)])
    with fake, pytest.raises(DataDependentOutputException):
        ghn(batch.to(CUDA))


def test_images_are_batched_and_counted_without_waiting(fake, architectures):
    """All that evaluation does on the device before it reads two numbers a network."""
    program = architectures[0].program(**SIZES)
    ghn = on_cuda(fake, GHN.from_config("ghn2", gnn="mlp"))
    batch = GraphBatch.from_graphs([architectures[0].graph(**SIZES)])
    with fake:
        params = ghn(batch.to(CUDA), check=False)[0]
        data = LabelledImages(
            torch.empty(20, 3, 32, 32, dtype=torch.uint8, device=CUDA),
            torch.empty(20, dtype=torch.int64, device=CUDA),
        )
        counts = evaluation.counts(unpack(program), params, data, 8, top_k=3)
        assert (counts.shape, counts.device) == ((2,), CUDA)
        with pytest.raises(DataDependentOutputException):
            int(counts[0])


def test_parameters_are_written_to_modules_on_the_device(fake, monkeypatch):
    ghn = on_cuda(fake, GHN.from_config("ghn2", gnn="mlp"))
    layers = (nn.Conv2d(3, 16, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))
    module = on_cuda(fake, nn.Sequential(*layers))
    states = GHN.node_states
    monkeypatch.setattr(GHN, "node_states", lambda self, batch, check: states(self, batch, check=False))
    with fake:
        ghn.initialize(module)
    assert {weight.device for weight in module.parameters()} == {CUDA}


@pytest.mark.parametrize("dim", [16, 32, 64])
def test_states_of_these_sizes_go_through_the_kernels_of_triton(dim):
    assert _on_gpu(dim)
    assert not _on_gpu(dim + 1)


def test_without_a_compiler_one_warning_says_that_the_sweep_goes_level_by_level(fake, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    gnn = on_cuda(fake, GatedGNN(32))
    gone = []
    monkeypatch.setattr(GatedGNN, "by_level", lambda self, x, batch: gone.append(x) or x)
    for cached in (loops.lacking, _on_gpu):
        cached.cache_clear()
    try:
        with fake, warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            for _ in range(3):
                gnn(torch.empty(5, 32, device=CUDA), None)
    finally:
        for cached in (loops.lacking, _on_gpu):
            cached.cache_clear()
    assert len(gone) == 3
    assert [str(warning.message).partition(":")[0] for warning in seen] == [
        "Triton cannot start kernels without a C compiler (gcc or clang, or CC)"
    ]


def test_the_bias_of_a_graphormer_fits_into_memory_for_the_deepest_graphs(fake):
    """Heads × nodes² numbers: 56 MB for the largest of the first hundred graphs of deep."""
    graphs = [sample("deep", index).graph(**SIZES) for index in range(100)]
    largest = max(graphs, key=lambda graph: graph.num_nodes)
    ghn = on_cuda(fake, GHN.from_config("ghn3-t"))
    seen = []
    ghn.gnn[0].attn.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[1]))
    with fake:
        ghn.node_states(GraphBatch.from_graphs([largest]).to(CUDA), check=False)
    (bias,) = seen
    assert bias.shape == (1, ghn.config.heads, largest.num_nodes, largest.num_nodes)
    assert bias.numel() * bias.element_size() == 56_010_528

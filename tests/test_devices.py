"""What runs on a GPU, without one: tensors on "cuda" that have shapes and no values.

Reading a value from such a tensor raises, so these tests also say where the host waits for the device.
"""

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from deepnets_bench.data.dataset import GraphBatch
from deepnets_bench.ghn.foreign import initialize
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


def on_cuda(mode, module):
    """The module with weights and buffers of the same form on the GPU that is not there."""
    with mode:
        for part in module.modules():
            for name, weight in part._parameters.items():
                if weight is not None:
                    part._parameters[name] = nn.Parameter(torch.empty_like(weight, device=CUDA))
            for name, buffer in part._buffers.items():
                part._buffers[name] = torch.empty_like(buffer, device=CUDA)
    return module


@pytest.fixture(scope="module")
def architectures():
    from deepnets_bench.generators import sample

    return [sample("train", index) for index in range(3)]


@pytest.mark.parametrize("gnn", [None, "mlp", "gat", "ghn1", "gin"])
def test_a_meta_batch_is_predicted_and_run_without_waiting(fake, architectures, gnn):
    ghn = on_cuda(fake, GHN.from_config("ghn2", gnn=gnn))
    graphs = [arch.graph(**SIZES) for arch in architectures]
    batch = GraphBatch.from_graphs(graphs, virtual_edges=ghn.virtual_edges)
    with fake:
        predictions = ghn(batch.to(CUDA), check=False)
        images = torch.empty(8, 3, 32, 32, device=CUDA)
        for arch, graph, params in zip(architectures, graphs, predictions, strict=True):
            shapes = {name: tuple(tensor.shape) for name, tensor in params.items()}
            program = arch.program(**SIZES)
            live = {name: tuple(shape) for name, shape in program.param_shapes.items() if name in shapes}
            assert shapes == live
            assert len(shapes) >= sum(name is not None for name in graph.param_name)
            assert {tensor.device for tensor in params.values()} == {CUDA}
            for training in (True, False):
                logits = execute(unpack(program), images, params, training=training)
                assert (logits.shape, logits.device) == ((8, 10), CUDA)


def test_the_states_of_ghn3_wait_for_the_size_of_the_largest_graph_alone(fake, architectures):
    ghn = on_cuda(fake, GHN.from_config("ghn3-t"))
    batch = GraphBatch.from_graphs([arch.graph(**SIZES) for arch in architectures], virtual_edges=50)
    with fake, pytest.raises(DataDependentOutputException):
        ghn(batch.to(CUDA), check=False)

"""The node loops for a GPU in Triton's interpreter, on the CPU; `test_gated_triton` runs this file."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from deepnets_bench.errors import BadInput
from deepnets_bench.ghn.gated import sweep, triton
from deepnets_bench.ghn.gated.module import GatedGNN
from tests.ghn.gated.test_module import batch_of, output_and_gradients


def fused(gnn: GatedGNN, x: Tensor, batch: SimpleNamespace) -> Tensor:
    """The GatedGNN with Triton's loops, backward included."""
    vars(batch).pop("_gated_schedule", None)
    sweep._loops = lambda device: triton
    return gnn._compiled(x, batch)


@pytest.fixture(autouse=True)
def loops_of_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Afterwards every device has its own loops again."""
    monkeypatch.setattr(sweep, "_loops", sweep._loops)


@pytest.mark.parametrize("virtual_edges", [True, False], ids=["ve", "1hop"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.float64, 1e-14)])
def test_equals_the_loops_of_the_cpu(virtual_edges: bool, dtype: torch.dtype, tolerance: float) -> None:
    torch.manual_seed(0)
    gnn, batch = GatedGNN(16, virtual_edges).to(dtype), batch_of(9, 1, 36)
    x = torch.randn(46, 16, dtype=dtype)
    expected = output_and_gradients(GatedGNN.forward, gnn, x, batch)
    for actual, wanted in zip(output_and_gradients(fused, gnn, x, batch), expected, strict=True):
        limit = tolerance * max(1.0, float(wanted.abs().max()))
        torch.testing.assert_close(actual, wanted, rtol=0, atol=limit)


def test_nodes_in_any_order_within_their_graph() -> None:
    gnn, batch, x = GatedGNN(16), batch_of(12, 9), torch.randn(21, 16)
    expected = fused(gnn, x, batch)
    new_place = torch.cat([torch.randperm(12), 12 + torch.randperm(9)])
    batch.edge_index = new_place[batch.edge_index]
    batch.virtual_edge_index = new_place[batch.virtual_edge_index]
    batch.level = batch.level[new_place.argsort()]
    torch.testing.assert_close(fused(gnn, x[new_place.argsort()], batch)[new_place], expected)


@pytest.mark.parametrize("edge", [(2, 0), (0, 3), (-1, 2)])
def test_edges_that_do_not_lead_upwards_are_refused(edge: tuple[int, int]) -> None:
    batch = batch_of(3)
    batch.edge_index = torch.cat([batch.edge_index, torch.tensor(edge)[:, None]], 1)
    with pytest.raises(BadInput, match="edge"):
        fused(GatedGNN(16), torch.randn(3, 16), batch)

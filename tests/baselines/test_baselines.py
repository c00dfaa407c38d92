"""One contract for every registered GNN, and what a baseline's file declares."""

from __future__ import annotations

import inspect

import pytest
import torch

from deepnets_bench.gnn import catalogue, spec_of
from deepnets_bench.gnn.check import check
from deepnets_bench.gnn.materialise import small_batch

SPECS, BROKEN = catalogue()
REQUIRED = {
    "torch": "mlp ghn1 ghn2 ghn3 transformer dagnn",
    "pyg": "gcn graphsage gin gine gat gatv2 pna gen transformerconv gps gatedgraph edgeconv",
    "dgl": "dgl:gcn dgl:gat dgl:gatv2 dgl:graphsage dgl:gin dgl:gatedgraph dgl:pna dgl:egat",
}


@pytest.fixture(scope="module")
def batch():
    return small_batch()


def installed(spec):
    if spec.missing:
        pytest.skip(f"{spec.extra} is not installed")
    return spec


def test_catalogue():
    assert BROKEN == {}
    names = {backend: {spec.name for spec in SPECS if spec.backend == backend} for backend in REQUIRED}
    assert names == {backend: set(wanted.split()) for backend, wanted in REQUIRED.items()}


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_contract(spec, batch):
    results = check(installed(spec), 16, batch=batch)
    assert len(results) == 13
    assert [result for result in results if result.problem or result.remark] == []


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_declaration_read_from_the_file_is_that_of_the_class(spec):
    loaded = spec_of(spec.name, installed(spec).factory.load())
    assert (loaded.backend, loaded.extra, loaded.edges) == (spec.backend, spec.extra, spec.edges)
    assert (loaded.source, loaded.options) == (spec.source, spec.options)
    assert spec.edges != "undeclared"
    assert spec.source
    assert len(inspect.getsource(inspect.getmodule(spec.factory.load())).splitlines()) <= 80


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_trains(spec, batch):
    """A few steps of Adam on a fixed target lower the loss."""
    torch.manual_seed(0)
    model = installed(spec).build(16)
    x, target = torch.randn(len(batch.op), 16), torch.rand(len(batch.op), 16)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    losses = []
    for _ in range(10):
        loss = (model(x, batch) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]

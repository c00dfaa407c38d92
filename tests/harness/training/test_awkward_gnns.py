"""`gnn check` and training agree: what the check passes trains, is saved and is evaluated as it was."""

from __future__ import annotations

import re

import pytest
import torch

from deepnets_bench.errors import BadInput
from deepnets_bench.ghn.model import GHN
from deepnets_bench.gnn import identify, spec_of
from deepnets_bench.gnn.check import check
from deepnets_bench.gnn.materialise import small_batch
from deepnets_bench.harness.images.sets import digits
from deepnets_bench.harness.runs.job import build_ghn
from deepnets_bench.harness.training.evaluation import evaluate
from tests.gnn.zoo import REFUSED, TRAIN, Cached, LazyLinear
from tests.harness.conftest import tiny_track
from tests.harness.training.test_trainer import make_trainer

SIZES = {"width": 8, "fc_dim": 16, "num_classes": 10, "batch_size": 16}


@pytest.fixture(scope="module")
def batch():
    return small_batch()


def accuracies(ghn, architectures):
    return evaluate(ghn, architectures["test"][:2], digits(16).test.head(32), **SIZES).accuracies


@pytest.mark.parametrize("target", TRAIN, ids=lambda target: target.__name__)
def test_what_the_check_passes_trains_and_is_saved_and_loaded(target, batch, architectures, tmp_path):
    assert [r for r in check(spec_of("mine", target), 8, batch=batch) if r.problem] == []
    track = tiny_track(training={"steps": 2, "warmup_steps": 0}, selection={"interval": 1})
    trainer = make_trainer(track, architectures, target)
    before = {name: weight.detach().clone() for name, weight in trainer.ghn.gnn.named_parameters()}
    state = trainer.run()
    assert (state.step, state.failures) == (2, 0)
    after = dict(trainer.ghn.gnn.named_parameters())
    assert list(after) == list(before)  # no parameter came later than the optimiser
    trained = {name for name in after if not torch.equal(after[name], before[name])}
    still = {
        "Frozen": "linear.weight",
        "Unused": "spare",
        "Detached": "",
        "Recurrent": "weight_hh",  # as its sequences have one element
    }.get(target.__name__)
    assert trained == {name for name in after if still is None or not re.search(still, name)}

    path = tmp_path / "ghn.safetensors"
    trainer.ghn.save(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        loaded = GHN.load(path, trust=True)
    assert accuracies(loaded, architectures) == accuracies(trainer.ghn, architectures)


@pytest.mark.parametrize("target", REFUSED, ids=lambda target: target.__name__)
def test_check_and_run_refuse_with_one_sentence(target, batch, tiny):
    problems = [r.problem for r in check(spec_of(identify(target).name, target), 8, batch=batch) if r.problem]
    assert REFUSED[target] in problems[0]
    with pytest.raises(BadInput) as refused:
        build_ghn(tiny, identify(target), 10)
    assert problems[0] in str(refused.value)


def test_the_check_finds_what_fails_after_a_validation(batch, architectures):
    (problem,) = [r.problem for r in check(spec_of("mine", Cached), 8, batch=batch) if r.problem]
    assert "Inference tensors cannot be saved for backward" in problem
    track = tiny_track(networks={"meta_batch_size": 1, "max_nodes": 400}, selection={"interval": 1})
    few = architectures["train"][:2]  # both are validated after the first step
    with pytest.raises(RuntimeError, match="Inference tensors cannot be saved for backward"):
        make_trainer(track, {"train": few, "val": few}, Cached).run()


def test_materialised_parameters_follow_the_stream_of_the_gnn_and_leave_the_frame_as_it_is(tiny):
    def built(target, seed=0):
        return build_ghn(tiny, identify(target), 10, seed).state_dict()

    first, again, other, plain = (
        built(*what) for what in ((LazyLinear,), (LazyLinear,), (LazyLinear, 1), ("mlp",))
    )
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["gnn.linear.weight"], other["gnn.linear.weight"])
    assert all(torch.equal(first[name], plain[name]) for name in plain if not name.startswith("gnn."))

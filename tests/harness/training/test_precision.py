"""Mixed precision: another protocol, close to float32, with gradients that are scaled as for GHN-3."""

import pytest
import torch

import deepnets_bench.harness.training.accumulation as module
from deepnets_bench.errors import UnknownName
from deepnets_bench.gnn import identify
from deepnets_bench.harness.protocol.tracks import load_track
from deepnets_bench.harness.runs.job import Job
from deepnets_bench.harness.training.distributed import GROWTH_INTERVAL, MIN_SCALE, Compute, LossScale
from tests.harness.conftest import tiny_track
from tests.harness.training.test_trainer import make_trainer, weights


def test_another_precision_is_another_protocol():
    track = load_track("digits")
    half = track.in_precision("bf16")
    assert track.in_precision("32") == track
    assert half.fingerprint() != track.fingerprint()
    assert (track.comparable, half.comparable) == (True, False)
    assert half.label == "early training, bf16"
    assert Job(half, identify("mlp"), 0).config_hash("data") != Job(track, identify("mlp"), 0).config_hash(
        "data"
    )
    assert Job(track, identify("mlp"), 0, tuning_trials=2).config_hash("data") == Job(
        track, identify("mlp"), 0
    ).config_hash("data")
    with pytest.raises(UnknownName, match="Unknown precision 'bf15'"):
        track.in_precision("bf15")


def first_gradient(track, architectures, gnn):
    """Of the first step, as one vector."""
    trainer = make_trainer(track, architectures, gnn)
    if trainer.compute.scaler:
        trainer.compute.scaler.scale = MIN_SCALE
    trainer._step(0, next(trainer.sampler.from_step(0)), lr=0.0)
    return torch.cat([p.grad.flatten() for p in trainer.ghn.parameters() if p.grad is not None])


@pytest.mark.parametrize("gnn", ["ghn2", "gat"])
@pytest.mark.parametrize(
    ("precision", "dtype", "tolerance"), [("bf16", torch.bfloat16, 0.3), ("fp16", torch.float16, 0.15)]
)
def test_the_gradient_is_close_to_that_of_float32(
    architectures, monkeypatch, gnn, precision, dtype, tolerance
):
    track = tiny_track(training={"clip_grad_norm": 1e9})
    expected = first_gradient(track, architectures, gnn)
    execute, dtypes = module.execute, set()

    def watched(*args, **kwargs):
        logits = execute(*args, **kwargs)
        dtypes.add(logits.dtype)
        return logits

    monkeypatch.setattr(module, "execute", watched)
    found = first_gradient(track.in_precision(precision), architectures, gnn)
    assert dtypes == {dtype}
    assert found.dtype == torch.float32
    assert 0 < (found - expected).norm() / expected.norm() < tolerance


def test_fp16_lowers_its_scale_to_the_least_one_and_counts_failures_from_there(architectures):
    track = tiny_track(training={"steps": 12, "warmup_steps": 0, "max_failures": 3}).in_precision("fp16")
    trainer = make_trainer(track, architectures)
    scaler = trainer.compute.scaler
    before = weights(trainer)
    trainer.ghn.embed.weight.register_hook(lambda gradient: gradient * torch.inf)
    scales, failures = [], []
    sampled = trainer.sampler.from_step(0)
    for step in range(8):
        trainer._step(step, next(sampled), lr=0.1)
        scales.append(scaler.scale)
        failures.append(trainer.state.failures)
    assert scales == [32768.0, 16384.0, 8192.0, 4096.0, 2048.0, 1024.0, MIN_SCALE, MIN_SCALE]
    assert failures == [0, 0, 0, 0, 0, 0, 1, 2]
    assert torch.equal(weights(trainer), before)


def test_the_scale_grows_after_a_hundred_steps_without_overflow():
    scaler, seen = LossScale(scale=4096.0), []
    for step in range(2 * GROWTH_INTERVAL):
        scaler.update(overflowed=step in (0, 1, 2))
        seen.append(scaler.scale)
    assert seen[:4] == [2048.0, MIN_SCALE, MIN_SCALE, MIN_SCALE]
    assert seen[GROWTH_INTERVAL + 1 : GROWTH_INTERVAL + 3] == [MIN_SCALE, 2 * MIN_SCALE]


@pytest.mark.parametrize(("scale", "failures"), [(4096.0, 0), (MIN_SCALE, 1)])
def test_a_network_that_overflows_in_fp16_leaves_the_step_to_the_others(
    architectures, monkeypatch, scale, failures
):
    """The scale falls for the next step; where it cannot, the network has failed."""

    def stepped(overflowing):
        trainer = make_trainer(tiny_track().in_precision("fp16"), architectures, "mlp")
        trainer.compute.scaler.scale = scale
        clip, networks = trainer.accumulate._clip, iter(range(10))

        def overflow(leaves):
            leaves = list(leaves)
            if next(networks) in overflowing:
                leaves[0].grad.fill_(torch.inf)
            return clip(leaves)

        monkeypatch.setattr(trainer.accumulate, "_clip", overflow)
        loss, _, n_ran = trainer._step(0, next(trainer.sampler.from_step(0)), lr=1e-3)
        return trainer, loss, n_ran

    trainer, loss, n_ran = stepped({1})
    assert n_ran == 1
    assert torch.isfinite(torch.tensor(loss))
    assert torch.isfinite(weights(trainer)).all()
    assert not torch.equal(weights(trainer), weights(make_trainer(tiny_track(), architectures, "mlp")))
    assert trainer.state.failures == failures
    assert trainer.compute.scaler.scale == max(MIN_SCALE, scale / 2)
    trainer, _, n_ran = stepped({0, 1})
    assert n_ran == 0
    assert trainer.state.failures == 2 * failures
    assert trainer.compute.scaler.scale == max(MIN_SCALE, scale / 2)


def test_a_resumed_fp16_training_equals_an_uninterrupted_one(architectures, tmp_path):
    track = tiny_track().in_precision("fp16")
    whole = make_trainer(track, architectures, folder=tmp_path)
    whole.compute.scaler.scale = 2048.0
    whole.run()
    (tmp_path / "checkpoint-6.ckpt").unlink()
    resumed = make_trainer(track, architectures, folder=tmp_path)
    assert resumed.resume() == 4
    assert resumed.compute.scaler.scale == 2048.0
    resumed.run()
    assert torch.equal(weights(whole), weights(resumed))
    assert resumed.compute.scaler == whole.compute.scaler


def losses(architectures, precision, device):
    """Of a training that Triton's kernels know, without dropout, which differs from device to device."""
    track = tiny_track(ghn={"hid": 16}, networks={"max_meta_batch_nodes": None}).in_precision(precision)
    without = [arch for arch in architectures["train"] if arch.fc_layers == 1]
    seen = []
    trainer = make_trainer(
        track,
        {**architectures, "train": without},
        compute=Compute(device, precision),
        report=lambda progress: seen.append(progress.loss),
    )
    assert trainer.ghn.config.hid in DIMS
    trainer.run()
    return seen


DIMS = (16, 32, 64)  # of ghn/gated/triton.py, which does not import everywhere


def test_a_training_to_be_compared_with_a_gpu_draws_nothing_there(architectures, monkeypatch):
    drawn = []
    monkeypatch.setattr(torch.nn.functional, "dropout", lambda x, rate, training: drawn.append(training) or x)
    assert len(losses(architectures, "32", "cpu")) == 6
    assert not any(drawn)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("precision", ["32", "bf16", "fp16"])
def test_training_on_a_gpu_is_close_to_that_on_the_cpu(architectures, precision):
    found = losses(architectures, precision, "cuda")
    assert found == pytest.approx(losses(architectures, precision, "cpu"), rel=0.02)


def test_float32_is_no_tf32(monkeypatch):
    for backend in (torch.backends.cudnn, torch.backends.cuda.matmul):
        backend.allow_tf32 = True
    Compute("cpu", "32")
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32

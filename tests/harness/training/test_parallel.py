"""Two processes train what one does; failures, signals and lost processes are everybody's."""

import os
import signal
from functools import partial

import numpy as np
import pytest
import torch

from deepnets_bench.errors import BadInput, RunFailed
from deepnets_bench.harness.training.distributed import Compute, LostProcess, Rank
from tests.harness.conftest import tiny_track
from tests.harness.training.processes import Killed, free_port, run_together, train
from tests.harness.training.test_trainer import make_trainer

SHARED = {"networks": {"meta_batch_size": 3, "max_meta_batch_nodes": 400}}  # two networks, and one


@pytest.fixture(scope="module")
def track():
    # Version 2 stands for other sampled: in those of version 1 one network's gradient is so large that Adam
    # turns the rounding of most weights' gradients, of one process too, into steps of the full length.
    return tiny_track(**SHARED).model_copy(update={"version": 2})


def in_two(track, architectures, folder=None, patches=(None, None)):
    """The results of both processes of one training; each is patched by its own function."""
    port = free_port()
    return run_together(
        partial(_train, track, architectures, folder),
        [((rank, 2, port), patch) for rank, patch in enumerate(patches)],
    )


def _train(track, architectures, folder, process, patch):
    return train(track, architectures, folder, process=process, patch=patch)


def first_gradients(track, architectures, process):
    trainer = make_trainer(track, architectures, compute=Compute("cpu", "32", Rank(*process)))
    loss, accuracy, n_ran = trainer._step(0, next(trainer.sampler.from_step(0)), lr=0.0)
    gradients = [None if p.grad is None else p.grad.numpy() for p in trainer.ghn.parameters()]
    return (loss, accuracy, n_ran), gradients


def test_two_processes_make_the_gradients_of_one(architectures):
    """With dropout in every classifier: each network meets the same random numbers wherever it is run."""
    track = tiny_track(**SHARED, training={"clip_grad_norm": 1e9})
    few = {**architectures, "train": [arch for arch in architectures["train"] if arch.fc_layers > 1]}
    port = free_port()
    places = [(), (0, 2, port), (1, 2, port)]
    one, first, second = run_together(first_gradients, [(track, few, process) for process in places])
    assert first[0] == second[0] == pytest.approx(one[0], rel=1e-6)
    assert one[0][2] == 3
    for expected, found, again in zip(one[1], first[1], second[1], strict=True):
        if expected is None:
            assert found is None
            assert again is None
        else:
            assert np.array_equal(found, again)
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def test_two_processes_train_the_weights_of_one(track, architectures, tmp_path):
    (one,) = run_together(train, [(track, architectures, None)])
    first, second = in_two(track, architectures, tmp_path)
    assert np.array_equal(first["weights"], second["weights"])
    # Weights move by up to 5e-3 in these six steps. The order of sums makes 2e-6 where this was written;
    # training amplifies it from step to step, as it does any other rounding.
    np.testing.assert_allclose(first["weights"], one["weights"], rtol=0, atol=1e-4)
    assert first["state"].val_accuracy is not None
    assert second["state"].val_accuracy is None  # the first process validates for all


def fail_once(trainer):
    """Let the first network that this process runs fail."""
    run, calls = trainer.accumulate._run_network, iter(range(1000))

    def failing(*arguments):
        if next(calls) == 0:
            raise MemoryError
        return run(*arguments)

    trainer.accumulate._run_network = failing


def exhaust_memory_once(trainer):
    """Let the hypernetwork run out of memory in the second step."""

    def failing(module, inputs):
        if trainer.state.step == 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB.")

    trainer.ghn.register_forward_pre_hook(failing)


def make_gradient_infinite(trainer):
    trainer.ghn.embed.weight.register_hook(lambda gradient: gradient * torch.inf)


@pytest.mark.parametrize(
    ("patch", "reason"),
    [
        (fail_once, "MemoryError"),
        (exhaust_memory_once, "OutOfMemoryError: CUDA out of memory. Tried to allocate 1 GiB"),
    ],
)
def test_what_fails_in_one_process_is_counted_in_both(track, architectures, patch, reason):
    first, second = in_two(track, architectures, patches=(None, patch))
    assert np.array_equal(first["weights"], second["weights"])
    for result in (first, second):
        assert (result["state"].failures, result["state"].last_failure) == (1, reason)
        assert len(result["state"].window) == 0


def test_a_gradient_that_is_not_finite_in_one_process_is_a_failure_of_both(track, architectures):
    results = in_two(track, architectures, patches=(make_gradient_infinite, None))
    for result in results:
        assert isinstance(result, RunFailed)
        assert "step 2: more than 2 networks failed" in str(result)
        assert "gradient of the hypernetwork is not finite" in str(result)


def terminate_itself(trainer):
    original = trainer._step

    def step(number, *arguments):
        if number == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(number, *arguments)

    trainer._step = step


def test_a_signal_to_one_process_stops_both_and_one_or_two_go_on(track, architectures, tmp_path):
    results = in_two(track, architectures, tmp_path, patches=(None, terminate_itself))
    assert [result["interrupted"] for result in results] == [True, True]
    assert [result["state"].step for result in results] == [3, 3]
    assert [path.name for path in tmp_path.glob("*.ckpt")].count("checkpoint-3.ckpt") == 1
    whole, _ = in_two(track, architectures)
    (tmp_path / "again").mkdir()
    (tmp_path / "again/checkpoint-3.ckpt").write_bytes((tmp_path / "checkpoint-3.ckpt").read_bytes())
    resumed, _ = in_two(track, architectures, tmp_path)
    assert resumed["start"] == 3
    assert np.array_equal(resumed["weights"], whole["weights"])
    (alone,) = run_together(train, [(track, architectures, tmp_path / "again")])
    assert alone["start"] == 3
    np.testing.assert_allclose(alone["weights"], whole["weights"], rtol=0, atol=1e-4)


def die(trainer):
    trainer.ghn.register_forward_pre_hook(lambda module, inputs: os.kill(os.getpid(), signal.SIGKILL))


def test_a_process_whose_fellow_is_gone_says_so(track, architectures):
    first, second = in_two(track, architectures, patches=(None, die))
    assert isinstance(first, LostProcess)
    assert isinstance(second, Killed)


def test_more_processes_than_networks_are_refused(architectures):
    class Many(Compute):
        size = 3

        def __init__(self) -> None:
            self.rank = 0

    with pytest.raises(BadInput, match="meta-batch of 2 networks cannot be divided among 3 processes"):
        make_trainer(tiny_track(), architectures, compute=Many())

"""Rule "mean": the mean of the weights after each of the last steps, also of an interrupted training."""

import signal

import pytest
import torch

from deepnets_bench.errors import BadInput
from deepnets_bench.harness.protocol.tracks import load_track
from deepnets_bench.harness.training.averaging import add_to_mean
from tests.harness.conftest import tiny_track
from tests.harness.training.test_trainer import make_trainer, weights


def averaging(mean_steps=3):
    return tiny_track(selection={"rule": "mean", "mean_steps": mean_steps})


def test_the_mean_of_three_states():
    module = torch.nn.BatchNorm1d(1, affine=False)
    mean = None
    for count, (value, batches) in enumerate([(1.0, 5), (2.0, 6), (6.0, 7)], start=1):
        module.running_mean.fill_(value), module.num_batches_tracked.fill_(batches)
        mean = add_to_mean(mean, module, count)
    assert mean["running_mean"].item() == pytest.approx(3.0)
    assert mean["num_batches_tracked"] == 7


def test_it_is_the_mean_of_the_last_steps_of_the_same_training(architectures):
    trainer = make_trainer(averaging(), architectures)
    states = []
    trainer.report = lambda progress: states.append(weights(trainer).clone())
    trainer.run()
    last = make_trainer(tiny_track(), architectures)
    last.run()
    assert torch.equal(states[-1], weights(last))  # averaging does not change the training
    torch.testing.assert_close(weights(trainer), torch.stack(states[-3:]).mean(0))
    assert not torch.equal(weights(trainer), states[-1])


@pytest.mark.parametrize("stop", [2, 5])  # before and within the steps averaged
def test_a_resumed_training_has_the_same_mean(architectures, tmp_path, stop):
    whole = make_trainer(averaging(), architectures)
    whole.run()

    def interrupt(progress) -> None:
        if progress.step == stop:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        make_trainer(averaging(), architectures, folder=tmp_path, report=interrupt).run()
    resumed = make_trainer(averaging(), architectures, folder=tmp_path)
    assert resumed.resume() == stop
    resumed.run()
    assert torch.equal(weights(resumed), weights(whole))
    again = make_trainer(averaging(), architectures, folder=tmp_path)
    assert again.resume() == 6  # trained to the end, and only evaluated now
    again.run()
    assert torch.equal(weights(again), weights(whole))


def test_the_rule_and_its_number_of_steps_need_each_other():
    with pytest.raises(BadInput, match=r"selection.mean_steps and the rule 'mean' need each other"):
        tiny_track(selection={"rule": "mean"})
    with pytest.raises(BadInput, match="need each other"):
        tiny_track(selection={"mean_steps": 3})
    with pytest.raises(BadInput, match=r"selection.mean_steps \(7\) must not be above training.steps \(6\)"):
        averaging(7)
    assert "mean_steps" not in tiny_track().identity()["selection"]
    smoke = averaging().as_smoke()
    assert smoke.selection.mean_steps <= smoke.training.steps
    assert load_track("digits").as_smoke().selection.mean_steps is None

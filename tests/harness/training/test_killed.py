"""A training that is killed, at whatever moment, goes on from its checkpoints as if nothing had been."""

import os
import random
import signal
from functools import partial

import numpy as np
import pytest

import deepnets_bench.system.files
from deepnets_bench.harness.training.checkpoint import checkpoints, load_checkpoint
from tests.harness.conftest import tiny_track
from tests.harness.training.processes import Killed, run_together, train
from tests.harness.training.test_trainer import curve

STEPS = 12


@pytest.fixture(scope="module")
def track():
    """Checkpoints every three steps, rows of the curve every two."""
    return tiny_track(training={"steps": STEPS, "checkpoint_interval": 3})


@pytest.fixture(scope="module")
def whole(track, architectures, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    (result,) = run_together(train, [(track, architectures, folder)])
    return result["weights"], _without_times(curve(folder))


def _without_times(rows):
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def _train(track, architectures, folder, kill_at=None, patch=None):
    return train(track, architectures, folder, kill_at=kill_at, patch=patch)


def test_a_training_killed_at_random_steps_ends_with_the_same_weights(track, architectures, tmp_path, whole):
    seed = random.randrange(1 << 32)
    generator = random.Random(seed)
    trained = partial(_train, track, architectures, tmp_path)
    step, kills = 0, []
    while step < STEPS - 1:
        step = min(step + generator.randint(2, 6), STEPS - 1)
        kills.append(step)
        (result,) = run_together(trained, [(step,)])
        assert isinstance(result, Killed), f"seed {seed}"
        assert result.signal == signal.SIGKILL
    (result,) = run_together(trained, [()])
    assert result["start"] == 9, f"seed {seed}, killed after steps {kills}"
    assert np.array_equal(result["weights"], whole[0]), f"seed {seed}, killed after steps {kills}"
    assert _without_times(curve(tmp_path)) == whole[1], f"seed {seed}, killed after steps {kills}"


def die_in_second_checkpoint(trainer):
    """Kill the process when the bytes are written, but are not yet in their place."""
    replace, calls = os.replace, iter(range(100))

    def replace_or_die(source, target):
        if str(target).endswith(".ckpt") and next(calls) == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)

    deepnets_bench.system.files.os.replace = replace_or_die


def test_a_training_killed_while_it_writes_a_checkpoint_has_the_one_before(
    track, architectures, tmp_path, whole
):
    trained = partial(_train, track, architectures, tmp_path)
    (result,) = run_together(trained, [(None, die_in_second_checkpoint)])
    assert isinstance(result, Killed)
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-3.ckpt"]
    (result,) = run_together(trained, [()])
    assert result["start"] == 3
    assert np.array_equal(result["weights"], whole[0])
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["checkpoint-12.ckpt", "checkpoint-9.ckpt", "curve.csv"]  # nothing half-written


@pytest.mark.parametrize("damage", [b"", b"x" * 40, None], ids=["empty", "foreign", "truncated"])
def test_whatever_became_of_the_newest_checkpoint_the_one_before_is_used(tmp_path, damage):
    from deepnets_bench.harness.training.checkpoint import save_checkpoint

    save_checkpoint(tmp_path, 1, {"state": 1})
    newest = save_checkpoint(tmp_path, 2, {"state": 2})
    newest.write_bytes(newest.read_bytes()[:-1] if damage is None else damage)
    with pytest.warns(UserWarning, match="checkpoint-2.ckpt is damaged. Falling back"):
        assert load_checkpoint(tmp_path) == {"state": 1}
    (tmp_path / "checkpoint-1.ckpt").unlink()
    with pytest.warns(UserWarning, match="damaged"):
        assert load_checkpoint(tmp_path) is None

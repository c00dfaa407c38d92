"""TensorBoard event files: the rows of the curve, once each, also after a resumed training."""

from __future__ import annotations

from pathlib import Path

import pytest

from deepnets_bench.errors import MissingExtra
from deepnets_bench.harness.runs import tensorboard

HEADER = "step,loss,train_accuracy,val_accuracy,lr,seconds,failures\n"


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder / tensorboard.FOLDER))
    found.Reload()
    return {name: [(x.step, x.value) for x in found.Scalars(name)] for name in found.Tags()["scalars"]}


def test_events_follow_the_curve_row_by_row(tmp_path):
    pytest.importorskip("tensorboard", reason="TensorBoard is an extra")
    curve = tmp_path / tensorboard.CURVE
    follower = tensorboard.CurveEvents(tmp_path)
    follower.update()  # before there is a curve
    curve.write_text(HEADER + "2,2.5,0.125,,0.5,1.0,0\n")
    follower.update()
    follower.update()
    with open(curve, "a") as file:
        file.write("4,2.25,0.25,0.5,0.25,2.0,1\n")
    follower.update()
    assert scalars(tmp_path) == {
        "loss": [(2, 2.5), (4, 2.25)],
        "train_accuracy": [(2, 0.125), (4, 0.25)],
        "val_accuracy": [(4, 0.5)],
        "lr": [(2, 0.5), (4, 0.25)],
        "seconds": [(2, 1.0), (4, 2.0)],
        "failures": [(2, 0.0), (4, 1.0)],
    }

    curve.write_text(HEADER + "2,2.5,0.125,,0.5,1.0,0\n3,2.0,0.5,,0.25,3.0,0\n")
    tensorboard.CurveEvents(tmp_path).update()  # a training that was resumed from step 2
    assert scalars(tmp_path)["loss"] == [(2, 2.5), (3, 2.0)]


def test_times_are_those_of_training(tmp_path):
    pytest.importorskip("tensorboard", reason="TensorBoard is an extra")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (tmp_path / tensorboard.CURVE).write_text(HEADER + "1,2.5,0,,0.5,10.0,0\n2,2.5,0,,0.5,40.0,0\n")
    tensorboard.CurveEvents(tmp_path).update()
    found = EventAccumulator(str(tmp_path / tensorboard.FOLDER))
    found.Reload()
    first, second = found.Scalars("loss")
    assert second.wall_time - first.wall_time == pytest.approx(30, abs=1e-3)


def test_a_missing_tensorboard_names_the_command(monkeypatch, tmp_path):
    find = tensorboard.importlib.util.find_spec
    monkeypatch.setattr(
        tensorboard.importlib.util, "find_spec", lambda name: None if name == "tensorboard" else find(name)
    )
    with pytest.raises(
        MissingExtra, match=r"--log tensorboard needs .* pip install 'deepnets-bench\[tensorboard\]'"
    ):
        tensorboard.CurveEvents(tmp_path)

"""Inference times of architectures: each alone, repeated, on one thread."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from pydantic import Field

from deepnets_bench.errors import BadInput
from deepnets_bench.harness.runs.provenance import cpu_name, stamp
from deepnets_bench.uses.going_on import Tally, going_on
from deepnets_bench.uses.labelling import LabelTask, program_of
from deepnets_bench.uses.rows import Row, append_rows, read_rows

TIMES = "times.csv"
_BATCH, _REPEATS, _WARM_UP = 64, 15, 2


class InferenceTime(Row):
    """Milliseconds of one batch: the median of the repeats, and half the distance between the quartiles."""

    WHAT = "a CSV file of inference times"
    REFUSAL = "is no file of inference times"
    AGAIN = "measure"
    DIGITS = 9

    split: str
    index: int = Field(ge=0)
    fingerprint: str
    milliseconds: float = Field(gt=0)
    spread: float = Field(ge=0)
    repeats: int
    batch_size: int
    width: int
    image_size: int
    device: str
    threads: int
    torch_version: str
    package_version: str
    git_commit: str
    timestamp: str

    @property
    def key(self) -> tuple[str, int]:
        """Split and index."""
        return self.split, self.index


def read_times(path: Path) -> list[InferenceTime]:
    """The rows of a file of times; raises what `read_rows` does, and `BadInput` for doubles."""
    times = read_rows(path, InferenceTime)
    if len({row.key for row in times}) < len(times):
        raise BadInput(f"{path} holds an architecture twice.")
    return times


def run_timing(
    tasks: Sequence[LabelTask], path: Path, report: Callable[[int, int], None] = lambda done, total: None
) -> None:
    """Measure the architectures of tasks that the file at `path` lacks, and add each to it.

    Raises `BadInput` for a file with times of another machine, size or architecture, which could not be
    compared with those made now, and `Interrupted` at Ctrl-C and SIGTERM, which keep what was measured.
    """
    held = {row.key: row for row in (read_times(path) if path.exists() else [])}
    wanted = {(task.split, task.index): task for task in tasks}
    _check_device(held.values(), path)
    for key in wanted.keys() & held.keys():
        _check_same(held[key], wanted[key], path)
    todo = [task for key, task in wanted.items() if key not in held]
    tally = Tally(len(wanted) - len(todo), len(wanted), report)
    with going_on(tally, "networks", "times", path):
        for task in todo:
            append_rows(path, InferenceTime, [measure(task)], ordered=True)
            tally.add()


def _check_device(rows: Iterable[InferenceTime], path: Path) -> None:
    here = cpu_name()
    for row in rows:
        if row.device != here:
            raise BadInput(f"{path} holds times of {row.device}, not of {here}; measure into another folder.")


def _check_same(row: InferenceTime, task: LabelTask, path: Path) -> None:
    network, _, width, _ = program_of(task)
    size = task.track.images.size
    if (row.width, row.image_size) != (width, size):
        raise BadInput(
            f"{path} holds times at width {row.width} and {row.image_size} pixels, not at {width} and "
            f"{size}; measure into another folder."
        )
    if row.fingerprint != network.fingerprint():
        raise BadInput(
            f"{path} has the time of another architecture as {task.split}/{task.index} than {task.data} has "
            "there; measure into another folder."
        )


def measure(task: LabelTask) -> InferenceTime:
    """The time of a batch of 64 images through a network with random weights."""
    import torch

    from deepnets_bench.networks.network import execute, unpack

    torch.set_num_threads(1)
    network, program, width, _ = program_of(task)
    size = task.track.images.size
    random = torch.Generator().manual_seed(0)
    params = {
        name: torch.randn(shape, generator=random) / max(1, torch.Size(shape[1:]).numel()) ** 0.5
        for name, shape in program.param_shapes.items()
    }
    images = torch.randn(_BATCH, 3, size, size, generator=random)
    steps, seconds = unpack(program), []
    with torch.inference_mode():
        for _ in range(_WARM_UP + _REPEATS):
            begun = time.perf_counter()
            execute(steps, images, params, training=False)
            seconds.append(time.perf_counter() - begun)
    low, middle, high = statistics.quantiles(seconds[_WARM_UP:], n=4)
    return InferenceTime(
        split=task.split,
        index=task.index,
        fingerprint=network.fingerprint(),
        milliseconds=round(1e3 * middle, 4),
        spread=round(1e3 * (high - low) / 2, 4),
        repeats=_REPEATS,
        batch_size=_BATCH,
        width=width,
        image_size=size,
        threads=1,
        **stamp(),
    )

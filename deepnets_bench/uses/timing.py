"""Inference times of architectures: each alone, repeated, on one thread."""

from __future__ import annotations

import csv
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from io import StringIO
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from deepnets_bench.errors import BadInput, Interrupted
from deepnets_bench.system.files import reading, write_atomically
from deepnets_bench.system.locks import locked
from deepnets_bench.system.signals import one_interrupt
from deepnets_bench.uses.labelling import LabelTask, program_of

TIMES = "times.csv"
_BATCH, _REPEATS, _WARM_UP = 64, 15, 2


class InferenceTime(BaseModel):
    """Milliseconds of one batch: the median of the repeats, and half the distance between the quartiles."""

    model_config = ConfigDict(extra="forbid", frozen=True)

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


COLUMNS = tuple(InferenceTime.model_fields)


def read_times(path: Path) -> list[InferenceTime]:
    """The rows of a file of times; raises `BadInput` for a file of another form, and for doubles."""
    with reading(path, "a CSV file of inference times"):
        text = path.read_text(encoding="utf-8")
        if text and not text.endswith("\n"):
            raise BadInput(f"{path} ends in the middle of a row; remove it, and measure again.")
        reader = csv.DictReader(StringIO(text), strict=True)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise BadInput(f"{path} is no file of inference times: its columns are others.")
        try:
            times = [InferenceTime.model_validate(row) for row in reader]
        except ValidationError as error:
            first = error.errors()[0]
            raise BadInput(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}.") from error
    if len({(row.split, row.index) for row in times}) < len(times):
        raise BadInput(f"{path} holds an architecture twice.")
    return times


def run_timing(
    tasks: Sequence[LabelTask], path: Path, report: Callable[[int, int], None] = lambda done, total: None
) -> None:
    """Measure the architectures of tasks that the file at `path` lacks, and add each to it.

    Raises `BadInput` for a file with times of another machine, size or architecture, which could not be
    compared with those made now, and `Interrupted` at Ctrl-C and SIGTERM, which keep what was measured.
    """
    held = {(row.split, row.index): row for row in (read_times(path) if path.exists() else [])}
    wanted = {(task.split, task.index): task for task in tasks}
    _check_device(held.values(), path)
    for key in wanted.keys() & held.keys():
        _check_same(held[key], wanted[key], path)
    todo = [task for key, task in wanted.items() if key not in held]
    done = len(wanted) - len(todo)
    report(done, len(wanted))
    try:
        with one_interrupt():
            for task in todo:
                _append(path, measure(task))
                done += 1
                report(done, len(wanted))
    except KeyboardInterrupt:
        raise Interrupted(
            f"Interrupted after {done:,} of {len(wanted):,} networks; their times are in {path}, and the "
            "same command goes on from there."
        ) from None


def _check_device(rows: Iterable[InferenceTime], path: Path) -> None:
    from deepnets_bench.harness.runs.provenance import cpu_name

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


def _append(path: Path, row: InferenceTime) -> None:
    with locked(path):
        held = {(found.split, found.index): found for found in (read_times(path) if path.exists() else [])}
        held[row.split, row.index] = row
        buffer = StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(held[key].model_dump().values() for key in sorted(held))
        write_atomically(path, buffer.getvalue().encode())


def measure(task: LabelTask) -> InferenceTime:
    """The time of a batch of 64 images through a network with random weights."""
    import torch

    from deepnets_bench.harness.runs.provenance import cpu_name, utc_now, versions
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
    stack = versions()
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
        device=cpu_name(),
        threads=1,
        torch_version=stack["torch_version"],
        package_version=stack["package_version"],
        git_commit=stack["git_commit"],
        timestamp=utc_now(),
    )

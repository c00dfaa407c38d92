"""Inference times of architectures: each alone, repeated, on one thread."""

from __future__ import annotations

import csv
import statistics
import time
from collections.abc import Callable, Sequence
from io import StringIO
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from deepnets_bench.errors import BadInput
from deepnets_bench.system.files import reading, write_atomically
from deepnets_bench.system.locks import locked
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
        reader = csv.DictReader(StringIO(path.read_text(encoding="utf-8")), strict=True)
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
    """Measure the architectures of tasks that the file at `path` lacks, and add them to it.

    Ctrl-C keeps what was measured.
    """
    held = {(row.split, row.index): row for row in (read_times(path) if path.exists() else [])}
    wanted = {(task.split, task.index): task for task in tasks}
    try:
        for done, (key, task) in enumerate(wanted.items()):
            report(done, len(wanted))
            if key not in held:
                held[key] = measure(task)
        report(len(wanted), len(wanted))
    finally:
        buffer = StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(held[key].model_dump().values() for key in sorted(held))
        with locked(path):
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

"""Named random streams: the same key gives the same numbers, any other key others; nothing leaks out."""

import random

import numpy as np
import pytest
import torch

from deepnets_bench.harness.randomness import Streams
from tests.harness.conftest import tiny_track

CPU = torch.device("cpu")


def draws(streams: Streams, name: str, *place: int) -> list[float]:
    """One number of each kind of generator that a stream drives."""
    with streams.seeded(CPU, name, *place):
        inside = [torch.rand(1).item(), float(np.random.rand()), random.random()]
    return [*inside, float(streams.generator(name, *place).random()), float(streams.seed(name, *place))]


def test_every_part_of_the_key_counts():
    track = tiny_track()
    newer = track.model_copy(update={"version": 2})
    renamed = track.model_copy(update={"name": "other"})
    first = draws(Streams.of_run(track, 0), "widths", 3, 1)
    assert draws(Streams.of_run(track, 0), "widths", 3, 1) == first
    others = [
        draws(Streams.of_run(track, 1), "widths", 3, 1),
        draws(Streams.of_run(newer, 0), "widths", 3, 1),
        draws(Streams.of_run(renamed, 0), "widths", 3, 1),
        draws(Streams.of_run(track, 0), "architectures", 3, 1),
        draws(Streams.of_run(track, 0), "widths", 4, 1),
        draws(Streams.of_run(track, 0), "widths", 3, 2),
        draws(Streams.of_run(track, 0), "widths", 31),
        draws(Streams.of_run(track, 0), "widths"),
    ]
    assert all(len(set(column)) == len(column) for column in zip(first, *others, strict=True))


def test_a_smoke_run_and_another_precision_have_the_streams_of_their_track():
    track = tiny_track()
    for changed in (track.as_smoke(), track.in_precision("bf16")):
        assert Streams.of_run(changed, 5) == Streams.of_run(track, 5)


def test_the_streams_of_a_version_stay_what_they_are():
    streams = Streams(("digits", 3, 0))
    assert streams.seed("widths", 7) == 8322096411399455024
    assert streams.generator("widths", 7).integers(1000, size=4).tolist() == [282, 679, 676, 75]
    assert 0 <= streams.seed("widths", 7) < 1 << 63


@pytest.mark.parametrize("fails", [False, True])
def test_the_callers_generators_are_left_as_they_were(fails):
    torch.manual_seed(1), np.random.seed(1), random.seed(1)
    expected = [torch.rand(1).item(), float(np.random.rand()), random.random()]
    torch.manual_seed(1), np.random.seed(1), random.seed(1)
    try:
        with Streams().seeded(CPU, "outer"):
            outer = torch.rand(3)
            if fails:
                raise ValueError
    except ValueError:
        pass
    assert [torch.rand(1).item(), float(np.random.rand()), random.random()] == expected
    with Streams().seeded(CPU, "outer"):
        before = torch.rand(1)
        with Streams().seeded(CPU, "inner"):
            torch.rand(5)
        assert torch.equal(torch.cat([before, torch.rand(2)]), outer)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_the_generator_of_a_gpu_follows_the_stream_and_is_left_as_it_was():
    device = torch.device("cuda")
    torch.cuda.manual_seed(1)
    expected = torch.rand(1, device=device)
    torch.cuda.manual_seed(1)
    found = []
    for _ in range(2):
        with Streams().seeded(device, "outer"):
            found.append(torch.rand(1, device=device))
    assert torch.equal(*found)
    assert torch.equal(torch.rand(1, device=device), expected)

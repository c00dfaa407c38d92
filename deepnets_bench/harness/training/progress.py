"""What a job reports while it runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class JobProgress:
    """What a job is at: `done` of `total` steps or networks of a phase ('wait' for another run of
    the job, 'train', or the name of a split)."""

    phase: str
    done: int
    total: int
    text: str


Report = Callable[[JobProgress], None]

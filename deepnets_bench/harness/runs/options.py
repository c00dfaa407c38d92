"""How jobs are run: what changes no result beyond rounding, and is no part of a job (no torch)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RunOptions:
    """How the jobs of a run are carried out.

    `device` is auto, cpu, cuda or cuda:N; `devices` the number of processes that train a job together, one a
    GPU. Interrupted trainings go on from their newest checkpoints, or anew without `resume`. `workers` jobs
    run at a time on this machine; `tensorboard` writes event files beside each learning curve.
    """

    device: str = "auto"
    devices: int = 1
    resume: bool = True
    workers: int = 1
    tensorboard: bool = False

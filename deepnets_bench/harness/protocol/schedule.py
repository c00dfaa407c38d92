"""Schedules: the learning rate of every step (no torch)."""

from __future__ import annotations

import math

from deepnets_bench.harness.protocol.tables import Optimisation

_WARMUP_LR = 1e-5  # at which GHN-3's warm-up begins


def learning_rate(protocol: Optimisation, step: int) -> float:
    """The learning rate of a step (from 0): linear warm-up, then constant, milestones or half a cosine."""
    if protocol.epoch_steps is not None:
        return _epoch_learning_rate(protocol, protocol.epoch_steps, step)
    if step < protocol.warmup_steps:
        return protocol.lr * (step + 1) / protocol.warmup_steps
    if protocol.schedule == "cosine":
        done = (step - protocol.warmup_steps) / (protocol.steps - protocol.warmup_steps)
        return protocol.lr * 0.5 * (1 + math.cos(math.pi * done))
    passed = sum(step >= milestone * protocol.steps for milestone in protocol.milestones)
    return protocol.lr * protocol.gamma**passed


def _epoch_learning_rate(protocol: Optimisation, epoch_steps: int, step: int) -> float:
    """GHN-3's schedule: of W epochs of warm-up, the last one is already on the cosine, just past its top."""
    epoch, epochs, warmup = (n // epoch_steps for n in (step, protocol.steps, protocol.warmup_steps))
    if epoch < warmup - 1:
        return _WARMUP_LR + (protocol.lr - _WARMUP_LR) * epoch / (warmup - 1)
    return protocol.lr * 0.5 * (1 + math.cos(math.pi * (epoch - warmup) / (epochs - warmup)))

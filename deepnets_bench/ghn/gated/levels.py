"""One sweep of the gated graph network in plain PyTorch, level by level: any device, any autograd."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from deepnets_bench.errors import BadInput

Message = Callable[[Tensor], Tensor]
Relation = tuple[Tensor, Tensor]  # edge_index [2, E], distance [E]


@dataclass(frozen=True)
class Push:
    """The edges that leave one level, with positions in level order."""

    source: Tensor  # [E] counted from the level's first node
    target: Tensor  # [E]
    weight: Tensor  # [E, 1]


@dataclass(frozen=True)
class LevelSchedule:
    """Nodes sorted by level, and per level and relation the edges to push along."""

    order: Tensor  # [N] nodes sorted by level
    rank: Tensor  # [N] its inverse
    bounds: list[int]  # [levels + 1] first position of every level
    forward: list[list[Push]]  # [relations][levels]
    backward: list[list[Push]]  # the same along reversed edges

    @classmethod
    def build(cls, relations: list[Relation], batch: Any, dtype: torch.dtype) -> LevelSchedule:
        """Same arguments and errors as `sweep.Schedule.build`.

        Here the host waits for the device, a few times a batch; `sweep` never does.
        """
        level = batch.level
        _check(torch.cat([ends for ends, _ in relations], 1), level)
        order = torch.argsort(level, stable=True)
        rank = torch.empty_like(order)
        rank[order] = torch.arange(len(order), device=order.device)
        bounds = _bounds(level).tolist()
        forward, backward = (
            [_pushes(ends[i], ends[1 - i], d, level, rank, bounds, dtype) for ends, d in relations]
            for i in (0, 1)
        )
        return cls(order, rank, bounds, forward, backward)


def _check(edges: Tensor, level: Tensor) -> None:
    """Edges [2, E] between nodes, each from a lower to a higher level."""
    if not edges.numel():
        return
    lowest, highest = torch.stack(edges.aminmax()).tolist()
    if lowest < 0 or highest >= len(level):
        raise BadInput(f"An edge of the batch names a node outside 0..{len(level) - 1}.")
    if (level[edges[0]] >= level[edges[1]]).any():
        raise BadInput("Every edge of the batch must lead to a node of a higher level.")


def _bounds(level: Tensor, levels: int = 0) -> Tensor:
    """[levels + 1]: where each level begins once elements are sorted by level."""
    return torch.nn.functional.pad(torch.bincount(level, minlength=levels).cumsum(0), (1, 0))


def _pushes(
    source: Tensor, target: Tensor, distance: Tensor, level: Tensor, rank: Tensor, bounds: list[int],
    dtype: torch.dtype,
) -> list[Push]:  # fmt: skip
    """Split one relation's edges by the level of their source."""
    by_level = torch.argsort(level[source], stable=True)
    weight = (1 / distance[by_level].to(dtype))[:, None]
    ends = _bounds(level[source], len(bounds) - 1).tolist()
    source, target = rank[source[by_level]], rank[target[by_level]]
    spans = zip(bounds, ends, ends[1:], strict=False)
    return [Push(source[lo:hi] - first, target[lo:hi], weight[lo:hi]) for first, lo, hi in spans]


def sweep(
    h: Tensor, gru: nn.GRUCell, messages: Sequence[Message], schedule: LevelSchedule, reverse: bool
) -> Tensor:
    """Update the states h [N, d] once, in level order or, with `reverse`, against it."""
    h = h[schedule.order]
    received = torch.zeros_like(h)
    pushes = schedule.backward if reverse else schedule.forward
    levels = range(len(schedule.bounds) - 1)
    updated: list[Tensor] = []
    for level in reversed(levels) if reverse else levels:
        nodes = slice(schedule.bounds[level], schedule.bounds[level + 1])
        # clone: later levels change `received` in place, and autograd keeps the GRU's input
        state = gru(received[nodes].clone(), h[nodes])
        updated.append(state)
        for message, of_level in zip(messages, pushes, strict=True):
            push = of_level[level]
            if push.source.numel():
                received.index_add_(0, push.target, message(state)[push.source] * push.weight)
    return torch.cat(updated[::-1] if reverse else updated)[schedule.rank]

"""The gated graph network of GHN-1 and GHN-2, and the MLP that ignores the edges."""

from __future__ import annotations

import operator
import warnings
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch
from torch import Tensor, nn

from deepnets_bench.ghn.gated import levels
from deepnets_bench.ghn.gated.levels import LevelSchedule
from deepnets_bench.ghn.gated.sweep import Schedule, sweep

if TYPE_CHECKING:
    from deepnets_bench.data.dataset import GraphBatch

S = TypeVar("S")


class NodeMLP(nn.Module):
    """Linear, ReLU, Linear, ReLU on every node: the MLP hypernet, and the message of a gated network."""

    def __init__(self, dim: int, hidden: int | None = None) -> None:
        super().__init__()
        hidden = hidden or dim
        self.fc = nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(), nn.Linear(hidden, dim), nn.ReLU())

    def forward(self, x: Tensor, batch: GraphBatch | None = None) -> Tensor:
        """[N, dim] -> [N, dim]; `batch` is accepted, as by every graph network, and not used."""
        out: Tensor = self.fc(x)
        return out


class GatedGNN(nn.Module):
    """One forward and one backward sweep with a shared GRU (Zhang et al. 2019, Knyazev et al. 2021).

    A node's message is the sum of mlp(h_u) over its direct predecessors u plus, with virtual edges,
    the sum of mlp_ve(h_u) / distance over all its ancestors u, the direct ones included; its new state
    is GRUCell(message, h). Nodes are updated in topological order, then in reverse along reversed edges.
    """

    def __init__(self, dim: int, virtual_edges: bool = True) -> None:
        super().__init__()
        hidden = dim // 2 if virtual_edges else dim
        self.mlp = NodeMLP(dim, hidden)
        self.mlp_ve = NodeMLP(dim, hidden) if virtual_edges else None
        self.gru = nn.GRUCell(dim, dim)

    def forward(self, x: Tensor, batch: GraphBatch) -> Tensor:
        """Node features x [N, dim] -> states [N, dim] after both sweeps, in the dtype of the weights.

        Autocast does not apply: an error of a state is carried through up to hundreds of updates.
        Raises `BadInput` when an edge does not lead to a higher level.
        """
        with torch.autocast(x.device.type, enabled=False):
            x = x.to(self.gru.weight_ih.dtype)
            compiled = x.device.type == "cpu" or (x.device.type == "cuda" and _on_gpu(x.shape[1]))
            return self._compiled(x, batch) if compiled else self.by_level(x, batch)

    def by_level(self, x: Tensor, batch: GraphBatch) -> Tensor:
        """The same in plain PyTorch on any device, all nodes of one topological level at a time."""
        schedule = self._schedule(LevelSchedule, batch, x.dtype)
        for reverse in (False, True):
            x = levels.sweep(x, self.gru, self._messages(), schedule, reverse)
        return x

    def _compiled(self, x: Tensor, batch: GraphBatch) -> Tensor:
        dtype = torch.promote_types(x.dtype, torch.float32)  # the kernels know no half precision
        schedule = self._schedule(Schedule, batch, dtype)
        gru = [self.gru.weight_ih, self.gru.bias_ih, self.gru.weight_hh, self.gru.bias_hh]
        messages = [
            torch.stack([getattr(mlp.fc[layer], kind) for mlp in self._messages()])
            for layer, kind in ((0, "weight"), (0, "bias"), (2, "weight"), (2, "bias"))
        ]
        weights = [weight.to(dtype) for weight in (*gru, *messages)]
        states = x.to(dtype)
        for reverse in (False, True):
            states = sweep(states, weights, schedule, reverse)
        return states.to(x.dtype)

    def _messages(self) -> list[NodeMLP]:
        return [self.mlp] if self.mlp_ve is None else [self.mlp, self.mlp_ve]

    def _schedule(self, kind: type[S], batch: GraphBatch, dtype: torch.dtype) -> S:
        """The batch's index structures, kept on the batch for as long as it has the same edges."""
        virtual: list[Tensor] = [] if self.mlp_ve is None else [batch.virtual_edge_index, batch.distance]
        key = [kind, dtype, batch.level, batch.edge_index, *virtual]
        cached = getattr(batch, "_gated_schedule", None)
        if cached is not None and len(cached[0]) == len(key) and all(map(operator.is_, cached[0], key)):
            return cast(S, cached[1])
        relations = [(batch.edge_index, torch.ones_like(batch.edge_index[0]))]
        if virtual:
            relations.append((batch.virtual_edge_index, batch.distance))
        schedule: S = cast(Any, kind).build(relations, batch, dtype)
        batch._gated_schedule = (key, schedule)
        return schedule


@cache
def _on_gpu(dim: int) -> bool:
    """Whether sweeps over states of this size run as kernels of Triton; one warning where they cannot."""
    if not find_spec("triton"):
        return False
    from deepnets_bench.ghn.gated import triton

    if dim in triton.DIMS and (lacking := triton.lacking()):
        warnings.warn(
            f"Triton cannot start kernels without {lacking}: GatedGNN goes level by level, with thousands of "
            "launches where two would do.",
            stacklevel=2,
        )
        return False
    return dim in triton.DIMS

"""Controls: variants of a GNN that show what a comparison can tell: `control:KIND:GNN`, for any GNN there is.

- `control:same:GNN` is the GNN with other random numbers of its own (A/A): no test may tell it from GNN.
- `control:shuffled:GNN` is the GNN with nodes shuffled over the places of their graph: what it reaches, GNN
  reaches without knowing which node stands where. A GNN that uses the graph must be found better.
- `control:matched:GNN` is the GNN at the largest inner width at which it has at most `params` parameters.
- `control:untrained:GNN` is the GNN itself; its run trains nothing, so that it shows where training starts.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from deepnets_bench.errors import BadInput, MissingExtra, UnknownName
from deepnets_bench.gnn.spec import GNNSpec

if TYPE_CHECKING:
    from deepnets_bench.data.dataset import GraphBatch

_WIDTHS = range(4, 1025, 4)  # tried by `Matched`; heads and halves divide most of them


def control_of(kind: str, inner: GNNSpec) -> GNNSpec:
    """The control of a kind around a GNN; raises `UnknownName` for a kind that does not exist."""
    if kind not in CONTROLS:
        raise UnknownName("control", kind, CONTROLS)
    return replace(
        inner,
        name=f"control:{kind}:{inner.name}",
        factory=CONTROLS[kind](inner),
        backend="torch",
        source=f"{inner.name}, as a control",
    )


class _Control:
    """Builds a control as a GNN's class would be built; its options are those of the GNN."""

    def __init__(self, inner: GNNSpec) -> None:
        self.inner = inner
        self.__qualname__ = f"{type(self).__name__} of {inner.class_name}"  # what its identity calls it


class Same(_Control):
    """A/A: the GNN with initial weights and draws in training of its own, as another GNN would have them."""

    def __call__(self, dim: int, **options: Any) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_other_seed())
            return _OtherDraws(self.inner.build(dim, **options))


class Shuffled(_Control):
    """The GNN on graphs whose nodes were shuffled over their places."""

    def __call__(self, dim: int, **options: Any) -> nn.Module:
        return _ShuffledNodes(self.inner.build(dim, **options))


class Matched(_Control):
    """The GNN between two linear projections, to an inner width and back, within a budget of parameters."""

    def __call__(self, dim: int, params: int, **options: Any) -> nn.Module:
        if isinstance(params, bool) or not isinstance(params, int) or params < 1:
            raise BadInput(
                f"params of GNN 'control:matched:{self.inner.name}' must be a whole number above 0."
            )
        return _Projected(self.inner, dim, self.width(dim, params, options), options)

    def width(self, dim: int, params: int, options: dict[str, Any]) -> int:
        """The largest inner width, a multiple of 4 that the GNN can have, with at most `params` parameters.

        Raises `BadInput` where there is none.
        """
        found, reason = 0, ""
        for width in _WIDTHS:
            try:
                with torch.random.fork_rng(devices=[]):
                    module = _Projected(self.inner, dim, width, options)
            except (UnknownName, MissingExtra):
                raise
            except BadInput as error:  # such as a width that heads do not divide
                reason = str(error)
                continue
            count = sum(weight.numel() for weight in module.parameters())
            if count > params:
                reason = f"its smallest one has {count:,}." if not found else reason
                break
            found = width
        if not found:
            raise BadInput(
                f"No variant of GNN '{self.inner.name}' has at most {params:,} parameters: {reason}"
            )
        return found


class Untrained(_Control):
    """The GNN as it is; a run of this control (`harness.runs.job`) evaluates it and the frame untrained."""

    def __call__(self, dim: int, **options: Any) -> nn.Module:
        return self.inner.build(dim, **options)


CONTROLS: dict[str, Callable[[GNNSpec], Callable[..., nn.Module]]] = {
    "same": Same,
    "shuffled": Shuffled,
    "matched": Matched,
    "untrained": Untrained,
}


class _OtherDraws(nn.Module):
    """In training, PyTorch's random numbers of the GNN are others than the GNN alone would draw."""

    def __init__(self, gnn: nn.Module) -> None:
        super().__init__()
        self.gnn = gnn

    def forward(self, x: Tensor, batch: GraphBatch) -> Tensor:
        if not self.training:
            out: Tensor = self.gnn(x, batch)
            return out
        seed = _other_seed()
        with torch.random.fork_rng(devices=[x.device] if x.device.type == "cuda" else []):
            torch.manual_seed(seed)
            drawn: Tensor = self.gnn(x, batch)
        return drawn


def _other_seed() -> int:
    """A seed that follows from the state of PyTorch's generator, which moves on by one number."""
    return int(torch.randint(2**63 - 1, ()))


class _ShuffledNodes(nn.Module):
    """Every node takes the place of another one of its graph, in the same way each time.

    The graph is the same (edges, degrees, levels, distances), and so all that a GNN needs of it: an order
    without cycles, virtual edges that are shortest paths. Only which node stands where is random. Permuting
    the targets of edges would make cycles, and swaps of edges that make none leave a chain as it is.
    """

    def __init__(self, gnn: nn.Module) -> None:
        super().__init__()
        self.gnn = gnn

    def forward(self, x: Tensor, batch: GraphBatch) -> Tensor:
        node = node_of_place(batch)
        moved = copy.copy(batch)
        for key in ("op", "cell", "shape"):
            moved[key] = batch[key][node]
        states: Tensor = self.gnn(x[node], moved)
        return states[node.argsort()]


def node_of_place(batch: GraphBatch) -> Tensor:
    """int64 [N]: the node that takes each place; a function of the operations of the graph alone."""
    ops, ptr = batch.op.cpu().numpy(), batch.ptr.tolist()
    parts = []
    for start, stop in pairwise(ptr):
        key = hashlib.sha256(ops[start:stop].tobytes()).digest()[:16]
        random = np.random.Generator(np.random.Philox(key=int.from_bytes(key, "big")))
        parts.append(start + random.permutation(stop - start))
    return torch.from_numpy(np.concatenate(parts)).to(batch.op.device)


class _Projected(nn.Module):
    def __init__(self, inner: GNNSpec, dim: int, width: int, options: dict[str, Any]) -> None:
        super().__init__()
        self.enter = nn.Linear(dim, width)
        self.gnn = inner.build(width, **options)
        self.leave = nn.Linear(width, dim)

    def forward(self, x: Tensor, batch: GraphBatch) -> Tensor:
        states: Tensor = self.leave(self.gnn(self.enter(x), batch))
        return states

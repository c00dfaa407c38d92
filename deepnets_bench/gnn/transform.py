"""Transforms that a GNN declares: found on its class, run on every graph before its forward pass."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from types import FunctionType
from typing import TYPE_CHECKING

from torch import Tensor, nn

from deepnets_bench.data.graph_batch import Transform, transform_batch
from deepnets_bench.errors import BadInput

if TYPE_CHECKING:
    from deepnets_bench.data.dataset import GraphBatch

_SEED = 0  # of random transforms outside of training


def declared_transform(module: nn.Module) -> Transform | None:
    """The callable Data → Data that is the attribute `transform` of a GNN's class, or set in its __init__.

    A layer or a method of this name is something else.
    """
    found = inspect.getattr_static(module, "transform", None)
    if isinstance(found, staticmethod):
        found = found.__func__
    elif isinstance(found, FunctionType):
        owners = type(module).__mro__
        found = (
            None if found.__qualname__ in {f"{owner.__qualname__}.transform" for owner in owners} else found
        )
    return found if callable(found) and not isinstance(found, (nn.Module, classmethod)) else None


@dataclass(frozen=True)
class Reads:
    """What a forward pass makes of attributes by their names; as it stands, that of `forward(x, batch)`."""

    taken: frozenset[str] = frozenset()  # names that it has for something else
    named: frozenset[str] = frozenset()  # parameters that a transform may fill
    needed: frozenset[str] = frozenset()  # those without a default
    others: bool = True  # whether it can also find attributes that it does not name


class Transforming(nn.Module):
    """A GNN together with the transform of graphs that it declares.

    In training a random transform draws from PyTorch's generator, as dropout does; else from a fixed seed,
    so that a prediction is a function of the graph.
    """

    def __init__(
        self, module: nn.Module, transform: Transform, name: str, reads: Reads | None = None
    ) -> None:
        super().__init__()
        self.module, self._transform, self.name, self.reads = module, transform, name, reads or Reads()

    def forward(self, x: Tensor, batch: GraphBatch) -> Tensor:
        changed = transform_batch(batch, self._transform, None if self.training else _SEED)
        self._require_read(batch, changed)
        out: Tensor = self.module(x, changed)
        return out

    def _require_read(self, batch: GraphBatch, changed: GraphBatch) -> None:
        """Raise `BadInput` where the GNN cannot see what its transform did, or sees less than it needs."""
        reads, keys = self.reads, frozenset(changed.keys())
        added = keys - frozenset(batch.keys())
        if misnamed := sorted(added & reads.taken):
            raise BadInput(
                f"The transform of GNN '{self.name}' adds '{misnamed[0]}', a name that its forward has for "
                "something else; add it under another name (attr_name=...), or write forward(x, batch)."
            )
        if lacking := sorted(reads.needed - keys):
            raise BadInput(
                f"forward of GNN '{self.name}' needs '{lacking[0]}', which neither a computation graph nor "
                f"its transform has; that adds {', '.join(sorted(added)) or 'nothing'}."
            )
        unread = added and not reads.others and not added & reads.named
        if unread and changed.edge_index.shape == batch.edge_index.shape:
            raise BadInput(
                f"The transform of GNN '{self.name}' adds {', '.join(sorted(added))}, which its forward does "
                "not take; name it among the parameters of forward."
            )

"""What the tensors of a traced forward pass come from: nodes of the graph, or parameters."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(eq=False)
class Node:
    """A node of the graph; `inputs` are its producers in any order.

    `shape` is that of its weight; without a `name` that weight is another node's, or cannot be predicted.
    """

    op: str
    inputs: list[Node]
    name: str | None = None
    shape: tuple[int, ...] | None = None
    # The other parameter of a normalisation layer, which is one node.
    bias: str | None = None
    folded: bool = False


@dataclass(frozen=True)
class Features:
    """What a tensor computed from the image comes from; several sources are query and key of attention.

    `scores` is true for products of two tensors of features, `softmax` for what softmax makes of anything.
    """

    sources: tuple[Node, ...]
    softmax: bool = False
    scores: bool = False


@dataclass(frozen=True)
class Parameter:
    """A tensor computed from parameters alone; `shape` is that of the parameter while it is one, whole.

    `ops` are the operations that computed it.
    """

    names: frozenset[str]
    shape: tuple[int, ...] = ()
    transposed: bool = False
    ops: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        (name,) = self.names
        return name

    @property
    def ndim(self) -> int:
        return len(self.shape)


Value = Features | Parameter


@dataclass(frozen=True)
class Call:
    """One operation with its arguments by the name the operator's schema gives them."""

    op: str
    args: dict[str, Any]
    tensors: list[Tensor]
    output: Any
    is_view: bool

    def features(self, name: str) -> Features | None:
        value = value_of(self.args.get(name))
        return value if isinstance(value, Features) else None

    def parameter(self, name: str, transposed: bool = False) -> Parameter | None:
        """The argument where it is a whole parameter."""
        value = value_of(self.args.get(name))
        if isinstance(value, Parameter) and value.shape and value.transposed == transposed:
            return value
        return None


def skip_folded(node: Node) -> Node:
    while node.folded:
        node = node.inputs[0]
    return node


def value_of(argument: Any) -> Value | None:
    value: Value | None = getattr(argument, "_traced_value", None) if isinstance(argument, Tensor) else None
    return value


def set_value(tensor: Tensor, value: Value) -> None:
    tensor._traced_value = value  # type: ignore[attr-defined]


def tensors_in(arguments: Iterable[Any]) -> Iterator[Tensor]:
    for argument in arguments:
        if isinstance(argument, Tensor):
            yield argument
        elif isinstance(argument, (list, tuple)):
            yield from tensors_in(argument)

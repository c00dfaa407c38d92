"""Conventions: the edges a GNN may see, the forms of `forward`, the names of widths, options as text."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from deepnets_bench.errors import BadInput, UnknownName

# What a GNN may see of a graph. Adapters feed exactly this; a native `forward(x, batch)` declares it.
EDGES = {
    "none": "no edges",
    "forward": "dataflow edges, source to target",
    "both": "dataflow edges in both directions; the direction is the edge type",
    "virtual": "all pairs within the cutoff, in both directions, with direction and 1/distance",
    "undeclared": "whatever its forward(x, batch) reads",
}
EDGE_DIM = 3  # columns of the edge features: along the dataflow, against it, 1/distance
# Constructor parameters of library models that mean the node width; filled in unless given as options.
WIDTHS = frozenset(
    {
        "dim",
        "channels",
        *(
            f"{end}_{unit}"
            for end in ("in", "hidden", "out")
            for unit in ("channels", "feats", "dim", "size")
        ),
    }
)


def convention(forward: Callable[..., Any], module: str) -> str:
    """How `forward` wants to be called: torch (x, batch), pyg (x, edge_index, ...) or dgl (g, x).

    `module` is where the class was defined: classes of DGL and PyG themselves are known by it.
    """
    library = module.partition(".")[0]
    if library in ("dgl", "torch_geometric"):
        return "dgl" if library == "dgl" else "pyg"
    return convention_of_names([name for name in inspect.signature(forward).parameters if name != "self"])


def convention_of_names(names: Sequence[str]) -> str:
    """`convention` from the parameter names of `forward`, without `self`."""
    if "edge_index" in names:
        return "pyg"
    return "dgl" if names and names[0] in ("g", "graph") else "torch"


def signature(factory: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Named constructor parameters, the width left out."""
    parameters = inspect.signature(factory).parameters.values()
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {p.name: p for p in parameters if p.kind in kinds and p.name not in WIDTHS}


def arguments_of(
    name: str, factory: Callable[..., Any], dim: int, options: Mapping[str, Any]
) -> dict[str, Any]:
    """Options plus the width under whatever names the constructor gives it."""
    parameters = inspect.signature(factory).parameters
    widths = {key: dim for key in parameters if key in WIDTHS}
    if not widths:
        first = next(iter(parameters), None)
        if first is None:
            raise BadInput(f"GNN '{name}' takes no node width: it is built as Class(dim, **options).")
        widths = {first: dim}
    accepts_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    for key in options:
        if key not in parameters and not accepts_any:
            raise UnknownName("option", key, [k for k in parameters if k not in widths], f"of GNN '{name}'")
    arguments = {**widths, **options}
    lacking = [key for key, p in signature(factory).items() if p.default is p.empty and key not in arguments]
    if lacking:
        raise BadInput(
            f"GNN '{name}' needs a value for {', '.join(lacking)} (--gnn-option {lacking[0]}=...)."
        )
    return arguments


def parse_options(pairs: Iterable[str]) -> dict[str, Any]:
    """`["depth=3", "act=relu"]` → `{"depth": 3, "act": "relu"}`.

    Raises `BadInput` for one without a `=` or given twice.
    """
    options: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key.isidentifier():
            raise BadInput(f"An option is written name=value, not '{pair}'.")
        if key in options:
            raise BadInput(f"Option {key} is given twice ({key}={options[key]}, {pair}); it takes one value.")
        try:
            options[key] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            options[key] = text
    return options

"""`GNNSpec`: what a GNN is, described from a class, or from the file of one without importing it."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepnets_bench.errors import BadInput, DeepNetsError, MissingExtra, UnknownName, located, one_line
from deepnets_bench.gnn.conventions import (
    EDGES,
    arguments_of,
    convention,
    convention_of_names,
    signature,
)
from deepnets_bench.gnn.importing import import_module

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class GNNSpec:
    """A GNN that can be built at any node width.

    `factory` is called as `factory(dim, **options)`; `backend` is torch, pyg or dgl and `extra` the optional
    dependency it needs; `edges` is a key of `EDGES`; `source` the paper and equation; `options` the defaults;
    `module` the one that was asked for it, where that need not be the one that defines it.
    """

    name: str
    factory: Callable[..., Any]
    backend: str = "torch"
    extra: str | None = None
    edges: str = "undeclared"
    source: str = ""
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    module: str = ""

    def __post_init__(self) -> None:
        if self.edges not in EDGES:
            raise UnknownName("edges", str(self.edges), EDGES, f"of GNN '{self.name}'")

    @property
    def missing(self) -> bool:
        """True where the optional dependency is not installed."""
        return self.extra is not None and importlib.util.find_spec(self.extra) is None

    @property
    def class_name(self) -> str:
        """What the factory is called in its module."""
        factory = self.factory
        return factory.name if isinstance(factory, ClassPath) else getattr(factory, "__qualname__", "")

    def build(self, dim: int, **options: Any) -> nn.Module:
        """The module with `forward(x, batch) -> x` at node width `dim`, with all its parameters.

        Raises what `construct` and `materialise` do, and `BadInput` where `forward` returns anything but new
        node states.
        """
        from deepnets_bench.gnn.contract import check_output
        from deepnets_bench.gnn.materialise import dry_states, materialise

        module = self.construct(dim, **options)
        out = materialise(self.name, module, dim)
        if out is not None:
            check_output(self.name, dry_states(dim), out)
        return module

    def construct(self, dim: int, **options: Any) -> nn.Module:
        """The module as its class builds it: without the parameters that the first forward pass makes.

        Raises `MissingExtra`, `UnknownName` for an option it does not have, and `BadInput` for a text where
        the default is a number, where the constructor refuses the values or `forward` is of no known form.
        """
        from deepnets_bench.gnn.adapters import adapt

        if self.missing:
            raise MissingExtra(self.name, str(self.extra))
        factory = self.factory.load() if isinstance(self.factory, ClassPath) else self.factory
        arguments = arguments_of(self.name, factory, dim, options)
        self._check_values(dim, options)
        try:
            module = factory(**arguments)
        except DeepNetsError:
            raise
        except Exception as error:
            given = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
            raise BadInput(f"GNN '{self.name}' cannot be built with {given}: {located(error)}.") from error
        return adapt(module, self.name, self.edges, options)

    def _check_values(self, dim: int, options: Mapping[str, Any]) -> None:
        """Raise `BadInput` for options that a constructor would refuse in words of its own, or not at all."""
        for key, value in options.items():
            default = self.options.get(key)
            if isinstance(default, (int, float)) and isinstance(value, str):
                raise BadInput(
                    f"Option {key} of GNN '{self.name}' takes a value such as {default}, not '{value}'."
                )
        heads = options.get("heads", self.options.get("heads"))
        declared = isinstance(self.factory, ClassPath)  # a baseline, whose heads divide the width among them
        if declared and isinstance(heads, int) and (heads < 1 or dim % heads):
            raise BadInput(f"dim must be a multiple of heads ({heads}) of GNN '{self.name}', not {dim}.")


@dataclass(frozen=True)
class ClassPath:
    """A class by module and name, imported when first built, so that listing names loads no framework."""

    module: str
    name: str

    def load(self) -> Callable[..., Any]:
        """Import the class; raises `MissingExtra` or `BadInput`."""
        found: Callable[..., Any] = getattr(
            import_module(self.module, f"{self.module}:{self.name}"), self.name
        )
        return found

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.load()(*args, **kwargs)


def spec_of(name: str, target: Any, module: str = "") -> GNNSpec:
    """Describe a class (or any factory of modules) by its `edges`, `source` and signatures.

    `module` is where it was found. A `GNNSpec` is taken as it is but for these two. Raises `BadInput` for
    anything that cannot be called.
    """
    if isinstance(target, GNNSpec):
        return replace(target, name=name, module=module or target.module)
    if not callable(target):
        raise BadInput(f"'{name}' is a {type(target).__name__}, not a GNN class.")
    backend = convention(target.forward, target.__module__) if hasattr(target, "forward") else "torch"
    return GNNSpec(
        name=name,
        factory=target,
        backend=backend,
        extra="dgl" if backend == "dgl" else None,
        edges=getattr(target, "edges", "undeclared" if backend == "torch" else "both"),
        source=getattr(target, "source", ""),
        options={
            key: parameter.default
            for key, parameter in signature(target).items()
            if parameter.default is not parameter.empty
        },
        module=module,
    )


def read_declaration(path: Path, module: str) -> GNNSpec:
    """Describe the one public class of a file without importing it.

    The name is the file's, `dgl_gat.py` becoming `dgl:gat`. Raises `BadInput` where the file does not
    parse or holds no or several public classes.
    """
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError) as error:
        raise BadInput(f"{path.name} cannot be read: {one_line(error)}") from error
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]
    if len(classes) != 1:
        raise BadInput(f"{path.name} holds {len(classes)} public classes; a GNN's file holds one.")
    body = classes[0].body
    declared = {
        target.id: str(node.value.value)
        for node in body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    methods = {node.name: node.args for node in body if isinstance(node, ast.FunctionDef)}
    forward = [argument.arg for argument in methods["forward"].args] if "forward" in methods else []
    backend = convention_of_names(forward[1:]) if forward else "torch"
    options = {}
    if init := methods.get("__init__"):
        optional = init.args[len(init.args) - len(init.defaults) :] + init.kwonlyargs
        defaults = [*init.defaults, *init.kw_defaults]
        options = {a.arg: ast.literal_eval(d) for a, d in zip(optional, defaults, strict=True) if d}
    name = path.stem.replace("dgl_", "dgl:", 1) if path.stem.startswith("dgl_") else path.stem
    return GNNSpec(
        name=name,
        factory=ClassPath(module, classes[0].name),
        backend=backend,
        extra="dgl" if backend == "dgl" else None,
        edges=declared.get("edges", "undeclared" if backend == "torch" else "both"),
        source=declared.get("source", ""),
        options=options,
        module=module,
    )

"""Who a GNN is: a name, options, and a digest of the source behind them, resolved once a process."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cloudpickle

from deepnets_bench.errors import BadInput, MissingExtra, RunFailed
from deepnets_bench.gnn.closure import closure
from deepnets_bench.gnn.importing import search
from deepnets_bench.gnn.interactive import definitions, is_interactive
from deepnets_bench.gnn.registry import REGISTRY, resolve
from deepnets_bench.gnn.spec import ClassPath, GNNSpec, spec_of

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class GNNIdentity:
    """A GNN as a job names it; made by `identify`, and small enough to hand to other processes.

    `name` is what the user asked for, `options` what the GNN is built with, `edges` what it declares to see,
    `digest` 16 hexadecimal digits over the source of the class and all that it reaches (`closure`): the same
    in every folder and on every machine. `pickled` carries a class that other processes cannot import.
    """

    name: str
    options: Mapping[str, Any] = field(hash=False)
    edges: str
    digest: str
    pickled: bytes | None = field(default=None, repr=False, compare=False)

    @cached_property
    def spec(self) -> GNNSpec:
        """The specification; looked up once a process. Raises `RunFailed` where the source has changed."""
        found = self._unpickled() if self.pickled else identify(self.name, self.options)
        if found.digest != self.digest:
            raise RunFailed(
                f"The source of GNN '{self.name}' has changed since this run began; start the run again."
            )
        return found.spec

    def build(self, dim: int) -> nn.Module:
        """The module with its options at node width `dim`; raises what `GNNSpec.build` does."""
        return self.spec.build(dim, **self.options)

    def _unpickled(self) -> GNNIdentity:
        assert self.pickled is not None
        search(Path.cwd())
        spec, written, modules = pickle.loads(self.pickled)
        return _identity(self.name, self.options, spec, written, modules)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key != "spec"}


GNNLike = str | Callable[..., Any] | GNNIdentity


def identify(gnn: GNNLike, options: Mapping[str, Any] | None = None) -> GNNIdentity:
    """Resolve a GNN to its identity; an identity is returned as it is.

    `gnn` is a name of any kind that `resolve` knows, or a class. One that a module defines is imported by
    its module's name in other processes. One of a notebook, a script or a function travels by value
    (cloudpickle), with what it uses there; its identity is the source of all of these, taken from the cells
    or the script. Where the source cannot be had (a class typed at Python's prompt or made by `exec`),
    `BadInput` says so. Raises what `resolve` does, and `MissingExtra`.
    """
    if isinstance(gnn, GNNIdentity):
        return gnn
    if isinstance(gnn, str):
        name, spec = gnn, resolve(gnn)
        importable = REGISTRY.get(gnn) is not spec or isinstance(spec.factory, ClassPath)
    else:
        if not hasattr(gnn, "__qualname__"):
            raise BadInput(f"A GNN is a name or a class, not {gnn!r}.")
        name, importable = f"{gnn.__module__}:{gnn.__qualname__}", False
        spec = spec_of(name, gnn)
    if spec.missing:
        raise MissingExtra(name, str(spec.extra))
    written: list[tuple[str, str]] = []
    modules = {spec.module, getattr(spec.factory, "__module__", "")}
    if is_interactive(spec.factory):
        written, modules = definitions(spec.factory)
    pickled = None if importable else cloudpickle.dumps((spec, written, modules))
    return _identity(name, options or {}, spec, written, modules, pickled)


def _identity(
    name: str,
    options: Mapping[str, Any],
    spec: GNNSpec,
    written: list[tuple[str, str]],
    modules: Iterable[str],
    pickled: bytes | None = None,
) -> GNNIdentity:
    parts = {"class": spec.class_name, "written": written, "reached": closure(modules)}
    digest = sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
    identity = GNNIdentity(name, dict(options), spec.edges, digest, pickled)
    vars(identity)["spec"] = spec  # what `cached_property` would store
    return identity

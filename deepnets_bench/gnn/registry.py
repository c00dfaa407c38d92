"""The registry: which GNNs exist and how a name finds one (`resolve`), whatever kind it is of."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from deepnets_bench.errors import BadInput, DeepNetsError, UnknownName
from deepnets_bench.gnn.importing import (
    GNN_FORMS,
    attribute_of,
    import_file,
    import_module,
    only_class,
)
from deepnets_bench.gnn.spec import GNNSpec, read_declaration, spec_of

ENTRY_POINTS = "deepnets_bench.gnns"
BASELINES = "deepnets_bench.baselines"
UNTRAINED = "control:untrained:"  # before the name of a GNN: a run that trains nothing
CONTROL = "control:"  # before the kind of a control and the name of a GNN: `deepnets_bench.gnn.controls`

REGISTRY: dict[str, GNNSpec] = {}


def register(spec: GNNSpec) -> GNNSpec:
    """Add a GNN; a second one of the same name raises `BadInput`."""
    if spec.name in REGISTRY:
        raise BadInput(f"Two GNNs are called '{spec.name}'; names must be unique.")
    REGISTRY[spec.name] = spec
    return spec


def resolve(name: str) -> GNNSpec:
    """The GNN behind `--gnn NAME`.

    NAME is a registered name (`gat`, `dgl:gat`, an installed plug-in), a file (`./mine.py:MyGNN`), a class
    path (`package.module:Class`), or a control of one of these (`control:shuffled:gat`). Raises
    `UnknownName` with the choices, `MissingExtra`, or `BadInput`.
    """
    if name.startswith(CONTROL):
        return _control(name)
    broken = _discover()
    if name in REGISTRY:
        return REGISTRY[name]
    plugins = _plugins()
    if name in plugins:
        return _load_plugin(plugins[name])
    if name in broken:
        raise BadInput(f"GNN '{name}' is broken: {broken[name]}")
    path, _, attribute = name.rpartition(":")
    if name.endswith(".py"):
        path, attribute = name, ""
    if path.endswith(".py"):
        return _load_file(Path(path), attribute)
    if os.sep in name or "/" in name or name.startswith("."):
        raise BadInput(f"'{name}' is no Python file; {GNN_FORMS}.")
    prefixes = {known.partition(":")[0] for known in REGISTRY if ":" in known}
    if path and attribute and path not in prefixes:
        module = import_module(path, name)
        return spec_of(name, attribute_of(module, attribute, path), path)
    raise UnknownName("GNN", name, sorted({*REGISTRY, *plugins}))


def is_registered(name: str) -> bool:
    """True for the name of a baseline, an installed plug-in or a call of `register`, and of a control of one.

    It imports none of them.
    """
    _discover()
    if name.startswith(CONTROL):
        name = name.removeprefix(CONTROL).partition(":")[2]
    return name in REGISTRY or name in _plugins()


def catalogue() -> tuple[list[GNNSpec], dict[str, str]]:
    """Every registered GNN, by name, and the broken ones with the reason each was skipped."""
    broken = dict(_discover())
    specs = dict(REGISTRY)
    for name, plugin in _plugins().items():
        try:
            specs[name] = _load_plugin(plugin)
        except DeepNetsError as error:
            broken[name] = str(error)
    return [specs[name] for name in sorted(specs)], broken


@cache
def _discover() -> dict[str, str]:
    """Register the baselines, once; returns the broken ones with the reason."""
    package = importlib.util.find_spec(BASELINES)
    folders = package.submodule_search_locations if package else None
    return register_folder([Path(folder) for folder in folders or ()], BASELINES)


def register_folder(folders: Sequence[Path], package: str) -> dict[str, str]:
    """Register one GNN per file of a package's folders; returns the broken files with the reason."""
    broken = {}
    for path in sorted(path for folder in folders for path in folder.glob("[!_]*.py")):
        try:
            register(read_declaration(path, f"{package}.{path.stem}"))
        except BadInput as error:
            broken[path.stem] = str(error)
    return broken


def _plugins() -> dict[str, EntryPoint]:
    plugins: dict[str, EntryPoint] = {}
    for plugin in entry_points(group=ENTRY_POINTS):
        if plugin.name in REGISTRY or plugin.name in plugins:
            raise BadInput(
                f"Two GNNs are called '{plugin.name}', one of them installed as {plugin.value}; "
                "names must be unique."
            )
        plugins[plugin.name] = plugin
    return plugins


def _control(name: str) -> GNNSpec:
    kind, colon, inner = name.removeprefix(CONTROL).partition(":")
    if not colon or not inner:
        raise BadInput(f"A control is named control:KIND:GNN, such as control:shuffled:gat, not '{name}'.")
    from deepnets_bench.gnn.controls import control_of  # with PyTorch

    return control_of(kind, resolve(inner))


def _load_plugin(plugin: EntryPoint) -> GNNSpec:
    module = import_module(plugin.module, plugin.name)
    return spec_of(plugin.name, attribute_of(module, plugin.attr, plugin.module), plugin.module)


def _load_file(path: Path, attribute: str) -> GNNSpec:
    module = import_file(path)
    attribute = attribute or only_class(module, path)
    target = attribute_of(module, attribute, str(path))
    return spec_of(f"{path.name}:{attribute}", target, module.__name__)

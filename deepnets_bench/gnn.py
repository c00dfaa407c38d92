"""GNNs as plug-ins: what one is (`GNNSpec`), which exist (the registry), how a name finds one (`resolve`).

A GNN is a class built as `Class(dim, **options)`, a `torch.nn.Module` with `forward(x, batch) -> x`:
`x` float [N, dim] node states, `batch` a `deepnets_bench.dataset.GraphBatch`. Unmodified PyG models
(`forward(x, edge_index, ...)`) and DGL models (`forward(g, x)`) are adapted (`gnn_adapters.py`).
Baselines, installed plug-ins and a user's file go through the same door; importing this module loads none.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from deepnets_bench.errors import BadInput, DeepNetsError, MissingExtra, UnknownName, one_line

if TYPE_CHECKING:
    from torch import nn

# What a GNN may see of a graph. Adapters feed exactly this; a native `forward(x, batch)` declares it.
EDGES = {
    "none": "no edges",
    "forward": "dataflow edges, source to target",
    "both": "dataflow edges in both directions; the direction is the edge type",
    "virtual": "all pairs within the cutoff, in both directions, with direction and 1/distance",
    "undeclared": "whatever its forward(x, batch) reads",
}
GNN_FORMS = "a GNN is a registered name, a file ./file.py:Class, or a class path package.module:Class"
ENTRY_POINTS = "deepnets_bench.gnns"
BASELINES = "deepnets_bench.baselines"
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


@dataclass(frozen=True)
class GNNSpec:
    """A GNN that can be built at any node width.

    `factory` is called as `factory(dim, **options)`; `backend` is torch, pyg or dgl and `extra` the optional
    dependency it needs; `edges` is a key of `EDGES`; `source` the paper and equation; `options` the defaults.
    """

    name: str
    factory: Callable[..., Any]
    backend: str = "torch"
    extra: str | None = None
    edges: str = "undeclared"
    source: str = ""
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if self.edges not in EDGES:
            raise UnknownName("edges", str(self.edges), EDGES, f"of GNN '{self.name}'")

    @property
    def missing(self) -> bool:
        """True where the optional dependency is not installed."""
        return self.extra is not None and importlib.util.find_spec(self.extra) is None

    def build(self, dim: int, **options: Any) -> nn.Module:
        """The module with `forward(x, batch) -> x` at node width `dim`.

        Raises `MissingExtra`, `UnknownName` for an option it does not have, and `BadInput` where the
        constructor refuses the values or `forward` is of no known form.
        """
        from deepnets_bench.gnn_adapters import adapt

        if self.missing:
            raise MissingExtra(self.name, str(self.extra))
        factory = self.factory.load() if isinstance(self.factory, ClassPath) else self.factory
        arguments = _arguments(self.name, factory, dim, options)
        try:
            module = factory(**arguments)
        except DeepNetsError:
            raise
        except Exception as error:
            given = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
            raise BadInput(f"GNN '{self.name}' cannot be built with {given}: {one_line(error)}") from error
        return adapt(module, self.name, self.edges, options)


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


REGISTRY: dict[str, GNNSpec] = {}


def register(spec: GNNSpec) -> GNNSpec:
    """Add a GNN; a second one of the same name raises `BadInput`."""
    if spec.name in REGISTRY:
        raise BadInput(f"Two GNNs are called '{spec.name}'; names must be unique.")
    REGISTRY[spec.name] = spec
    return spec


def resolve(name: str) -> GNNSpec:
    """The GNN behind `--gnn NAME`.

    NAME is a registered name (`gat`, `dgl:gat`, an installed plug-in), a file (`./mine.py:MyGNN`) or a class
    path (`package.module:Class`). Raises `UnknownName` with the choices, `MissingExtra`, or `BadInput`.
    """
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
    prefixes = {known.partition(":")[0] for known in REGISTRY if ":" in known}
    if path and attribute and path not in prefixes:
        module = import_module(path, name)
        return spec_of(name, _attribute(module, attribute, path))
    raise UnknownName("GNN", name, sorted({*REGISTRY, *plugins}))


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


def spec_of(name: str, target: Any) -> GNNSpec:
    """Describe a class (or any factory of modules) by its `edges`, `source` and signatures.

    A `GNNSpec` is taken as it is but for the name. Raises `BadInput` for anything that cannot be called.
    """
    if isinstance(target, GNNSpec):
        return GNNSpec(**{**vars(target), "name": name})
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
            for key, parameter in _signature(target).items()
            if parameter.default is not parameter.empty
        },
    )


def parse_options(pairs: Iterable[str]) -> dict[str, Any]:
    """`["depth=3", "act=relu"]` → `{"depth": 3, "act": "relu"}`; raises `BadInput` without a `=`."""
    options: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key.isidentifier():
            raise BadInput(f"An option is written name=value, not '{pair}'.")
        try:
            options[key] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            options[key] = text
    return options


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


def _load_plugin(plugin: EntryPoint) -> GNNSpec:
    return spec_of(
        plugin.name, _attribute(import_module(plugin.module, plugin.name), plugin.attr, plugin.module)
    )


def import_file(path: Path, forms: str = GNN_FORMS) -> ModuleType:
    """Run a user's Python file as a module; its neighbours and those of the working directory are found.

    Raises `BadInput`, which names the `forms` that are possible, where it cannot be imported.
    """
    if not path.is_file():
        raise BadInput(f"There is no file {path}.")
    # A module of its own name, so that two files called alike do not meet in sys.modules.
    name = f"deepnets_bench_file_{path.stem}_{sha256(str(path.resolve()).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise BadInput(f"{path} cannot be imported as Python.")
    _search(path.resolve().parent, Path.cwd())
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise _import_problem(str(path), error, forms) from error
    return module


def import_module(module: str, wanted: str, forms: str = GNN_FORMS) -> ModuleType:
    """Import by name, the working directory last; raises as `import_file`."""
    _search(Path.cwd())
    try:
        return importlib.import_module(module)
    except (Exception, SystemExit) as error:
        raise _import_problem(wanted, error, forms) from error


def _search(*folders: Path) -> None:
    """Let imports look into `folders` too, after all else."""
    importlib.invalidate_caches()
    sys.path.extend(str(folder) for folder in folders if str(folder) not in sys.path)


def _load_file(path: Path, attribute: str) -> GNNSpec:
    module = import_file(path)
    if not attribute:
        own = [value for value in vars(module).values() if _is_gnn_class(value, module.__name__)]
        if len(own) != 1:
            raise BadInput(f"{path} holds {len(own)} GNN classes; name one as {path}:Class.")
        attribute = own[0].__name__
    return spec_of(f"{path.name}:{attribute}", _attribute(module, attribute, str(path)))


def _is_gnn_class(value: Any, module: str) -> bool:
    return isinstance(value, type) and value.__module__ == module and hasattr(value, "forward")


def _import_problem(wanted: str, error: BaseException, forms: str) -> BadInput:
    if isinstance(error, ModuleNotFoundError) and error.name == "dgl":
        return MissingExtra(wanted, "dgl")
    return BadInput(f"'{wanted}' cannot be imported ({one_line(error)}); {forms}.")


def _attribute(module: Any, attribute: str, where: str) -> Any:
    try:
        return getattr(module, attribute)
    except AttributeError:
        classes = [key for key, value in vars(module).items() if hasattr(value, "forward")]
        raise UnknownName("GNN class", attribute, sorted(classes), f"in {where}") from None


def _signature(factory: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Named constructor parameters, the width left out."""
    parameters = inspect.signature(factory).parameters.values()
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {p.name: p for p in parameters if p.kind in kinds and p.name not in WIDTHS}


def _arguments(
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
    lacking = [key for key, p in _signature(factory).items() if p.default is p.empty and key not in arguments]
    if lacking:
        raise BadInput(
            f"GNN '{name}' needs a value for {', '.join(lacking)} (--gnn-option {lacking[0]}=...)."
        )
    return arguments

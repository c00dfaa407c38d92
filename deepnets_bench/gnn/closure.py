"""The closure of a module: digests of the source files that it reaches by imports, versions of libraries.

Reached is what import statements name, in functions too (but not under `TYPE_CHECKING`), what
`import_module("literal")` names, and where the classes, functions and modules come from that a loaded
module's namespace holds. The boundary:

- A module outside `site-packages` counts by its source, line ends made equal, under its module name: no path
  is part of it, so that another machine or folder gives the same.
- An installed distribution counts by name and version and is not looked into.
- Of this package, what layers of GNNs are made of (`OWN`) counts by its source. The rest is the same for
  every GNN: the graphs, the data and the contract, which rows know by digests and versions of their own.
- The standard library and the numerics (`NUMERICS`), whose versions rows hold, are left out.

Files that are read rather than imported are not seen.
"""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from hashlib import sha256
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from deepnets_bench.errors import BadInput

PACKAGE = "deepnets_bench"
OWN = (
    "deepnets_bench.baselines",
    "deepnets_bench.ghn",
    "deepnets_bench.gnn.layers",
    "deepnets_bench.gnn.controls",
)
NUMERICS = frozenset({"torch", "triton", "numpy", "numba"})
FILE_PREFIX = "deepnets_bench_file_"  # modules of files given by path; their names depend on the folder

_imported: dict[str, str] = {}  # module of this process → digest of its source when it was first looked at


def closure(roots: Iterable[str]) -> dict[str, str]:
    """Module → SHA-256 of its source, and distribution → version, for all that modules `roots` reach.

    Raises `BadInput` where a module was imported from another file than it would be now, or where its file
    has changed since.
    """
    parts: dict[str, str] = {}
    waiting, seen = set(roots), set[str]()
    while waiting:
        name = waiting.pop()
        if name in seen or _is_left_out(name):
            continue
        seen.add(name)
        waiting.add(name.rpartition(".")[0])  # importing a module runs the packages around it
        library = None if _is_of(name, PACKAGE) else _distribution(name.partition(".")[0])
        if library is not None:
            parts[library[0]] = library[1]
        elif (path := _source(name)) is not None:
            source = path.read_bytes()
            if path.suffix == ".py":
                source = source.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
                waiting.update(_reached(name, path, source))
            label = "file" if name.startswith(FILE_PREFIX) else name
            parts[label] = sha256(source).hexdigest()
            _check_unchanged(name, path, parts[label])
    return parts


def imports(tree: ast.AST, package: str = "") -> Iterator[str]:
    """Names of modules, and of what may be one, that a parsed file imports; `package` is the one it is in."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting.extend(node.orelse)
            continue
        waiting.extend(ast.iter_child_nodes(node))
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute("." * node.level + (node.module or ""), package)
            yield from (base, *(f"{base}.{alias.name}" for alias in node.names))
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module") and node.args:
            named = node.args[0]
            if isinstance(named, ast.Constant) and isinstance(named.value, str):
                yield _absolute(named.value, package)


def _absolute(name: str, package: str) -> str:
    try:
        return importlib.util.resolve_name(name, package or None)
    except ImportError:  # relative, and there is no package: the import will fail by itself
        return ""


def _reached(name: str, path: Path, source: bytes) -> Iterator[str]:
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):  # importing it says so, if it is ever imported
        return
    yield from imports(tree, name if path.name == "__init__.py" else name.rpartition(".")[0])
    if name in sys.modules and not _is_of(name, PACKAGE):
        for value in list(vars(sys.modules[name]).values()):
            # A package holds its modules once anything in the process has imported them.
            if not isinstance(value, ModuleType) or not _is_of(value.__name__, name):
                yield home(value) or ""


def home(value: Any) -> str | None:
    """The module that `value` is, or that defines it as a class or function; None for any other value."""
    if isinstance(value, ModuleType):
        return value.__name__
    return value.__module__ if isinstance(value, type | FunctionType) else None


def _is_of(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def _is_left_out(name: str) -> bool:
    top = name.partition(".")[0]
    if top == PACKAGE:
        return not any(_is_of(name, own) for own in OWN)
    return not top or top == "__main__" or top in sys.stdlib_module_names or top in NUMERICS


def _source(name: str) -> Path | None:
    """The file of a module; None for a name that is no module or has no file (a namespace package)."""
    found, loaded = _find(name), getattr(sys.modules.get(name), "__spec__", None)
    if found and loaded and found.origin and loaded.origin and not _same_file(found, loaded):
        raise BadInput(
            f"{found.origin} cannot be imported as '{name}': this process has imported {loaded.origin} under "
            "that name. Use the two in commands of their own, or rename one."
        )
    spec = loaded or found
    return Path(spec.origin) if spec and spec.has_location and spec.origin else None


def _same_file(one: ModuleSpec, other: ModuleSpec) -> bool:
    return Path(str(one.origin)).resolve() == Path(str(other.origin)).resolve()


def _find(name: str) -> ModuleSpec | None:
    """What importing `name` now would find; unlike `importlib.util.find_spec`, it imports no package."""
    path = None
    if "." in name:
        above = _find(name.rpartition(".")[0])
        if above is None or above.submodule_search_locations is None:
            return None
        path = list(above.submodule_search_locations)
    for finder in sys.meta_path:
        if spec := finder.find_spec(name, path):
            return spec
    return None


@cache
def _distribution(top: str) -> tuple[str, str] | None:
    """Name and version of the distribution that installed a top-level module; None where none did."""
    spec = getattr(sys.modules.get(top), "__spec__", None) or _find(top)
    places = [spec.origin, *(spec.submodule_search_locations or ())] if spec else []
    if not any({"site-packages", "dist-packages"} & {*Path(place).parts} for place in places if place):
        return None
    try:
        found = importlib.metadata.distribution(top)
    except importlib.metadata.PackageNotFoundError:
        names = importlib.metadata.packages_distributions().get(top)
        if not names:
            return None
        found = importlib.metadata.distribution(names[0])
    return found.name.lower().replace("_", "-"), found.version.partition("+")[0]


def _check_unchanged(name: str, path: Path, digest: str) -> None:
    """A file given by path is run anew when it changes; all else stays as this process imported it."""
    if name not in sys.modules or name.startswith(FILE_PREFIX):
        return
    if _imported.setdefault(name, digest) != digest:
        raise BadInput(f"{path} has changed since this process imported it; start Python anew.")

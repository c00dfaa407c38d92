"""Imports of GNNs that are no part of this package: a user's file, a class path, an installed plug-in.

A user's code finds its neighbours as with `python file.py`: the folder of the file and the working directory
are put on the import path, last, so that they hide no installed package.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

from deepnets_bench.errors import BadInput, DeepNetsError, MissingExtra, UnknownName, located
from deepnets_bench.gnn.closure import FILE_PREFIX, closure

GNN_FORMS = "a GNN is a registered name, a file ./file.py:Class, or a class path package.module:Class"

_added: list[str] = []  # the end of sys.path: folders of users' files, the newest first
_ran: dict[str, bytes] = {}  # module of a user's file → the source that this process ran


def import_file(path: Path, forms: str = GNN_FORMS) -> ModuleType:
    """Run a file as a module; not again unless it has changed.

    Raises `BadInput` where there is none, where it is no Python file (which names the `forms` that are
    possible), where it fails, and where it would get a module of the same name that a file of another folder
    has brought into this process.
    """
    if not path.is_file():
        raise BadInput(f"There is no file {path}.")
    # A module of its own name, so that two files called alike do not meet in sys.modules.
    name = f"{FILE_PREFIX}{path.stem}_{sha256(str(path.resolve()).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    if spec is None or spec.loader is None:
        raise BadInput(f"'{path}' is no Python file; {forms}.")
    search(path.resolve().parent, Path.cwd())
    source = path.read_bytes()
    if name in sys.modules and _ran.get(name) == source:
        return sys.modules[name]
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        closure([name])  # before it runs: it must not meet the neighbours of another file
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise _problem(str(path), error) from error
    _ran[name] = source
    return module


def import_module(module: str, wanted: str, forms: str = GNN_FORMS) -> ModuleType:
    """Import by name; `wanted` is what the user asked for.

    Raises `MissingExtra`, or `BadInput`, which names the `forms` where there is no such module.
    """
    search(Path.cwd())
    try:
        return importlib.import_module(module)
    except (Exception, SystemExit) as error:
        absent = isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}.")
        raise _problem(wanted, error, forms if absent else "") from error


def only_class(module: ModuleType, path: Path) -> str:
    """The name of the one GNN class that a file defines; raises `BadInput` where there is another number."""
    own = [
        value.__name__
        for value in vars(module).values()
        if isinstance(value, type) and value.__module__ == module.__name__ and hasattr(value, "forward")
    ]
    if len(own) != 1:
        raise BadInput(f"{path} holds {len(own)} GNN classes; name one as {path}:Class.")
    return own[0]


def attribute_of(module: ModuleType, attribute: str, where: str) -> Any:
    """An attribute of a module; raises `UnknownName` with the classes it has."""
    try:
        return getattr(module, attribute)
    except AttributeError:
        classes = [key for key, value in vars(module).items() if hasattr(value, "forward")]
        raise UnknownName("GNN class", attribute, sorted(classes), f"in {where}") from None


def search(*folders: Path) -> None:
    """Let imports look into `folders` after all else, but before those of earlier calls."""
    importlib.invalidate_caches()  # a file may be younger than the last look into its folder
    sys.path[:] = inherited_path()
    newest = [str(folder) for folder in folders if str(folder) not in sys.path]
    _added[:] = dict.fromkeys([*newest, *_added])
    sys.path.extend(_added)


def inherited_path() -> list[str]:
    """The import path without the folders of users' files: what a process is given that finds its own."""
    return [entry for entry in sys.path if entry not in _added]


def _problem(wanted: str, error: BaseException, forms: str = "") -> DeepNetsError:
    if isinstance(error, DeepNetsError):
        return error
    if isinstance(error, ModuleNotFoundError) and error.name == "dgl":
        return MissingExtra(wanted, "dgl")
    advice = f"; {forms}" if forms else ""
    return BadInput(f"'{wanted}' cannot be imported: {located(error)}{advice}.")

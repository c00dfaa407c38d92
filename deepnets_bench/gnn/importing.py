"""Imports of GNNs that are no part of this package: a user's file, a class path, an installed plug-in."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

from deepnets_bench.errors import BadInput, MissingExtra, UnknownName, one_line

GNN_FORMS = "a GNN is a registered name, a file ./file.py:Class, or a class path package.module:Class"


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
        raise _problem(str(path), error, forms) from error
    return module


def import_module(module: str, wanted: str, forms: str = GNN_FORMS) -> ModuleType:
    """Import by name, the working directory last; raises as `import_file`."""
    _search(Path.cwd())
    try:
        return importlib.import_module(module)
    except (Exception, SystemExit) as error:
        raise _problem(wanted, error, forms) from error


def _search(*folders: Path) -> None:
    """Let imports look into `folders` too, after all else."""
    importlib.invalidate_caches()
    sys.path.extend(str(folder) for folder in folders if str(folder) not in sys.path)


def _problem(wanted: str, error: BaseException, forms: str) -> BadInput:
    if isinstance(error, ModuleNotFoundError) and error.name == "dgl":
        return MissingExtra(wanted, "dgl")
    return BadInput(f"'{wanted}' cannot be imported ({one_line(error)}); {forms}.")


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

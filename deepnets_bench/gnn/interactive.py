"""Classes of a notebook or a script: their source, and that of all they use there, is their identity."""

from __future__ import annotations

import ast
import inspect
import linecache
import pickle
import sys
import textwrap
from collections.abc import Callable, Iterator
from hashlib import sha256
from types import FunctionType
from typing import Any

import cloudpickle

from deepnets_bench.errors import BadInput, one_line
from deepnets_bench.gnn.closure import home, imports


def is_interactive(target: Any) -> bool:
    """True for what no other process can import: defined in a notebook, a script or a function."""
    return home(target) == "__main__" or "<locals>" in getattr(target, "__qualname__", "")


def definitions(target: Any) -> tuple[list[tuple[str, str]], set[str]]:
    """(name, source or value) of a class and of all it uses where it was defined; the modules these import.

    Raises `BadInput` where a source cannot be had or a value cannot be recorded.
    """
    found: dict[int, tuple[str, str]] = {}
    modules: set[str] = set()
    waiting = [target]
    while waiting:
        value = waiting.pop()
        if id(value) in found:
            continue
        source = _source(value)
        found[id(value)] = value.__qualname__, source
        tree = ast.parse(source)
        modules.update(imports(tree))
        for name, used in _used(value, tree):
            if home(used) is None:
                found[id(used)] = name, _recorded(value, name, used)
            elif is_interactive(used):
                waiting.append(used)
            else:
                modules.add(str(home(used)))
    return sorted(found.values()), modules


def _used(value: Any, tree: ast.AST) -> Iterator[tuple[str, Any]]:
    """Variables around a definition that its source names: those of the module and of enclosing functions."""
    around = dict(vars(sys.modules[value.__module__]))
    for function in _functions(value):
        around |= inspect.getclosurevars(function).nonlocals
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    yield from ((name, around[name]) for name in sorted(names) if name in around)


def _functions(value: Any) -> list[FunctionType]:
    """The function itself, or those written in the body of a class."""
    members = [value] if isinstance(value, FunctionType) else list(vars(value).values())
    members = [getattr(member, "fget", None) or getattr(member, "__func__", member) for member in members]
    members = [inspect.unwrap(member) for member in members if isinstance(member, FunctionType)]
    return [member for member in members if member.__qualname__.startswith(value.__qualname__)]


def _source(value: Any) -> str:
    """The text of a definition, without the indentation around it.

    `inspect.getsource` finds no class of a notebook, as its module has no file; the functions in it know
    where they were written.
    """
    for function in _functions(value):
        code = function.__code__
        lines = linecache.getlines(code.co_filename)
        for node in _definitions_in(lines, value.__name__):
            if node.lineno <= code.co_firstlineno <= (node.end_lineno or 0):
                return textwrap.dedent("".join(lines[node.lineno - 1 : node.end_lineno])).strip()
    try:
        return textwrap.dedent(inspect.getsource(value)).strip()
    except (OSError, TypeError) as error:
        raise BadInput(
            f"The source of {value.__qualname__} cannot be had, and with it nothing to tell one version from "
            "the next; define it in a file."
        ) from error


def _definitions_in(lines: list[str], name: str) -> list[ast.ClassDef | ast.FunctionDef]:
    """Definitions called `name`, the innermost last ones first; each begins at its first decorator."""
    try:
        tree = ast.parse("".join(lines))
    except SyntaxError:
        return []
    found = [n for n in ast.walk(tree) if isinstance(n, ast.ClassDef | ast.FunctionDef) and n.name == name]
    for node in found:
        node.lineno = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    return found[::-1]


def _recorded(user: Callable[..., Any], name: str, value: Any) -> str:
    """A value as text: what Python would write for plain data, else a digest of its pickle."""
    try:
        if ast.literal_eval(repr(value)) == value:
            return repr(value)
    except (ValueError, SyntaxError, TypeError, RuntimeError, MemoryError):
        pass  # no plain data
    try:
        return sha256(cloudpickle.dumps(value, protocol=4)).hexdigest()
    except (pickle.PicklingError, TypeError, AttributeError, RuntimeError) as error:
        raise BadInput(
            f"{user.__qualname__} uses {name}, which cannot be handed to another process "
            f"({one_line(error)}); define the class in a file."
        ) from error

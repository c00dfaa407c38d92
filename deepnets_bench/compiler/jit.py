"""Functions compiled by numba and cached on disk, compiled anew when any of the sources they inline changes.

numba's own cache looks at the file of a function only: after an update of `lowering.py` alone, a cached
caller in another module would go on with the old code, and generate graphs by old rules.
"""

from __future__ import annotations

import ast
import inspect
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any, Literal

import numba
from numba.core.caching import FunctionCache

# Files whose compiled functions and constants end up in kernels of other packages.
_SHARED = ("compiler/*.py", "graphs/folding.py", "graphs/algorithms.py", "data/graph_codec.py")


def kernel(signature: Any = None) -> Callable[[Callable[..., Any]], Any]:
    """Compile with `numba.njit(cache=True)`; use as a decorator, `@kernel()`.

    With a signature the function is compiled for these types only, at once, and arguments are converted to
    them: a function called with many mixtures of integer types would be compiled for each.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        compiled: Any = numba.njit(cache=True)(function)
        # Private, but the same since numba 0.20; without it the cache would merely be numba's own.
        cache_file = getattr(compiled._cache, "_cache_file", None)
        if cache_file is not None:
            cache_file._source_stamp = source_stamp(Path(inspect.getfile(function)))
        if signature is not None:
            compiled.compile(signature)
            compiled.disable_compile()
        return compiled

    return decorate


def source_stamp(path: Path) -> tuple[tuple[int, int], ...]:
    """Times and lengths of the sources a kernel in `path` depends on."""
    package = Path(__file__).parents[1]
    sources = {path, *path.parent.glob("*.py")}
    sources.update(source for pattern in _SHARED for source in package.glob(pattern))
    return tuple((stat.st_mtime_ns, stat.st_size) for stat in map(Path.stat, sorted(sources)))


CacheState = Literal["compiled", "stale", "missing"]


def cache_states(sources: Iterable[Path]) -> Counter[CacheState]:
    """How many kernels of Python files are in the cache on disk, without importing or compiling any.

    `stale` ones were compiled from other sources, or by another numba, and are compiled anew when they are
    used; `missing` ones were never used here. Raises whatever numba's cache does where it cannot be read.
    """
    return Counter(_cache_state(function) for path in sources for function in _kernels(path))


def _kernels(path: Path) -> Iterator[FunctionType]:
    """The functions of a file under the decorator `kernel`: enough of them for numba to find their cache."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = {
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and any(map(_is_kernel, node.decorator_list))
    }
    for code in compile(tree, str(path), "exec").co_consts:
        if isinstance(code, CodeType) and code.co_name in names:
            yield FunctionType(code, {})


def _is_kernel(decorator: ast.expr) -> bool:
    return (
        isinstance(decorator, ast.Call)
        and isinstance(decorator.func, ast.Name)
        and decorator.func.id == kernel.__name__
    )


def _cache_state(function: FunctionType) -> CacheState:
    cache_file: Any = FunctionCache(function)._cache_file
    cache_file._source_stamp = source_stamp(Path(inspect.getfile(function)))
    if cache_file._load_index():
        return "compiled"
    return "stale" if os.path.exists(cache_file._index_path) else "missing"

"""Functions compiled by numba and cached on disk, compiled anew when any of the sources they inline changes.

numba's own cache looks at the file of a function only: after an update of `lowering.py` alone, a cached
caller in another module would go on with the old code, and generate graphs by old rules.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba

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

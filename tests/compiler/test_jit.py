"""The cache of compiled functions follows the sources of everything they inline."""

from __future__ import annotations

import importlib
import os
from pathlib import Path

import pytest
from numba.core.caching import FunctionCache

from deepnets_bench.compiler import jit, lowering
from deepnets_bench.generators import recipes


def test_kernels_are_stamped_with_all_sources() -> None:
    stamp = recipes.draw._cache._cache_file._source_stamp
    assert stamp == jit.source_stamp(Path(recipes.__file__))
    stat = os.stat(lowering.__file__)
    assert (stat.st_mtime_ns, stat.st_size) in stamp


def test_stamps_change_with_a_neighbour(tmp_path: Path) -> None:
    for name in ("a.py", "b.py"):
        (tmp_path / name).write_text("")
    before = jit.source_stamp(tmp_path / "a.py")
    (tmp_path / "b.py").write_text("x = 1")
    assert jit.source_stamp(tmp_path / "a.py") != before


def test_the_state_of_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "counting.py"
    path.write_text(
        "from deepnets_bench.compiler.jit import kernel\n\n\n"
        "@kernel()\ndef used(x):\n    return x + 1\n\n\n"
        "@kernel()\ndef unused(x):\n    return x\n\n\n"
        "def plain(x):\n    return x\n"
    )
    assert jit.cache_states([path]) == {"missing": 2}
    monkeypatch.syspath_prepend(tmp_path)
    counting = importlib.import_module("counting")
    assert counting.used(1) == 2
    assert jit.cache_states([path]) == {"compiled": 1, "missing": 1}
    (tmp_path / "neighbour.py").write_text("")
    assert jit.cache_states([path]) == {"stale": 1, "missing": 1}


def test_the_cache_is_looked_up_where_kernels_are() -> None:
    """`cache_states` finds by itself what numba's dispatchers use, for all kernels of a module."""
    kernels = jit._kernels(Path(recipes.__file__))
    own = [value for value in vars(recipes).values() if getattr(value, "__module__", "") == recipes.__name__]
    dispatchers = {value.__name__: value for value in own if hasattr(value, "py_func")}
    found = {function.__name__: FunctionCache(function)._cache_file._index_path for function in kernels}
    assert found == {name: value._cache._cache_file._index_path for name, value in dispatchers.items()}
    assert len(found) > 5

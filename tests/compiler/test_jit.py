"""The cache of compiled functions follows the sources of everything they inline."""

from __future__ import annotations

import os
from pathlib import Path

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

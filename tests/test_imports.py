"""The contracts on imports hold, and see the packages that lie beside the main one."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("importlinter", reason="needs the extra 'dev'")
ROOT = Path(__file__).parents[1]


def check(root: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / ".ci" / "imports.py"), str(root)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for name in ("deepnets_bench", "generators", "baselines"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_the_contracts_hold() -> None:
    done = check(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


PLANTED = {  # file → line that breaks a contract, and what the linter says of it
    "generators/streams.py": ("import deepnets_bench.ghn.model", "generators.streams -> deepnets_bench.ghn"),
    "deepnets_bench/data/widths.py": (
        "def late():\n    import deepnets_bench.harness.protocol.tracks",
        "data.widths -> deepnets_bench.harness",
    ),
    "deepnets_bench/gnn/layers.py": (
        "import deepnets_bench.baselines.gat",
        "gnn.layers -> deepnets_bench.baselines",
    ),
    "deepnets_bench/leaderboard/stats.py": (
        "import deepnets_bench.data.shards",
        "leaderboard.stats -> deepnets_bench.data",
    ),
    "deepnets_bench/compiler/rows.py": (
        "import deepnets_bench.compiler.cells",
        "No cycles are allowed in deepnets_bench.compiler",
    ),
    "deepnets_bench/stray.py": ("", "deepnets_bench.stray"),
}


@pytest.mark.parametrize("file", PLANTED)
def test_a_planted_import_fails(copy: Path, file: str) -> None:
    line, broken = PLANTED[file]
    with (copy / file).open("a") as source:
        source.write(f"\n{line}\n")
    done = check(copy)
    assert done.returncode == 1
    assert broken in done.stdout

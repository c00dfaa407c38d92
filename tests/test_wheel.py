"""The wheel, of which an editable installation tells nothing: it is whole, and works without extras."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {  # folder of the repository → folder of the wheel
    "deepnets_bench": "deepnets_bench",
    "generators": "deepnets_bench/generators",
    "baselines": "deepnets_bench/baselines",
}
IGNORED = shutil.ignore_patterns("__pycache__")
# Code that runs before all else in the new environment: what only extras bring is not there.
WITHOUT_EXTRAS = """
import sys
from importlib.abc import MetaPathFinder

EXTRAS = {"dask", "dgl", "distributed", "matplotlib", "tensorboard", "torchvision"}

class WithoutExtras(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in EXTRAS:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, WithoutExtras())
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("setuptools", minversion="77")
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, source / package, ignore=IGNORED)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "-w", str(target), str(source)], check=True)
    (built,) = target.iterdir()
    return built


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of a virtual environment with the wheel, our dependencies and no extras.

    The dependencies are those of this environment, whose own .pth files, an editable installation among them,
    Python does not read for a path that a .pth file names.
    """
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder)
    programs = folder / "bin"
    pip = [sys.executable, "-m", "pip", "--python", str(programs / "python")]
    subprocess.run([*pip, "install", "-q", "--no-index", "--no-deps", str(wheel)], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "without_extras.py").write_text(WITHOUT_EXTRAS)
    (packages / "dependencies.pth").write_text("import without_extras\n" + "\n".join(dependencies()) + "\n")
    return programs


def dependencies() -> list[str]:
    """Where the packages that we need are, in this environment."""
    import numpy

    return list(dict.fromkeys([sysconfig.get_path("purelib"), str(Path(numpy.__file__).parents[1])]))


def test_every_module_and_data_file_is_in_it(wheel: Path) -> None:
    held = set(zipfile.ZipFile(wheel).namelist())
    for package, place in PACKAGES.items():
        for path in (ROOT / package).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                assert f"{place}/{path.relative_to(ROOT / package).as_posix()}" in held


@pytest.mark.wheel
def test_it_generates_runs_and_shows_without_extras(environment: Path, tmp_path: Path) -> None:
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [str(environment / "deepnets-bench"), *arguments],
            cwd=tmp_path,
            env=variables,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = "import deepnets_bench.generators as g; print(g.__file__)"
    python = [str(environment / "python"), "-c", where]
    found = subprocess.run(python, cwd=tmp_path, env=variables, capture_output=True, text=True, check=True)
    assert str(environment.parent) in found.stdout
    assert "ready" in run("generate", "--split", "val", "--num", "3", "--out", "data")
    run("run", "--gnn", "mlp", "--smoke", "--seeds", "0", "--data", "data", "--out", "out")
    assert "mlp" in run("leaderboard", "show", "--results", "out/results.csv", "--smoke")

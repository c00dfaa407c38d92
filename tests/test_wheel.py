"""Source distribution and wheel, of which an editable installation tells nothing: both are whole."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
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
BESIDE = (  # in the source distribution and not in the wheel
    *("CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "MANIFEST.in", "Makefile", "constraints.txt"),
    *("docs/build.py", "docs/protocol.md", "mkdocs.yml", "tests/conftest.py", "tests/test_wheel.py"),
)
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

# Every public name as its types say it is used.
SCRIPT = """
from pathlib import Path

import torch
from torch import Tensor, nn

import deepnets_bench as dnb
from deepnets_bench.generators import generate, sample
from deepnets_bench.gnn import register
from deepnets_bench.predefined import DARTS


class MyGNN(nn.Module):
    edges = "both"

    def __init__(self, dim: int, depth: int = 2) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(dim, dim) for _ in range(depth))

    def forward(self, x: Tensor, batch: dnb.GraphBatch) -> Tensor:
        for layer in self.layers:
            x = torch.relu(layer(x))
        return x


def widths(arch: dnb.Architecture, graph: dnb.ComputationGraph) -> list[int]:
    net: dnb.Network = arch.build(width=32, image_size=32, num_classes=10, fc_dim=None)
    program: dnb.Program = arch.program(width=32)
    return [graph.num_nodes, program.num_params, len(list(net.parameters()))]


def predicted(ghn: dnb.GHN, arch: dnb.Architecture) -> Tensor:
    params: dict[str, Tensor] = ghn.predict(arch, width=32, image_size=32, num_classes=10, fc_dim=None)
    return arch.build(width=32).run(torch.rand(2, 3, 32, 32), params)


genotype: dnb.Genotype = DARTS
arch = dnb.Architecture(genotype, n_cells=8)
fingerprint: str = dnb.Architecture.from_dict(arch.to_dict()).fingerprint()
graph = arch.graph(width=32)
edge_index, distance = graph.shortest_paths(cutoff=50)
print(graph.op, graph.cell, graph.param_name, graph.param_shape, edge_index.shape, distance.shape)
traced = dnb.ComputationGraph.from_module(nn.Linear(4, 2), input_shape=(4,))
print(widths(sample("deep", 0), traced), dnb.PRIMITIVES, dnb.CELL_OPS, fingerprint, dnb.__version__)
generate("wide", Path("data"), 10)
dataset = dnb.DeepNets1M("data", split="wide", virtual_edges=50)
register(dnb.GNNSpec("mine", MyGNN, edges="both"))

ghn = dnb.GHN.from_config("ghn2", gnn="gat", num_classes=10)
ghn.save("ghn.safetensors")
logits: Tensor = predicted(dnb.GHN.load("ghn.safetensors", trust=True), arch)
module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(7200, 10))
ghn.initialize(module)
dnb.recalibrate(module, [(torch.rand(2, 3, 32, 32), torch.zeros(2))])

bench = dnb.Benchmark("digits", data="data", quiet=True)
track: dnb.Track = bench.track
try:
    rows = bench.run(MyGNN, seeds=(0, 1), out="mine", options={"depth": 3}, smoke=True, device="cpu")
except dnb.RunFailed as error:
    print(error.exit_code)
except (dnb.UnknownName, dnb.CorruptFile, dnb.MissingExtra, dnb.BadInput, dnb.DeepNetsError) as error:
    print(error)
else:
    print(rows["accuracy_mean"].mean(), track.seeds)
fresh: dnb.GHN = bench.ghn(MyGNN, seed=0)
accuracies = bench.evaluate(fresh, splits=("test",), noise=0.1)
print(accuracies.groupby("split")["accuracy"].mean())
board = dnb.Leaderboard("mine", smoke=True)
print(board.rows, board.scores, board.ranking(), board.compare("gat", "mlp"), board.pairs("references"))
print(board.detectable(), board.notes)
texts: list[str] = [board.to_latex(), board.to_markdown(), board.to_html(), board.to_json()]
"""
WRONG = """
import deepnets_bench as dnb

dnb.Benchmark("digits").run(3.5, seeds="0")
dnb.Architecture.from_dict({}).graph(width="wide")
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution, as `make dist` builds it, from a copy of the repository."""
    pytest.importorskip("setuptools", minversion="77")
    copy, target = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("source")
    for folder in (*PACKAGES, "docs", "tests"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=IGNORED)
    for name in ("pyproject.toml", "README.md", "LICENSE", *(name for name in BESIDE if "/" not in name)):
        shutil.copy(ROOT / name, copy)
    build = f"from setuptools.build_meta import build_sdist; build_sdist({str(target)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=copy, check=True, stdout=subprocess.DEVNULL)
    (built,) = target.iterdir()
    return built


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("wheel")
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


def test_the_source_distribution_holds_all_that_a_release_is_made_from(source: Path) -> None:
    with tarfile.open(source) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    assert {*BESIDE, "pyproject.toml", "README.md", "LICENSE", "generators/recipes.py"} <= held
    assert not [name for name in held if name.startswith("leaderboards") or "__pycache__" in name]


def test_the_citation_is_of_this_version() -> None:
    yaml = pytest.importorskip("yaml")
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'\nversion = "{citation["version"]}"\n' in project
    assert citation["cff-version"] == "1.2.0"
    assert all(citation[key] for key in ("message", "title", "authors", "license"))


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


@pytest.mark.wheel
def test_a_users_script_passes_strict_type_checking(environment: Path, tmp_path: Path) -> None:
    pytest.importorskip("mypy", reason="needs the extra 'dev'")

    def check(script: str) -> str:
        (tmp_path / "script.py").write_text(script)
        command = [sys.executable, "-m", "mypy", "--strict", "--config-file", os.devnull]
        command += ["--python-executable", str(environment / "python"), "script.py"]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False).stdout

    assert check(SCRIPT) == "Success: no issues found in 1 source file\n"
    found = check(WRONG)  # and the types are seen, not Any
    assert 'has incompatible type "float"' in found
    assert 'incompatible type "str"; expected "int"' in found

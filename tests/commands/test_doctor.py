"""`deepnets-bench doctor`: right about what is there, alive whatever is absent or broken."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import deepnets_bench
from deepnets_bench.commands import doctor
from deepnets_bench.generators.generation import generate
from tests.commands.conftest import Run

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

EXTRA_MODULES = [(extra, module) for extra, modules in doctor.EXTRAS.items() for module in modules]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("dataset")
    generate(["val", "deep"], root, 4, workers=1)
    return root


def findings(data: Path, images: Path | None = None) -> dict[str, doctor.Finding]:
    return {finding.label: finding for finding in doctor.examine(data, images)}


def break_module(monkeypatch: pytest.MonkeyPatch, folder: Path, module: str, statement: str) -> None:
    (folder / f"{module}.py").write_text(statement + "\n")
    monkeypatch.syspath_prepend(folder)
    for name in [name for name in sys.modules if name.partition(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)


def test_a_whole_installation(dataset: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setenv("COLUMNS", "80")
    code, output, errors = run("doctor", "--data", dataset, "--images", dataset)
    assert (code, errors) == (0, "")
    lines = output.splitlines()
    for label, value in {
        "deepnets-bench": deepnets_bench.__version__,
        "python": sys.version.split()[0],
        "torch": torch.__version__.partition("+")[0],
        "threads": "cores usable",
        "kernels": r"\d+ of \d+ compiled",
        "disk": r"[\d,.]+ GB free in",
    }.items():
        assert any(re.match(rf"{label} +.*{value}", line) for line in lines), label
    assert "deep 4, val 4" in " ".join(output.split())
    assert "deep, val" in output  # folders of the images
    assert all(len(line) <= 80 for line in lines if str(dataset) not in line)
    assert len({re.match(r"\S+( \w+)? {2,}", line).end() for line in lines if line[0] != " "}) == 1  # type: ignore[union-attr]


def test_the_packages_are_those_of_the_project() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]

    def names(requirements: list[str]) -> set[str]:
        return {re.split(r"[\[<>=;]", line)[0].strip() for line in requirements}

    assert set(doctor.NEEDED) == names(project["dependencies"]) - {"tomli"}
    extras = project["optional-dependencies"]
    assert set(doctor.EXTRAS) == set(extras) - {"dev", "docs"}
    for extra, modules in doctor.EXTRAS.items():
        assert set(modules) >= names(extras[extra])


@pytest.mark.parametrize("distribution", doctor.NEEDED)
def test_a_needed_package_is_missing(
    distribution: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, doctor.NEEDED[distribution], None)
    finding = findings(tmp_path)[distribution]
    assert "missing" in finding.value
    assert finding.problem == f"{distribution} is missing; try: pip install {distribution}"


@pytest.mark.parametrize(("extra", "module"), EXTRA_MODULES)
def test_an_extra_is_missing(
    extra: str, module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "_DGL_BEFORE", (4, 0))
    monkeypatch.setitem(sys.modules, module, None)
    finding = findings(tmp_path)[f"extra {extra}"]
    assert "missing" in finding.value
    assert f'pip install "deepnets-bench[{extra}]"' in finding.value
    assert not finding.problem
    assert ("Python before 4.0" in finding.value) == (extra == "dgl")


def test_dgl_is_not_offered_to_a_python_it_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_DGL_BEFORE", (3, 9))
    monkeypatch.setitem(sys.modules, "dgl", None)
    assert findings(tmp_path)["extra dgl"].value == "missing; DGL needs Python before 3.9"


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("raise ImportError('undefined symbol: x')", "ImportError: undefined symbol: x"),
        ("raise OSError('libcudart.so.11.0: no such file')", "OSError: libcudart.so.11.0"),
        ("raise RuntimeError('one\\ntwo')", "RuntimeError: one"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("raise type('Odd', (BaseException,), {})", "Odd"),
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("def", "SyntaxError"),
    ],
)
def test_a_broken_package(
    statement: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_module(monkeypatch, tmp_path, "filelock", statement)
    break_module(monkeypatch, tmp_path, "jinja2", statement)
    found = findings(tmp_path)
    assert f"broken: {reason}" in found["filelock"].value
    assert found["filelock"].problem.endswith("; try: pip install --force-reinstall filelock")
    assert f"jinja2 broken: {reason}" in found["extra report"].value
    assert "matplotlib" not in found["extra report"].value
    assert not found["extra report"].problem


def test_nearly_everything_hidden(tmp_path: Path) -> None:
    hidden = {*doctor.NEEDED.values(), *(module for _, module in EXTRA_MODULES)}
    hidden -= {"typer", "rich", "pydantic"}  # the command line itself stands on them
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({sorted({*hidden, 'resource'})})); "
        "from deepnets_bench.cli import main; main()"
    )
    command = [sys.executable, "-c", code, "doctor", "--data", str(tmp_path / "none")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: torch is missing; try: pip install torch (")
    assert len(done.stderr.splitlines()) == 1
    assert "disk" in done.stdout
    assert "kernels            unknown (ModuleNotFoundError" in done.stdout


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda shard: shard.write_bytes(shard.read_bytes()[:-1]), "bytes instead of"),
        (lambda shard: shard.unlink(), "is missing; generate the split again."),
        (lambda shard: (shard.parent / "manifest.json").write_text("{}"), "is not a manifest"),
    ],
)
def test_damaged_data(damage, message: str, dataset: Path, tmp_path: Path, run: Run) -> None:
    root = Path(shutil.copytree(dataset, tmp_path / "data"))
    damage(next((root / "val").glob("*.h5")))
    code, output, errors = run("doctor", "--data", root)
    assert code == 1
    assert "deep 4, val damaged" in " ".join(output.split())
    assert errors.startswith("error: ")
    assert message in errors
    assert len(errors.splitlines()) == 1


def test_unfinished_and_absent_data_are_no_fault(dataset: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(dataset, tmp_path / "data"))
    (root / "val" / "manifest.json").unlink()
    finding = findings(root, tmp_path / "none")["data"]
    assert finding == doctor.Finding("data", f"{root}: deep 4, val unfinished")
    assert findings(tmp_path / "none")["data"].value.endswith(
        "none: no splits; `run` and `generate` make them"
    )
    assert findings(root, tmp_path / "none")["images"].value.endswith("none: there is no such folder")


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=3_000_000))
    finding = findings(tmp_path / "not" / "yet")["disk"]
    assert finding.value == f"0.0 GB free in {tmp_path}"
    assert (
        finding.problem == f"Only 3 MB are free in {tmp_path}; make room, or give another folder by --data."
    )


def test_devices_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    gpu = SimpleNamespace(name="NVIDIA H100", total_memory=80 * 2**30)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: gpu)
    value = findings(tmp_path)["devices"].value
    assert value.startswith("cuda:0 NVIDIA H100, 80 GiB; cuda:1 NVIDIA H100, 80 GiB (CUDA ")


def test_a_driver_that_fails_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    def fail() -> bool:
        raise RuntimeError("driver too old")

    monkeypatch.setattr(torch.cuda, "is_available", fail)
    assert findings(tmp_path)["devices"].value == "unknown (RuntimeError: driver too old)"

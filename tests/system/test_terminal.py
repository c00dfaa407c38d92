"""Output in encodings that lack our characters, and systems that lack what POSIX has."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from deepnets_bench.errors import RunFailed
from deepnets_bench.generators.generation import generate
from deepnets_bench.system.files import write_atomically
from deepnets_bench.system.processes import require_posix
from deepnets_bench.system.signals import interrupt_held_back
from deepnets_bench.system.terminal import _ascii


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    generate("val", folder, num=3)
    return folder


def command(encoding: str, *arguments: str) -> str:
    """What the command writes in an encoding; it must end well and have no traceback."""
    code = "from deepnets_bench.cli import main; main()"
    environment = os.environ | {"PYTHONIOENCODING": encoding, "COLUMNS": "120"}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, env=environment, check=False
    )
    assert (done.returncode, b"Traceback" in done.stderr) == (0, False), done.stderr
    return done.stdout.decode(encoding)


@pytest.mark.parametrize(
    ("encoding", "sign"),
    [("utf-8", "±"), ("latin-1", "±"), ("cp1252", "±"), ("cp932", "±"), ("ascii", "+/-")],
)
def test_tables_and_signs_survive(data: Path, encoding: str, sign: str) -> None:
    shown = command(encoding, "inspect", str(data))
    assert f"mean {sign} std over graphs" in shown
    assert "?" not in shown
    rule = "────" if encoding == "utf-8" else "----"
    assert any(rule in line for line in shown.splitlines())


@pytest.mark.parametrize(
    ("encoding", "arguments"),
    [
        ("latin-1", ("gnn", "list")),
        ("ascii", ("gnn", "list")),
        ("latin-1", ("track", "show", "digits")),
        ("ascii", ("run", "--help")),
    ],
)
def test_commands_end_well(encoding: str, arguments: tuple[str, ...]) -> None:
    assert len(command(encoding, *arguments)) > 500


@pytest.mark.parametrize(
    ("character", "plainer"),
    [("±", "+/-"), ("×", "x"), ("é", "e"), ("²", "2"), ("…", "~"), ("–", "-"), ("网", "?"), ("\udc80", "?")],
)
def test_plainer_characters(character: str, plainer: str) -> None:
    assert _ascii(character) == plainer


def test_without_the_module_resource_everything_imports() -> None:
    code = (
        "import sys; sys.modules['resource'] = None; "
        "import deepnets_bench.cli, deepnets_bench.harness.runs.scheduler, deepnets_bench.generators; "
        "from deepnets_bench.harness.runs.provenance import peak_memory_mb; print(peak_memory_mb())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "None\n"), done.stderr


def test_what_needs_posix_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    require_posix()
    monkeypatch.setattr(os, "name", "nt")
    with pytest.raises(RunFailed, match="needs Linux or macOS; on Windows"):
        require_posix()


def test_files_are_written_without_posix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    monkeypatch.delattr(signal, "pthread_sigmask")
    monkeypatch.setattr(os, "fsync", lambda descriptor: pytest.fail("Windows cannot sync what is read"))
    with interrupt_held_back(), monkeypatch.context() as on_windows:
        on_windows.setattr(os, "name", "nt")
        write_atomically(path, b"whole")
    assert path.read_bytes() == b"whole"

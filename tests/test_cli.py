"""The real command: version, help, errors as one sentence, and no heavy import where none is needed."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys

import pytest


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    code = "from deepnets_bench.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )


def test_version_and_help() -> None:
    assert command("--version").stdout.startswith("deepnets-bench ")
    shown = command("--help")
    assert shown.returncode == 0
    for name in ("generate", "verify", "inspect", "run", "eval", "gnn", "track", "leaderboard"):
        assert name in shown.stdout


def test_an_error_is_one_sentence_without_a_traceback() -> None:
    done = command("generate", "--split", "wid")
    assert done.returncode == 2
    assert "Did you mean 'wide'?" in done.stderr
    assert "Traceback" not in done.stderr
    debugged = command("--debug", "generate", "--split", "wid")
    assert "Traceback" in debugged.stderr
    assert debugged.returncode == 2


@pytest.mark.parametrize("statement", ["import deepnets_bench", "import deepnets_bench.cli"])
def test_light_imports_stay_light(statement: str) -> None:
    code = (
        f"import sys; {statement}; print({{'torch', 'torch_geometric', 'dgl', 'pandas'}} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_exports_resolve() -> None:
    import deepnets_bench

    for name in deepnets_bench.__all__:
        assert getattr(deepnets_bench, name) is not None
    declared = set(re.findall(r"^    from \S+ import \w+ as (\w+)$", inspect.getsource(deepnets_bench), re.M))
    assert declared == set(deepnets_bench.__all__) - {"__version__"}
    assert "Architecture" in dir(deepnets_bench)
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        _ = deepnets_bench.Nonsense

"""What the tests of commands share: the real command, run in this process."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from deepnets_bench.cli import main

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command in this process: (exit code, output, errors)."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["deepnets-bench", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            main()
        output, errors = capsys.readouterr()
        return int(exit_.value.code or 0), output, errors

    return run

"""GatedGNN's node loops for a GPU, without one: Triton's interpreter needs a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="PyTorch came without Triton")


def test_in_the_interpreter() -> None:
    path = Path(__file__).with_name("interpreted.py")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(path)]
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    finished = subprocess.run(
        command, cwd=path.parents[3], env=environment, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stdout

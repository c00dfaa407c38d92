"""`generate`, `verify` and `inspect` through the real command."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from deepnets_bench.data.manifest import MANIFEST
from deepnets_bench.generators import sample
from tests.commands.conftest import Run

COMMAND = [sys.executable, "-c", "from deepnets_bench.cli import main; main()"]


def test_generate_verify_inspect(run: Run, tmp_path: Path) -> None:
    code, output, errors = run("generate", "--split", "val,test,wide", "--num", 8, "--out", tmp_path)
    assert (code, "error" in errors) == (0, False)
    assert "val: 8 graphs" in output
    code, output, errors = run("verify", tmp_path)
    assert (code, "error" in errors) == (0, False)
    assert "is sound" in output
    assert "190.5 ± 94.4" in output
    code, output, errors = run("inspect", tmp_path)
    assert (code, "error" in errors) == (0, False)
    assert "190.5 ± 94.4" in output

    for path in (tmp_path / "val").glob("*.h5"):
        path.write_bytes(path.read_bytes()[:-1])
    (tmp_path / "test" / MANIFEST).unlink()
    code, output, errors = run("verify", tmp_path)
    assert code == 2
    assert "bytes instead of" in errors
    assert "holds shards but no manifest" in errors
    assert "sound" not in output


def test_inspect_an_architecture(run: Run, tmp_path: Path) -> None:
    arch = sample("val", 3)
    (tmp_path / "arch.json").write_text(json.dumps(arch.to_dict()))
    for name in ("val/3", tmp_path / "arch.json"):
        assert arch.fingerprint() in run("inspect", name)[1]
    (tmp_path / "arch.json").write_text("{")
    assert "not a JSON file" in run("inspect", tmp_path / "arch.json")[2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("generate", "--split", "vall"), "Unknown split 'vall'. Did you mean 'val'?"),
        (("generate", "--split", "val", "--num", "0"), "must be from 1 to"),
        (("generate", "--split", "val", "--num", "-5"), "must be from 1 to"),
        (("generate", "--split", "val", "--workers", "1", "--scheduler", "tcp://x:1"), "not both"),
        (("verify", "nothing/here"), "nothing/here holds no finished split"),
        (("inspect", f"val/{10**23}"), "The number of a graph must be from 0 to 9,223,372,036,854,775,807"),
        (("inspect", "nothing/here"), "is none of these: a dataset folder"),
    ],
)
def test_bad_input(arguments: tuple[str, ...], message: str, run: Run) -> None:
    code, _, errors = run(*arguments)
    assert code == 2
    assert message in errors
    assert errors.count("\n") == 1


@pytest.mark.parametrize(
    "signals", [[signal.SIGINT], [signal.SIGINT] * 3, [signal.SIGTERM]], ids=["ctrl-c", "thrice", "term"]
)
def test_an_interrupt_says_how_to_go_on_and_leaves_no_process(
    signals: list[signal.Signals], tmp_path: Path
) -> None:
    small = "from deepnets_bench.generators import generation; generation.SHARD_SIZE = 500; "
    command = [
        *COMMAND[:2],
        small + COMMAND[2],
        "generate",
        "--split",
        "train",
        "--num",
        "1000000",
        "--out",
        str(tmp_path),
    ]
    process = subprocess.Popen(
        [*command, "--workers", "2"],
        stderr=subprocess.PIPE,
        text=True,
        # A suite started in the background ignores Ctrl-C, and its children would inherit that.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
        start_new_session=True,
    )
    deadline = time.monotonic() + 60
    while not list(tmp_path.rglob("*.h5")) and time.monotonic() < deadline:
        time.sleep(0.05)
    for number in signals:
        # Ctrl-C reaches the workers too; a batch system's SIGTERM need not.
        (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
        time.sleep(0.05)
    _, errors = process.communicate(timeout=60)  # which waits for all that hold stderr, workers included
    assert process.returncode == 130
    assert "finished shards are kept, and the same command goes on from there" in errors
    assert "Traceback" not in errors
    assert list(tmp_path.rglob("*.h5"))
    assert not list(tmp_path.rglob("*.tmp")) + list(tmp_path.rglob(MANIFEST))


def test_no_torch_is_imported(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from deepnets_bench.cli import main\n"
        "try: main()\n"
        "except SystemExit: print({'torch', 'pandas', 'matplotlib'} & sys.modules.keys())"
    )
    arguments = ["generate", "--split", "val", "--num", "2", "--out", str(tmp_path)]
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (tmp_path / "val" / MANIFEST).exists()
    assert done.stdout.splitlines()[-1] == "set()"

"""`make gpu`: what only a GPU can show, in at most nine minutes, as one Markdown and one JSON file.

Run as `python tests/gpu/report.py --dir FOLDER [--wheels FOLDER]` by a Python with PyTorch for a GPU. Each
part runs in a process of its own with a time of its own, so that one that fails or hangs leaves the others'
figures. Nothing is installed into that Python and nothing is downloaded. No torch here.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
SECONDS = 520.0  # for all parts: with the start and the report less than nine minutes
RESULT = "RESULT "  # begins a line that a part prints for each of its figures
_TAIL = 4000  # characters that are kept of what a part prints
PROBE = (
    "import json, torch; ok = torch.cuda.is_available(); "
    "print(json.dumps({'torch': torch.__version__, 'cuda': torch.version.cuda, 'devices': "
    "[torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if ok else []}))"
)


@dataclass(frozen=True)
class Part:
    """A command with the seconds it may take."""

    name: str
    command: tuple[str, ...]
    limit: float


@dataclass
class Outcome:
    """How a part ended: ok, failed, timeout, or late where no time was left; and what it found until then."""

    name: str
    status: str
    seconds: float = 0.0
    figures: list[dict[str, Any]] = field(default_factory=list)
    output: str = ""  # the end of it, where the part did not end well


def parts(devices: int, folder: Path) -> list[Part]:
    """All parts, the ones with figures nobody has first, the longest last."""
    run = (sys.executable, "-m", "tests.gpu.parts")
    found = [
        Part(
            "tests",
            (
                sys.executable,
                "-m",
                "pytest",
                "-m",
                "cuda",
                "-p",
                "no:cacheprovider",
                "--override-ini",
                "addopts=",
                *_tests(),
            ),
            120,
        ),
        Part("gated", (*run, "gated"), 60),
        *(Part(f"step {gnn}", (*run, "step", gnn), 45) for gnn in ("ghn2", "ghn3", "gat")),
        Part("predict", (*run, "predict"), 45),
    ]
    if devices > 1:
        found.append(Part("nccl", (*run, "nccl"), 45))
    for gnn in ("mlp", "gat"):
        found.append(Part(f"digits {gnn}", (*run, "digits", gnn, str(folder)), 240))
    return found


def _tests() -> list[str]:
    """The files with tests that need a GPU: others may import what this Python lacks."""
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    marked = [path for path in files if "@pytest.mark.cuda" in path.read_text(encoding="utf-8")]
    return [path.relative_to(ROOT).as_posix() for path in marked]


def run_parts(
    chosen: Sequence[Part], tree: Path, environment: dict[str, str], seconds: float = SECONDS
) -> list[Outcome]:
    """Run the parts one after the other in `tree`, each within its own time and what is left of `seconds`."""
    end = time.monotonic() + seconds
    outcomes = []
    for part in chosen:
        left = min(part.limit, end - time.monotonic())
        outcome = _run(part, tree, environment, left) if left > 1 else Outcome(part.name, "late")
        print(f"{part.name}: {outcome.status} after {outcome.seconds:.0f} s", flush=True)
        outcomes.append(outcome)
    return outcomes


def _run(part: Part, tree: Path, environment: dict[str, str], limit: float) -> Outcome:
    started = time.monotonic()
    process = subprocess.Popen(
        part.command,
        cwd=tree,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,  # so that its children end with it
    )
    try:
        output, _ = process.communicate(timeout=limit)
        status = "failed" if process.returncode else "ok"
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        status = "timeout"
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    lines = output.splitlines()
    figures = [json.loads(line.removeprefix(RESULT)) for line in lines if line.startswith(RESULT)]
    text = "" if status == "ok" else output[-_TAIL:]
    return Outcome(part.name, status, round(time.monotonic() - started, 1), figures, text)


def write_report(folder: Path, machine: dict[str, Any], outcomes: Sequence[Outcome]) -> None:
    """report.json and report.md."""
    content = {**machine, "parts": [asdict(outcome) for outcome in outcomes]}
    (folder / "report.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    (folder / "report.md").write_text(markdown(machine, outcomes), encoding="utf-8")


def markdown(machine: dict[str, Any], outcomes: Sequence[Outcome]) -> str:
    """The report for people: a section a part, with a table of its figures."""
    versions = f"PyTorch {machine['torch']} for CUDA {machine['cuda']}"
    lines = [
        f"# {', '.join(machine['devices'])}",
        "",
        f"{versions}, commit {machine['commit'] or 'unknown'}.",
    ]
    for outcome in outcomes:
        lines += ["", f"## {outcome.name}: {outcome.status}, {outcome.seconds:.0f} s"]
        columns = list(dict.fromkeys(key for figure in outcome.figures for key in figure))
        if columns:
            lines += ["", _row(columns), _row(["---"] * len(columns))]
            lines += [_row([figure.get(key, "") for key in columns]) for figure in outcome.figures]
        if outcome.output:
            lines += ["", "```", outcome.output.strip(), "```"]
    return "\n".join(lines) + "\n"


def _row(cells: Sequence[Any]) -> str:
    texts = [f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in cells]
    return f"| {' | '.join(texts)} |"


def probe() -> dict[str, Any] | str:
    """Versions and GPUs as this Python's PyTorch sees them, or what is wrong in one line."""
    done = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, check=False)
    if done.returncode:
        return f"{sys.executable} has no PyTorch that imports: give another one, make gpu PYTHON=..."
    machine: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    if not machine["devices"]:
        return f"PyTorch {machine['torch']} sees no GPU on this machine: make gpu needs one."
    version = tuple(int(part) for part in machine["torch"].split("+")[0].split(".")[:2] if part.isdecimal())
    if version < (2, 11):
        return f"make gpu needs PyTorch from 2.11 on, not {machine['torch']}."
    return machine


def stage(folder: Path, wheels: Path | None) -> tuple[Path, dict[str, str]]:
    """Where the parts run, and their environment: this tree as if it were installed, and the wheels beside.

    pyproject.toml maps generators and baselines into the package, which a Python from outside does not know.
    """
    tree = folder / "tree"
    shutil.rmtree(tree, ignore_errors=True)
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("deepnets_bench", "tests", "leaderboards"):
        shutil.copytree(ROOT / name, tree / name, ignore=ignored)
    for name in ("generators", "baselines"):
        shutil.copytree(ROOT / name, tree / "deepnets_bench" / name, ignore=ignored)
    (tree / "tests" / "conftest.py").unlink()  # settings of hypothesis, which no test on a GPU needs
    shutil.copy(ROOT / "pyproject.toml", tree)
    for wheel in sorted(wheels.glob("*.whl")) if wheels else ():
        zipfile.ZipFile(wheel).extractall(tree)
    path = os.pathsep.join(filter(None, [str(tree), os.environ.get("PYTHONPATH", "")]))
    threads = os.environ.get("OMP_NUM_THREADS", "1")
    return tree, os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": threads}


def _commit() -> str:
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--dir", type=Path, default=Path("gpu-report"))
    parser.add_argument("--wheels", type=Path)
    arguments = parser.parse_args()
    machine = probe()
    if isinstance(machine, str):
        print(machine, file=sys.stderr)
        return 2
    if arguments.wheels and not arguments.wheels.is_dir():
        print(f"There is no folder {arguments.wheels} of wheels.", file=sys.stderr)
        return 2
    folder = arguments.dir.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    machine["commit"] = _commit()
    chosen = parts(len(machine["devices"]), folder)
    outcomes = run_parts(chosen, *stage(folder, arguments.wheels))
    write_report(folder, machine, outcomes)
    print(f"Written to {folder / 'report.md'} and report.json.")
    return 0 if all(outcome.status == "ok" for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())

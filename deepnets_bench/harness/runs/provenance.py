"""Provenance of a result: package and library versions, git commit, device, time, peak memory (no torch)."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Iterable
from datetime import datetime, timezone
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import deepnets_bench
from deepnets_bench.system.processes import usable_cores

try:
    import resource
except ImportError:  # not a POSIX system
    resource = None  # type: ignore[assignment]

_SOURCES = (".", "../generators", "../baselines")  # as in the repository, seen from the package's folder


def versions() -> dict[str, str]:
    """The columns package_version, git_commit, torch_version, pyg_version and dgl_version of a result row."""
    return {
        "package_version": deepnets_bench.__version__,
        "git_commit": git_commit(),
        "torch_version": _installed("torch"),
        "pyg_version": _installed("torch_geometric"),
        "dgl_version": _installed("dgl"),
    }


def stamp() -> dict[str, str]:
    """The columns package_version, git_commit, torch_version, device and timestamp of a measurement."""
    return {**_stack(), "timestamp": utc_now()}


@cache
def _stack() -> dict[str, str]:
    """Looked up once a process, whose code stays what it was when it was loaded: it asks git three times."""
    found = versions()
    names = ("package_version", "git_commit", "torch_version")
    return {**{name: found[name] for name in names}, "device": cpu_name()}


def git_commit(folder: Path | None = None) -> str:
    """The commit the package is run from, '' outside a repository.

    It ends in '-dirty' if a file of the package, generators and baselines included, is not as committed.
    `folder` is the package's, found by itself when not given.
    """
    folder = folder or Path(deepnets_bench.__file__).parent
    try:
        # A package installed into an environment inside some repository is no part of that repository.
        _git(folder, "ls-files", "--error-unmatch", "__init__.py")
        commit = _git(folder, "rev-parse", "HEAD")
        changed = _git(folder, "status", "--porcelain", "--", *_SOURCES)
    except (OSError, subprocess.SubprocessError):
        return ""
    return f"{commit}-dirty" if changed else commit


def other_code(commits: Iterable[str], folder: Path | None = None) -> list[str]:
    """Those of `commits` at which the package, generators and baselines are not as at the first of them.

    Commits that the repository of the package (in `folder`, as in `git_commit`) does not have are left out.
    """
    folder = folder or Path(deepnets_bench.__file__).parent
    first, different = "", []
    for commit in dict.fromkeys(commit.removesuffix("-dirty") for commit in commits):
        try:
            _git(folder, "cat-file", "-e", f"{commit}^{{commit}}")
        except (OSError, subprocess.SubprocessError):
            continue
        first = first or commit
        try:
            _git(folder, "diff", "--quiet", first, commit, "--", *_SOURCES)
        except subprocess.CalledProcessError:
            different.append(commit)
    return different


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    done = subprocess.run(
        command, capture_output=True, encoding="utf-8", errors="replace", timeout=10, check=True
    )
    return done.stdout.strip()


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def cpu_name() -> str:
    """The processor's model and the number of cores this process may use, e.g. "AMD EPYC 7B13 (2 cores)"."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass  # not Linux, or a processor without a model name: the general one stays
    return f"{name} ({usable_cores()} cores)"


def utc_now() -> str:
    """The time in UTC, as result rows hold it."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def peak_memory_mb() -> float | None:
    """Largest resident memory of this process so far, in MB (10^6 bytes); None where unknown."""
    if resource is None:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e6

"""Processes: a program that carries out a request of this one, reports by a pipe and ends with it; cores."""

from __future__ import annotations

import contextlib
import importlib
import json
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from deepnets_bench.errors import RunFailed
from deepnets_bench.system.terminal import show_in_any_encoding

GRACE_SECONDS = 30.0  # for a process that was asked to stop to save its checkpoint

# The import path is handed over before anything is imported: Python would put the working directory first.
_BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from deepnets_bench.system.processes import serve; serve(*sys.argv[2:])"
)
Request = TypeVar("Request")


def require_posix() -> None:
    """Raise `RunFailed` where programs cannot be started, watched and ended as here."""
    if os.name != "posix":
        raise RunFailed(
            "Training runs in processes of its own, which needs Linux or macOS; on Windows, run it "
            "in the Windows Subsystem for Linux (WSL)."
        )


def start(
    function: Callable[[Request, Connection], None],
    request: Request,
    path: Sequence[str] | None = None,
    **options: Any,
) -> tuple[Connection, subprocess.Popen[bytes]]:
    """Call `function(request, sender)` in a new process; returns what it sends, and the process.

    A program, not a `multiprocessing.Process`: Dask's workers may not have children of that kind. `path` is
    its import path, ours when not given; `options` are those of `Popen`. Its input is open as long as we
    live, which tells it that we do. Raises `OSError`.
    """
    receiver, sender = multiprocessing.Pipe(duplex=False)
    place = [function.__module__, function.__name__, str(sender.fileno())]
    command = [sys.executable, "-c", _BOOT, json.dumps(sys.path if path is None else path), *place]
    try:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=(sender.fileno(),), **options)
    finally:
        sender.close()
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # if it ended already, its exit code says so
        pickle.dump(request, process.stdin)
        process.stdin.flush()
    return receiver, process


def serve(module: str, name: str, descriptor: str) -> None:
    """The other side of `start`. Standard input is empty for `function`, which must never wait for it."""
    show_in_any_encoding()
    function = getattr(importlib.import_module(module), name)
    requests = os.dup(0)
    with open(requests, "rb", closefd=False) as file:
        request = pickle.load(file)
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    threading.Thread(target=_end_with_parent, args=(requests,), daemon=True).start()
    function(request, Connection(int(descriptor), readable=False))


def _end_with_parent(requests: int) -> None:
    """Stop as if asked to when the process that started this one is gone, whatever became of it."""
    os.read(requests, 1)  # not a file object's read, whose lock a thread must not hold when Python ends
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    os._exit(1)


def ending(code: int, what: str = "its process") -> str:
    """Why a process that had not finished is gone, from its exit code."""
    if code < 0:
        hint = ", perhaps for want of memory" if -code == signal.SIGKILL else ""
        return f"{what} was ended by {signal.Signals(-code).name}{hint}"
    return f"{what} ended with exit code {code} before it had finished"


def usable_cores() -> int:
    """The number of cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

"""Ranks: the processes of a job that trains on several devices of this machine; they end together."""

from __future__ import annotations

import contextlib
import math
import os
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Collection, Mapping, MutableMapping
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from deepnets_bench.errors import BadInput, DeepNetsError, RunFailed, reason_of
from deepnets_bench.gnn.importing import inherited_path
from deepnets_bench.harness.runs.job import Job, carry_out
from deepnets_bench.harness.runs.options import RunOptions
from deepnets_bench.harness.training.progress import JobProgress, Report
from deepnets_bench.harness.training.splits import Dataset
from deepnets_bench.leaderboard.results import ResultRow
from deepnets_bench.system.processes import ending, start
from deepnets_bench.system.signals import termination_as_interrupt

_GRACE_SECONDS = 20.0  # for ranks that were asked to stop; below what the runner grants the whole job
_ROOT_CAUSE_SECONDS = 2.0  # in which the rank that failed first is heard of, after those it took along
_INTERRUPTED = 130  # exit code of a rank that stopped because it was asked to


@dataclass(frozen=True)
class _Failure:
    """Why a rank failed; `lost` says that it only noticed the end of another one."""

    error: DeepNetsError
    lost: bool = False


def run_ranks(
    job: Job, dataset: Dataset, out: Path, options: RunOptions, report: Report | None = None
) -> list[ResultRow]:
    """Carry out a job with `options.devices` processes, one a GPU or, on the CPU, all on its cores.

    Ends when the first process, which evaluates alone, does, and sooner when any of them fails: then the
    others are ended, and the error is that of the first to fail. Ctrl-C and SIGTERM stop all of them after
    their current step, one checkpoint saved, and are raised as `KeyboardInterrupt`.
    """
    device, size = options.device, options.devices
    if device.startswith("cuda:"):
        raise BadInput(f"{size} devices are the GPUs from cuda:0 on: give --device cuda, not {device}.")
    ranks: dict[Connection, subprocess.Popen[bytes]] = {}
    with termination_as_interrupt():
        try:
            port = _free_port()
            for rank in range(size):
                request = (job, dataset, out, options), (rank, size, port)
                connection, process = start(_work, request, inherited_path())
                ranks[connection] = process
            return _follow(ranks, report)
        except KeyboardInterrupt:
            _stop(ranks.values())
            raise
        finally:
            for connection, process in ranks.items():
                process.kill()
                process.wait()
                connection.close()
                if process.stdin:
                    process.stdin.close()


def _follow(ranks: Mapping[Connection, subprocess.Popen[bytes]], report: Report | None) -> list[ResultRow]:
    """Pass on the progress until all ranks have ended; the rows, or the error of the first to fail."""
    rows: list[ResultRow] = []
    running = dict(ranks)
    failures: dict[Connection, _Failure] = {}
    interrupted = False
    deadline = math.inf
    while running and time.monotonic() < deadline and all(failure.lost for failure in failures.values()):
        timeout = None if math.isinf(deadline) else max(0.0, deadline - time.monotonic())
        for connection in wait(list(running), timeout):
            assert isinstance(connection, Connection)
            try:
                message = connection.recv()
            except (EOFError, OSError):
                code = running.pop(connection).wait()
                if code == _INTERRUPTED:
                    interrupted, deadline = True, time.monotonic() + _GRACE_SECONDS
                elif code and connection not in failures:
                    failures[connection] = _Failure(RunFailed(ending(code, "one of its processes")))
                continue
            if isinstance(message, _Failure):
                failures[connection] = message
                deadline = min(deadline, time.monotonic() + _ROOT_CAUSE_SECONDS)
            elif isinstance(message, JobProgress):
                if report:
                    report(message)
            else:
                rows = rows or message
    for failure in sorted(failures.values(), key=lambda failure: failure.lost):
        if failure.lost and interrupted:
            break
        raise failure.error
    if interrupted:
        raise KeyboardInterrupt
    return rows


def _work(request: tuple[Any, ...], sender: Connection) -> None:
    """What a rank does: its share of the training, and for the first one the evaluation."""
    from deepnets_bench.harness.training.distributed import LostProcess, Rank

    (job, dataset, out, options), process = request
    code = 0
    try:
        sender.send(carry_out(job, dataset, out, options, sender.send, Rank(*process)))
    except KeyboardInterrupt:
        code = _INTERRUPTED
    except BaseException as error:
        code = 1
        traceback.print_exc()
        kind = BadInput if isinstance(error, BadInput) else RunFailed
        with contextlib.suppress(BrokenPipeError):
            sender.send(_Failure(kind(reason_of(error)), isinstance(error, LostProcess)))
    if code:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # at once: tidying up would wait for the other ranks


def _stop(processes: Collection[subprocess.Popen[bytes]]) -> None:
    """Ask what still runs to stop, which saves the checkpoint, and wait for it, but not for ever."""
    deadline = time.monotonic() + _GRACE_SECONDS
    for process in processes:
        process.terminate()
    for process in processes:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(0.1, deadline - time.monotonic()))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def under_torchrun(environment: MutableMapping[str, str]) -> tuple[int, int] | None:
    """(rank, processes) of a command that torchrun started, whose variables are taken away; else None.

    Raises `BadInput` for processes on several machines.
    """
    if "TORCHELASTIC_RUN_ID" not in environment:
        return None
    rank, size = int(environment["RANK"]), int(environment["WORLD_SIZE"])
    if int(environment["LOCAL_WORLD_SIZE"]) != size:
        raise BadInput(
            "A job trains on the devices of one machine: start torchrun with one node, or spread jobs over "
            "machines with --scheduler."
        )
    for name in [*_TORCHRUN, *(name for name in environment if name.startswith("TORCHELASTIC_"))]:
        environment.pop(name, None)
    return rank, size


_TORCHRUN = (
    "RANK",
    "WORLD_SIZE",
    "LOCAL_RANK",
    "LOCAL_WORLD_SIZE",
    "GROUP_RANK",
    "GROUP_WORLD_SIZE",
    "ROLE_RANK",
    "ROLE_WORLD_SIZE",
    "ROLE_NAME",
    "MASTER_ADDR",
    "MASTER_PORT",
)

"""Processes that carry out a request: what they get and send, and that none outlives its starter."""

from __future__ import annotations

import os
import signal
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from deepnets_bench.system.processes import ending, start


def describe(request: dict[str, int], sender: Connection) -> None:
    sender.send((request, os.getcwd(), sys.path, sys.stdin.read()))


def sleep_on(_request: None, sender: Connection) -> None:
    sender.send(os.getpid())
    time.sleep(1000)


def start_another(_request: None, sender: Connection) -> None:
    receiver, _process = start(sleep_on, None)
    sender.send(receiver.recv())
    time.sleep(1000)


def alive(process: int) -> bool:
    """False for a zombie too, which waits for an init that a container may lack."""
    try:
        status = Path(f"/proc/{process}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def ends(process: int) -> bool:
    """Whether it does within half a minute."""
    deadline = time.monotonic() + 30
    while alive(process) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not alive(process)


def test_a_request_is_answered_with_the_import_path_of_this_process_and_no_input(tmp_path: Path) -> None:
    request = {str(number): number for number in range(50_000)}  # more than a pipe holds
    receiver, process = start(describe, request, cwd=tmp_path)
    assert receiver.recv() == (request, str(tmp_path), sys.path, "")
    assert process.wait(30) == 0


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_a_process_ends_when_the_one_that_started_it_is_killed() -> None:
    receiver, parent = start(start_another, None)
    child = receiver.recv()
    assert alive(child)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    assert ends(child)


def test_endings_in_words() -> None:
    assert ending(-9) == "its process was ended by SIGKILL, perhaps for want of memory"
    assert ending(-11, "rank 1") == "rank 1 was ended by SIGSEGV"
    assert ending(3) == "its process ended with exit code 3 before it had finished"

"""The pool: results and errors as they come, and an interrupt that leaves no future locked."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from deepnets_bench.system.pool import carried_out
from deepnets_bench.system.processes import start
from tests.system.test_processes import alive, ends


def square(number: int) -> int:
    if number < 0:
        raise ValueError(f"{number} is negative")
    if number == 13:
        os._exit(1)
    return number * number


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_and_errors_after_them(workers: int) -> None:
    assert sorted(carried_out(square, range(5), workers, None)) == [0, 1, 4, 9, 16]
    assert list(carried_out(square, [], workers, None)) == []
    with pytest.raises(ValueError, match="-1 is negative"):
        list(carried_out(square, [1, 2, -1], workers, None))


def test_a_process_that_died_breaks_the_pool() -> None:
    with pytest.raises(BrokenExecutor):
        list(carried_out(square, [13, 14], 2, None))


def test_an_executor_of_the_caller_stays_open() -> None:
    with ThreadPoolExecutor(2) as executor:
        results = carried_out(square, range(4), 1, executor)
        assert next(results) in (0, 1, 4, 9)
        results.close()
        assert executor.submit(square, 3).result() == 9


def blocked(number: int) -> set[int]:
    return signal.pthread_sigmask(signal.SIG_BLOCK, [])


def sleep(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def test_closed_early_it_ends_its_processes() -> None:
    results = carried_out(sleep, [0, 600, 600, 600], 2, None)
    begun = time.monotonic()
    assert next(results) == 0
    results.close()
    assert time.monotonic() - begun < 300
    assert not multiprocessing.active_children()


def test_signals_to_the_group_do_not_reach_the_processes() -> None:
    for mask in carried_out(blocked, [1, 2], 2, None):
        assert mask >= {signal.SIGINT, signal.SIGTERM}


def use_a_pool(_request: None, sender: Connection) -> None:
    results = carried_out(pid, [0, 600], 2, None)
    sender.send(next(results))
    next(results)


def pid(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_processes_end_with_their_parent() -> None:
    receiver, parent = start(use_a_pool, None)
    child = receiver.recv()
    assert alive(child)
    parent.kill()
    parent.wait()
    assert ends(child)


class Interrupted(threading.Condition):
    """The lock of a future, which an interrupt meets whenever it is taken by `acquire`, and just then."""

    def __init__(self) -> None:
        super().__init__()
        take = self.acquire

        def acquire() -> None:
            take()
            raise KeyboardInterrupt

        self.acquire = acquire


class Idle(Executor):
    """An executor that finishes nothing by itself."""

    def __init__(self) -> None:
        self.futures: list[Future[int]] = []

    def submit(self, fn: object, /, *args: object, **kwargs: object) -> Future[int]:
        future: Future[int] = Future()
        future._condition = Interrupted()
        future.set_running_or_notify_cancel()
        self.futures.append(future)
        return future


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Ctrl-C is an exception, also in a suite that was started in the background, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_an_interrupt_leaves_no_future_locked() -> None:
    """`concurrent.futures.wait` would: who then finishes the future waits for ever, and the pool for him."""
    idle = Idle()
    timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        list(carried_out(square, range(3), 1, idle))
    timer.cancel()
    worker = threading.Thread(target=idle.futures[0].set_result, args=(0,), daemon=True)
    worker.start()
    worker.join(10)
    assert not worker.is_alive()

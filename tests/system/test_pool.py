"""The pool: results and errors as they come, and an interrupt that leaves no future locked."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor

import pytest

from deepnets_bench.system.pool import carried_out


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

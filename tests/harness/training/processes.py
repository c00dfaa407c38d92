"""Trainings in processes of their own, which may be many, may meet, and may be killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

# The server imports PyTorch once, computes nothing, and is forked for every process.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.harness.training.processes", "tests.harness.training.test_trainer"])


class Killed:
    """The result of a process that a signal ended."""

    def __init__(self, number: int) -> None:
        self.signal = number


def run_together(function: Callable[..., Any], arguments: list[tuple[Any, ...]]) -> list[Any]:
    """What `function` returns for each of the arguments, in as many processes at a time.

    `Killed` for one that was ended by a signal, the exception for one that raised.
    """
    running = []
    for each in arguments:
        receiver, sender = CONTEXT.Pipe(duplex=False)
        process = CONTEXT.Process(target=_call, args=(sender, function, each), daemon=True)
        process.start()
        sender.close()
        running.append((receiver, process))
    results = []
    for receiver, process in running:
        try:
            assert receiver.poll(120), "a process does not end"
            results.append(receiver.recv())
        except EOFError:
            process.join()
            assert process.exitcode is not None
            results.append(Killed(-process.exitcode))
        process.join()
    return results


def _call(sender: Any, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    try:
        sender.send(function(*arguments))
    except BaseException as error:
        traceback.print_exc()
        sender.send(error)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def killing(step: int | None) -> Callable[[Any], None]:
    """A `report` that ends its own process after a step, without a chance to tidy up."""

    def report(progress: Any) -> None:
        if progress.step == step:
            os.kill(os.getpid(), signal.SIGKILL)

    return report


def train(track: Any, architectures: dict[str, Any], folder: Path | None, **options: Any) -> dict[str, Any]:
    """Train a tiny hypernetwork, from its newest checkpoint on if there is one; its weights and state.

    `process` is that of `Compute`, `kill_at` the step after which the process is killed, `interrupt_at` that
    after which it gets SIGTERM, `patch` a function that is called with the trainer.
    """
    from deepnets_bench.harness.training.distributed import Compute, Rank
    from tests.harness.training.test_trainer import make_trainer, weights

    process = Rank(*options.get("process", ()))
    trainer = make_trainer(
        track,
        architectures,
        compute=Compute("cpu", track.training.precision, process),
        folder=folder,
        report=killing(options.get("kill_at")),
    )
    if patch := options.get("patch"):
        patch(trainer)
    start = trainer.resume()
    interrupted = False
    try:
        trainer.run()
    except KeyboardInterrupt:
        interrupted = True
    return {
        "start": start,
        "weights": weights(trainer).numpy(),
        "state": trainer.state,
        "interrupted": interrupted,
    }

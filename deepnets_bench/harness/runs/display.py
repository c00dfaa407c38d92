"""Views of running jobs: a bar for each on a terminal, lines of text elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Column

from deepnets_bench.harness.runs.scheduler import View
from deepnets_bench.harness.runs.worker import Outcome
from deepnets_bench.harness.training.progress import JobProgress

_LINE_SECONDS = 10.0


@contextmanager
def view(console: Console) -> Iterator[View]:
    """Bars if `console` is a terminal, else lines."""
    if not console.is_terminal:
        yield Lines(console)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn(
            "{task.fields[text]}", table_column=Column()
        ),  # one that wraps where the terminal is narrow
    )
    with Progress(*columns, console=console) as progress:
        yield Bars(progress)


def outcome_line(outcome: Outcome) -> str:
    """How a job ended, in one line."""
    reason = f": {outcome.reason} (log: {outcome.log})" if outcome.reason else ""
    return f"{outcome.job.name}: {outcome.status} after {outcome.seconds:.0f} s{reason}"


class Bars:
    """One bar per running job, which starts over at each phase."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, tuple[TaskID, str]] = {}

    def update(self, name: str, progress: JobProgress) -> None:
        """Move the bar of a job."""
        task, phase = self._tasks.get(name, (None, ""))
        if task is None or phase != progress.phase:
            if task is not None:
                self._progress.remove_task(task)
            # What a resumed training had done before says nothing of the time that is left.
            done, total = progress.done, progress.total
            label = escape(f"{name} · {progress.phase}")
            task = self._progress.add_task(label, completed=done, total=total, text="")
            self._tasks[name] = task, progress.phase
        text = escape(progress.text)
        self._progress.update(task, completed=progress.done, total=progress.total, text=text)

    def finish(self, outcome: Outcome) -> None:
        """Replace the bar by a line."""
        task, _ = self._tasks.pop(outcome.job.name, (None, ""))
        if task is not None:
            self._progress.remove_task(task)
        self._progress.console.print(escape(outcome_line(outcome)), highlight=False, soft_wrap=True)


class Lines:
    """A line per job every ten seconds, and at the end of each phase."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._phases: dict[str, tuple[str, float, int]] = {}  # phase, its start, what was done at the start
        self._printed: dict[str, float] = {}

    def update(self, name: str, progress: JobProgress) -> None:
        """Print a line if it is time to."""
        now = time.monotonic()
        phase, started, first = self._phases.get(name, ("", now, 0))
        if phase != progress.phase:
            started, first = now, progress.done
            self._phases[name] = progress.phase, started, first
        ended = progress.done == progress.total
        if not ended and now - self._printed.get(name, 0.0) < _LINE_SECONDS:
            return
        self._printed[name] = now
        left = ""
        if not ended and progress.done > first:
            seconds = (now - started) / (progress.done - first) * (progress.total - progress.done)
            left = f", {seconds:.0f} s left"
        self._line(f"{name}: {progress.phase} {progress.done}/{progress.total} {progress.text}{left}")

    def finish(self, outcome: Outcome) -> None:
        """Print how a job ended."""
        self._line(outcome_line(outcome))

    def _line(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

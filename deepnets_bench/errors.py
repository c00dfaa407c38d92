"""Errors that become one clear sentence and an exit code on the command line."""

from __future__ import annotations

import sysconfig
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from traceback import walk_tb

_LONGEST = 2000  # of a message
_MOST_CHOICES = 40  # in a message


class DeepNetsError(Exception):
    """Base of every error this package raises on purpose; `exit_code` is what the command line returns."""

    exit_code = 1

    def __init__(self, message: str = "") -> None:
        super().__init__(printable_line(message))


class RunFailed(DeepNetsError):
    """Work that was well asked for could not be finished (exit code 1)."""


class Interrupted(RunFailed):
    """Ctrl-C or SIGTERM ended work of which the finished part is kept (exit code 130)."""

    exit_code = 130


class NotFinite(RunFailed, ArithmeticError):
    """Values of a network, or predicted for it, are NaN or infinite.

    `graphs` are the positions in their batch of the graphs for which the hypernetwork gave such values.
    """

    def __init__(self, message: str, graphs: Iterable[int] = ()) -> None:
        self.graphs = tuple(graphs)
        super().__init__(message)


class BadInput(DeepNetsError, ValueError):
    """The caller gave something unusable: a value, a file, an option (exit code 2)."""

    exit_code = 2


class CorruptFile(BadInput):
    """A file is truncated, foreign, altered, or of a version this package cannot read."""


class UnknownName(BadInput):
    """A name is not among the choices; the message lists them and the nearest one.

    `where` follows the name in the sentence, such as "of GNN 'gat'".
    """

    def __init__(self, kind: str, query: str, choices: Iterable[str], where: str = "") -> None:
        self.kind, self.query, self.choices = kind, query, tuple(choices)
        spelt = {choice.lower(): choice for choice in self.choices}
        near = get_close_matches(query.lower(), spelt, n=1, cutoff=0.6)
        hint = f" Did you mean '{spelt[near[0]]}'?" if near else ""
        place = f" {where}" if where else ""
        more = len(self.choices) - _MOST_CHOICES
        listed = ", ".join(self.choices[:_MOST_CHOICES]) or "none"
        listed += f" and {more} more" if more > 0 else ""
        super().__init__(f"Unknown {kind} '{query}'{place}.{hint} Choices: {listed}.")


class MissingExtra(BadInput):
    """An optional dependency is not installed; the message is the command that installs it."""

    def __init__(self, purpose: str, extra: str) -> None:
        super().__init__(f"{purpose} needs an optional dependency: pip install 'deepnets-bench[{extra}]'")


def printable_line(text: str) -> str:
    """`text` on one line that cannot change a terminal: messages quote what files and users hold."""
    line = "".join(character if character.isprintable() else " " for character in text)
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]} ..."


def one_line(error: BaseException) -> str:
    """The type and the first line of a foreign exception, for a sentence."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def located(error: BaseException) -> str:
    """`one_line`, and the last line of the user's own source that the exception went through.

    That is source of neither this package nor an installed library; an exception that met none has no place.
    """
    places = [
        f" ({Path(frame.f_code.co_filename).name}, line {line})"
        for frame, line in walk_tb(error.__traceback__)
        if _is_users(frame.f_code.co_filename)
    ]
    said = isinstance(error, SyntaxError)  # whose text names the line already
    return one_line(error) + (places[-1] if places and not said else "")


def _is_users(file: str) -> bool:
    path, ours = Path(file), (Path(__file__).parent, Path(sysconfig.get_path("stdlib")))
    installed = {"site-packages", "dist-packages"} & {*path.parts}
    return not file.startswith("<") and not installed and not any(map(path.is_relative_to, ours))


def reason_of(error: BaseException) -> str:
    """Why work failed, a line without a full stop: our own errors are sentences, others need their type."""
    lines = str(error).strip().splitlines()
    reason = lines[0] if lines and isinstance(error, DeepNetsError) else one_line(error)
    return reason.removesuffix(".")

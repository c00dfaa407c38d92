"""Output to a terminal, pipe or file: any encoding, aligned columns, lines as wide as it is."""

from __future__ import annotations

import codecs
import io
import shutil
import sys
import textwrap
import unicodedata
from collections.abc import Sequence

_HANDLER = "deepnets-bench.plainer"
# One character for one where that is clear, so that columns stay columns.
_PLAINER = {"±": "+/-", "≤": "<=", "≥": ">=", **dict(zip("×–—−→↑↓·…•", "x--->^v|~*", strict=True))}


def show_in_any_encoding() -> None:
    """Let standard output and error replace the characters that their encoding lacks.

    To be called once, where a process starts: a locale or pipe that is not UTF-8 would end in a traceback,
    at worst after hours of work. rich draws tables and boxes in ASCII there by itself.
    """
    codecs.register_error(_HANDLER, _plainer)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_HANDLER)


def _plainer(error: UnicodeError) -> tuple[str, int]:
    """A handler of `codecs`: ASCII that stands for the characters that cannot be encoded."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_ascii, error.object[error.start : error.end])), error.end


def _ascii(character: str) -> str:
    decomposed = unicodedata.normalize("NFKD", _PLAINER.get(character, character))
    return decomposed.encode("ascii", "ignore").decode() or "?"


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """One line a row, whose columns begin below each other; never cut."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def wrapped(text: str, indent: int, first: int | None = None) -> str:
    """Lines of `text` no wider than the terminal (80 columns where there is none), `indent` spaces in.

    `first` is the indentation of the first line, where it differs. A longer word stays whole.
    """
    return textwrap.fill(
        text,
        shutil.get_terminal_size().columns,
        initial_indent=" " * (indent if first is None else first),
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )

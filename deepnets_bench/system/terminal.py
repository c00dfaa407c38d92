"""Output to a terminal, pipe or file of any encoding: what it cannot show becomes plainer, never an error."""

from __future__ import annotations

import codecs
import io
import sys
import unicodedata

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

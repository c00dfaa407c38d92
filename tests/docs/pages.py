"""The code blocks of README and docs, as pages of blocks of Python and of shell commands."""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
_BLOCK = re.compile(r"^(?P<indent> *)```(?P<language>\w*)\n(?P<code>.*?)^ *```$", re.M | re.S)
_COMMENT = re.compile(r"(^|\s+)# .*$")


@dataclass(frozen=True)
class Block:
    """Code of a page that starts at a line (of the file, from 1)."""

    language: str
    code: str
    line: int

    @property
    def commands(self) -> list[str]:
        """A shell block as commands, without comments and empty lines."""
        lines = (_COMMENT.sub("", line).strip() for line in self.code.replace("\\\n", " ").splitlines())
        return [" ".join(line.split()) for line in lines if line]


def paths() -> list[Path]:
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]


def blocks(path: Path) -> list[Block]:
    text = path.read_text(encoding="utf-8")
    return [
        Block(found["language"], textwrap.dedent(found["code"]), text.count("\n", 0, found.start("code")) + 1)
        for found in _BLOCK.finditer(text)
    ]

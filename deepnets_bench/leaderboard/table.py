"""Tables as terminal output, plain text, Markdown or LaTeX.

Every format shows the same cells, so no two outputs can disagree.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class Table:
    """Headers and cells of text, ready for any format; the first column is text, the others are numbers."""

    title: str
    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


def print_table(table: Table, console: Console) -> None:
    """Print on a terminal; plain text to a file or a pipe, so that nothing is cut to a width."""
    if not console.is_terminal:
        console.file.write(to_text(table) + "\n")
        return
    from rich.text import Text

    console.print(Text(table.title, style="italic"))
    columns = [
        [_narrow_header(header), *map(_narrow, cells)]
        for header, *cells in zip(table.headers, *table.rows, strict=True)
    ]
    columns[0] = [table.headers[0], *(row[0] for row in table.rows)]
    for block in _blocks([_width(column) + 1 for column in columns], console.width):
        _print_block([columns[0], *(columns[i] for i in block)], console)
    for note in table.notes:
        console.print(note, style="dim", markup=False, highlight=False)
    console.print()


def _print_block(columns: Sequence[Sequence[str]], console: Console) -> None:
    """Columns side by side, each its header and cells; the first one is text."""
    from rich.table import Table as RichTable
    from rich.text import Text

    shown = RichTable(box=None, padding=(0, 1, 0, 0))
    for i, (header, *_) in enumerate(columns):
        shown.add_column(Text(header), justify="right" if i else "left", overflow="fold")
    for cells in zip(*(column[1:] for column in columns), strict=True):
        shown.add_row(*map(Text, cells))
    console.print(shown)


def _blocks(widths: Sequence[int], limit: int) -> list[range]:
    """Numbers of the columns that stand side by side beside the first one, which every block repeats."""
    blocks, start, used = [], 1, widths[0]
    for i, width in enumerate(widths[1:], 1):
        if used + width > limit and i > start:
            blocks.append(range(start, i))
            start, used = i, widths[0]
        used += width
    return [*blocks, range(start, len(widths))]


def _width(column: Sequence[str]) -> int:
    return max(len(line) for cell in column for line in cell.split("\n"))


def _narrow(cell: str) -> str:
    """More splits stand side by side when the gap has a line of its own."""
    return cell.replace(" ± ", "±").replace(" (", "\n(")


def _narrow_header(header: str) -> str:
    """Words on lines of their own, a metric's arrow beside the last one."""
    return re.sub(r" (?![↓↑])", "\n", header)


def to_text(table: Table) -> str:
    """Aligned columns of plain text."""
    lines = [table.headers, *table.rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(table.headers))]
    aligned = [
        "  ".join(_pad(cell, width, i) for i, (cell, width) in enumerate(zip(line, widths, strict=True)))
        for line in lines
    ]
    return "\n".join([table.title, *(line.rstrip() for line in aligned), *table.notes]) + "\n"


def _pad(cell: str, width: int, column: int) -> str:
    return cell.rjust(width) if column else cell.ljust(width)


def to_markdown(table: Table, level: int = 2) -> str:
    """A GitHub table under a heading of a level; names cannot break out of their cells."""
    lines = [_markdown_row(table.headers), "|".join(["", "---", *["---:"] * (len(table.headers) - 1), ""])]
    lines += [_markdown_row(row) for row in table.rows]
    notes = [f"- {_escape_markdown(note)}" for note in table.notes]
    return (
        "\n".join([f"{'#' * level} {_escape_markdown(table.title)}", "", *lines, "", *notes]).rstrip() + "\n"
    )


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(_escape_markdown(cell) for cell in cells) + " |"


def _escape_markdown(text: str) -> str:
    escaped = re.sub(r"([\\`*_\[\]{}|~])", r"\\\1", text)
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def to_latex(table: Table) -> str:
    """A booktabs table, no wider than the text, for a document with `\\usepackage{booktabs,graphicx}`."""
    columns = "l" + "r" * (len(table.headers) - 1)
    body = [" & ".join(escape_latex(cell) for cell in row) + r" \\" for row in (table.headers, *table.rows)]
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{escape_latex(' '.join((table.title + '.', *table.notes)))}}}",
            r"\smallskip",
            r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            body[0],
            r"\midrule",
            *body[1:],
            r"\bottomrule",
            r"\end{tabular}}",
            r"\end{table}",
            "",
        ]
    )


_LATEX = {
    **{character: rf"\{character}" for character in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "[": "{[}",  # after a line's end it would be the spacing argument
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "±": r"$\pm$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "·": r"$\cdot$",
    "×": r"$\times$",
    "–": "--",
    "−": r"$-$",
}


def escape_latex(text: str) -> str:
    """`text` with every character that LaTeX would interpret, or that its fonts lack in text, replaced."""
    escaped = "".join(_LATEX.get(character, character) for character in text)
    return re.sub(r"(?<![\w\]-])-(?=[\d.])", "$-$", escaped)  # a minus sign, not a hyphen


FORMATS: dict[str, Callable[[Table], str]] = {
    "text": to_text,
    "markdown": to_markdown,
    "latex": to_latex,
}

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
    from rich.markup import escape
    from rich.table import Table as RichTable

    shown = RichTable(title=escape(table.title), title_justify="left", box=None, padding=(0, 1, 0, 0))
    first, *others = table.headers
    longest = max((len(row[0]) for row in table.rows), default=0)
    shown.add_column(escape(first), overflow="fold", min_width=min(longest, 12))
    for header in others:
        shown.add_column(_narrow_header(escape(header)), justify="right", overflow="fold")
    for name, *cells in table.rows:
        shown.add_row(escape(name), *(_narrow(escape(cell)) for cell in cells))
    console.print(shown)
    for note in table.notes:
        console.print(note, style="dim", markup=False, highlight=False)
    console.print()


def _narrow(cell: str) -> str:
    """Six splits fit in 80 columns when the gap has a line of its own."""
    return cell.replace(" ± ", "±").replace(" (", "\n(")


def _narrow_header(header: str) -> str:
    """A metric's words on lines of their own, its arrow beside the last one."""
    if not header.endswith((" ↓", " ↑")):
        return header
    return header[:-2].replace(" ", "\n") + "\u00a0" + header[-1]


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

"""A board as tables, and tables as terminal output, plain text, Markdown or LaTeX.

Every format shows the same cells, so no two outputs can disagree. Nothing is bold: emphasis is for
differences shown to be significant (`deepnets-bench leaderboard compare`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deepnets_bench.leaderboard.aggregate import (
    COSTS,
    METRICS,
    REFERENCE_SPLIT,
    SELECTION_SPLIT,
    Board,
    Entry,
    method_name,
)
from deepnets_bench.leaderboard.reproduction import TOLERANCE, Reproduction

if TYPE_CHECKING:
    from rich.console import Console

    from deepnets_bench.leaderboard.stats import Comparison, CriticalDifference

EXPLANATION = (
    "Accuracy in %: mean over seeds ± standard deviation over seeds (ddof=1). "
    f"In brackets: gap to {REFERENCE_SPLIT} in percentage points. "
    f"avg rank: mean of the ranks on all splits but {SELECTION_SPLIT}, which is for development."
)

INTERVALS = (
    "95 % bootstrap interval over architectures and seeds; with one seed, over architectures only. "
    "With few seeds it is too narrow."
)

WALL_CLOCK = "Times are wall-clock: they depend on the machine and on what else ran on it."


@dataclass(frozen=True)
class Table:
    """Headers and cells of text, ready for any format; the first column is text, the others are numbers."""

    title: str
    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


def ranking_table(board: Board, note: str | None = None) -> Table:
    """The ranking: seeds, average rank, and on every split accuracy with its gap to the reference split.

    `note` is what the track says of all its numbers, for example "early training"; it joins the title.
    """
    rank = METRICS["average_rank"]
    headers = ("GNN", "seeds", rank.header, *board.splits)
    rows: list[tuple[str, ...]] = []
    problems: list[str] = []
    for entry in board.entries:
        cells = [_split_cell(entry, split, problems) for split in board.splits]
        rows.append((entry.label, str(len(entry.seeds)), rank.text(entry.average_rank), *cells))
    title = f"{board.title} · {note}" if note else board.title
    return Table(title, headers, tuple(rows), (EXPLANATION, *board.notes, *problems))


def cost_table(board: Board) -> Table:
    """Parameters, steps, time and memory of each method: mean over seeds."""
    headers = ("GNN", *(METRICS[key].header for key in COSTS))
    rows = tuple((e.name, *(METRICS[key].text(e.costs[key]) for key in COSTS)) for e in board.entries)
    return Table(f"{board.title} · cost, mean over seeds", headers, rows, (provenance(board), WALL_CLOCK))


def provenance(board: Board) -> str:
    """On which machines, with which versions and when the finished rows of a board were made."""
    finished = [row for entry in board.entries for row in entry.rows if row.status == "ok"]

    def named(values: Iterable[str]) -> str:
        return ", ".join(sorted(set(values) - {""})) or "not recorded"

    days = sorted({row.utc_time[:10] for row in finished}) or ["–"]
    return (
        f"Machine: {named(row.device for row in finished)}. "
        f"deepnets-bench {named(row.package_version for row in finished)}, "
        f"torch {named(row.torch_version for row in finished)}; "
        f"{' to '.join(dict.fromkeys((days[0], days[-1])))}."
    )


def interval_table(board: Board, intervals: Mapping[str, Mapping[str, tuple[float, float]]]) -> Table:
    """Mean accuracy with its interval {method: {split: (low, high)}}; a dash where there are no scores."""

    def cell(entry: Entry, split: str) -> str:
        bounds = intervals.get(entry.name, {}).get(split)
        score = entry.scores.get(split)
        if bounds is None or score is None:
            return "–"
        accuracy = METRICS["accuracy"]
        return f"{accuracy.text(score.mean)} [{accuracy.text(bounds[0])}, {accuracy.text(bounds[1])}]"

    rows = tuple((entry.name, *(cell(entry, split) for split in board.splits)) for entry in board.entries)
    return Table(f"{board.title} · 95 % intervals", ("GNN", *board.splits), rows, (INTERVALS,))


def rank_table(board: Board, differences: Mapping[str, CriticalDifference]) -> Table:
    """Mean rank over architectures on every split, with letters for what does not differ significantly."""
    from deepnets_bench.leaderboard.stats import letters  # with scipy, which most tables need not wait for

    splits = [split for split in board.splits if split in differences]
    ranks = {split: dict(differences[split].ranks) for split in splits}
    shared = {split: letters(differences[split]) for split in splits}

    def cell(name: str, split: str) -> str:
        return f"{ranks[split][name]:.2f} {shared[split][name]}" if name in ranks[split] else "–"

    rows = tuple((e.name, *(cell(e.name, split) for split in splits)) for e in board.entries)
    distances = [differences[split].difference for split in splits]
    extremes = dict.fromkeys(f"{distance:.2f}" for distance in (min(distances), max(distances)))
    note = (
        "Mean rank over the architectures of a split, 1 is best; seeds are averaged first, so another seed "
        "of a method may rank elsewhere. On a split, methods that share a letter do not differ (Friedman's "
        f"test, then Nemenyi's, at 5 %; critical difference {' to '.join(extremes)})."
    )
    return Table(f"{board.title} · ranks over architectures ↓", ("GNN", *splits), rows, (note,))


def comparison_table(board: Board, a: Entry, b: Entry, comparisons: Sequence[Comparison]) -> Table:
    """A against B on every split; the last column names the better one where that is significant."""
    accuracy, gap = METRICS["accuracy"], METRICS["gap"]
    headers = ("split", "n", "A", "B", "A - B [95 %]", "win/tie/loss", "effect", "p (Holm)", "better")
    rows = tuple(
        (
            c.split,
            str(c.n),
            accuracy.text(c.mean_a),
            accuracy.text(c.mean_b),
            f"{gap.text(c.difference)} [{gap.text(c.low)}, {gap.text(c.high)}]",
            f"{c.wins}/{c.ties}/{c.losses}",
            f"{c.effect:+.2f}",
            f"{c.p_holm:.2g}",
            ("A" if c.difference > 0 else "B") if c.significant else "–",
        )
        for c in comparisons
    )
    notes = [
        "Accuracy in %. Wilcoxon's signed-rank test over architectures (seeds averaged), Holm's correction "
        "over splits. effect: matched-pairs rank-biserial correlation. better: p < 0.05, and the bootstrap "
        "interval over architectures and seeds leaves out 0.",
    ]
    if min(len(a.seeds), len(b.seeds)) == 1:
        notes.append("One seed only: this compares two trained networks, not yet two methods.")
    return Table(f"{board.title} · A = {a.name}, B = {b.name}", headers, rows, tuple(notes))


def reproduction_table(found: Sequence[Reproduction]) -> Table:
    """Original rows beside those that repeat them."""
    accuracy, gap = METRICS["accuracy"], METRICS["gap"]
    rows = tuple(
        (
            method_name(pair.original.gnn, pair.original.gnn_options),
            str(pair.original.seed),
            pair.original.split,
            accuracy.text(pair.original.accuracy_mean),
            accuracy.text(pair.again.accuracy_mean),
            gap.text(pair.difference),
        )
        for pair in found
    )
    headers = ("GNN", "seed", "split", "original", "again", "difference")
    note = f"Accuracy in %. Reproduced: a difference of at most {gap.text(TOLERANCE)[1:]} percentage points."
    return Table("Reproduced rows", headers, rows, (note,))


def _split_cell(entry: Entry, split: str, problems: list[str]) -> str:
    score = entry.scores.get(split)
    if score is None:
        return "–"
    problems += [f"{entry.name}, {split}: {problem}." for problem in score.problems]
    if score.mean is None:
        return "failed"
    text = METRICS["accuracy"].text(score.mean, score.std)
    if score.gap is not None:
        text += f" ({METRICS['gap'].text(score.gap)})"
    return f"{text}*" if score.problems else text


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

"""Tables and their renderings: same cells everywhere, hostile names harmless, and the real command."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from deepnets_bench.commands import leaderboard as command
from deepnets_bench.errors import BadInput
from deepnets_bench.leaderboard.aggregate import boards
from deepnets_bench.leaderboard.report import cost_table, provenance, ranking_table
from deepnets_bench.leaderboard.results import ResultRow, append_rows
from deepnets_bench.leaderboard.table import (
    Table,
    escape_latex,
    print_table,
    to_latex,
    to_markdown,
    to_text,
)

from .conftest import failed_row, make_row

HOSTILE = Table("t_1", ("GNN", "x"), (("<b>a|b</b> [red]50%_#&{}~^\\", "1.0 ± 0.1"),))


def test_cells_of_the_ranking(rows: list[ResultRow]) -> None:
    bad = failed_row(gnn="d", split="wide", reason="NaN loss")
    table = ranking_table(boards([*rows, bad])[0], "early training", {})
    assert table.title == "digits v1 · early training"
    assert table.headers == ("GNN", "seeds", "avg rank ↓", "test", "wide", "deep")
    assert table.rows[0] == ("a", "2", "1.33", "52.0 ± 2.8", "45.0 ± 7.1 (-7.0)", "61.0 ± 1.4 (+9.0)")
    assert table.rows[3] == ("d", "0", "–", "–", "failed", "–")
    assert "d, wide: seed 0 failed: NaN loss." in table.notes


def test_cpu_time_is_training_and_all_evaluations() -> None:
    rows = [
        make_row(seed=seed, split=split, train_cpu_seconds=90.0 + 60 * seed, eval_cpu_seconds=15.0)
        for seed in (0, 1)
        for split in ("test", "wide")
    ]
    (board,) = boards(rows)
    assert board.entries[0].costs["cpu_seconds"] == 150  # 90 + 30 and 150 + 30
    table = cost_table(board)
    assert table.rows[0][table.headers.index("CPU time (min) ↓")] == "2.5"


def test_a_score_with_a_missing_seed_is_marked(rows: list[ResultRow]) -> None:
    bad = failed_row(gnn="a", seed=2, split="wide", status="timeout", reason="60 minutes")
    table = ranking_table(boards([*rows, bad])[0], None, {})
    assert table.rows[0][4] == "45.0 ± 7.1 (-7.0)*"
    assert table.notes[-1] == "a, wide: seed 2 timeout: 60 minutes."


def test_a_reproduced_method_says_so() -> None:
    rows = [make_row(seed=0), make_row(seed=1, config_hash="c1"), make_row(gnn="b", config_hash="c2")]
    again = make_row(
        seed=0, accuracy_mean=0.505, reproduced_by="Ada", device="a laptop", utc_time="2026-12-01T00:00:00Z"
    )
    table = ranking_table(boards([*rows, again])[0], None, {})
    assert [row[0] for row in table.rows] == ["b", "gat (reproduced 1/2)"]
    assert table.rows[1][3] == "50.0 ± 0.0", "a reproduction is not averaged with the original"
    assert table.notes[1] == (
        "gat seed 0: reproduced by Ada on a laptop, 2026-12-01; largest difference of a mean +0.5 pp."
    )


def test_cost_cells(rows: list[ResultRow]) -> None:
    table = cost_table(boards(rows)[0])
    assert table.headers[1] == "GHN parameters (k)"
    assert table.rows[0] == ("a", "100.0", "4.0", "1000", "–", "70", "6", "–")


def test_the_cost_table_says_where_and_when_it_was_measured() -> None:
    rows = [make_row(device="AMD EPYC (2 cores)", torch_version="2.15.0"), failed_row(seed=1, device="none")]
    rows += [make_row(seed=2, device="H200", torch_version="2.15.0", utc_time="2026-11-25T10:00:00Z")]
    assert provenance(boards(rows)[0]) == (
        "Machine: AMD EPYC (2 cores), H200. deepnets-bench 0.1.0, torch 2.15.0; 2026-11-23 to 2026-11-25."
    )
    assert provenance(boards([failed_row()])[0]).startswith("Machine: not recorded.")


def test_plain_text_is_aligned_and_whole(rows: list[ResultRow]) -> None:
    lines = to_text(ranking_table(boards(rows)[0], None, {})).splitlines()
    assert lines[1].endswith("deep")
    assert len(lines[1]) == len(lines[2]), "numbers are aligned on the right"
    out = io.StringIO()
    print_table(ranking_table(boards(rows)[0], None, {}), Console(file=out, width=20))
    assert "45.0 ± 7.1 (-7.0)" in out.getvalue(), "a pipe is never cut to a terminal's width"


def test_a_terminal_shows_every_cell_and_no_markup() -> None:
    out = io.StringIO()
    print_table(HOSTILE, Console(file=out, width=100, force_terminal=True, no_color=True))
    assert "[red]50%" in out.getvalue()
    assert "1.0±0.1" in out.getvalue()


def test_the_ranking_of_six_splits_fits_in_80_columns() -> None:
    rows = [
        make_row(gnn="transformer", split=split, seed=seed, accuracy_mean=0.2 + 0.1 * seed)
        for split in ("val", "test", "wide", "deep", "dense", "bnfree")
        for seed in (0, 1)
    ]
    out = io.StringIO()
    console = Console(file=out, width=80, force_terminal=True, no_color=True)
    print_table(ranking_table(boards(rows)[0], None, {}), console)
    lines = re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue()).splitlines()
    assert lines[2].split() == ["GNN", "seeds", "rank", "↓", "val", "test", "wide", "deep", "dense", "bnfree"]
    assert lines[3].split() == ["transformer", "2", "1.00", *["25.0±7.1"] * 6]


def test_a_table_too_wide_for_the_terminal_goes_on_below_with_its_names() -> None:
    headers = ("GNN", *(f"split{i}" for i in range(9)))
    cells = [f"{i}{i}.0 ± {i}.1 (-{i}.2) ab" for i in range(9)]
    table = Table("t", headers, (("transformerconv", *cells), ("gat", *cells)))
    out = io.StringIO()
    print_table(table, Console(file=out, width=80, force_terminal=True, no_color=True))
    lines = [line.rstrip() for line in re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue()).splitlines()]
    assert max(map(len, lines)) <= 80
    assert [line.split() for line in lines if "±" in line] == [
        [name, *(f"{i}{i}.0±{i}.1" for i in block)]
        for block in (range(6), range(6, 9))
        for name in ("transformerconv", "gat")
    ]
    assert sum(line.startswith("GNN") for line in lines) == 2


def test_markdown_is_escaped() -> None:
    text = to_markdown(HOSTILE)
    assert text.splitlines()[0] == "## t\\_1"
    assert "| &lt;b&gt;a\\|b&lt;/b&gt; \\[red\\]50%\\_#&amp;\\{\\}\\~^\\\\ | 1.0 ± 0.1 |" in text


def test_latex_is_escaped() -> None:
    row = to_latex(HOSTILE).splitlines()[9]
    assert row == (
        r"\textless{}b\textgreater{}a|b\textless{}/b\textgreater{} {[}red]50\%\_\#\&\{\}"
        r"\textasciitilde{}\textasciicircum{}\textbackslash{} & 1.0 $\pm$ 0.1 \\"
    )


def test_latex_has_minus_signs_and_keeps_hyphens() -> None:
    assert escape_latex("27.6 (-6.0)") == "27.6 ($-$6.0)"
    assert escape_latex("A - B [-1.2, +3]") == "A - B {[}$-$1.2, +3]"
    assert escape_latex("digits-full 2026-11-23") == "digits-full 2026-11-23"


@pytest.fixture
def app() -> typer.Typer:
    application = typer.Typer()
    command.register(application)
    return application


def test_show_prints_the_default_file(
    app: typer.Typer, rows: list[ResultRow], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append_rows(tmp_path / "leaderboards" / "digits" / "results.csv", rows)
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["leaderboard", "show"])
    assert result.exit_code == 0, result.output
    assert "digits v1 · early training" in result.output
    assert "45.0 ± 7.1 (-7.0)" in result.output
    assert "GHN parameters (k)" in result.output


def test_show_sorts_and_reads_a_given_file(app: typer.Typer, rows: list[ResultRow], tmp_path: Path) -> None:
    append_rows(tmp_path / "mine.csv", rows)
    arguments = [
        "leaderboard",
        "show",
        "--results",
        str(tmp_path / "mine.csv"),
        "--sort",
        "test",
        "--no-cost",
    ]
    lines = CliRunner().invoke(app, arguments).output.splitlines()
    assert [line.split()[0] for line in lines[2:5]] == ["b", "a", "c"]


def test_show_without_results_is_one_sentence(app: typer.Typer, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["leaderboard", "show", "--results", str(tmp_path / "none.csv")])
    assert isinstance(result.exception, BadInput)
    assert "nothing has been run into" in str(result.exception)


def test_neither_torch_nor_pandas_is_imported(tmp_path: Path, rows: list[ResultRow]) -> None:
    append_rows(tmp_path / "r.csv", rows)
    code = (
        "import sys, typer; from pathlib import Path; from deepnets_bench.commands import leaderboard as c; "
        f"c.show(results=Path({str(tmp_path / 'r.csv')!r})); "
        "heavy = {'torch', 'torch_geometric', 'dgl', 'pandas', 'scipy.stats', 'matplotlib'}; "
        "heavy &= set(sys.modules); "
        "sys.exit(str(heavy) if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, timeout=60)


def test_a_reason_is_said_once_for_all_splits() -> None:
    failed = [failed_row(gnn="b", split=split) for split in ("test", "wide", "deep")]
    table = ranking_table(boards([make_row(gnn="a"), *failed])[0], None, {})
    assert table.notes[-1] == "b, test, wide, deep: seed 0 failed: out of memory."
    assert sum("out of memory" in note for note in table.notes) == 1

"""Two tracks beside each other, by hand; and the README holds what the committed results give."""

from __future__ import annotations

from pathlib import Path

import pytest

from deepnets_bench.errors import BadInput
from deepnets_bench.leaderboard.aggregate import Board, boards
from deepnets_bench.leaderboard.inference import analyse_board
from deepnets_bench.leaderboard.results import ResultRow
from deepnets_bench.leaderboard.summary import (
    END,
    START,
    side_by_side,
    summary,
    write_into,
)
from deepnets_bench.leaderboard.table import to_markdown

from .conftest import make_row

LABELS = {"digits": "early training", "long": "long training"}


@pytest.fixture
def two(rows: list[ResultRow]) -> list[Board]:
    """The rows of conftest.py with val, and a longer track where b leads a and c is missing."""
    val = [make_row(gnn=g, split="val", seed=s, accuracy_mean=0.3) for g in "abc" for s in (0, 1)]
    long = [
        make_row(gnn=gnn, split=split, track="long", accuracy_mean=accuracy)
        for gnn, level in (("a", 0.6), ("b", 0.8))
        for split, accuracy in (("val", level), ("test", level), ("wide", level - 0.2), ("deep", level - 0.1))
    ]
    return [boards([*rows, *val])[0], boards(long)[0]]


def test_side_by_side_by_hand(two: list[Board]) -> None:
    table = side_by_side(two, LABELS)
    assert table.title == "digits v1 beside long v1"
    assert table.headers == (
        "GNN",
        *("digits: avg rank ↓", "val", "test", "OOD"),
        *("long: avg rank ↓", "val", "test", "OOD"),
    )
    # OOD of a: seeds (0.40 + 0.60) / 2 = 0.50 and (0.50 + 0.62) / 2 = 0.56; of b: 0.35 and 0.36.
    # Among a and b alone, a is second on test and first on wide and deep.
    assert table.rows == (
        ("b", "1.67", "30.0 ± 0.0", "62.0 ± 2.8", "35.5 ± 0.7", "1.00", "80.0", "80.0", "65.0"),
        ("a", "1.33", "30.0 ± 0.0", "52.0 ± 2.8", "53.0 ± 4.2", "2.00", "60.0", "60.0", "45.0"),
    )
    assert "among these 2 GNNs" in table.notes[0]
    assert table.notes[1] == (
        "Ranks of a short training are ranks early in training: compare digits (early training) and long "
        "(long training)."
    )


def test_a_missing_split_leaves_gaps_and_no_rank(two: list[Board], rows: list[ResultRow]) -> None:
    short = boards([row for row in rows if (row.gnn, row.split) != ("b", "deep")])[0]
    b = next(row for row in side_by_side([short, two[1]], LABELS).rows if row[0] == "b")
    assert b == ("b", "–", "–", "62.0 ± 2.8", "–", "1.00", "80.0", "80.0", "65.0")


def test_tracks_without_a_common_method(two: list[Board]) -> None:
    other = boards([make_row(gnn="z", track="long")])[0]
    with pytest.raises(BadInput, match="No method is on all of digits v1, long v1"):
        side_by_side([two[0], other], LABELS)


def test_the_page_keeps_what_stands_around_the_tables(two: list[Board], tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    page.write_text(f"before\n{START}\nold\n{END}\nafter\n")
    tables = summary(two, [analyse_board(board) for board in two], LABELS)
    for _ in range(2):
        write_into(page, tables)
        text = page.read_text()
        assert text.startswith(f"before\n{START}\n\n### digits v1 beside long v1\n")
        assert text.endswith(f"{END}\nafter\n")
        assert "old" not in text
        assert [line for line in text.splitlines() if line.startswith("#")] == [
            "### digits v1 beside long v1",
            "### digits v1 · early training",
            "### digits v1 · what the seeds say",
            "### long v1 · long training",
            "### long v1 · what the seeds say",
        ]
    page.write_text(START)
    with pytest.raises(BadInput, match="needs the lines"):
        write_into(page, tables)
    with pytest.raises(BadInput, match=r"nothing\.md"):
        write_into(tmp_path / "nothing.md", tables)


def test_one_track_has_nothing_beside_it(two: list[Board]) -> None:
    tables = summary(two[:1], [analyse_board(two[0])], LABELS)
    assert [table.title for table in tables] == [
        "digits v1 · early training",
        "digits v1 · what the seeds say",
    ]
    assert "test: No test: the GNNs have seed 0, 1 in common, and a test needs 3 seeds." in tables[1].notes


def test_a_summary_in_the_readme_shows_the_committed_results() -> None:
    from deepnets_bench import Leaderboard

    root = Path(__file__).parents[2]
    readme = (root / "README.md").read_text()
    if START not in readme:
        pytest.skip("the README has no summary: no board has the seeds to claim anything")
    names = [path.parent.name for path in sorted((root / "leaderboards").glob("*/results.csv"))]
    boards = [Leaderboard(root / "leaderboards" / name, name) for name in names]
    labels = {name: board.label for name, board in zip(names, boards, strict=True)}
    for table in summary([b.board for b in boards], [b.analyses for b in boards], labels):
        assert to_markdown(table, level=3) in readme, (
            "run `deepnets-bench leaderboard summary` after adding rows"
        )

"""Which runs are compared, families on a board by hand, and what tables say of them."""

from __future__ import annotations

import numpy as np
import pytest

from deepnets_bench.leaderboard.aggregate import Board, boards
from deepnets_bench.leaderboard.inference import analyse, analyse_board, largest_block
from deepnets_bench.leaderboard.report import ranking_table
from deepnets_bench.leaderboard.table import to_latex, to_markdown
from deepnets_bench.leaderboard.verdict import verdict_table

from .conftest import make_row

# The table of test_anova.py as accuracies: GNN means 0.2, 0.3, 0.7, residual variance 1.5 hundredths.
TABLE = {"gat": (0.5, 0.8, 0.8), "ghn2": (0.2, 0.2, 0.5), "mlp": (0.2, 0.2, 0.2)}


def board_of(table: dict[str, tuple[float, ...]], splits: tuple[str, ...] = ("test",)) -> Board:
    rows = [
        make_row(gnn=gnn, seed=seed, split=split, accuracy_mean=accuracy)
        for gnn, accuracies in table.items()
        for split in splits
        for seed, accuracy in enumerate(accuracies)
    ]
    return boards(rows)[0]


def test_the_families_of_a_board_by_hand() -> None:
    found = analyse_board(board_of(TABLE))["test"]
    assert found.pairs is not None
    assert found.references is not None
    assert found.residual_sd == pytest.approx(np.sqrt(1.5) / 10)
    # moderated p-values 0.00749, 0.01613, 0.37390, times 3, 2, 1; paired ones 0.03775, 0.05719, 0.42265
    by_pair = {(test.a, test.b): test for test in found.pairs.tests}
    assert by_pair["gat", "mlp"].p_holm == pytest.approx(0.03775, abs=1e-5)
    assert by_pair["gat", "ghn2"].p_holm == pytest.approx(0.05719, abs=1e-5)
    assert by_pair["ghn2", "mlp"].p_holm == pytest.approx(0.42265, abs=1e-5)
    assert (by_pair["gat", "mlp"].low, by_pair["gat", "mlp"].high) == (
        pytest.approx(0.5 - 0.27764, abs=1e-4),  # t(0.975, 4 df) = 2.7764, standard error 0.1
        pytest.approx(0.5 + 0.27764, abs=1e-4),
    )
    assert found.letters == {"gat": "a", "ghn2": "ab", "mlp": "b"}
    assert found.rank_intervals == {"gat": (1, 2), "ghn2": (1, 3), "mlp": (2, 3)}
    assert {(t.a, t.b) for t in found.references.tests} == {("gat", "mlp"), ("ghn2", "mlp"), ("gat", "ghn2")}


def test_references_can_be_chosen_and_may_be_absent() -> None:
    board = board_of(TABLE)
    chosen = analyse_board(board, references=("gat",))["test"].references
    assert chosen is not None
    assert {(test.a, test.b) for test in chosen.tests} == {("ghn2", "gat"), ("mlp", "gat")}
    assert analyse_board(board, references=("gcn",))["test"].references is None


def test_single_splits_are_one_family() -> None:
    found = analyse_board(board_of(TABLE, ("val", "test", "wide", "deep")))
    assert list(found) == ["test", "OOD", "wide", "deep"], "val is for development"
    sizes = [analysis.pairs.size for analysis in found.values() if analysis.pairs]
    assert sizes == [3, 3, 6, 6]
    details = [analysis.pairs.detectable for analysis in found.values() if analysis.pairs]
    assert details[0] == pytest.approx(details[1])
    assert details[2] > details[1], "more tests, less found"


def test_the_largest_complete_table_is_compared() -> None:
    runs = {name: dict.fromkeys(range(5), 0.5) for name in ("a", "b", "c")}
    block = largest_block(runs | {"late": {0: 0.5, 1: 0.5, 2: 0.5}, "none": {}})
    assert (block.names, block.seeds) == (("a", "b", "c"), (0, 1, 2, 3, 4))
    assert block.left_out == {"late": "lacks seed 3, 4", "none": "no finished seed"}
    pair = largest_block({"a": dict.fromkeys(range(5), 0.5), "late": dict.fromkeys((1, 3, 4, 9), 0.5)})
    assert (pair.names, pair.seeds) == (("a", "late"), (1, 3, 4))
    few = largest_block({"a": {0: 0.1, 1: 0.1}, "b": {0: 0.2, 1: 0.2}, "c": {0: 0.3}})
    assert (few.names, few.seeds) == (("b", "a"), (0, 1))


@pytest.mark.parametrize(
    ("runs", "reason"),
    [
        (
            {"a": {0: 0.5}, "b": {0: 0.4}},
            "No test: the GNNs have seed 0 in common, and a test needs 3 seeds.",
        ),
        ({"a": {0: 0.5}, "b": {1: 0.4}}, "No test: fewer than two GNNs have a finished seed in common."),
        ({"a": {0: 0.5, 1: 0.5, 2: 0.5}}, "No test: fewer than two GNNs have a finished seed in common."),
        ({}, "No test: fewer than two GNNs have a finished seed in common."),
    ],
)
def test_without_three_common_seeds_there_is_no_test(runs: dict[str, dict[int, float]], reason: str) -> None:
    found = analyse({"test": runs})["test"]
    assert found.reason == reason
    assert (found.pairs, found.letters, found.rank_intervals) == (None, None, None)


def test_tables_name_what_they_could_detect() -> None:
    board = board_of(TABLE | {"gin": (0.4, 0.5)}, ("test", "wide"))
    analyses = analyse_board(board)
    ranking, verdict = ranking_table(board, None, analyses), verdict_table(board, analyses)
    assert [row[3] for row in ranking.rows if row[0] == "gat"] == ["70.0 ± 17.3 a"]
    assert any("Detectable difference in pp" in note and "test " in note for note in ranking.notes)
    assert verdict.headers[1:5] == ("test (%)", "seeds", "letters", "rank")
    cells = {row[0]: row[1:5] for row in verdict.rows}
    assert cells["gat"] == ("70.0 ± 17.3", "3", "a", "1–2")
    assert cells["gin"] == ("–", "–", "–", "–")
    notes = "\n".join(verdict.notes)
    assert (
        "test: 3 GNNs × seeds 0, 1, 2. Residual standard deviation 12.2 pp; blocked ANOVA F(2, 4) = 14.00"
        in notes
    )
    assert "p = 0.016" in notes
    assert "test: not compared: gin (lacks seed 2)." in notes
    assert "test, against references (primary): 1 of 3 differences is significant: gat over mlp." in notes
    assert "(power 0.8 in the first step of Holm over 3 tests)" in notes
    for text in (to_markdown(verdict), to_latex(verdict)):
        assert "70.0" in text
    assert r"$\times$" in to_latex(verdict)

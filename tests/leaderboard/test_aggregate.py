"""Aggregation against numbers computed by hand: three methods, three splits, two seeds (see conftest.py)."""

from __future__ import annotations

import math

import pytest

from deepnets_bench.errors import BadInput, UnknownName
from deepnets_bench.leaderboard.aggregate import (
    METRICS,
    average_ranks,
    boards,
    select_board,
    sort_entries,
    split_order,
)
from deepnets_bench.leaderboard.results import ResultRow

from .conftest import changed, failed_row, make_row


def test_mean_std_gap_and_rank_by_hand(rows: list[ResultRow]) -> None:
    (board,) = boards(rows)
    assert board.splits == ("test", "wide", "deep")
    assert [entry.name for entry in board.entries] == ["a", "b", "c"]
    assert [entry.average_rank for entry in board.entries] == pytest.approx([4 / 3, 5.5 / 3, 8.5 / 3])
    a = board.entries[0]
    assert a.seeds == (0, 1)
    assert a.scores["test"].mean == pytest.approx(0.52)
    assert a.scores["test"].std == pytest.approx(0.04 / math.sqrt(2))
    assert a.scores["test"].sem == pytest.approx(0.02)
    assert a.scores["test"].gap is None
    assert a.scores["wide"].gap == pytest.approx(-0.07), "gaps of the seeds are -0.10 and -0.04"
    assert a.scores["wide"].gap_std == pytest.approx(0.06 / math.sqrt(2))
    assert a.scores["deep"].gap == pytest.approx(0.09)
    assert board.notes == ()


def test_costs_count_a_run_once(rows: list[ResultRow]) -> None:
    a = boards(rows)[0].entries[0]
    assert a.costs["train_seconds"] == 70, "60 s and 80 s, though each stands in three rows"
    assert a.costs["eval_seconds"] == 6, "2 s for each of three splits"
    assert a.costs["ghn_params"] == 100_000
    assert a.costs["peak_memory_mb"] is None


def test_one_seed_has_no_std() -> None:
    score = boards([make_row()])[0].entries[0].scores["test"]
    assert (score.mean, score.std, score.sem) == (0.5, None, None)


@pytest.mark.parametrize("status", ["failed", "timeout", "partial"])
def test_rows_that_are_not_ok_are_shown_and_never_averaged(rows: list[ResultRow], status: str) -> None:
    if status == "partial":
        bad = make_row(
            gnn="a", seed=2, split="wide", status="partial", n_evaluated=3, accuracy_sem=0.1 / math.sqrt(3)
        )
        problem = "seed 2 partial: 3 of 4 architectures evaluated"
    else:
        bad = failed_row(gnn="a", seed=2, split="wide", status=status)
        problem = f"seed 2 {status}: out of memory"
    score = boards([*rows, bad])[0].entries[0].scores["wide"]
    assert score.mean == pytest.approx(0.45)
    assert set(score.by_seed) == {0, 1}
    assert score.problems == (problem,)


def test_a_method_without_a_split_is_listed_but_not_ranked(rows: list[ResultRow]) -> None:
    rows = [row for row in rows if (row.gnn, row.split) != ("b", "deep")]
    rows += [failed_row(gnn="b", split="deep", seed=seed) for seed in (0, 1)]
    (board,) = boards(rows)
    assert [(entry.name, entry.average_rank) for entry in board.entries] == [
        ("a", pytest.approx(1.0)),
        ("c", pytest.approx(2.0)),
        ("b", None),
    ]
    assert "Not ranked, as a split has no finished run: b." in board.notes


def test_the_selection_split_does_not_count_in_ranks(rows: list[ResultRow]) -> None:
    best_on_val = [make_row(gnn="c", split="val", seed=s, accuracy_mean=0.99) for s in (0, 1)]
    others = [make_row(gnn=g, split="val", seed=s, accuracy_mean=0.01) for g in "ab" for s in (0, 1)]
    (board,) = boards([*rows, *best_on_val, *others])
    assert board.splits == ("val", "test", "wide", "deep")
    assert [entry.average_rank for entry in board.entries] == pytest.approx([4 / 3, 5.5 / 3, 8.5 / 3])


def test_versions_and_smoke_rows_never_mix(rows: list[ResultRow]) -> None:
    other = [make_row(gnn="a", track_version=2, accuracy_mean=0.9), make_row(gnn="a", comparable=False)]
    found = boards([*rows, *other])
    assert [(board.title, len(board.entries)) for board in found] == [
        ("digits v2", 1),
        ("digits v1", 3),
        ("digits v1 (not comparable)", 1),
    ]
    assert found[1].entries[0].scores["test"].mean == pytest.approx(0.52)


def test_select_board(rows: list[ResultRow]) -> None:
    smoke = make_row(gnn="a", comparable=False)
    board = select_board([*rows, smoke], "digits")
    assert board.comparable
    assert board.notes == ("Rows left out because they are not comparable (smoke runs): 1.",)
    assert not select_board([*rows, smoke], "digits", smoke=True).comparable
    assert not select_board([smoke], "digits").comparable, "shown when there is nothing else"
    asked = select_board(rows, "digits", smoke=True)
    assert asked.comparable
    assert asked.notes[-1] == "All rows are comparable: there are no smoke runs."


def test_ranks_by_means_over_different_seeds_are_named() -> None:
    rows = [make_row(gnn=gnn, seed=seed) for gnn in ("a", "b", "c") for seed in (0, 1)]
    assert select_board(rows, "digits").notes == ()
    (note,) = select_board(rows[:-1], "digits").notes
    assert note == "Average ranks are by means over the seeds that each has: seeds 0, 1, but c of seed 0."
    assert select_board([*rows, make_row(track_version=2)], "digits", version=1).track_version == 1
    with pytest.raises(BadInput, match="no results of track digits v3; the file holds digits v1"):
        select_board(rows, "digits", version=3)
    with pytest.raises(BadInput, match="holds no rows"):
        select_board([], "digits")


def test_a_repeated_run_counts_once_and_the_latest_wins(rows: list[ResultRow]) -> None:
    again = make_row(gnn="a", seed=0, accuracy_mean=0.10, utc_time="2026-11-24T00:00:00Z")
    for order in ([*rows, again], [again, *rows]):
        (board,) = boards(order)
        a = next(entry for entry in board.entries if entry.name == "a")
        assert a.scores["test"].by_seed == {0: 0.10, 1: 0.54}
        assert board.notes == ("a seed 0 was run more than once (test): the latest run counts.",)


def test_a_later_failure_does_not_undo_a_finished_run(rows: list[ResultRow]) -> None:
    failed = failed_row(gnn="a", seed=0, utc_time="2026-11-25T00:00:00Z")
    score = boards([*rows, failed])[0].entries[0].scores["test"]
    assert score.by_seed == {0: 0.50, 1: 0.54}
    assert score.problems == ()


def test_a_job_that_was_unfinished_may_run_again_without_a_word(rows: list[ResultRow]) -> None:
    partial = changed(
        next(row for row in rows if (row.gnn, row.seed, row.split) == ("a", 0, "wide")),
        **{"status": "partial", "n_evaluated": 3, "accuracy_sem": 0.1 / math.sqrt(3)},
    )
    rows = [partial if (row.gnn, row.seed, row.split) == ("a", 0, "wide") else row for row in rows]
    (board,) = boards(rows)
    assert board.entries[0].scores["wide"].problems == ("seed 0 partial: 3 of 4 architectures evaluated",)
    again = [
        make_row(gnn="a", split=split, accuracy_mean=accuracy, utc_time="2026-11-24T00:00:00Z")
        for split, accuracy in (("test", 0.5), ("wide", 0.4), ("deep", 0.6))
    ]
    (board,) = boards([*rows, *again])
    assert board.entries[0].scores["wide"].by_seed == {0: 0.4, 1: 0.5}
    assert board.entries[0].scores["wide"].problems == ()
    assert board.notes == ()


def test_options_make_another_method() -> None:
    (board,) = boards([make_row(), make_row(gnn_options={"heads": 8}, accuracy_mean=0.6)])
    assert [entry.name for entry in board.entries] == ['gat {"heads": 8}', "gat"]


def test_average_ranks_share_ties() -> None:
    means = {"x": {"t": 0.5, "w": 0.1}, "y": {"t": 0.5, "w": 0.2}, "z": {"t": 0.4, "w": 0.3}}
    assert average_ranks(means) == {"x": 2.25, "y": 1.75, "z": 2.0}
    assert average_ranks({}) == {}


def test_sorting_follows_the_metric_table(rows: list[ResultRow]) -> None:
    (board,) = boards(rows)
    names = {
        key: [e.name for e in sort_entries(board.entries, key, board.splits)]
        for key in ("test", "wide", "deep")
    }
    assert names == {"test": ["b", "a", "c"], "wide": ["a", "b", "c"], "deep": ["a", "b", "c"]}
    fast = make_row(gnn="fast", train_seconds=1.0, accuracy_mean=0.1)
    (board,) = boards([*rows, fast])
    assert sort_entries(board.entries, "train_seconds", board.splits)[0].name == "fast", "less time is better"
    assert sort_entries(board.entries, "peak_memory_mb", board.splits)[0].name == "b", (
        "ties: accuracy on test"
    )
    with pytest.raises(UnknownName, match="Did you mean 'train_seconds'"):
        sort_entries(board.entries, "train_second", board.splits)


def test_known_splits_come_first() -> None:
    assert split_order(["zeta", "bnfree", "test", "alpha", "val"]) == (
        "val",
        "test",
        "bnfree",
        "alpha",
        "zeta",
    )


def test_metric_headers_and_text() -> None:
    assert METRICS["accuracy"].header == "accuracy (%) ↑"
    assert METRICS["train_seconds"].header == "training (s) ↓"
    assert METRICS["ghn_params"].header == "GHN parameters (k)"
    assert METRICS["accuracy"].text(0.4512, 0.0088) == "45.1 ± 0.9"
    assert METRICS["gap"].text(0.031) == "+3.1"
    assert METRICS["accuracy"].text(None) == "–"

"""The published order beside a board's own: by hand, in words, and honest about bnfree."""

from __future__ import annotations

import pytest

from deepnets_bench.leaderboard.aggregate import Board, boards
from deepnets_bench.leaderboard.build import tables
from deepnets_bench.leaderboard.inference import analyse_board
from deepnets_bench.leaderboard.published_order import order_tables, paragraph, published_means
from deepnets_bench.leaderboard.reference import beside, published, reference_tables

from .conftest import make_row

LEVELS = {"mlp": 0.3, "ghn1": 0.5, "ghn2": 0.4, "gat": 0.6}


def board(levels: dict[str, float] = LEVELS, seeds: int = 3, noise: float = 0.001) -> Board:
    rows = [
        make_row(gnn=gnn, seed=seed, split=split, accuracy_mean=level - drop + noise * ((seed * place) % 3))
        for place, (gnn, level) in enumerate(levels.items())
        for seed in range(seeds)
        for split, drop in (("val", 0.0), ("test", 0.0), ("wide", 0.1), ("bnfree", 0.25))
    ]
    return boards(rows)[0]


def test_published_means_by_hand() -> None:
    assert published_means("test") == {"mlp": 42.23, "ghn1": 51.35, "ghn2": 66.88}
    assert published_means("OOD")["ghn1"] == pytest.approx((43.10 + 48.33 + 51.83 + 13.71) / 4)
    assert published_means("predefined") == {}


def test_the_published_order_has_an_exception() -> None:
    first = paragraph(board(), {})[0]
    assert first == (
        "Published on CIFAR-10: mlp < ghn1 < ghn2 on val, test, wide; ghn1 < mlp < ghn2 on bnfree."
    )


def test_differences_and_words() -> None:
    found = board()
    (table,) = order_tables(found, analyse_board(found))
    assert table.headers == ("endpoint", "published", "here", "ghn1 - mlp", "ghn2 - ghn1", "ghn2 - mlp")
    assert [row[0] for row in table.rows] == ["test", "OOD", "wide", "bnfree"]
    test, _, _, bnfree = table.rows
    assert test[1:3] == ("mlp < ghn1 < ghn2", "mlp < ghn2 < ghn1")
    assert test[3].startswith("+20.1 [+")
    assert test[4].startswith("-10.0 [-")
    assert all(cell.endswith(" *") for cell in test[3:])
    assert bnfree[1] == "ghn1 < mlp < ghn2"
    assert (
        "Here on test: as published: ghn1 and mlp, ghn2 and mlp; the other way round: ghn2 and ghn1."
        in table.notes
    )
    assert (
        "Here on bnfree: as published: ghn2 and mlp; the other way round: ghn1 and mlp, ghn2 and ghn1."
        in table.notes
    )
    assert table in tables(found, analyse_board(found), None)


def test_what_is_not_told_apart_is_said() -> None:
    found = board({"mlp": 0.3, "ghn1": 0.301, "ghn2": 0.6, "gat": 0.5}, noise=0.02)
    notes = paragraph(found, analyse_board(found))
    assert "not told apart: ghn1 and mlp" in notes[1]


def test_few_seeds_give_differences_without_interval() -> None:
    found = board(seeds=1)
    (table,) = order_tables(found, analyse_board(found))
    assert table.rows[0][3:] == ("+20.0", "-10.0", "+10.0")
    assert table.notes[1].startswith("Here nothing is tested")
    two = board({"mlp": 0.3, "ghn2": 0.4})
    (table,) = order_tables(two, analyse_board(two))
    assert table.rows[0][3:5] == ("–", "–")
    assert table.rows[0][2] == "mlp < ghn2"
    assert order_tables(board({"mlp": 0.3, "gat": 0.4}), {}) == []


def test_published_figures_are_data_with_a_source() -> None:
    assert set(published()) == {"cifar10", "imagenet"}
    assert published()["cifar10"].accuracy["SGD"]["wide"] == (88.90, 1.23)
    assert published()["imagenet"].accuracy["GHN-2"]["ViT"] == (4.42, None)
    assert reference_tables("digits") == []
    (table,) = beside("digits")
    assert table.title == "Published · CIFAR-10 top-1 accuracy (%)"
    assert "their height cannot" in table.notes[1]
    assert table.notes[-1].startswith("Source: Knyazev et al.")
    assert [t.title for t in beside("imagenet")] == ["Published · ImageNet top-5 accuracy (%)"]

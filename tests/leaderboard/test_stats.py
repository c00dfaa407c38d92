"""Comparison of two methods by hand and against scipy, what is missing named, and scores from files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import ttest_rel

from deepnets_bench.errors import BadInput
from deepnets_bench.leaderboard import stats
from deepnets_bench.leaderboard.aggregate import boards
from deepnets_bench.leaderboard.results import accuracy_summary
from deepnets_bench.leaderboard.scores import write_scores

from .conftest import failed_row, make_row


def test_comparison_by_hand() -> None:
    # Differences of the seeds on test: 3, 6, 6 points; mean 5, variance 3: t = 5 with 2 degrees of freedom.
    a = np.array([[0.33, 0.33], [0.36, 0.36], [0.30, 0.42]])
    b = np.full((3, 2), 0.30)
    (result,) = stats.compare({"test": a}, {"test": b, "wide": b})
    assert (result.split, result.seeds) == ("test", (0, 1, 2))
    assert (result.mean_a, result.mean_b) == (pytest.approx(0.35), pytest.approx(0.30))
    assert result.p_value == result.p_holm == pytest.approx(0.03775, abs=1e-5)
    assert (result.low, result.high) == (
        pytest.approx(0.05 - 0.0430, abs=1e-4),
        pytest.approx(0.05 + 0.0430, abs=1e-4),
    )
    assert result.significant
    (other_way,) = stats.compare({"test": b}, {"test": a})
    assert other_way.low == pytest.approx(-result.high)


def test_endpoints_stand_alone_and_single_splits_are_corrected_together() -> None:
    random = np.random.default_rng(1)
    a, b = (
        {split: random.normal(0.5, 0.02, size=(5, 7)) for split in ("test", "wide", "deep")} for _ in "ab"
    )
    found = {c.split: c for c in stats.compare(a, b)}
    assert list(found) == ["test", "OOD", "wide", "deep"]
    expected = {split: ttest_rel(a[split].mean(axis=1), b[split].mean(axis=1)).pvalue for split in a}
    for split, p in expected.items():
        assert found[split].p_value == pytest.approx(p)
    away = [np.mean([m["wide"], m["deep"]], axis=(0, 2)) for m in (a, b)]
    assert found["OOD"].p_value == found["OOD"].p_holm == pytest.approx(ttest_rel(*away).pvalue)
    assert found["test"].p_holm == found["test"].p_value
    low, high = sorted([expected["wide"], expected["deep"]])
    by_split = sorted([found["wide"].p_holm or 0, found["deep"].p_holm or 0])
    assert by_split == pytest.approx(sorted([min(1, 2 * low), max(min(1, 2 * low), high)]))


def test_many_architectures_are_no_evidence_about_seeds() -> None:
    """A lead of 5 points on each of 500 architectures, by seeds that disagree, is not significant."""
    base = np.random.default_rng(1).uniform(0.2, 0.6, size=500)
    erratic = base + np.array([[0.25], [-0.12], [0.02]])
    assert not stats.compare({"test": erratic}, {"test": np.stack([base] * 3)})[0].significant
    steady = base + np.array([[0.049], [0.05], [0.051]])
    assert stats.compare({"test": steady}, {"test": np.stack([base] * 3)})[0].significant


@pytest.mark.parametrize("seeds", [1, 2])
def test_one_or_two_seeds_have_no_test(seeds: int) -> None:
    a = np.linspace(0.1, 0.4, 4 * seeds).reshape(seeds, 4)
    (result,) = stats.compare({"test": a + 0.1}, {"test": a})
    assert result.difference == pytest.approx(0.1)
    assert (result.p_value, result.p_holm, result.low, result.detectable) == (None, None, None, None)
    assert not result.significant


def test_what_is_missing_is_named() -> None:
    with pytest.raises(BadInput, match="On split test, A has 3 architectures and B has 2: B lacks 1"):
        stats.compare({"test": np.zeros((3, 3))}, {"test": np.zeros((3, 2))})
    with pytest.raises(BadInput, match="On split test, A has 3 seeds and B has 5: A lacks 2"):
        stats.compare({"test": np.zeros((3, 3))}, {"test": np.zeros((5, 3))})
    with pytest.raises(BadInput, match="no split in common: A has test, B has wide"):
        stats.compare({"test": np.zeros((3, 3))}, {"wide": np.zeros((3, 3))})
    with pytest.raises(BadInput, match="not a finite number"):
        stats.compare({"test": np.full((3, 3), np.nan)}, {"test": np.zeros((3, 3))})


def test_seeds_without_a_counterpart_are_named() -> None:
    with pytest.raises(BadInput) as caught:
        stats.compare_runs({"test": {0: 0.5, 1: 0.6}}, {"test": {2: 0.5}}, {"test"}, ("gat", "mlp"))
    assert str(caught.value) == (
        "gat and mlp have no finished seed in common on any split. gat has test: seed 0, 1. "
        "mlp has test: seed 2."
    )


def test_only_common_seeds_are_compared() -> None:
    a = {"test": {0: 0.5, 1: 0.6, 2: 0.55, 7: 0.9}}
    b = {"test": {0: 0.45, 1: 0.52, 2: 0.5, 3: 0.1}}
    (result,) = stats.compare_runs(a, b, {"test"})
    assert result.seeds == (0, 1, 2)
    assert result.p_value == pytest.approx(ttest_rel([0.5, 0.6, 0.55], [0.45, 0.52, 0.5]).pvalue)


def test_ood_is_the_mean_over_all_splits_or_not_there() -> None:
    runs = {split: {0: 0.5, 1: 0.6, 2: 0.55} for split in ("test", "wide", "deep", "dense")}
    short = {split: by_seed for split, by_seed in runs.items() if split != "dense"}
    assert [c.split for c in stats.compare_runs(runs, runs, set(runs))] == [
        "test",
        "OOD",
        "wide",
        "deep",
        "dense",
    ]
    assert [c.split for c in stats.compare_runs(runs, short, set(runs))] == ["test", "wide", "deep"]
    assert [c.split for c in stats.compare_runs(short, short, set(runs))] == ["test", "wide", "deep"]
    arrays = {split: np.zeros((3, 4)) for split in runs}
    found = stats.compare(arrays, {split: arrays[split] for split in short})
    assert [c.split for c in found] == ["test", "wide", "deep"]


def test_val_is_for_development_and_weakens_no_correction() -> None:
    random = np.random.default_rng(0)
    a, b = ({split: random.random((5, 6)) for split in ("val", "test", "wide", "deep")} for _ in "AB")
    found = stats.compare(a, b)
    assert [c.split for c in found] == ["test", "OOD", "wide", "deep"]
    without = [{split: values for split, values in arrays.items() if split != "val"} for arrays in (a, b)]
    assert found == stats.compare(*without)


def test_other_architectures_are_refused_by_number(tmp_path: Path) -> None:
    rows = []
    for gnn, indices in (("gat", (0, 1, 2)), ("mlp", (0, 2, 3))):
        scores = {"test": dict.fromkeys(indices, 0.5)}
        name = write_scores(tmp_path, gnn, scores)
        rows.append(make_row(gnn=gnn, scores_file=name, n_split=3, **accuracy_summary(scores["test"])))
    a, b = sorted(boards(rows)[0].entries, key=lambda entry: entry.name)
    with pytest.raises(BadInput, match="On split test, seed 0, gat lacks architecture 3: evaluate both"):
        stats.compare_entries(a, b, ("test",), tmp_path)


def test_scores_are_loaded_by_seed_and_index(tmp_path: Path) -> None:
    rows = []
    for seed in (1, 0):
        scores = {"test": {2: 0.3 + seed / 10, 0: 0.1 + seed / 10}}
        name = write_scores(tmp_path, f"gat-{seed}", scores)
        rows.append(make_row(seed=seed, scores_file=name, n_split=2, **accuracy_summary(scores["test"])))
    rows.append(failed_row(seed=2))
    entry = boards(rows)[0].entries[0]
    assert stats.load_scores(entry, tmp_path)["test"] == pytest.approx(np.array([[0.1, 0.3], [0.2, 0.4]]))


def test_missing_scores_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="gat, seed 0, split test names no scores file"):
        stats.load_scores(boards([make_row()])[0].entries[0], tmp_path)
    name = write_scores(tmp_path, "gat", {"test": {0: 0.5}})
    with pytest.raises(BadInput, match="holds 1 scores of split test, 4 are needed"):
        stats.load_scores(boards([make_row(scores_file=name)])[0].entries[0], tmp_path)

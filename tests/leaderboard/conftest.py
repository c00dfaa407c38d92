"""Rows whose leaderboard can be computed by hand: three methods, three splits, two seeds."""

from __future__ import annotations

import math
from typing import Any

import pytest

from deepnets_bench.leaderboard.results import ResultRow

# Accuracy of (method, split) by seed.
#         test: a 2, b 1, c 3    wide: a 1, b 2.5, c 2.5    deep: a 1, b 2, c 3
# so average ranks are a 4/3, b 5.5/3, c 8.5/3
ACCURACY = {
    "a": {"test": (0.50, 0.54), "wide": (0.40, 0.50), "deep": (0.60, 0.62)},
    "b": {"test": (0.60, 0.64), "wide": (0.30, 0.32), "deep": (0.40, 0.40)},
    "c": {"test": (0.20, 0.20), "wide": (0.32, 0.30), "deep": (0.10, 0.20)},
}


def make_row(**changes: Any) -> ResultRow:
    """A valid row of four architectures, with some fields changed."""
    fields: dict[str, Any] = {
        "track": "digits",
        "track_version": 1,
        "comparable": True,
        "gnn": "gat",
        "seed": 0,
        "split": "test",
        "status": "ok",
        "n_evaluated": 4,
        "n_split": 4,
        "accuracy_mean": 0.5,
        "accuracy_std": 0.1,
        "accuracy_sem": 0.05,
        "accuracy_max": 1.0,
        "accuracy_max_index": 2,
        "ghn_params": 100_000,
        "gnn_params": 4_000,
        "steps": 1000,
        "train_seconds": 60.0,
        "eval_seconds": 2.0,
        "dataset_fingerprint": "d1",
        "config_hash": "c0",
        "package_version": "0.1.0",
        "utc_time": "2026-11-23T10:00:00Z",
    }
    return ResultRow(**(fields | changes))


def failed_row(**changes: Any) -> ResultRow:
    """A row of a run that died."""
    accuracy = dict.fromkeys(
        ("accuracy_mean", "accuracy_std", "accuracy_sem", "accuracy_max", "accuracy_max_index")
    )
    return make_row(
        **({"status": "failed", "reason": "out of memory", "n_evaluated": 0} | accuracy | changes)
    )


@pytest.fixture
def rows() -> list[ResultRow]:
    return [
        make_row(gnn=gnn, split=split, seed=seed, accuracy_mean=accuracy, train_seconds=60.0 + 20 * seed)
        for gnn, by_split in ACCURACY.items()
        for split, accuracies in by_split.items()
        for seed, accuracy in enumerate(accuracies)
    ]


def sample_std(x: float, y: float) -> float:
    return abs(x - y) / math.sqrt(2)

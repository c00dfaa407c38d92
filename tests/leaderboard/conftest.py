"""Rows whose leaderboard can be computed by hand: three methods, three splits, two seeds."""

from __future__ import annotations

import math
from typing import Any

import pytest

from deepnets_bench.leaderboard.identity import hash_config
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
    """A valid row of four architectures, with some fields changed; its config_hash follows from them."""
    fields: dict[str, Any] = {
        "track": "digits",
        "track_version": 1,
        "track_digest": "7" * 16,
        "comparable": True,
        "gnn": "gat",
        "gnn_options": "{}",
        "gnn_digest": "9" * 16,
        "seed": 0,
        "split": "test",
        "metric": "top1",
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
        "dataset_fingerprint": "d" * 16,
        "frame_digest": "",
        "precision": "32",
        "threads": 1,
        "package_version": "0.1.0",
        "torch_version": "2.15.0",
        "utc_time": "2026-11-23T10:00:00Z",
    }
    fields |= changes
    if "config_hash" not in fields:
        names = ("track_digest", "dataset_fingerprint", "frame_digest", "gnn", "gnn_digest", "gnn_options")
        fields["config_hash"] = hash_config(seed=fields["seed"], **{name: fields[name] for name in names})
    return ResultRow(**fields)


def changed(row: ResultRow, **fields: Any) -> ResultRow:
    """The row with some fields changed, and the config_hash that follows from them."""
    return make_row(**(row.model_dump(exclude={"config_hash"}) | fields))


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

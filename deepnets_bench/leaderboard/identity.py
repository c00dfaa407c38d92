"""Identity: what makes two rows the work of one job, and which of them come from one run of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from deepnets_bench.leaderboard.results import ResultRow, canonical_json, safe_text


def hash_config(
    *,
    track_digest: str,
    dataset_fingerprint: str,
    frame_digest: str,
    gnn: str,
    gnn_digest: str,
    gnn_options: Mapping[str, Any] | str,
    seed: int,
) -> str:
    """16 hexadecimal digits over all that determines a result: rows of one job share it, no others do."""
    identity = {
        "track": track_digest,
        "dataset": dataset_fingerprint,
        "frame": frame_digest,
        "gnn": safe_text(gnn),
        "gnn_source": gnn_digest,
        "options": canonical_json(gnn_options),
        "seed": seed,
    }
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


def job(row: ResultRow) -> tuple[str, str, int, str]:
    """One GNN with one seed under one configuration."""
    return row.gnn, row.gnn_options, row.seed, row.config_hash


def run(row: ResultRow) -> tuple[str, str, int, str, str]:
    """One run of a job: its rows, one a split, carry the same time."""
    return (*job(row), row.utc_time)


def unfinished_runs(rows: Iterable[ResultRow]) -> set[tuple[str, str, int, str, str]]:
    """The runs that left a split failed or partial, after which the job may run again."""
    return {run(row) for row in rows if row.status != "ok"}

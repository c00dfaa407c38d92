"""Boards and comparisons as JSON with stable keys; accuracies and differences are fractions, not percent."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from deepnets_bench.leaderboard.aggregate import COSTS, Board, Entry
from deepnets_bench.leaderboard.inference import Analysis, Family
from deepnets_bench.leaderboard.stats import Comparison


def board_data(board: Board, analyses: Mapping[str, Analysis]) -> dict[str, Any]:
    """The ranking of a board and what may be claimed on each endpoint and split."""
    return {
        **_board_keys(board),
        "splits": list(board.splits),
        "gnns": [_entry(entry) for entry in board.entries],
        "controls": [_entry(entry) for entry in board.controls],
        "analyses": {key: _analysis(analysis) for key, analysis in analyses.items()},
        "notes": list(board.notes),
    }


def comparison_data(board: Board, a: Entry, b: Entry, comparisons: Sequence[Comparison]) -> dict[str, Any]:
    """A against B on each endpoint and split; null where there is no test."""
    rows = [{**asdict(c), "seeds": list(c.seeds), "significant": c.significant} for c in comparisons]
    return {**_board_keys(board), "a": a.name, "b": b.name, "comparisons": rows}


def to_json(data: Mapping[str, Any]) -> str:
    """Indented JSON; an infinite or undefined number becomes null."""
    return json.dumps(_finite(data), indent=2, ensure_ascii=False, allow_nan=False)


def _board_keys(board: Board) -> dict[str, Any]:
    return {"track": board.track, "track_version": board.track_version, "comparable": board.comparable}


def _entry(entry: Entry) -> dict[str, Any]:
    splits = {
        split: {**asdict(score), "by_seed": {str(seed): value for seed, value in score.by_seed.items()}}
        for split, score in entry.scores.items()
    }
    return {
        "name": entry.name,
        "gnn": entry.gnn,
        "gnn_options": json.loads(entry.gnn_options),
        "seeds": list(entry.seeds),
        "average_rank": entry.average_rank,
        "splits": splits,
        "costs": {key: entry.costs[key] for key in COSTS},
    }


def _analysis(analysis: Analysis) -> dict[str, Any]:
    return {
        "gnns": list(analysis.block.names),
        "seeds": list(analysis.block.seeds),
        "left_out": dict(analysis.block.left_out),
        "no_test": analysis.reason or None,
        "residual_sd": analysis.residual_sd,
        "f_test": asdict(analysis.f_test) if analysis.f_test else None,
        "references": _family(analysis.references),
        "pairs": _family(analysis.pairs),
        "letters": dict(analysis.letters) if analysis.letters else None,
        "rank_intervals": {name: list(bounds) for name, bounds in (analysis.rank_intervals or {}).items()}
        or None,
    }


def _family(family: Family | None) -> dict[str, Any] | None:
    if family is None:
        return None
    tests = [{**asdict(test), "significant": test.significant} for test in family.tests]
    return {"tests": tests, "size": family.size, "detectable": family.detectable}


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not abs(value) < float("inf") else value

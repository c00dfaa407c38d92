"""Marking rows as reproduced: a second run is compared with the original rows and appended under a name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from deepnets_bench.errors import BadInput
from deepnets_bench.leaderboard.identity import job
from deepnets_bench.leaderboard.reproduction import TOLERANCE, Reproduction, reproductions
from deepnets_bench.leaderboard.results import ResultRow, append_rows, read_rows, safe_text
from deepnets_bench.leaderboard.scores import read_scores, write_scores
from deepnets_bench.leaderboard.validate import validate


def reproduce(results: Path, again: Path, by: str) -> list[Reproduction]:
    """Append the rows of the file `again` that repeat rows of `results`, marked as reproduced by `by`.

    Per-architecture scores are copied along. Nothing is written, and BadInput raised, when nothing repeats a
    row, a split of a run is missing, `again` has faults or copies of the originals, or an accuracy is further
    away than `TOLERANCE`, and for an empty name.
    """
    by = safe_text(by)
    if not by:
        raise BadInput("Say by whom (--by); an empty name marks nothing.")
    rows, new = read_rows(results), read_rows(again)
    marked = {(job(row), row.split) for row in rows if row.reproduced_by == by}
    found = reproductions(rows, new)
    if not found:
        raise BadInput(
            f"No finished row of {again} repeats one of {results}: GNN, options, seed, track version and "
            "dataset must be the same."
        )
    found = [pair for pair in found if (job(pair.again), pair.again.split) not in marked]
    if not found:
        raise BadInput(f"The rows of {again} are already marked as reproduced by {by}.")
    if faults := validate(again):
        raise BadInput(f"{again} has faults, the first: {faults[0]}.")
    _check(rows, found)
    names = {}
    for name in dict.fromkeys(pair.again.scores_file for pair in found):
        scores = read_scores(again.parent / "scores" / name)
        names[name] = write_scores(results.parent / "scores", Path(name).stem, scores)
    append_rows(
        results,
        [
            pair.again.model_copy(update={"reproduced_by": by, "scores_file": names[pair.again.scores_file]})
            for pair in found
        ],
    )
    return found


def _check(rows: Sequence[ResultRow], found: Sequence[Reproduction]) -> None:
    for pair in found:
        what = f"{pair.original.gnn}, seed {pair.original.seed}"
        if pair.again.utc_time == pair.original.utc_time:
            raise BadInput(f"The rows of {what} are copies of the originals, not another run.")
        if abs(pair.difference) > TOLERANCE:
            raise BadInput(
                f"Not reproduced: {what}, split {pair.original.split} has {pair.again.accuracy_mean:.2%} "
                f"where the original has {pair.original.accuracy_mean:.2%}; {TOLERANCE:.0%} is permitted."
            )
        needed = {row.split for row in rows if row.status == "ok" and job(row) == job(pair.original)}
        missing = needed - {other.again.split for other in found if job(other.again) == job(pair.original)}
        if missing:
            raise BadInput(f"The new run of {what} has no finished row of {', '.join(sorted(missing))}.")

"""Rows that repeat the work of others: appended beside the originals, never averaged with them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from deepnets_bench.leaderboard.identity import job
from deepnets_bench.leaderboard.results import ResultRow

# Largest difference in mean accuracy on a split at which a row counts as reproduced. Where sums are rounded
# otherwise, on another machine or after a change of the code, training multiplies that: seed 0 of mlp on
# digits came out 0.2 to 1.9 points away on its six splits.
TOLERANCE = 0.03


@dataclass(frozen=True)
class Reproduction:
    """A row of a board and the row that repeats its work: one configuration and seed, one split."""

    original: ResultRow
    again: ResultRow

    @property
    def difference(self) -> float:
        """Mean accuracy of the repetition minus that of the original, a fraction."""
        return (self.again.accuracy_mean or 0.0) - (self.original.accuracy_mean or 0.0)


def reproductions(rows: Sequence[ResultRow], again: Iterable[ResultRow]) -> list[Reproduction]:
    """Finished rows of `again` that repeat a finished original of `rows`, in the order of `again`."""
    originals = {(job(row), row.split): row for row in rows if row.status == "ok" and not row.reproduced_by}
    return [
        Reproduction(originals[key], row)
        for row in again
        if row.status == "ok" and (key := (job(row), row.split)) in originals
    ]

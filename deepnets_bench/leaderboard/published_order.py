"""What a board says of the published order of MLP, GHN-1 and GHN-2, with intervals, whatever it is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from deepnets_bench.leaderboard.aggregate import METRICS, OOD, Board, mean, out_of_distribution
from deepnets_bench.leaderboard.inference import Analysis, PairTest
from deepnets_bench.leaderboard.reference import CIFAR10, published
from deepnets_bench.leaderboard.table import Table

NAMES = {"mlp": "MLP", "ghn1": "GHN-1", "ghn2": "GHN-2"}  # GNN here: method there
PAIRS = (("ghn1", "mlp"), ("ghn2", "ghn1"), ("ghn2", "mlp"))  # (better, worse) as published on most splits
_NOTE = (
    "Differences in percentage points with 95 % t intervals over seeds, not corrected; * significant after "
    "Holm's correction within the primary family (every GNN against mlp and ghn2). Orders are by the mean: "
    "where a difference has no *, the two may stand the other way round."
)


def order_tables(board: Board, analyses: Mapping[str, Analysis]) -> list[Table]:
    """The table of the published order, with a paragraph; none where fewer than two of them are."""
    here = [name for name in NAMES if any(entry.name == name for entry in board.entries)]
    if len(here) < 2:
        return []
    rows = []
    for key, analysis in analyses.items():
        cells = (_difference(analysis, better, worse) for better, worse in PAIRS)
        rows.append((key, _chain(published_means(key)), _chain(_means(analysis)), *cells))
    headers = ("endpoint", "published", "here", *(f"{better} - {worse}" for better, worse in PAIRS))
    notes = (*paragraph(board, analyses), _NOTE)
    return [Table(f"{board.title} · the published order", headers, tuple(rows), notes)]


def paragraph(board: Board, analyses: Mapping[str, Analysis]) -> list[str]:
    """Sentences: what was published, and on each endpoint which of the differences hold here."""
    found = [_published_sentence([*board.splits])]
    for key, analysis in analyses.items():
        means = published_means(key)
        groups: dict[str, list[str]] = {"as published": [], "the other way round": [], "not told apart": []}
        for better, worse in PAIRS if means else ():
            if test := _test(analysis, better, worse):
                lead = test.difference if test.a == better else -test.difference
                agrees = lead * (means[better] - means[worse]) > 0
                found_here = "as published" if agrees else "the other way round"
                groups[found_here if test.significant else "not told apart"].append(f"{better} and {worse}")
        parts = [f"{what}: {', '.join(pairs)}" for what, pairs in groups.items() if pairs]
        if parts:
            found.append(f"Here on {key}: {'; '.join(parts)}.")
    if len(found) == 1:
        found.append("Here nothing is tested: too few seeds in common, or fewer than two of the three.")
    return found


def published_means(key: str) -> dict[str, float]:
    """{GNN: published accuracy on a split of CIFAR-10 in %}, of `OOD` the mean over those splits."""
    accuracy = published()[CIFAR10].accuracy
    splits = _splits()
    wanted = out_of_distribution(splits) if key == OOD else [key] if key in splits else []
    if not wanted:
        return {}
    return {
        name: math.fsum(accuracy[method][split][0] for split in wanted) / len(wanted)
        for name, method in NAMES.items()
    }


def _splits() -> list[str]:
    """The published splits; single networks, which have no error over architectures, are none."""
    return [split for split, (_, error) in published()[CIFAR10].accuracy["MLP"].items() if error is not None]


def _published_sentence(splits: Sequence[str]) -> str:
    """For example "Published on CIFAR-10: mlp < ghn1 < ghn2 on val, test; ghn1 < mlp < ghn2 on bnfree."."""
    by_order: dict[str, list[str]] = {}
    for split in _splits():
        if split in splits:
            by_order.setdefault(_chain(published_means(split)), []).append(split)
    orders = "; ".join(f"{order} on {', '.join(where)}" for order, where in by_order.items())
    return f"Published on CIFAR-10: {orders}."


def _means(analysis: Analysis) -> dict[str, float]:
    found = {name: mean(analysis.block.of(name)) for name in NAMES}
    return {name: value for name, value in found.items() if value is not None}


def _chain(means: Mapping[str, float]) -> str:
    """Names in ascending order, "a < b", or a dash."""
    return " < ".join(sorted(means, key=lambda name: means[name])) or "–"


def _test(analysis: Analysis, a: str, b: str) -> PairTest | None:
    tests = analysis.references.tests if analysis.references else ()
    return next((test for test in tests if {test.a, test.b} == {a, b}), None)


def _difference(analysis: Analysis, a: str, b: str) -> str:
    """a - b with its interval, without one where there is no test, a dash where one of them is missing."""
    gap, means, test = METRICS["gap"], _means(analysis), _test(analysis, a, b)
    if a not in means or b not in means:
        return "–"
    difference = gap.text(means[a] - means[b])
    if test is None:
        return difference
    low, high = (test.low, test.high) if test.a == a else (-test.high, -test.low)
    return f"{difference} [{gap.text(low)}, {gap.text(high)}]{' *' if test.significant else ''}"

"""Analyses in words and tables: what may be claimed of the GNNs of a board, and what could have been."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from deepnets_bench.leaderboard.aggregate import (
    METRICS,
    OOD,
    REFERENCE_SPLIT,
    Board,
    Entry,
    mean,
    out_of_distribution,
    sample_std,
    seeds_text,
)
from deepnets_bench.leaderboard.table import Table

if TYPE_CHECKING:
    from deepnets_bench.leaderboard.inference import Analysis, Family
    from deepnets_bench.leaderboard.stats import Comparison

LETTERS = (
    "GNNs that share a letter are not separable: no test of all pairs, with Holm's correction, tells them "
    "apart at 5 %."
)
RANKS = "rank: interval [1 + significant losses, number of GNNs - significant wins]."
_NAMED_PAIRS = 8  # more are only counted


def verdict_table(board: Board, analyses: Mapping[str, Analysis]) -> Table:
    """The endpoints: mean ± std over the seeds compared, letters and rank interval of every GNN."""
    ends = endpoints(analyses)
    headers = ["GNN"]
    for end in ends:
        headers += [f"{end.endpoint} (%)", "seeds", "letters", "rank"]
    rows = tuple((e.name, *(cell for end in ends for cell in endpoint_cells(e, end))) for e in board.entries)
    notes = [
        "Accuracy: mean over the seeds compared ± standard deviation over seeds (ddof=1). The unit of every "
        "test is the run of a seed, the seed a block (docs/statistics.md).",
        LETTERS,
        RANKS,
        *(sentence for end in ends for sentence in sentences(end)),
    ]
    if any(end.endpoint == OOD for end in ends):
        notes.append(f"OOD: mean over all splits but val and {REFERENCE_SPLIT}; the secondary endpoint.")
    return Table(f"{board.title} · what the seeds say", tuple(headers), rows, tuple(notes))


def endpoints(analyses: Mapping[str, Analysis]) -> list[Analysis]:
    """The analyses of the primary and the secondary endpoint, where there are any."""
    return [analyses[key] for key in (REFERENCE_SPLIT, OOD) if key in analyses]


def endpoint_cells(entry: Entry, analysis: Analysis) -> tuple[str, str, str, str]:
    """Mean ± std, number of seeds, letters and rank interval; a GNN that is not compared shows dashes."""
    values = analysis.block.of(entry.name)
    if not values:
        return "–", "–", "–", "–"
    text = METRICS["accuracy"].text(mean(values), sample_std(values))
    return (text, str(len(values)), letters_of(entry.name, analysis), rank_of(entry.name, analysis))


def letters_of(name: str, analysis: Analysis | None) -> str:
    """The letters of a GNN, a dash where nothing was tested."""
    return (analysis.letters or {}).get(name, "–") if analysis else "–"


def rank_of(name: str, analysis: Analysis | None) -> str:
    """The rank interval of a GNN, for example "1–4"; a dash where nothing was tested."""
    bounds = (analysis.rank_intervals or {}).get(name) if analysis else None
    return "–" if bounds is None else "–".join(dict.fromkeys(map(str, bounds)))


def sentences(analysis: Analysis) -> list[str]:
    """What an analysis rests on: its runs, the F-test, each family's claims and detectable difference."""
    key, block = analysis.endpoint, analysis.block
    left_out = [f"{name} ({why})" for name, why in block.left_out.items()]
    absent = [f"{key}: not compared: {', '.join(left_out)}."] if left_out else []
    if analysis.f_test is None or analysis.pairs is None:
        return [f"{key}: {analysis.reason}", *absent]
    f, gap = analysis.f_test, METRICS["gap"]
    seeds = ", ".join(map(str, block.seeds))
    spread = gap.text(analysis.residual_sd)[1:]
    found = [
        f"{key}: {len(block.names)} GNNs × seeds {seeds}. Residual standard deviation {spread} pp; blocked "
        f"ANOVA F({f.df_gnns}, {f.df_residual}) = {f.statistic:.2f}, p = {f.p_value:.2g}.",
        *absent,
    ]
    if analysis.references:
        found.append(f"{key}, against references (primary): {_family(analysis.references)}")
    found.append(f"{key}, all pairs (secondary): {_family(analysis.pairs)}")
    return found


def detectable_notes(analyses: Iterable[Analysis]) -> list[str]:
    """Sentences on the letters of splits and what was detectable, and one on each that has no test."""
    analyses = list(analyses)
    tested = [
        f"{a.endpoint} {_points(a.pairs.detectable)} ({a.pairs.size} tests)"
        for a in analyses
        if a.pairs is not None
    ]
    untested: dict[str, list[str]] = {}
    for a in analyses:
        if a.pairs is None:
            untested.setdefault(a.reason, []).append(a.endpoint)
    notes = [f"{', '.join(endpoints)}: {reason}" for reason, endpoints in untested.items()]
    if tested:
        power = "Detectable difference in pp (power 0.8 in the first step of Holm over all pairs)"
        notes = [LETTERS, f"{power}: {', '.join(tested)}.", *notes]
    return notes


def comparison_table(board: Board, a: Entry, b: Entry, comparisons: Sequence[Comparison]) -> Table:
    """A against B on each endpoint and split; the last column names the better one, where significant."""
    accuracy, gap = METRICS["accuracy"], METRICS["gap"]
    headers = ("split", "seeds", "A", "B", "A - B", "p", "p (Holm)", "detectable", "better")

    def row(c: Comparison) -> tuple[str, ...]:
        start = (c.split, str(len(c.seeds)), accuracy.text(c.mean_a), accuracy.text(c.mean_b))
        if c.low is None or c.p_value is None or c.p_holm is None or c.detectable is None:
            return (*start, gap.text(c.difference), "–", "–", "–", "–")
        return (
            *start,
            f"{gap.text(c.difference)} [{gap.text(c.low)}, {gap.text(c.high)}]",
            f"{c.p_value:.2g}",
            f"{c.p_holm:.2g}",
            _points(c.detectable),
            ("A" if c.difference > 0 else "B") if c.significant else "–",
        )

    used = dict.fromkeys(c.seeds for c in comparisons)
    notes = [
        "Accuracy in %: mean over seeds; differences in percentage points, in brackets their 95 % t interval "
        "(not corrected). Paired by seed, t-test. test and OOD (mean over the out-of-distribution splits) "
        "stand alone, single splits are corrected together (Holm). detectable: found with probability 0.8, "
        "corrected.",
        f"Compared: {'; '.join(f'{seeds_text(seeds)} ({len(seeds)} in common)' for seeds in used)}."
        + "".join(_unpaired(entry, used) for entry in (a, b)),
    ]
    if len(out_of_distribution(board.splits)) > 1 and not any(c.split == OOD for c in comparisons):
        notes.append("No OOD: there is no seed for which both have all its splits.")
    if len(board.entries) > 2:
        notes.append(
            f"This is a comparison planned beforehand. Of a pair picked out of the {len(board.entries)} GNNs "
            "of the board, the result corrected for all pairs counts (leaderboard show)."
        )
    if any(c.p_value is None for c in comparisons):
        notes.append("Fewer than 3 common seeds: no test, the difference alone.")
    title = f"{board.title} · A = {a.name}, B = {b.name}"
    return Table(title, headers, tuple(map(row, comparisons)), tuple(notes))


def _unpaired(entry: Entry, used: Iterable[tuple[int, ...]]) -> str:
    alone = sorted(set(entry.seeds) - {seed for seeds in used for seed in seeds})
    return f" Of {entry.name} alone, not compared: {', '.join(map(str, alone))}." if alone else ""


def _family(family: Family) -> str:
    claims = [test for test in family.tests if test.significant]
    claims.sort(key=lambda test: test.p_holm)
    named = ""
    if 0 < len(claims) <= _NAMED_PAIRS:
        named = ": " + ", ".join(" over ".join(test.ordered) for test in claims)
    verb = "is" if len(claims) == 1 else "are"
    return (
        f"{len(claims)} of {len(family.tests)} differences {verb} significant{named}. Detectable difference "
        f"{_points(family.detectable)} pp (power 0.8 in the first step of Holm over {family.size} tests)."
    )


def _points(fraction: float) -> str:
    return METRICS["gap"].text(fraction)[1:]

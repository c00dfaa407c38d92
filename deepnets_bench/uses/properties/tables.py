"""Boards of property prediction: Kendall's tau of every GNN and baseline, and what the seeds say of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from deepnets_bench.errors import BadInput, UnknownName
from deepnets_bench.leaderboard.aggregate import mean, sample_std
from deepnets_bench.leaderboard.inference import REFERENCES, Analysis, Family, analyse
from deepnets_bench.leaderboard.table import Table
from deepnets_bench.leaderboard.verdict import LETTERS
from deepnets_bench.uses.properties.bounds import Bounds
from deepnets_bench.uses.properties.predictions import FEATURES
from deepnets_bench.uses.properties.results import PropertyRow
from deepnets_bench.uses.properties.targets import NAMES

PRIMARY = "accuracy"  # tested alone; the other properties are one family
MODES = ("direct", "svr", "ridge", "boosting", "published", "baselines")
_TESTED = frozenset(MODES[:4])
_REFERENCES = (FEATURES, *REFERENCES)
_NO_BOUNDS = Bounds()
_SEEDS = "a seed is another sample of labels and other initial weights"
_ORDERS = "five orders of the same labels for one hypernetwork, which tell nothing of others"


def property_table(
    rows: Sequence[PropertyRow], mode: str, labels: int | None = None, bounds: Bounds = _NO_BOUNDS
) -> Table:
    """One mode at one number of labels, the largest by default: mean ± std of tau over seeds, and letters.

    GNNs stand beside the features of graphs, the bar that they must pass, where `rows` has these. Notes say
    `bounds`, or why there are none. Raises `BadInput` where there are no rows of the mode, or of several sets
    of labels, tracks, hypernetworks or sources of a GNN.
    """
    chosen = _of_mode(rows, mode)
    counts = sorted({row.labels for row in chosen})
    count = counts[-1] if labels is None else labels
    if count not in counts:
        raise BadInput(f"There are results for {', '.join(map(str, counts))} labels, not for {count}.")
    bar = [
        row
        for row in rows
        if mode in _TESTED
        and row.method == FEATURES
        and (row.labels_digest, row.protocol_digest) == (chosen[0].labels_digest, chosen[0].protocol_digest)
    ]
    runs = runs_of([row for row in [*chosen, *bar] if row.labels == count])
    analyses = verdicts(runs) if mode in _TESTED else {}
    first = next(name for name in NAMES if name in runs)
    order = sorted(runs[first], key=lambda name: mean(list(runs[first][name].values())) or 0.0, reverse=True)
    headers = ["baseline" if mode == "baselines" else "GNN"]
    for name in runs:
        headers += [name, "letters"] if analyses else [name]
    cells = tuple((name, *_cells(name, runs, analyses)) for name in order)
    tested = chosen[0].tested
    notes = [
        f"Kendall's tau on {tested} test architectures from {count} labels: mean over seeds ± standard "
        f"deviation (ddof=1); {_ORDERS if mode == 'published' else _SEEDS}.",
        *_sentences(analyses),
    ]
    known = [f"{name} {tau:.2f}" for name, tau in bounds.taus.items() if tau is not None and name in runs]
    if known:
        notes.append(f"A perfect predictor would reach, by the noise of the labels: {', '.join(known)}.")
    if bounds.note:
        notes.append(bounds.note)
    return Table(f"Property prediction · {mode} · {count} labels", tuple(headers), cells, tuple(notes))


def _of_mode(rows: Sequence[PropertyRow], mode: str) -> list[PropertyRow]:
    """The rows of a mode; raises what `property_table` says."""
    if mode not in MODES:
        raise UnknownName("mode", mode, MODES)
    chosen = [row for row in rows if row.mode == mode]
    if not chosen:
        raise BadInput(f"There are no results of the mode '{mode}' yet.")
    if len({(row.labels_digest, row.protocol_digest) for row in chosen}) > 1:
        raise BadInput(f"The results of the mode '{mode}' are of several sets of labels or protocols.")
    if len(tracks := sorted({row.ghn_track for row in chosen})) > 1:
        named = ", ".join(track or "files without a run" for track in tracks)
        raise BadInput(
            f"The results of the mode '{mode}' are of hypernetworks of several tracks ({named}); keep each "
            "in a file of its own (--out)."
        )
    if twice := _twice([row for row in chosen if row.labels == max(row.labels for row in chosen)]):
        raise BadInput(
            f"The results of the mode '{mode}' are of two {twice}; keep each in a file of its own (--out)."
        )
    return chosen


def _twice(rows: Sequence[PropertyRow]) -> str:
    """A GNN and seed with rows of two hypernetworks or two sources of the GNN; '' where there is none."""
    first: dict[tuple[str, int], PropertyRow] = {}
    for row in rows:
        other = first.setdefault((row.name, row.seed), row)
        if row.gnn_digest != other.gnn_digest:
            return f"sources of GNN {row.name} with seed {row.seed}"
        if row.source != other.source:
            return f"hypernetworks with GNN {row.name} and seed {row.seed}"
    return ""


def runs_of(rows: Sequence[PropertyRow]) -> dict[str, dict[str, dict[int, float]]]:
    """{property: {GNN or baseline: {seed: tau}}}, properties in the order of `NAMES`."""
    found: dict[str, dict[str, dict[int, float]]] = {}
    for name in NAMES:
        for row in rows:
            if row.target == name:
                found.setdefault(name, {}).setdefault(row.name, {})[row.seed] = row.tau
    return found


def rows_of_run(
    rows: Sequence[PropertyRow], mode: str, name: str, seed: int | None = None
) -> list[PropertyRow]:
    """The rows of one line of a table and one seed, its first one by default, from the most labels.

    Raises `UnknownName` for a line that there is not, `BadInput` for a seed.
    """
    of_mode = [row for row in rows if row.mode == mode]
    names = list(dict.fromkeys(row.name for row in of_mode))
    if name not in names:
        raise UnknownName("GNN" if mode != "baselines" else "baseline", name, names, f"of the mode '{mode}'")
    mine = [row for row in of_mode if row.name == name]
    seeds = sorted({row.seed for row in mine})
    chosen = seeds[0] if seed is None else seed
    if chosen not in seeds:
        raise BadInput(f"{name} has results of seeds {', '.join(map(str, seeds))}, not of {chosen}.")
    count = max(row.labels for row in mine)
    by_target = {row.target: row for row in mine if (row.seed, row.labels) == (chosen, count)}
    return [by_target[target] for target in NAMES if target in by_target]


def verdicts(runs: Mapping[str, Mapping[str, Mapping[int, float]]]) -> dict[str, Analysis]:
    """Tests whose unit is the seed: accuracy alone, all other properties corrected together.

    Every GNN against the features of graphs, mlp and ghn2 is one family, all pairs are another.
    """
    others = {name: values for name, values in runs.items() if name != PRIMARY}
    found = analyse({PRIMARY: runs[PRIMARY]}, _REFERENCES) if PRIMARY in runs else {}
    return found | (analyse(others, _REFERENCES) if others else {})


def _cells(
    name: str, runs: Mapping[str, Mapping[str, Mapping[int, float]]], analyses: Mapping[str, Analysis]
) -> list[str]:
    cells = []
    for target, of_target in runs.items():
        values = list(of_target.get(name, {}).values())
        spread = f" ± {sample_std(values):.3f}" if len(values) > 1 else ""
        cells.append(f"{mean(values):.3f}{spread}" if values else "–")
        if analyses:
            cells.append((analyses[target].letters or {}).get(name, "–"))
    return cells


def _sentences(analyses: Mapping[str, Analysis]) -> list[str]:
    tested = {name: found.pairs for name, found in analyses.items() if found.pairs is not None}
    reasons = dict.fromkeys(found.reason for found in analyses.values() if found.pairs is None)
    if not tested:
        return list(reasons)
    limits = ", ".join(f"{name} {family.detectable:.3f}" for name, family in tested.items())
    return [
        LETTERS,
        f"Detectable difference of tau (power 0.8 in the first step of Holm over all pairs): {limits}.",
        *(
            f"{name}, against {FEATURES}: {_against_the_bar(found.references)}."
            for name, found in analyses.items()
            if found.references is not None and FEATURES in found.block.names
        ),
        *reasons,
    ]


def _against_the_bar(family: Family) -> str:
    """Which GNNs are better and which are worse than the features, by the family of references."""
    claims = [test for test in family.tests if test.significant and FEATURES in (test.a, test.b)]
    better = [test.ordered[0] for test in claims if test.ordered[1] == FEATURES]
    worse = [test.ordered[1] for test in claims if test.ordered[0] == FEATURES]
    return f"better {', '.join(better) or 'none'}; worse {', '.join(worse) or 'none'}"

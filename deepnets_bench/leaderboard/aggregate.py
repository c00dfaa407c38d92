"""From result rows to a leaderboard: pure functions of the rows, no files and no printing.

A board holds the rows of one track version, comparable or not, and never of two, and of those only the ones
that may be compared (`admission`); notes say which are left out. A method is a GNN with its options. Accuracy
is averaged over seeds with std ddof=1; rows that are not `ok`, and rows by which someone reproduced others,
are shown and never averaged.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from deepnets_bench.errors import BadInput, UnknownName
from deepnets_bench.leaderboard.admission import Calibration, LeftOut, admit, group_by
from deepnets_bench.leaderboard.identity import run, unfinished_runs
from deepnets_bench.leaderboard.reproduction import Reproduction, reproductions
from deepnets_bench.leaderboard.results import ResultRow

SPLITS = ("val", "test", "wide", "deep", "dense", "bnfree", "predefined")  # the order of every table
SELECTION_SPLIT = "val"  # for development: choices are made on it, so it never counts in a rank
REFERENCE_SPLIT = "test"  # in distribution: the gap of every other split is measured from it
CONTROL = "control:"  # begins the name of every control, as `deepnets_bench.gnn.registry` has it
UNTRAINED = "control:untrained:"  # ... and of those that train nothing
OOD = "OOD"  # in tables, the mean over all splits but val and test


@dataclass(frozen=True)
class Metric:
    """One measured quantity: sort order, header and arrow of every table derive from it.

    `scale` turns the stored value into `unit`; `higher_is_better` is None where no direction is good.
    """

    key: str
    title: str
    unit: str
    higher_is_better: bool | None
    scale: float = 1.0
    digits: int = 1
    signed: bool = False

    @property
    def header(self) -> str:
        """Title, unit and arrow, for example "accuracy (%) ↑"."""
        arrow = {True: " ↑", False: " ↓", None: ""}[self.higher_is_better]
        return f"{self.title} ({self.unit}){arrow}" if self.unit else f"{self.title}{arrow}"

    def text(self, value: float | None, std: float | None = None) -> str:
        """The value in this metric's unit, "45.1 ± 0.8" when a std is given, a dash when there is none."""
        if value is None:
            return "–"
        shown = f"{value * self.scale:{'+' if self.signed else ''}.{self.digits}f}"
        return shown if std is None else f"{shown} ± {std * self.scale:.{self.digits}f}"


METRICS: dict[str, Metric] = {
    metric.key: metric
    for metric in (
        Metric("average_rank", "avg rank", "", higher_is_better=False, digits=2),
        Metric("accuracy", "accuracy", "%", higher_is_better=True, scale=100),
        Metric("gap", "gap to test", "pp", higher_is_better=True, scale=100, signed=True),
        Metric("ghn_params", "GHN parameters", "k", higher_is_better=None, scale=1e-3),
        Metric("gnn_params", "GNN parameters", "k", higher_is_better=None, scale=1e-3),
        Metric("steps", "steps", "", higher_is_better=None, digits=0),
        Metric("cpu_seconds", "CPU time", "min", higher_is_better=False, scale=1 / 60),
        Metric("train_seconds", "training", "s", higher_is_better=False, digits=0),
        Metric("eval_seconds", "evaluation", "s", higher_is_better=False, digits=0),
        Metric("peak_memory_mb", "peak memory", "MB", higher_is_better=False, digits=0),
    )
}
COSTS = (
    *("ghn_params", "gnn_params", "steps"),
    *("cpu_seconds", "train_seconds", "eval_seconds", "peak_memory_mb"),
)


@dataclass(frozen=True)
class SplitScore:
    """Accuracy of one method on one split over its seeds: fractions; std, sem with ddof=1, None for one seed.

    `gap`, out of distribution, is the mean over seeds of accuracy here minus that on `test` of the same seed.
    """

    by_seed: Mapping[int, float]
    mean: float | None
    std: float | None
    sem: float | None
    gap: float | None = None
    gap_std: float | None = None
    problems: tuple[str, ...] = ()  # "seed 1 timeout: ...": rows that could not be averaged


@dataclass(frozen=True)
class Entry:
    """One line of a board: a method, its scores by split, its costs (mean over seeds) and its rows."""

    gnn: str
    gnn_options: str
    rows: tuple[ResultRow, ...]
    scores: Mapping[str, SplitScore]
    costs: Mapping[str, float | None]
    average_rank: float | None = None
    reproductions: tuple[Reproduction, ...] = ()

    @property
    def name(self) -> str:
        """The GNN, followed by its options when it has any."""
        return method_name(self.gnn, self.gnn_options)

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds with an accuracy on at least one split."""
        return tuple(sorted({seed for score in self.scores.values() for seed in score.by_seed}))

    @property
    def reproduced_seeds(self) -> tuple[int, ...]:
        """Seeds of which every finished row was reproduced by someone."""
        again = {(pair.original.seed, pair.original.split) for pair in self.reproductions}
        finished = [(row.seed, row.split) for row in self.rows if row.status == "ok"]
        return tuple(seed for seed in self.seeds if all(key in again for key in finished if key[0] == seed))

    @property
    def label(self) -> str:
        """The name and, once someone has reproduced seeds, how many: "gat (reproduced 1/3)"."""
        count = len(self.reproduced_seeds)
        return f"{self.name} (reproduced {count}/{len(self.seeds)})" if count else self.name

    def value(self, key: str) -> float | None:
        """The number a board is sorted by: a metric's, or the mean accuracy on the split named `key`."""
        if key == "average_rank":
            return self.average_rank
        if key in COSTS:
            return self.costs[key]
        score = self.scores.get(REFERENCE_SPLIT if key == "accuracy" else key)
        return score.mean if score else None


@dataclass(frozen=True)
class Board:
    """The ranking of one track version; `notes` says what a reader must know about the numbers.

    `controls` are the entries that are no GNNs to be ranked: see `deepnets_bench.leaderboard.controls`.
    """

    track: str
    track_version: int
    comparable: bool
    splits: tuple[str, ...]
    entries: tuple[Entry, ...]
    notes: tuple[str, ...] = ()
    controls: tuple[Entry, ...] = ()

    @property
    def title(self) -> str:
        """For example "digits v1"."""
        suffix = "" if self.comparable else " (not comparable)"
        return f"{self.track} v{self.track_version}{suffix}"


def boards(rows: Iterable[ResultRow], calibration: Calibration | None = None) -> list[Board]:
    """One board for each (track, version, comparable): newest version first, comparable before not.

    `calibration` is the track's, by which rows of another stack are admitted.
    """
    rows = list(rows)
    originals = [row for row in rows if not row.reproduced_by]
    grouped = group_by(originals, lambda row: (row.track, -row.track_version, not row.comparable))
    again = [row for row in rows if row.reproduced_by]
    return [_board(group, again, calibration) for _, group in sorted(grouped.items())]


def select_board(
    rows: Iterable[ResultRow],
    track: str,
    version: int | None = None,
    smoke: bool = False,
    calibration: Calibration | None = None,
) -> Board:
    """The board of `track`: its newest version, or `version`; `calibration` as in `boards`.

    Rows that are not comparable are shown only when asked for (`smoke`) or when there are no others. Raises
    BadInput when there are no rows of the track.
    """
    everything = boards(rows, calibration)
    found = [b for b in everything if b.track == track and version in (None, b.track_version)]
    if not found:
        wanted = track if version is None else f"{track} v{version}"
        held = ", ".join(dict.fromkeys(f"{b.track} v{b.track_version}" for b in everything))
        raise BadInput(f"There are no results of track {wanted}; the file holds {held or 'no rows'}.")
    found = [b for b in found if b.track_version == found[0].track_version]
    board = next((b for b in found if b.comparable is not smoke), found[0])
    if smoke and board.comparable:
        return replace(board, notes=(*board.notes, "All rows are comparable: there are no smoke runs."))
    left_out = sum(len(e.rows) for b in found if b is not board for e in (*b.entries, *b.controls))
    if not left_out:
        return board
    kind = "not comparable (smoke runs)" if board.comparable else "comparable"
    return replace(board, notes=(*board.notes, f"Rows left out because they are {kind}: {left_out}."))


def sort_entries(entries: Iterable[Entry], key: str, splits: Sequence[str]) -> list[Entry]:
    """Best first by a metric or by a split's accuracy, those without that value last. Raises UnknownName."""
    choices = [*(name for name in METRICS if name != "gap"), *splits]
    if key not in choices:
        raise UnknownName("sort key", key, choices)
    sign = -1.0 if METRICS["accuracy" if key in splits else key].higher_is_better else 1.0

    def order(entry: Entry) -> tuple[float, float, str]:
        value, reference = entry.value(key), entry.value(REFERENCE_SPLIT)
        return math.inf if value is None else sign * value, -(reference or 0.0), entry.name

    return sorted(entries, key=order)


def latest_rows(rows: Iterable[ResultRow]) -> tuple[list[ResultRow], list[str]]:
    """For each (GNN, options, seed, split) its newest `ok` row, else its newest; and notes.

    A note is worth a job that ran again although it was finished; running an unfinished one again is usual.
    """
    rows = list(rows)
    unfinished = unfinished_runs(rows)
    kept: list[ResultRow] = []
    repeats: dict[str, list[str]] = defaultdict(list)
    for (gnn, options, seed, split), group in group_by(
        rows, lambda row: (row.gnn, row.gnn_options, row.seed, row.split)
    ).items():
        finished = sorted((row for row in group if row.status == "ok"), key=lambda row: row.utc_time)
        kept.append(finished[-1] if finished else max(group, key=lambda row: row.utc_time))
        if any(run(row) not in unfinished for row in finished[:-1]):
            repeats[f"{method_name(gnn, options)} seed {seed} was run more than once"].append(split)
    notes = [
        f"{what} ({', '.join(split_order(splits))}): the latest run counts."
        for what, splits in repeats.items()
    ]
    return kept, notes


def find_entry(board: Board, query: str) -> Entry:
    """The method called `query`: a full name, or a GNN that is on the board with one set of options only."""
    entries = (*board.entries, *board.controls)
    found = [entry for entry in entries if entry.name == query]
    found = found or [entry for entry in entries if entry.gnn == query]
    if len(found) != 1:
        raise UnknownName("method", query, [entry.name for entry in entries], f"of {board.title}")
    return found[0]


def average_ranks(means: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Mean rank over splits of each method in {method: {split: accuracy}}: 1 is best, ties share the mean.

    Every method needs the same splits.
    """
    ranks: dict[str, list[float]] = {name: [] for name in means}
    for split in next(iter(means.values()), {}):
        values = [by_split[split] for by_split in means.values()]
        for name, by_split in means.items():
            better = sum(value > by_split[split] for value in values)
            equal = values.count(by_split[split])
            ranks[name].append(better + (equal + 1) / 2)
    return {name: statistics.fmean(values) for name, values in ranks.items() if values}


def out_of_distribution(splits: Iterable[str]) -> list[str]:
    """All splits but `val` and `test`."""
    return [split for split in splits if split not in (SELECTION_SPLIT, REFERENCE_SPLIT)]


def split_order(splits: Iterable[str]) -> tuple[str, ...]:
    """Splits in the order of every table: the known ones first, then others by name."""
    return tuple(sorted(set(splits), key=lambda s: (SPLITS.index(s) if s in SPLITS else len(SPLITS), s)))


def method_name(gnn: str, gnn_options: str) -> str:
    """How a method is called in tables: the GNN, and its options unless they are the defaults."""
    return gnn if gnn_options == "{}" else f"{gnn} {gnn_options}"


def _board(rows: Sequence[ResultRow], again: Sequence[ResultRow], calibration: Calibration | None) -> Board:
    admission = admit(rows, calibration)
    kept, repeats = latest_rows(admission.rows)
    notes = [*map(_left_out_note, admission.left_out), *admission.notes, *repeats]
    splits = split_order(row.split for row in kept)
    by_method = group_by(kept, lambda row: (row.gnn, row.gnn_options))
    everything = [_entry(gnn, options, group, again) for (gnn, options), group in by_method.items()]
    entries = [entry for entry in everything if not entry.gnn.startswith(CONTROL)]
    controls = sorted((e for e in everything if e.gnn.startswith(CONTROL)), key=lambda e: e.name)
    scored = [split for split in splits if split != SELECTION_SPLIT]
    means = {e.name: {split: e.value(split) for split in scored} for e in entries}
    ranks = average_ranks(
        {
            name: {split: mean for split, mean in by_split.items() if mean is not None}
            for name, by_split in means.items()
            if None not in by_split.values()
        }
    )
    entries = [replace(entry, average_rank=ranks.get(entry.name)) for entry in entries]
    unranked = sorted(entry.name for entry in entries if entry.average_rank is None)
    if unranked and scored:
        notes.append(f"Not ranked, as a split has no finished run: {', '.join(unranked)}.")
    notes += [note for entry in entries for note in _reproduction_notes(entry)]
    notes += _unequal_seeds([entry for entry in entries if entry.average_rank is not None])
    first = rows[0]
    ordered = tuple(sort_entries(entries, "average_rank", splits))
    return Board(
        first.track, first.track_version, first.comparable, splits, ordered, tuple(notes), tuple(controls)
    )


def _entry(gnn: str, options: str, rows: Sequence[ResultRow], again: Sequence[ResultRow]) -> Entry:
    by_split = {
        split: {
            row.seed: row.accuracy_mean
            for row in group
            if row.status == "ok" and row.accuracy_mean is not None
        }
        for split, group in group_by(rows, lambda row: row.split).items()
    }
    reference = by_split.get(REFERENCE_SPLIT, {})
    scores = {}
    for split in split_order(by_split):
        against = reference if out_of_distribution([split]) else {}
        scores[split] = _split_score(by_split[split], against, _problems(rows, split))
    costs = {key: mean(_one_per_seed(rows, key)) for key in COSTS}
    return Entry(gnn, options, tuple(rows), scores, costs, reproductions=tuple(reproductions(rows, again)))


def _unequal_seeds(ranked: Sequence[Entry]) -> list[str]:
    """A sentence where ranks compare means over different seeds."""
    seeds = Counter(entry.seeds for entry in ranked)
    if len(seeds) < 2:
        return []
    usual = seeds.most_common(1)[0][0]
    others = "; ".join(f"{e.name} of {seeds_text(e.seeds)}" for e in ranked if e.seeds != usual)
    return [f"Average ranks are by means over the seeds that each has: {seeds_text(usual)}, but {others}."]


def seeds_text(seeds: Sequence[int]) -> str:
    """For example "seeds 0, 1, 2"."""
    return f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"


def _left_out_note(group: LeftOut) -> str:
    """For example "12 rows left out (gat seed 0, 1): precision is bf16, not 32."."""
    methods = group_by(group.rows, lambda row: method_name(row.gnn, row.gnn_options))
    seeds = {name: ", ".join(map(str, sorted({row.seed for row in of}))) for name, of in methods.items()}
    which = "; ".join(f"{name} seed {numbers}" for name, numbers in seeds.items())
    count = "1 row" if len(group.rows) == 1 else f"{len(group.rows)} rows"
    return f"{count} left out ({which}): {group.reason}."


def _reproduction_notes(entry: Entry) -> list[str]:
    """One sentence for each person who reproduced seeds of a method."""
    notes = []
    for by, pairs in group_by(entry.reproductions, lambda pair: pair.again.reproduced_by).items():
        seeds = ", ".join(map(str, sorted({pair.original.seed for pair in pairs})))
        machines = "; ".join(sorted({pair.again.device for pair in pairs} - {""})) or "a machine not named"
        last = max(pair.again.utc_time for pair in pairs)[:10]
        furthest = METRICS["gap"].text(max((pair.difference for pair in pairs), key=abs))
        notes.append(
            f"{entry.name} seed {seeds}: reproduced by {by} on {machines}, {last}; "
            f"largest difference of a mean {furthest} pp."
        )
    return notes


def _problems(rows: Sequence[ResultRow], split: str) -> tuple[str, ...]:
    unfinished = sorted((r for r in rows if r.split == split and r.status != "ok"), key=lambda r: r.seed)
    return tuple(
        f"seed {r.seed} {r.status}: {r.reason or f'{r.n_evaluated} of {r.n_split} architectures evaluated'}"
        for r in unfinished
    )


def _split_score(
    by_seed: Mapping[int, float], reference: Mapping[int, float], problems: tuple[str, ...]
) -> SplitScore:
    values = list(by_seed.values())
    std = sample_std(values)
    gaps = [accuracy - reference[seed] for seed, accuracy in by_seed.items() if seed in reference]
    return SplitScore(
        by_seed=dict(sorted(by_seed.items())),
        mean=mean(values),
        std=std,
        sem=None if std is None else std / math.sqrt(len(values)),
        gap=mean(gaps),
        gap_std=sample_std(gaps),
        problems=problems,
    )


def _one_per_seed(rows: Sequence[ResultRow], key: str) -> list[float]:
    """One value a seed: a run's training costs stand in the row of each split, evaluation seconds add up."""
    by_seed = group_by((row for row in rows if row.status == "ok"), lambda row: row.seed)
    if key == "cpu_seconds":
        return [spent for group in by_seed.values() if (spent := cpu_seconds(group)) is not None]
    measured = ([v for row in group if (v := getattr(row, key)) is not None] for group in by_seed.values())
    combine: Callable[[list[float]], float] = sum if key == "eval_seconds" else max
    return [combine(values) for values in measured if values]


def cpu_seconds(run: Sequence[ResultRow]) -> float | None:
    """CPU seconds of a run by its rows: training, and evaluation on all splits; None where not recorded."""
    training = [row.train_cpu_seconds for row in run if row.train_cpu_seconds is not None]
    evaluation = [row.eval_cpu_seconds for row in run if row.eval_cpu_seconds is not None]
    if not training or len(evaluation) < len(run):
        return None
    return max(training) + math.fsum(evaluation)


def mean(values: Sequence[float]) -> float | None:
    """The mean, None of nothing."""
    return statistics.fmean(values) if values else None


def sample_std(values: Sequence[float]) -> float | None:
    """Standard deviation with ddof=1, None of fewer than two values."""
    return statistics.stdev(values) if len(values) > 1 else None

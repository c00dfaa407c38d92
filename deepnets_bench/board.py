"""`Leaderboard`: the results of a track as DataFrames and tables; the commands stand on it (no torch)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from deepnets_bench.errors import BadInput, UnknownName
from deepnets_bench.harness.protocol.tracks import Track, load_track
from deepnets_bench.leaderboard import build, export
from deepnets_bench.leaderboard.aggregate import (
    REFERENCE_SPLIT,
    Entry,
    find_entry,
    select_board,
    sort_entries,
)
from deepnets_bench.leaderboard.agreement import agreements, halves
from deepnets_bench.leaderboard.agreement_tables import agreement_table, halves_table
from deepnets_bench.leaderboard.inference import Analysis, Family, analyse_board
from deepnets_bench.leaderboard.levels import Level, chance_level
from deepnets_bench.leaderboard.results import read_rows, rows_frame
from deepnets_bench.leaderboard.stats import Comparison, compare_entries, load_runs
from deepnets_bench.leaderboard.table import Table
from deepnets_bench.leaderboard.verdict import comparison_table

if TYPE_CHECKING:
    import pandas as pd

RESULTS = "results.csv"
SCORES = "scores"  # the folder beside the results with the accuracy of every architecture

FamilyName = Literal["pairs", "references"]


class Leaderboard:
    """What the rows of a folder say: who is where, and which GNNs differ, by tests over the runs of seeds.

    `path` is a folder that `run` has written, or a results file. `track` is a `Track`, a name, or the path of
    a .toml file, and need not be given where the file holds one track only; `version` the track's newest with
    results when not given. `smoke` asks for the rows that are not comparable, which else are shown only where
    there are no others. `sort` orders the methods: a metric such as average_rank, or a split's name.

    Accuracies and their differences are fractions in [0, 1]. Raises `BadInput` where there are no such
    results, `CorruptFile` for a faulty file, `UnknownName` for a sort key that is none.

        board = Leaderboard("leaderboards/digits")
        board.ranking(), board.compare("gat", "mlp"), board.to_latex()
    """

    def __init__(
        self,
        path: str | Path,
        track: str | Path | Track | None = None,
        *,
        version: int | None = None,
        smoke: bool = False,
        sort: str = "average_rank",
    ) -> None:
        path = Path(path)
        self.path = path if path.suffix == ".csv" else path / RESULTS
        self._read = read_rows(self.path)
        name = self._only_track() if track is None else track
        protocol = find_track(name)
        board = select_board(
            self._read,
            protocol.name if protocol else str(name),
            version,
            smoke,
            protocol.calibration if protocol else None,
        )
        self.label = protocol.label if protocol else None
        self.chance = protocol.chance if protocol else None
        self.board = replace(board, entries=tuple(sort_entries(board.entries, sort, board.splits)))

    def __repr__(self) -> str:
        return f"Leaderboard({self.board.title}: {len(self.board.entries)} GNNs, {str(self.path)!r})"

    def _repr_markdown_(self) -> str:
        """What a notebook shows."""
        return self.to_markdown()

    @cached_property
    def analyses(self) -> Mapping[str, Analysis]:
        """{endpoint or split: what may be claimed on it}, as `leaderboard.inference.analyse_board` says."""
        return analyse_board(self.board)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know of the numbers: which rows are left out, and why."""
        return self.board.notes

    @property
    def rows(self) -> pd.DataFrame:
        """Every row of the results file, those that the board leaves out included; columns as there."""
        return rows_frame(self._read)

    @cached_property
    def scores(self) -> pd.DataFrame:
        """Accuracy of every architecture in the finished runs that stand on the board.

        Columns: method, gnn, gnn_options, seed, split, index, accuracy. Raises `BadInput` where a file in
        scores/ is missing.
        """
        import pandas as pd

        rows = [
            (entry.name, entry.gnn, entry.gnn_options, seed, split, index, accuracy)
            for entry in self.board.entries
            for split, by_seed in load_runs(entry, self.path.parent / SCORES).items()
            for seed, scores in by_seed.items()
            for index, accuracy in scores.items()
        ]
        columns = ["method", "gnn", "gnn_options", "seed", "split", "index", "accuracy"]
        return pd.DataFrame(rows, columns=columns)

    def ranking(self) -> pd.DataFrame:
        """A row a method, best first (by `sort`).

        Columns: method (the GNN with its options), gnn, gnn_options, seeds (how many), average_rank; for each
        split the mean accuracy over seeds, its standard deviation (SPLIT_std, ddof=1) and, out of
        distribution, the gap to test (SPLIT_gap); letters and rank interval on test; costs. Methods that
        share a letter are not separable.
        """
        import pandas as pd

        return pd.DataFrame([self._ranked(entry) for entry in self.board.entries])

    def compare(self, a: str, b: str) -> pd.DataFrame:
        """Method `a` against method `b`, paired by seed: a row for test, OOD and each other split.

        Columns: split, seeds, mean_a, mean_b, difference, low and high (its 95 % t interval), p_value,
        p_holm, detectable, significant; no test with fewer than 3 common seeds. Raises `UnknownName`, and
        `BadInput` for methods without a common seed, or one and the same.
        """
        import pandas as pd

        _, _, found = self._compared(a, b)
        return pd.DataFrame([asdict(c) | {"significant": c.significant} for c in found])

    def pairs(self, family: FamilyName = "pairs") -> pd.DataFrame:
        """The tests of all pairs of methods, or of each against the `references` (mlp, ghn2).

        Columns: endpoint (test, OOD or a split), a, b, difference, low, high, p_value, p_holm (corrected
        within the family), significant. Endpoints without a test have no rows (`detectable` says why).
        """
        import pandas as pd

        rows = [
            {"endpoint": key, **asdict(test), "significant": test.significant}
            for key, found in ((key, _family(a, family)) for key, a in self.analyses.items())
            for test in (found.tests if found else ())
        ]
        columns = ["endpoint", "a", "b", "difference", "low", "high", "p_value", "p_holm", "significant"]
        return pd.DataFrame(rows, columns=columns)

    def detectable(self, family: FamilyName = "pairs") -> pd.DataFrame:
        """The difference that the tests of a family find with probability 0.8, by endpoint.

        Columns: endpoint, gnns, seeds (how many were compared), residual_sd, tests (how many are corrected
        together), detectable, no_test (why there is none, else empty).
        """
        import pandas as pd

        rows = []
        for key, analysis in self.analyses.items():
            found = _family(analysis, family)
            rows.append(
                {
                    "endpoint": key,
                    "gnns": len(analysis.block.names),
                    "seeds": len(analysis.block.seeds),
                    "residual_sd": analysis.residual_sd,
                    "tests": found.size if found else 0,
                    "detectable": found.detectable if found else None,
                    "no_test": analysis.reason,
                }
            )
        return pd.DataFrame(rows).astype({"residual_sd": float, "detectable": float})

    def agreement(self, other: Leaderboard) -> pd.DataFrame:
        """How well the ranks of this board and another one agree: a row for each endpoint both have.

        Columns: endpoint (test, OOD or a split), names (the GNNs on both), seeds (how many each has), tau
        (Kendall's tau-b of the means over seeds), low and high (95 %, missing with fewer than 3 seeds), same
        and opposite (pairs that both tell apart, by their order). See `leaderboard.agreement`.
        """
        import pandas as pd

        columns = ["endpoint", "names", "seeds", "tau", "low", "high", "same", "opposite"]
        return pd.DataFrame(
            [asdict(each) for each in agreements(self.analyses, other.analyses)], columns=columns
        )

    def halves(self) -> pd.DataFrame:
        """How well two halves of this board's seeds agree: a row for each endpoint with two seeds or more.

        Columns: endpoint, mean, low and high (of Kendall's tau-b over the ways to halve), halvings.
        """
        import pandas as pd

        found = {key: halves(analysis.block) for key, analysis in self.analyses.items()}
        rows = [{"endpoint": key, **asdict(each)} for key, each in found.items() if each]
        return pd.DataFrame(rows, columns=["endpoint", "mean", "low", "high", "halvings"])

    def agreement_table(self, other: Leaderboard | None = None) -> Table:
        """`agreement` with another board as a table, or `halves` of this one."""
        if other is None:
            return halves_table(self.board, self.analyses)
        return agreement_table((self.board, other.board), (self.analyses, other.analyses))

    def tables(self, cost: bool = True) -> list[Table]:
        """The tables of the board in reading order; `cost` adds parameters, times and memory."""
        return build.tables(self.board, self.analyses, self.label, cost)

    def to_markdown(self) -> str:
        """All tables as GitHub renders them."""
        return build.markdown(self.board, self.analyses, self.label)

    def to_latex(self) -> str:
        """All tables, for a document with `\\usepackage{booktabs,graphicx}`."""
        return build.latex(self.board, self.analyses, self.label)

    def to_html(self) -> str:
        """One static page with charts, which needs no network; raises `MissingExtra` without jinja2."""
        from deepnets_bench.leaderboard.page import render

        return render(self.board, self.analyses, self.path.parent, self.label, self._levels())

    def to_json(self) -> str:
        """The board and its tests, as `leaderboard show --format json` prints them."""
        return export.to_json(export.board_data(self.board, self.analyses))

    def comparison_table(self, a: str, b: str) -> Table:
        """`compare` as a table."""
        return comparison_table(self.board, *self._compared(a, b))

    def comparison_json(self, a: str, b: str) -> str:
        """`compare` as `leaderboard compare --format json` prints it."""
        return export.to_json(export.comparison_data(self.board, *self._compared(a, b)))

    def _compared(self, a: str, b: str) -> tuple[Entry, Entry, list[Comparison]]:
        first, second = find_entry(self.board, a), find_entry(self.board, b)
        if first is second:
            raise BadInput(f"{a} and {b} are one method; compare two.")
        return first, second, compare_entries(first, second, self.board.splits, self.path.parent / SCORES)

    def _ranked(self, entry: Entry) -> dict[str, Any]:
        found: dict[str, Any] = {
            "method": entry.name,
            "gnn": entry.gnn,
            "gnn_options": entry.gnn_options,
            "seeds": len(entry.seeds),
            "average_rank": entry.average_rank,
        }
        for split in self.board.splits:
            score = entry.scores.get(split)
            found |= {split: score and score.mean, f"{split}_std": score and score.std}
            found |= {f"{split}_gap": score.gap} if score and score.gap is not None else {}
        analysis = self.analyses.get(REFERENCE_SPLIT)
        low, high = ((analysis and analysis.rank_intervals) or {}).get(entry.name, (None, None))
        letters = ((analysis and analysis.letters) or {}).get(entry.name)
        return found | {"letters": letters, "rank_low": low, "rank_high": high} | dict(entry.costs)

    def _levels(self) -> list[Level]:
        """Chance, where the track says of how many classes, and what SGD reaches, where there are labels."""
        from deepnets_bench.uses.trained_level import TRAINED, trained_level

        found = [] if self.chance is None else [chance_level(self.board, self.chance)]
        path = self.path.parent / TRAINED
        if path.exists() and (trained := trained_level(self.board, path)):
            found.append(trained)
        return found

    def _only_track(self) -> str:
        names = sorted({row.track for row in self._read})
        if len(names) != 1:
            held = ", ".join(names) or "no rows"
            raise BadInput(f"{self.path} holds {held}; name the track whose results are wanted.")
        return names[0]


def find_track(track: str | Path | Track) -> Track | None:
    """The protocol of a track we ship, of a .toml file, or the object given; None of any other name."""
    if isinstance(track, Track):
        return track
    try:
        return load_track(str(track))
    except UnknownName:
        return None


def _family(analysis: Analysis, family: FamilyName) -> Family | None:
    if family not in ("pairs", "references"):
        raise UnknownName("family", family, ("pairs", "references"))
    return analysis.pairs if family == "pairs" else analysis.references

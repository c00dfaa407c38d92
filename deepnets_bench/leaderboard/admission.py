"""Admission: which rows of a track version may stand on one board, and why the others are left out.

Rows that are averaged or ranked agree in everything that determines a result but the GNN and the seed. They
have one protocol (which names its frames), one data set and one precision, and those of one method come from
one source.

A stack is what computes: the versions of PyTorch and of this package. The processor is no part of it: its
rounding acts like another seed. The versions of torch_geometric and DGL are in the digest of a GNN that uses
them. Rows of two stacks stand together only where calibration rows say that both give the same numbers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, Field

from deepnets_bench.leaderboard.results import ResultRow

PROTOCOL = ("track_digest", "dataset_fingerprint", "metric", "precision")

Stack = tuple[str, str]  # torch_version, package_version
_Key = TypeVar("_Key", bound=Hashable)
_Item = TypeVar("_Item")


class Calibration(BaseModel):
    """The job whose rows show whether two stacks give the same numbers, as a track states it.

    It is `gnn` without options and with `seed`. Two stacks agree when its mean accuracies, fractions in
    [0, 1], differ by at most `tolerance` on every split.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    gnn: str
    seed: int = Field(ge=0)
    tolerance: float = Field(ge=0, le=1)

    @property
    def name(self) -> str:
        """For sentences: "mlp seed 0"."""
        return f"{self.gnn} seed {self.seed}"


@dataclass(frozen=True)
class LeftOut:
    """Rows that do not stand on the board; `column` is the one in which they differ."""

    column: str
    reason: str
    rows: tuple[ResultRow, ...]


@dataclass(frozen=True)
class Admission:
    """The rows of a board in their order, those left out, and a sentence on every other stack let in."""

    rows: tuple[ResultRow, ...]
    left_out: tuple[LeftOut, ...]
    notes: tuple[str, ...]


def admit(rows: Iterable[ResultRow], calibration: Calibration | None = None) -> Admission:
    """Choose the rows of one board among those of one track version.

    Of several protocols (each column of `PROTOCOL`), and of several stacks, the one with most finished rows
    counts, among equals the newest. Other stacks join it through `calibration`; without one, none does. Of
    several sources of a method, that of its newest finished row counts. Unfinished rows, which carry no
    numbers, belong to every stack.
    """
    kept, left_out = list(rows), []
    for column in PROTOCOL:
        kept, others = _only_one(kept, column, _size)
        left_out += others
    kept, others, notes = _agreeing_stacks(kept, calibration)
    left_out += others
    for method in group_by(kept, lambda row: (row.gnn, row.gnn_options)).values():
        _, others = _only_one(method, "gnn_digest", _newest)
        left_out += others
        kept = _without(kept, others)
    return Admission(tuple(kept), tuple(left_out), notes)


def stack_of(row: ResultRow) -> Stack:
    """What computed a row: the versions of PyTorch and of this package."""
    return row.torch_version, row.package_version


def group_by(items: Iterable[_Item], key: Callable[[_Item], _Key]) -> dict[_Key, list[_Item]]:
    """The items of each key, keys and items in the order they come in."""
    groups: dict[_Key, list[_Item]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return dict(groups)


def _size(rows: Sequence[ResultRow]) -> tuple[int, bool, str]:
    return sum(row.status == "ok" for row in rows), *_newest(rows)


def _newest(rows: Sequence[ResultRow]) -> tuple[bool, str]:
    """Is any finished, and the time of the newest finished one, or else of the newest."""
    return max((row.status == "ok", row.utc_time) for row in rows)


def _without(rows: Iterable[ResultRow], left_out: Sequence[LeftOut]) -> list[ResultRow]:
    gone = {id(row) for group in left_out for row in group.rows}
    return [row for row in rows if id(row) not in gone]


def _only_one(
    rows: list[ResultRow], column: str, weight: Callable[[list[ResultRow]], tuple[object, ...]]
) -> tuple[list[ResultRow], list[LeftOut]]:
    """The rows with the one value of a column whose rows weigh most, and the others by their values."""
    groups: dict[str, list[ResultRow]] = group_by(rows, lambda row: getattr(row, column))
    if len(groups) < 2:
        return rows, []
    chosen = max(groups, key=lambda value: weight(groups[value]))
    kept = groups.pop(chosen)
    others = [
        LeftOut(column, f"{column} is {value or 'empty'}, not {chosen or 'empty'}", tuple(group))
        for value, group in groups.items()
    ]
    return kept, others


def _agreeing_stacks(
    rows: list[ResultRow], calibration: Calibration | None
) -> tuple[list[ResultRow], list[LeftOut], tuple[str, ...]]:
    stacks = group_by((row for row in rows if row.status == "ok"), stack_of)
    if len(stacks) < 2:
        return rows, [], ()
    reference = max(stacks, key=lambda stack: _size(stacks[stack]))
    left_out, notes = [], []
    for stack, finished in stacks.items():
        if stack == reference:
            continue
        fault, agreement = _compare(finished, stacks[reference], calibration)
        if fault:
            reason = f"{stack_name(stack)} is not shown to agree with {stack_name(reference)}: {fault}"
            left_out.append(LeftOut("torch_version", reason, tuple(finished)))
        else:
            notes.append(f"{stack_name(stack)} stands beside {stack_name(reference)}: {agreement}.")
    return _without(rows, left_out), left_out, tuple(notes)


def stack_name(stack: Stack) -> str:
    """For sentences: "torch 2.14.1 with deepnets-bench 0.1.0"."""
    return f"torch {stack[0] or '(not recorded)'} with deepnets-bench {stack[1]}"


def _compare(
    rows: Sequence[ResultRow], reference: Sequence[ResultRow], calibration: Calibration | None
) -> tuple[str, str]:
    """Why the calibration rows of two stacks do not show that they agree, '' if they do; and how closely."""
    if calibration is None:
        return "the track states no calibration", ""
    measured, expected = _means(rows, calibration), _means(reference, calibration)
    for split in sorted({row.split for row in (*rows, *reference)}):
        if split not in measured or split not in expected:
            where = "the former" if split not in measured else "the latter"
            return f"{where} has no finished row of {calibration.name} on {split}", ""
    # Rounded, so that a difference of exactly the tolerance is one in binary numbers too.
    differences = {split: round(abs(mean - expected[split]), 12) for split, mean in measured.items()}
    worst = max(differences, key=lambda split: differences[split])
    largest, permitted = 100 * differences[worst], 100 * calibration.tolerance
    if differences[worst] > calibration.tolerance:
        return f"{calibration.name} differs by {largest:.2f} pp on {worst}, {permitted:g} are permitted", ""
    return "", f"{calibration.name} differs by at most {largest:.2f} pp, {permitted:g} are permitted"


def _means(rows: Sequence[ResultRow], calibration: Calibration) -> Mapping[str, float]:
    """Mean accuracy of the calibration job by split, its latest run counting."""
    found = [
        row
        for row in rows
        if (row.gnn, row.gnn_options, row.seed) == (calibration.gnn, "{}", calibration.seed)
    ]
    return {row.split: row.accuracy_mean or 0.0 for row in sorted(found, key=lambda row: row.utc_time)}

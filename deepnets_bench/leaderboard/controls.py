"""Controls of a board: each beside the GNN it is a variant of, seed by seed, and ranked among nobody."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

from scipy import special

from deepnets_bench.leaderboard import anova
from deepnets_bench.leaderboard.aggregate import METRICS, Board, Entry, mean, sample_std
from deepnets_bench.leaderboard.results import canonical_json
from deepnets_bench.leaderboard.table import Table

NOTE = (
    "Accuracy of the control in %, and in brackets its difference from the GNN over common seeds in "
    "percentage points, with the half width of its 95 % interval (t, paired by seed, not corrected). "
    "same: must not differ. shuffled: nodes at random places of their graph; worse, where the graph matters. "
    "matched: another inner width. untrained: where training starts."
)


def control_tables(board: Board) -> list[Table]:
    """The table of a board's controls; none where there are none."""
    if not board.controls:
        return []
    rows = []
    for control in board.controls:
        gnn = original(board, control)
        size = METRICS["gnn_params"].text(control.costs["gnn_params"])
        cells = [_cell(control, gnn, split) for split in board.splits]
        rows.append((control.name, str(len(control.seeds)), size, *cells))
    headers = ("control", "seeds", METRICS["gnn_params"].header, *board.splits)
    return [Table(f"{board.title} · controls", headers, tuple(rows), (NOTE,))]


def original(board: Board, control: Entry) -> Entry | None:
    """The entry of the GNN that a control is a variant of: with its options, but for the budget of a size."""
    options = {key: value for key, value in json.loads(control.gnn_options).items() if key != "params"}
    name = control.gnn.split(":", 2)[-1]
    wanted = name, canonical_json(options)
    return next((entry for entry in board.entries if (entry.gnn, entry.gnn_options) == wanted), None)


def _cell(control: Entry, gnn: Entry | None, split: str) -> str:
    score = control.scores.get(split)
    if score is None or score.mean is None:
        return "–"
    text = METRICS["accuracy"].text(score.mean)
    others = gnn.scores[split].by_seed if gnn and split in gnn.scores else {}
    differences = [accuracy - others[seed] for seed, accuracy in score.by_seed.items() if seed in others]
    if not differences:
        return text
    return f"{text} ({METRICS['gap'].text(mean(differences), half_width(differences))})"


def half_width(differences: Sequence[float]) -> float | None:
    """Of the 95 % interval of the mean of paired differences; None of fewer than `anova.MIN_SEEDS`."""
    std = sample_std(differences)
    if std is None or len(differences) < anova.MIN_SEEDS:
        return None
    reach = float(special.stdtrit(len(differences) - 1, 1 - anova.LEVEL / 2))
    return reach * std / math.sqrt(len(differences))

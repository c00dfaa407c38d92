"""Pictures of property prediction: learning curves over numbers of labels (matplotlib)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from deepnets_bench.errors import BadInput
from deepnets_bench.leaderboard.aggregate import mean, sample_std
from deepnets_bench.uses.properties.results import PropertyRow
from deepnets_bench.uses.properties.tables import runs_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def learning_curves(
    rows: Sequence[PropertyRow], mode: str, bounds: Mapping[str, float | None] = {}
) -> Figure:
    """A panel a property: tau of every GNN or baseline over the number of labels, mean ± std over seeds.

    The dashed line is what a perfect predictor would reach, from `bounds`.
    """
    from matplotlib.figure import Figure

    chosen = [row for row in rows if (row.method if row.gnn else "baselines") == mode]
    if not chosen:
        raise BadInput(f"There are no results of the mode '{mode}' yet.")
    counts = sorted({row.labels for row in chosen})
    by_count = {count: runs_of([row for row in chosen if row.labels == count]) for count in counts}
    targets = list(by_count[counts[-1]])
    figure = Figure(figsize=(3.4 * len(targets), 3.2), layout="constrained")
    panels = figure.subplots(1, len(targets), sharey=True, squeeze=False)[0]
    for panel, target in zip(panels, targets, strict=True):
        for name in by_count[counts[-1]][target]:
            held = [(count, list(by_count[count][target].get(name, {}).values())) for count in counts]
            points = [(count, mean(taus), sample_std(taus) or 0.0) for count, taus in held if taus]
            panel.errorbar(*zip(*points, strict=True), marker="o", markersize=3, capsize=2, label=name)
        bound = bounds.get(target)
        if bound is not None:
            panel.axhline(bound, linestyle="--", color="grey", label="label noise")
        panel.set_xscale("log")
        panel.set_xticks(counts, labels=[str(count) for count in counts], minor=False)
        panel.minorticks_off()
        panel.set_title(target.replace("_", " under "))
        panel.set_xlabel("labels")
    panels[0].set_ylabel("Kendall's tau")
    figure.legend(*panels[-1].get_legend_handles_labels(), loc="outside right upper", fontsize="small")
    return figure

"""Pictures of property prediction: learning curves, and predicted against measured values (matplotlib)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from deepnets_bench.errors import BadInput
from deepnets_bench.leaderboard.aggregate import mean, sample_std
from deepnets_bench.uses.properties.predictions import predictions_path, read_predictions
from deepnets_bench.uses.properties.protocol import Protocol
from deepnets_bench.uses.properties.results import PropertyRow
from deepnets_bench.uses.properties.study import kendall
from deepnets_bench.uses.properties.tables import runs_of
from deepnets_bench.uses.properties.targets import read_targets

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_ROUNDING = 0.002  # of tau, by that of the predictions that are kept


def learning_curves(
    rows: Sequence[PropertyRow], mode: str, bounds: Mapping[str, float | None] = {}
) -> Figure:
    """A panel a property: tau of every GNN or baseline over the number of labels, mean ± std over seeds.

    The dashed line is what a perfect predictor would reach, from `bounds`.
    """
    from matplotlib.figure import Figure

    chosen = [row for row in rows if row.mode == mode]
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


def predicted_against_measured(
    results: Path,
    rows: Sequence[PropertyRow],
    labels: Path,
    bounds: Mapping[str, float | None] = {},
) -> Figure:
    """A panel a property: what one method with one GNN and seed predicted, and what was measured.

    `rows` are of this method, GNN and seed alone, from the largest number of labels; `results` is their file,
    with the predictions beside it, `labels` the file that they were made with. Tau is that of the row, the
    number in brackets what a perfect predictor would reach. Raises `BadInput` where there are no predictions,
    and where the labels are others.
    """
    from matplotlib.figure import Figure

    path = predictions_path(results, rows[0])
    if not path.exists():
        raise BadInput(f"There is no {path}: the predictions of these rows were not kept.")
    predicted = read_predictions(path)
    names = tuple(row.target for row in rows)
    size = max(predicted[names[0]]) + 1
    _, test = read_targets(labels, names, Protocol(labels=(rows[0].labels,), tested=size))
    figure = Figure(figsize=(3.1 * len(rows), 3.1), layout="constrained")
    for panel, row in zip(figure.subplots(1, len(rows), squeeze=False)[0], rows, strict=True):
        places = [place for place, i in enumerate(test.index.tolist()) if i in predicted[row.target]]
        x = [predicted[row.target][int(test.index[place])] for place in places]
        y = test.values[row.target][places]
        if abs(kendall(np.array(x), y) - row.tau) > _ROUNDING:
            raise BadInput(f"{labels} holds other labels of {row.target} than those of {results}.")
        bound = bounds.get(row.target)
        panel.plot(x, y, ".", markersize=3)
        panel.set_title(
            f"tau {row.tau:.2f}" + ("" if bound is None else f" (label noise {bound:.2f})"), fontsize="medium"
        )
        panel.set_xlabel("predicted" + (" (normal score)" if row.method == "direct" else ""))
        panel.set_ylabel(row.target.replace("_", " under "))
    what = " · ".join(dict.fromkeys((rows[0].method, rows[0].name)))
    figure.suptitle(f"{what} · seed {rows[0].seed} · {rows[0].labels} labels")
    return figure

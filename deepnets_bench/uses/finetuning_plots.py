"""Pictures of fine-tuning: mean curves from different initial weights (matplotlib)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from deepnets_bench.errors import BadInput
from deepnets_bench.uses.finetuning_rows import CurvePoint
from deepnets_bench.uses.gains import interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def mean_curves(points: Sequence[CurvePoint]) -> Figure:
    """A panel a number of shots: test accuracy over epochs from each kind of initial weights.

    A line is the mean over models and seeds, its band the 95 % t interval over seeds, of which each counts
    with its mean over models. Models count that some seed has with all initial weights, and seeds that have
    all of these models. Raises `BadInput` where there are none.
    """
    from matplotlib.figure import Figure

    shots = sorted({point.shots for point in points})
    panels = {count: _table([point for point in points if point.shots == count]) for count in shots}
    if not any(panels.values()):
        raise BadInput(
            "No seed has curves of a model from all initial weights, so that there are none to draw."
        )
    figure = Figure(figsize=(4.0 * len(shots), 3.2), layout="constrained")
    axes = figure.subplots(1, len(shots), sharey=True, squeeze=False)[0]
    for panel, (count, curves) in zip(axes, panels.items(), strict=True):
        for init, by_epoch in curves.items():
            epochs = sorted(by_epoch)
            means = [100 * float(by_epoch[epoch].mean()) for epoch in epochs]
            low, high = zip(*(interval(100 * by_epoch[epoch]) for epoch in epochs), strict=True)
            panel.plot(epochs, means, marker="o", markersize=3, label=init)
            if np.isfinite(low).all():
                panel.fill_between(epochs, low, high, alpha=0.2)
            panel.set_xscale("symlog", base=2, linthresh=1)
            panel.set_xticks(epochs, labels=[str(epoch) for epoch in epochs])
        panel.set_title(f"{count} shots a class")
        panel.set_xlabel("epochs")
    axes[0].set_ylabel("test accuracy, %")
    figure.legend(*axes[-1].get_legend_handles_labels(), loc="outside right upper", fontsize="small")
    return figure


def _table(points: Sequence[CurvePoint]) -> dict[str, dict[int, np.ndarray]]:
    """{initial weights: {epoch: the mean over models for each seed}}; empty where no seed has all of them."""
    inits = list(dict.fromkeys(point.init for point in points))
    seeds_of: dict[str, list[set[int]]] = {
        model: [{p.seed for p in points if (p.model, p.init) == (model, init)} for init in inits]
        for model in dict.fromkeys(point.model for point in points)
    }
    whole = {model: set.intersection(*seeds) for model, seeds in seeds_of.items()}
    models = [model for model, seeds in whole.items() if seeds]
    seeds = sorted(set.intersection(*(whole[model] for model in models))) if models else []
    if not seeds:
        return {}
    accuracy = {point.key: point.accuracy for point in points}
    epochs, shots = sorted({point.epoch for point in points}), points[0].shots
    return {
        init: {
            epoch: np.array(
                [np.mean([accuracy[model, init, shots, seed, epoch] for model in models]) for seed in seeds]
            )
            for epoch in epochs
        }
        for init in inits
    }

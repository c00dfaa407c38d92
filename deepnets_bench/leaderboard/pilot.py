"""How well a protocol separates GNNs for its cost, and how far a frame favours a GNN (docs/protocol.md).

Tables are those of `anova`: accuracies [seeds, GNNs] without missing runs, the seed a block. Intervals are
two-sided, 90 %, of normal residuals with one variance.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import special

from deepnets_bench.leaderboard import anova
from deepnets_bench.leaderboard.anova import Array

TAIL = 0.05  # of an interval, on each side
RELIABILITY = 0.9  # of the board that a cost is stated for

Interval = tuple[float, float]


@dataclass(frozen=True)
class Separation:
    """D = variance of GNNs / residual variance, with its interval, and what it is made of.

    `gnn_sd` is 0 where the variance between GNNs is below that of the residuals; `own_sds` are the standard
    deviations of each GNN over seeds (ddof=1), in the order of the table.
    """

    gnn_sd: float
    residual_sd: float
    d: float
    d_interval: Interval
    seeds: int
    own_sds: tuple[float, ...]

    @property
    def admissible(self) -> bool:
        """Does the interval of D lie above 0? Never without any residual: such seeds are copies."""
        return self.d_interval[0] > 0 and self.residual_sd > 0

    @property
    def reliability(self) -> float:
        """nD / (nD + 1) of a board with as many seeds; 0 where D is not positive."""
        return 1 - 1 / (self.seeds * self.d + 1) if self.d > 0 else 0.0

    @property
    def pair_sd(self) -> float:
        """Standard deviation of the difference of two GNNs that share a seed."""
        return math.sqrt(2) * self.residual_sd

    def cost(self, minutes: float) -> float:
        """Cost of a verdict, in the unit of `minutes` a job: seeds for a reliability of 0.9 times minutes."""
        return _cost(self.d, minutes)

    def cost_interval(self, minutes: float) -> Interval:
        """Interval of `cost`, from that of D."""
        low, high = self.d_interval
        return _cost(high, minutes), _cost(low, minutes)


def separation(accuracy: Array) -> Separation:
    """D of a table [seeds, GNNs] of at least two of each, from the F of GNNs: D = (F - 1) / seeds."""
    seeds = accuracy.shape[0]
    test = anova.f_test(accuracy)
    df = test.df_gnns, test.df_residual
    low, high = ((test.statistic / float(special.fdtri(*df, tail)) - 1) / seeds for tail in (1 - TAIL, TAIL))
    d = (test.statistic - 1) / seeds
    residual_sd = math.sqrt(float(anova.residual_variance(accuracy)))
    between = float(accuracy.mean(axis=0).var(ddof=1)) - residual_sd**2 / seeds
    own = accuracy.std(axis=0, ddof=1)
    return Separation(
        math.sqrt(max(between, 0.0)), residual_sd, d, (low, high), seeds, tuple(map(float, own))
    )


@dataclass(frozen=True)
class FrameBias:
    """What GNNs make of frames that some of them have shaped.

    `interaction_sd` is the standard deviation of GNN × frame (0 where it is below what the residuals make of
    it). `advantage` is the mean accuracy of a GNN in a frame that it has shaped minus that in the others,
    both main effects removed, with its interval over runs in these frames.
    """

    interaction_sd: float
    residual_sd: float
    advantage: float
    advantage_interval: Interval


def frame_bias(accuracy: Array, own: Array) -> FrameBias:
    """The bias in accuracies [frames, seeds, GNNs]; `own` [frames, GNNs] says which has shaped which.

    accuracy = GNN + frame + GNN × frame + seed within frame + residual. The advantage is the coefficient of
    `own` in the cell means after both main effects: with w, `own` doubly centred, and S the sum of w² it is
    Σ w · cell / S, whose variance is residual variance / (seeds S). Raises `ValueError` where `own` is all
    main effects, so that there is no such contrast.
    """
    frames, seeds, gnns = accuracy.shape
    weights = anova.residuals(np.asarray(own, float))
    size = float((weights**2).sum())
    if size < 1e-9:
        raise ValueError("all GNNs, or none, have shaped the same of the frames")
    df = frames * (seeds - 1) * (gnns - 1)
    residual = float(anova.residual_variance(accuracy).mean())
    cells = accuracy.mean(axis=1)
    interaction = anova.residuals(cells)
    between = float((interaction**2).sum()) / ((frames - 1) * (gnns - 1)) - residual / seeds
    advantage = float((weights * cells).sum()) / size
    reach = float(special.stdtrit(df, 1 - TAIL)) * math.sqrt(residual / (seeds * size))
    return FrameBias(
        math.sqrt(max(between, 0.0)),
        math.sqrt(residual),
        advantage,
        (advantage - reach, advantage + reach),
    )


def _cost(d: float, minutes: float) -> float:
    return RELIABILITY / (1 - RELIABILITY) / d * minutes if d > 0 else math.inf

"""The figures of docs/protocol.md from tables by hand, and from trials published before."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats as scipy_stats

from deepnets_bench.leaderboard.pilot import frame_bias, separation
from tests.leaderboard.test_anova import TABLE

# mlp, ghn1, ghn2, gat with seeds 0 and 1: 4,000 steps of digits-full from a warm frame, accuracy on val in %
WARM = np.array([[64.3, 68.7, 68.4, 71.7], [64.2, 67.5, 68.7, 70.5]])
# the same with three seeds and 1,500 steps
SHORT = np.array([[53.9, 54.7, 52.5, 54.7], [53.7, 53.6, 52.3, 57.3], [51.1, 52.1, 53.8, 55.6]])


def test_separation_by_hand() -> None:
    # F = 14 with 2 and 4 degrees of freedom, residual variance 1.5: D = 13 / 3, variance of GNNs 13 / 3 * 1.5
    found = separation(TABLE)
    assert (found.d, found.gnn_sd) == (pytest.approx(13 / 3), pytest.approx(math.sqrt(6.5)))
    assert found.residual_sd == pytest.approx(math.sqrt(1.5))
    assert found.pair_sd == pytest.approx(math.sqrt(3))
    # quantiles of F(2, 4): (1 - p) ** -0.5 = 1 + F / 2, so that F = 2 (p' ** -0.5 - 1) with p' = 1 - p
    low, high = ((14 / (2 * (tail**-0.5 - 1)) - 1) / 3 for tail in (0.05, 0.95))
    assert found.d_interval == (pytest.approx(low), pytest.approx(high))
    assert found.admissible
    assert found.reliability == pytest.approx(13 / 14)
    assert found.cost(10) == pytest.approx(9 / (13 / 3) * 10)
    assert found.cost_interval(10) == (pytest.approx(90 / high), pytest.approx(90 / low))
    assert found.own_sds == pytest.approx(TABLE.std(axis=0, ddof=1))


def test_the_published_figures_of_the_warm_frame() -> None:
    found = separation(WARM)
    assert round(found.gnn_sd, 1) == 2.8
    assert round(found.residual_sd, 2) == 0.54
    assert found.d == pytest.approx(26.6, abs=0.05)  # published as 26, from accuracies before rounding
    assert found.d_interval[0] > 2.4
    assert found.cost(10) == pytest.approx(3.4, abs=0.05)  # published as 3.5
    short = separation(SHORT)
    assert (round(short.gnn_sd, 1), round(short.residual_sd, 1), round(short.d, 1)) == (1.2, 1.3, 0.8)


def test_no_difference_has_no_price() -> None:
    found = separation(np.array([[1.0, 2.0, 3.0], [3.0, 1.0, 2.0], [2.0, 3.0, 1.0]]))
    assert (found.gnn_sd, found.reliability, found.cost(5)) == (0.0, 0.0, math.inf)
    assert found.d < 0
    assert not found.admissible
    # nine tenths of the intervals hold the truth
    random = np.random.default_rng(0)
    tables = random.normal(size=(2000, 3, 1)) + random.normal(size=(2000, 3, 10))
    tables += random.normal(size=(2000, 1, 10)) * math.sqrt(0.5)
    held = [low < 0.5 < high for low, high in (separation(table).d_interval for table in tables)]
    assert np.mean(held) == pytest.approx(0.9, abs=0.02)


def test_bias_by_hand() -> None:
    """Frames of mlp and gat, one seed: gat leads by 7.4 in mlp's frame and by 12.1 in its own."""
    trials = np.array([[[64.3, 71.7]], [[59.2, 71.3]]])
    with np.errstate(invalid="ignore", divide="ignore"):
        assert frame_bias(trials, np.eye(2)).advantage == pytest.approx((12.1 - 7.4) / 2)
    # Cells with interaction 2 on the diagonal and -1 elsewhere, frames 0 10 20, GNNs 1 2 5; residuals of each
    # frame -1 1 0 in the first seed and their negatives in the second.
    cells = 3 * np.eye(3) - 1 + np.array([[0.0], [10.0], [20.0]]) + np.array([1.0, 2.0, 5.0])
    noise = np.array([[-1.0, 1.0, 0.0], [1.0, -1.0, 0.0]])
    found = frame_bias(cells[:, None] + noise + np.array([[3.0], [-4.0]]), np.eye(3))
    assert found.advantage == pytest.approx(3.0)  # 2 in the own frame, -1 in others
    # residuals: squares 4 in each of 3 frames, 2 degrees of freedom each: variance 2, on means of 2 seeds
    assert found.residual_sd == pytest.approx(math.sqrt(2))
    reach = scipy_stats.t.ppf(0.95, 6) * math.sqrt(2 / 2 / 2)
    assert found.advantage_interval == (pytest.approx(3 - reach), pytest.approx(3 + reach))
    # interaction: 3 (4 + 1 + 1) = 18 with 4 degrees of freedom: 4.5, of which residuals make 1
    assert found.interaction_sd == pytest.approx(math.sqrt(3.5))


def test_the_interval_of_the_advantage_holds_the_truth() -> None:
    random = np.random.default_rng(1)
    truth = 1.2
    cells = truth * (np.eye(3) - 1 / 3) * 3 / 3
    held = []
    for _ in range(2000):
        table = cells[:, None] + random.normal(size=(3, 3, 1)) + random.normal(size=(3, 3, 3))
        low, high = frame_bias(table, np.eye(3)).advantage_interval
        held.append(low < truth < high)
    assert np.mean(held) == pytest.approx(0.9, abs=0.02)


def test_the_bias_between_frames_that_several_have_shaped() -> None:
    """Two frames, two of five GNNs in each: the mean of own - other, over those of one and of the other."""
    own = np.array([[1, 1, 0, 0, 0], [0, 0, 1, 1, 0]])
    cells = np.array([[50.0, 52.0, 54.0, 53.0, 51.0], [58.0, 61.0, 65.0, 66.0, 62.0]])
    differences = cells[0] - cells[1]  # -8 -9 | -11 -13
    by_hand = (differences[:2].mean() - differences[2:4].mean()) / 2
    noise = np.array([[1.0, -1.0, 0.0, 0.0, 0.0], [-1.0, 1.0, 0.0, 0.0, 0.0]])
    found = frame_bias(cells[:, None] + noise, own)
    assert found.advantage == pytest.approx(by_hand) == pytest.approx(1.75)
    # variance 1 (squares 4 in each frame, 4 degrees of freedom) / (2 seeds * 2 GNNs in each frame)
    reach = scipy_stats.t.ppf(0.95, 8) * math.sqrt(1 / 4)
    assert found.advantage_interval == (pytest.approx(1.75 - reach), pytest.approx(1.75 + reach))
    for nothing in (np.zeros((2, 5)), np.ones((2, 5)), [[1] * 5, [0] * 5], [[1, 0, 0, 0, 0]] * 2):
        with pytest.raises(ValueError, match="all GNNs, or none, have shaped the same"):
            frame_bias(cells[:, None] + noise, np.array(nothing))

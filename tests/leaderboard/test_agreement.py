"""Agreement of ranks: tau by hand, halves by hand, and intervals that hold what they say."""

from __future__ import annotations

import numpy as np
import pytest

from deepnets_bench.leaderboard.agreement import agreement, agreements, halves, kendall
from deepnets_bench.leaderboard.inference import analyse, largest_block

NAMES = tuple("abcdefgh")


def runs(table: np.ndarray, names: tuple[str, ...] = NAMES) -> dict[str, dict[int, float]]:
    """{GNN: {seed: accuracy}} of a table [seeds, GNNs]."""
    return {name: dict(enumerate(column)) for name, column in zip(names, table.T.tolist(), strict=False)}


def board(means: np.ndarray, seeds: int, sd: float, random: np.random.Generator) -> np.ndarray:
    """Accuracies [seeds, GNNs] by the model: GNN + seed + residual."""
    return means + random.normal(0, 2, (seeds, 1)) + random.normal(0, sd, (seeds, len(means)))


def test_tau_by_hand() -> None:
    assert kendall([1, 2, 3, 4], [1, 3, 2, 4]) == pytest.approx(4 / 6)  # five pairs agree, one does not
    assert kendall([1, 2, 3], [3, 2, 1]) == -1
    # One tie in x: 4 agree, 1 does not, of sqrt(5 * 6).
    assert kendall([1, 1, 3, 4], [1, 2, 4, 3]) == pytest.approx(3 / np.sqrt(30))
    assert kendall([1, 1], [1, 2]) == 0
    stacked = kendall([[1, 2, 3], [1, 2, 3]], [[1, 2, 3], [3, 2, 1]])
    assert stacked.tolist() == [1, -1]


def test_halves_by_hand() -> None:
    # Three seeds of three GNNs: {0} against {1, 2} is 1, {1} against {0, 2} 1/3, {2} against {0, 1} 1/3.
    table = np.array([[1, 2, 3], [1, 4, 3.5], [2, 1.5, 4]], float)
    found = halves(largest_block(runs(table)))
    assert found is not None
    taus = [kendall(table[one], table[[i for i in range(3) if i != one]].mean(axis=0)) for one in range(3)]
    assert taus == pytest.approx([1, 1 / 3, 1 / 3])
    assert (found.mean, found.low, found.high) == pytest.approx((5 / 9, 1 / 3, 1))
    assert found.halvings == 3


@pytest.mark.parametrize(("seeds", "halvings"), [(2, 1), (4, 3), (5, 10), (10, 126), (14, 500)])
def test_every_way_to_halve_the_seeds_counts_once(seeds: int, halvings: int) -> None:
    table = np.random.default_rng(0).normal(size=(seeds, 4))
    found = halves(largest_block(runs(table)))
    assert found is not None
    assert found.halvings == halvings
    assert found == halves(largest_block(runs(table))), "the same rows give the same figures"


def test_halves_need_two_seeds_and_two_gnns() -> None:
    assert halves(largest_block(runs(np.ones((1, 3))))) is None
    block = largest_block(runs(np.random.default_rng(0).normal(size=(3, 3))))
    assert halves(block, ["a"]) is None
    assert halves(block, ["a", "b"]) is not None


def test_boards_that_agree_and_boards_that_do_not() -> None:
    random = np.random.default_rng(1)
    means = np.arange(8.0) * 10
    a = analyse({"test": runs(board(means, 5, 0.5, random))})["test"]
    b = analyse({"test": runs(board(means, 3, 0.5, random))})["test"]
    found = agreement(a, b)
    assert found is not None
    assert (found.tau, found.low, found.high) == (1, 1, 1)
    assert found.seeds == (5, 3)
    assert found.same == 28
    assert found.opposite == 0
    turned = agreement(a, analyse({"test": runs(board(-means, 5, 0.5, random))})["test"])
    assert turned is not None
    assert (turned.tau, turned.same, turned.opposite) == (-1, 0, 28)
    noisy = agreement(a, analyse({"test": runs(board(means, 5, 60, random))})["test"])
    assert noisy is not None
    assert noisy.high - noisy.low > 0.5
    assert noisy.low <= noisy.tau <= noisy.high
    close = board(np.arange(8.0), 3, 1, random)
    itself = agreement(*[analyse({"test": runs(close)})["test"]] * 2)
    assert itself is not None
    assert (itself.tau, itself.high) == (1, 1), "the interval holds tau, whatever is drawn"
    assert itself.low < 0.9


def test_only_common_gnns_and_endpoints_are_compared() -> None:
    random = np.random.default_rng(2)
    table = {key: runs(board(np.arange(4.0), 3, 0.1, random)) for key in ("test", "wide", "deep")}
    a = {
        **analyse({"test": table["test"]}),
        **analyse({"OOD": table["wide"]}),
        **analyse({"wide": table["wide"]}),
    }
    fewer = {name: by_seed for name, by_seed in table["deep"].items() if name in ("a", "d", "b")}
    b = {**analyse({"test": fewer}), **analyse({"OOD": fewer}), **analyse({"deep": fewer})}
    (found,) = agreements(a, b)
    assert found.endpoint == "test", "OOD is the mean over other splits, and wide is on one board only"
    assert sorted(found.names) == ["a", "b", "d"]
    assert agreement(a["test"], analyse({"test": {"a": {0: 1.0}, "z": {0: 2.0}}})["test"]) is None


def test_few_seeds_give_no_interval() -> None:
    random = np.random.default_rng(3)
    a = analyse({"test": runs(board(np.arange(4.0), 3, 0.1, random))})["test"]
    b = analyse({"test": runs(board(np.arange(4.0), 2, 0.1, random))})["test"]
    found = agreement(a, b)
    assert found is not None
    assert found.tau == 1
    assert (found.low, found.high, found.same, found.opposite) == (None, None, None, None)


@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize("spread", [1.0, 3.0])
@pytest.mark.parametrize("correlation", [0.0, 0.8, 1.0])
def test_the_interval_holds_what_other_seeds_would_give(
    seeds: int, spread: float, correlation: float
) -> None:
    """Of 100 pairs of boards at least 90 have the mean tau of such boards in their interval."""
    random = np.random.default_rng(int(10 * spread + 100 * correlation + seeds))
    held = 0
    for _ in range(100):
        first = random.normal(0, spread, 8)
        second = correlation * first + np.sqrt(1 - correlation**2) * random.normal(0, spread, 8)
        noise = 1 / np.sqrt(seeds)
        drawn = [mean + random.normal(0, noise, (400, 8)) for mean in (first, second)]
        expected = kendall(*drawn).mean()
        a, b = (analyse({"test": runs(board(mean, seeds, 1.0, random))})["test"] for mean in (first, second))
        found = agreement(a, b)
        assert found is not None
        assert found.low is not None
        assert found.high is not None
        held += found.low <= expected <= found.high
    assert held >= 90

"""The splits' rules: ranges, rejections, distributions, disjointness."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from scipy.stats import chisquare

from deepnets_bench.architecture import Architecture, encode
from deepnets_bench.compiler import instructions as ir
from deepnets_bench.compiler.canonical import canonical_key
from deepnets_bench.errors import BadInput, UnknownName
from deepnets_bench.generators import SPLITS, sample
from deepnets_bench.generators.recipes import N_EVALUATION_STREAMS, candidate, key_share
from deepnets_bench.generators.streams import open_stream

N = 150
DRAWN = {split: [sample(split, i) for i in range(N)] for split in SPLITS}

FROZEN = {
    "train": "1a6a9c09",
    "val": "53383779",
    "test": "43755f3b",
    "wide": "43755f3b",
    "deep": "1c9a3b4e",
    "dense": "e8a3e4b2",
    "bnfree": "72576420",
    "search": "117708f9",
}

# split: cells, threshold, most steps up to it, most steps above it, fewest steps, most parameters
RULES = {
    "train": (4, 18, 10, 4, 2, 1, 1e7),
    "val": (4, 18, 10, 4, 2, 1, 1e7),
    "test": (4, 18, 10, 4, 2, 1, 1e7),
    "wide": (4, 18, 10, 4, 2, 1, 1e7),
    "bnfree": (4, 18, 10, 4, 2, 1, 1e7),
    "deep": (10, 36, 18, 4, 2, 1, 1e8),
    "dense": (4, 18, 10, 10, 6, 2, 1e8),
    "search": (6, 20, 10, 6, 3, 1, 1e7),
}


def steps(arch: Architecture) -> int:
    return len(arch.genotype.normal) // 2


@pytest.mark.parametrize("split", SPLITS)
def test_ranges(split: str) -> None:
    low, high, threshold, most, most_deep, fewest, max_params = RULES[split]
    for arch in DRAWN[split]:
        assert low <= arch.n_cells <= high
        assert fewest <= steps(arch) <= (most_deep if arch.n_cells > threshold else most)
        assert len(arch.genotype.reduce) == len(arch.genotype.normal)
        assert arch.genotype.normal_concat == arch.genotype.reduce_concat
        assert steps(arch) + 1 in arch.genotype.normal_concat
        assert arch.ks in (3, 5, 7)
        assert arch.fc_dim == 256
        for image_size, num_classes in ((32, 10), (224, 1000)):
            program = arch.program(width=32, image_size=image_size, num_classes=num_classes)
            assert program.valid
            assert program.num_params <= max_params


@pytest.mark.parametrize("split", SPLITS)
def test_rejections(split: str) -> None:
    for arch in DRAWN[split]:
        cells = [[op for op, _ in pairs] for pairs in (arch.genotype.normal, arch.genotype.reduce)]
        has_conv = any("conv" in op for cell in cells for op in cell)
        assert has_conv or (arch.is_vit and "cse" not in arch.genotype.ops)
        for cell in cells:
            assert cell.count("cse") <= 1
            assert cell.count("conv_5x5") + cell.count("conv_7x7") <= 1
        if steps(arch) == 1:
            assert "none" not in arch.genotype.ops


@pytest.mark.parametrize("split", SPLITS)
def test_dependent_fields(split: str) -> None:
    low, _, threshold, _, medium, _, _ = RULES[split]
    for arch in DRAWN[split]:
        if steps(arch) > 1 or arch.C_mult == 2:
            assert arch.preproc
        if split != "search" and not arch.is_vit:
            assert arch.preproc
        if arch.is_vit or arch.n_cells > threshold:
            assert arch.glob_avg
        if split == "bnfree":
            assert arch.norm == "none"
        elif split == "search" or arch.n_cells > low + 1 or steps(arch) > medium:
            assert arch.norm == "bnorm"
        if arch.stem_type == 1:
            assert not arch.stem_pool


def test_norms_are_mixed_in_small_networks_only() -> None:
    small = [arch for arch in DRAWN["train"] + DRAWN["val"] if arch.n_cells <= 5 and steps(arch) <= 2]
    assert {arch.norm for arch in small} == {"bnorm", "none"}


def test_wide_is_test() -> None:
    assert DRAWN["wide"] == DRAWN["test"]


def test_splits_have_different_networks() -> None:
    prints = {name: {arch.fingerprint() for arch in archs} for name, archs in DRAWN.items() if name != "wide"}
    for a in prints:
        for b in prints:
            assert a == b or not prints[a] & prints[b]


@pytest.mark.parametrize("split", SPLITS)
def test_keys_say_which_split_may_hold_a_network(split: str) -> None:
    shares = {int(canonical_key(encode(arch))[1] % 16) for arch in DRAWN[split]}
    if SPLITS[split].evaluation:
        assert shares == {key_share(SPLITS[split])}
    else:
        assert shares.isdisjoint(range(1, N_EVALUATION_STREAMS + 1))


def test_a_sample_is_a_function_of_version_split_and_index() -> None:
    assert sample("val", 3) == DRAWN["val"][3]
    assert sample("val", 3, dataset_version=2) != DRAWN["val"][3]


def test_dataset_version_1_is_frozen() -> None:
    """A change here changes everybody's data: raise DATASET_VERSION instead."""
    prints = {name: archs[0].fingerprint()[:8] for name, archs in DRAWN.items()}
    assert prints == FROZEN


def test_candidates_follow_the_published_distribution() -> None:
    recipe = SPLITS["train"].recipe
    stream = open_stream(np.uint64(1), np.uint64(2))
    drawn = [code for _ in range(20_000) if len(code := candidate(stream, recipe))]
    two_steps = [code for code in drawn if code[ir.STEPS_NORMAL] >= 2]
    # The states of a step are a uniform ordered pair, independent of what the operations are rejected for.
    assert_uniform(Counter((code[ir.HEADER + 5], code[ir.HEADER + 7]) for code in two_steps), 6)
    # Three steps need at most T cells, T uniform in 7..10.
    cells = Counter(int(code[ir.N_CELLS]) for code in drawn if code[ir.STEPS_NORMAL] > 2)
    expected = np.array([4, 4, 4, 4, 3, 2, 1])
    observed = np.array([cells[n] for n in range(4, 11)])
    assert sum(cells.values()) == observed.sum()
    assert chisquare(observed, observed.sum() * expected / expected.sum()).pvalue > 1e-3
    # Rejections thin out what they name and favour none of these.
    assert_uniform(Counter(op for code in two_steps if (op := code[ir.HEADER]) < ir.SEP3), 4)
    assert_uniform(Counter(code[ir.KS] for code in drawn), 3)
    assert_uniform(Counter(code[ir.C_MULT] for code in drawn), 2)
    # A state but the last is dropped from the concatenation in a quarter of the cases: half of half.
    kept = np.mean([code[ir.CONCAT_NORMAL] == 2 for code in drawn if code[ir.STEPS_NORMAL] == 2])
    assert 0.72 < kept < 0.78


def assert_uniform(counts: Counter[Any], n_values: int) -> None:
    assert len(counts) == n_values
    assert chisquare(list(counts.values())).pvalue > 1e-3


def test_bad_questions() -> None:
    with pytest.raises(UnknownName, match=r"'tset'\. Did you mean 'test'"):
        sample("tset", 0)
    with pytest.raises(BadInput, match="must be from 0 to"):
        sample("test", -1)

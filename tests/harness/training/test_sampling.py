"""Sampling of networks: limits hold, widths follow the rules, step s depends on streams and s alone."""

from itertools import islice

import pytest

from deepnets_bench.errors import BadInput
from deepnets_bench.harness.randomness import Streams
from deepnets_bench.harness.training.sampling import NetworkSampler
from tests.harness.conftest import tiny_track


def sampler(architectures, seed=0, **networks) -> NetworkSampler:
    protocol = tiny_track(networks=networks).networks
    return NetworkSampler(
        architectures["train"], protocol, image_size=16, num_classes=10, streams=Streams((seed,))
    )


def nodes(arch) -> int:
    return arch.graph(width=8, image_size=16, num_classes=10).num_nodes


def test_limits_on_architectures_and_meta_batches_hold(architectures):
    drawn = list(islice(sampler(architectures).from_step(0), 50))
    sizes = {i: nodes(arch) for i, arch in enumerate(architectures["train"])}
    assert {d.index for meta_batch in drawn for d in meta_batch} <= {i for i, n in sizes.items() if n <= 120}
    assert all(sum(sizes[d.index] for d in meta_batch) <= 200 for meta_batch in drawn)
    assert all(len({d.index for d in meta_batch}) == 2 for meta_batch in drawn)


def test_max_params_leaves_large_networks_out(architectures):
    kept = sampler(architectures, max_params=20_000).indices
    params = [
        arch.program(width=8, image_size=16, num_classes=10).num_params for arch in architectures["train"]
    ]
    assert 0 < len(kept) < len(params)
    assert all(params[i] <= 20_000 for i in kept)


def test_a_later_start_gives_the_same_meta_batches(architectures):
    whole = list(islice(sampler(architectures).from_step(0), 40))
    assert list(islice(sampler(architectures).from_step(25), 15)) == whole[25:]
    assert list(islice(sampler(architectures, seed=1).from_step(0), 40)) != whole


def test_widths_follow_the_first_matching_rule(architectures):
    rules = [
        {"over_cells": 8, "widths": [8], "fc_dims": [16]},
        {"widths": [24, 32], "fc_dims": [64]},
    ]
    seen = set()
    for meta_batch in islice(sampler(architectures, width_rules=rules, max_nodes=None).from_step(0), 60):
        for network in meta_batch:
            deep = architectures["train"][network.index].n_cells > 8
            assert (network.width, network.fc_dim) in ({(8, 16)} if deep else {(24, 64), (32, 64)})
            seen.add(network.width)
    assert seen == {8, 24, 32}


def test_too_few_architectures_are_refused(architectures):
    with pytest.raises(BadInput, match="Only 0 of 30 training architectures pass"):
        sampler(architectures, max_params=1)

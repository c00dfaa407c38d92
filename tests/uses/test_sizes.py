"""Sizes of evaluated networks: those that the harness itself builds, on tracks of every kind."""

from __future__ import annotations

from pathlib import Path

import pytest

from deepnets_bench import GHN
from deepnets_bench.data.shards import open_split
from deepnets_bench.errors import BadInput
from deepnets_bench.generators import generate
from deepnets_bench.harness.protocol.tracks import load_track
from deepnets_bench.harness.training import evaluation, scoring
from deepnets_bench.harness.training.splits import load_networks
from deepnets_bench.uses.sizes import check_image_form, evaluated_sizes


@pytest.mark.parametrize("name", ["digits", "cifar10", "imagenet"])
@pytest.mark.parametrize("split", ["test", "wide"])
def test_networks_are_as_large_as_a_track_evaluates_them(name, split, tmp_path, monkeypatch):
    track = load_track(name)
    generate([split], tmp_path, 1, workers=1)
    asked: list[dict] = []

    def evaluate(_ghn, networks, data, **sizes):
        width = evaluation._width(networks[0], sizes["width"], track.images.size)
        asked.append({"width": width, "image_size": track.images.size,
                      "num_classes": sizes["num_classes"], "fc_dim": sizes["fc_dim"]})  # fmt: skip

    class Images:
        num_classes = 10

        def part(self, _name):
            return self

        def head(self, _count):
            return self

    monkeypatch.setattr(scoring, "evaluate", evaluate)
    monkeypatch.setattr(scoring, "load_networks", lambda root, split, count: load_networks(root, split, 1))
    list(scoring.score_splits(None, track, tmp_path, Images(), [split]))
    [network] = load_networks(tmp_path, split, 1)
    assert evaluated_sizes(track, split, network.widths, 10) == asked[0]
    assert evaluated_sizes(track, split, open_split(tmp_path, split)[0].width, 10) == asked[0]


def test_a_hypernetwork_of_another_image_form_is_refused():
    ghn = GHN.from_config({"gnn": "mlp", "hid": 8, "max_shape": [8, 8, 3, 3], "num_classes": 10})
    check_image_form(ghn, Path("ghn.safetensors"), load_track("cifar10"))
    with pytest.raises(BadInput, match=r"of 32×32 images; those of track 'imagenet' are 224×224"):
        check_image_form(ghn, Path("ghn.safetensors"), load_track("imagenet"))

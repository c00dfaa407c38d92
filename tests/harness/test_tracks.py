"""Tracks: the packaged files are valid, and every mistake in a file is one sentence that names the key."""

import pytest

from deepnets_bench.errors import BadInput, UnknownName
from deepnets_bench.harness.tracks import load_track, parse_track, track_names, track_text
from tests.harness.conftest import TINY, tiny_track


@pytest.mark.parametrize("name", track_names())
def test_packaged_tracks_are_named_after_their_files_and_cover_the_splits(name):
    track = load_track(name)
    assert track.name == name
    assert track.comparable
    assert track.evaluation.splits["wide"].width_factor == 4
    assert {"val", "test", "wide", "deep", "dense", "bnfree"} <= set(track.evaluation.splits)
    assert all(split.count >= 50 for split in track.evaluation.splits.values())
    assert [n for n, split in track.evaluation.splits.items() if split.images == "val"] == ["val"]


def test_unknown_tracks_and_keys_name_the_nearest_one():
    with pytest.raises(UnknownName, match=r"Unknown track 'digit'\. Did you mean 'digits'\?"):
        load_track("digit")
    with pytest.raises(UnknownName, match=r"'training\.step'\. Did you mean 'training\.steps'\?"):
        tiny_track(training={"step": 3})
    with pytest.raises(UnknownName, match=r"'networks.width_rules.0.width'. Did you mean .*widths'?"):
        tiny_track(networks={"width_rules": [{"width": [8], "widths": [8], "fc_dims": [8]}]})


@pytest.mark.parametrize(
    ("table", "values", "message"),
    [
        ("training", {"steps": "6"}, "training.steps: input should be a valid integer"),
        ("training", {"lr": -1.0}, "training.lr: input should be greater than 0"),
        ("training", {"warmup_steps": 6}, "warmup_steps .* must be below"),
        ("images", {"dataset": "mnist"}, "images.dataset: input should be 'digits'"),
        ("images", {"size": 12}, "images.size: input should be"),
        ("evaluation", {"splits": {}}, "evaluation.splits: .*at least 1"),
        (
            "networks",
            {"width_rules": [{"flatten": True, "widths": [8], "fc_dims": [8]}]},
            "last of .* must have no condition",
        ),
    ],
)
def test_wrong_values_are_refused_with_the_key(table, values, message):
    with pytest.raises(BadInput, match=message) as caught:
        tiny_track(**{table: values})
    assert "\n" not in str(caught.value)


def test_files_that_are_missing_or_no_toml_are_refused(tmp_path):
    with pytest.raises(BadInput, match="cannot be read"):
        load_track(str(tmp_path / "mine.toml"))
    (tmp_path / "mine.toml").write_text("steps = = 3")
    with pytest.raises(BadInput, match="is not valid TOML"):
        load_track(str(tmp_path / "mine.toml"))


def test_any_change_gives_another_fingerprint_and_a_changed_packaged_track_is_not_comparable(tmp_path):
    assert parse_track(TINY).fingerprint() == tiny_track().fingerprint()
    assert parse_track(TINY).fingerprint() != tiny_track(training={"lr": 0.002}).fingerprint()
    edited = tmp_path / "digits.toml"
    edited.write_text(track_text("digits").replace("batch_size = 64", "batch_size = 63"))
    assert not load_track(str(edited)).comparable
    assert tiny_track().comparable  # a track of one's own, under its own name


def test_smoke_reduces_the_work_and_is_not_comparable():
    track = load_track("digits")
    smoke = track.as_smoke()
    assert smoke.training.steps == track.smoke.steps
    assert smoke.training.warmup_steps < smoke.training.steps
    assert {split.count for split in smoke.evaluation.splits.values()} == {track.smoke.evaluated}
    assert not smoke.comparable

"""Tracks: the packaged files are valid, and every mistake in a file is one sentence that names the key."""

import pickle

import pytest

from deepnets_bench.data.widths import PAPER_RULES
from deepnets_bench.errors import BadInput, UnknownName
from deepnets_bench.generators import SPLITS
from deepnets_bench.harness.protocol.tracks import load_track, parse_track, track_names, track_text
from deepnets_bench.harness.training.trainer import learning_rate
from deepnets_bench.leaderboard.admission import Calibration
from tests.harness.conftest import TINY, tiny_track


@pytest.mark.parametrize("name", track_names())
def test_packaged_tracks_are_named_after_their_files_and_cover_the_splits(name):
    track = load_track(name)
    assert track.name == name
    assert track.comparable
    wide = track.evaluation.splits["wide"]
    assert wide.width_factor == (1 if track.evaluation.width == "stored" else 4)
    assert {"val", "test", "wide", "deep", "dense", "bnfree"} <= set(track.evaluation.splits)
    counts = {split: protocol.count for split, protocol in track.evaluation.splits.items()}
    assert counts.pop("predefined", 2) == 2
    assert all(count >= 50 for count in counts.values())
    assert [n for n, split in track.evaluation.splits.items() if split.images == "val"] == ["val"]


def test_fingerprints_of_tracks_with_results_stay_what_they_are():
    # Results are committed under these: a new field must not change them (`tables.added`).
    assert load_track("digits").fingerprint() == "732ed300a0498bec"
    assert load_track("digits-full").fingerprint() == "7c71231e57a44239"


def test_an_added_field_counts_in_the_fingerprint_unless_it_holds_its_default():
    track = tiny_track()
    assert tiny_track(evaluation={"top_k": 1}).fingerprint() == track.fingerprint()
    assert tiny_track(images={"flip": False}).fingerprint() == track.fingerprint()
    others = [
        tiny_track(evaluation={"top_k": 2}),
        tiny_track(images={"flip": True}),
        tiny_track(ghn={"max_gnn_params": 9}),
        tiny_track(smoke={"images": 2}),
    ]
    assert len({other.fingerprint() for other in [track, *others]}) == 5


@pytest.mark.parametrize(
    ("name", "images", "batch_size"), [("cifar10", 45_000, 64), ("imagenet", 1_231_167, 256)]
)
def test_paper_tracks_follow_the_paper(name, images, batch_size):
    track = load_track(name)
    epoch = images // batch_size
    assert track.images.batch_size == batch_size
    assert track.training.steps == 300 * epoch
    steps = [0, 200 * epoch - 1, 200 * epoch, 250 * epoch - 1, 250 * epoch, 300 * epoch - 1]
    rates = [learning_rate(track.training, step) for step in steps]
    assert rates == pytest.approx([1e-3, 1e-3, 1e-4, 1e-4, 1e-5, 1e-5])
    assert track.training.max_failures == 300 * (epoch // 50)
    assert track.training.label_smoothing == (0.1 if name == "imagenet" else 0)
    assert track.networks.width_rules == PAPER_RULES
    assert track.networks.max_meta_batch_nodes == 2200
    paper = {split.name: split.size for split in SPLITS.values() if split.evaluation} | {"predefined": 2}
    assert {split: protocol.count for split, protocol in track.evaluation.splits.items()} == paper
    assert track.networks.count == SPLITS["train"].size


def test_unknown_tracks_and_keys_name_the_nearest_one():
    with pytest.raises(UnknownName, match=r"Unknown track 'digit'\. Did you mean 'digits'\?"):
        load_track("digit")
    with pytest.raises(
        UnknownName, match=r"'training\.step' in track 'track'\. Did you mean 'training\.steps'\?"
    ):
        tiny_track(training={"step": 3})
    with pytest.raises(
        UnknownName, match=r"'networks.width_rules.0.width' in track 'track'. Did you mean .*widths'?"
    ):
        tiny_track(networks={"width_rules": [{"width": [8], "widths": [8], "fc_dims": [8]}]})


@pytest.mark.parametrize(
    ("table", "values", "message"),
    [
        ("training", {"steps": "6"}, "training.steps: input should be a valid integer"),
        ("training", {"lr": -1.0}, "training.lr: input should be greater than 0"),
        ("training", {"warmup_steps": 6}, "warmup_steps .* must be below"),
        ("images", {"dataset": "svhn"}, "images.dataset: input should be 'digits'"),
        ("images", {"size": 12}, "images.size: input should be"),
        ("images", {"size": 72, "dataset": "imagefolder", "shift": 0}, "multiple of 32 above 64, not 72"),
        ("images", {"dataset": "cifar10"}, "images of CIFAR-10 have the size 32, not 16"),
        ("images", {"dataset": "imagefolder"}, "shift is not for images from folders"),
        ("images", {"crop_area": [0.1, 1.0]}, "are for imagenet and imagefolder"),
        ("evaluation", {"width": "own"}, "evaluation.width"),
        ("evaluation", {"width": "stored"}, "'wide' has a width_factor, but"),
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
    with pytest.raises(BadInput, match=r"cannot be read: No such file or directory\.$"):
        load_track(str(tmp_path / "mine.toml"))
    (tmp_path / "mine.toml").write_bytes(b"\xff")
    with pytest.raises(BadInput, match="is not text"):
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


def test_the_calibration_decides_which_rows_stand_together_and_not_what_they_are(tmp_path):
    edited = tmp_path / "digits.toml"
    edited.write_text(track_text("digits").replace("tolerance = 0.001", "tolerance = 0.002"))
    track = load_track(str(edited))
    assert track.calibration == Calibration(gnn="mlp", seed=0, tolerance=0.002)
    assert track.fingerprint() == load_track("digits").fingerprint()
    assert track.comparable
    assert tiny_track().calibration is None
    with pytest.raises(UnknownName, match=r"'calibration.unit' in track 'track'"):
        parse_track(TINY | {"calibration": {"gnn": "mlp", "seed": 0, "tolerance": 0.1, "unit": "pp"}})
    with pytest.raises(BadInput, match=r"calibration\.tolerance: input should be less than or equal to 1"):
        parse_track(TINY | {"calibration": {"gnn": "mlp", "seed": 0, "tolerance": 2.0}})


@pytest.mark.parametrize("name", track_names())
def test_calibration_jobs_are_jobs_of_the_track(name):
    track = load_track(name)
    assert track.calibration is None or track.calibration.seed == track.seeds[0]


def test_smoke_reduces_the_work_and_is_not_comparable():
    track = load_track("digits")
    smoke = track.as_smoke()
    assert smoke.training.steps == track.smoke.steps
    assert smoke.training.warmup_steps < smoke.training.steps
    assert {split.count for split in smoke.evaluation.splits.values()} == {track.smoke.evaluated}
    assert not smoke.comparable


def test_a_changed_copy_of_a_track_of_ones_own_is_not_comparable_in_another_process_either():
    track = tiny_track()
    for copy in (track.as_smoke(), track.in_precision("bf16"), track.as_smoke().in_precision("fp16")):
        assert not copy.comparable
        assert not pickle.loads(pickle.dumps(copy)).comparable
    assert pickle.loads(pickle.dumps(track)).comparable

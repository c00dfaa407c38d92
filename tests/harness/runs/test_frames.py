"""Frames: remade byte for byte by their recipe, the start of every run, refused when not the track's."""

import hashlib
import json
import re
import signal
import subprocess
import sys

import pytest
import torch

from deepnets_bench.errors import BadInput, CorruptFile
from deepnets_bench.gnn import identify
from deepnets_bench.harness.images.sets import digits
from deepnets_bench.harness.protocol.tracks import load_track, parse_track
from deepnets_bench.harness.runs.frames import recipe_track, train_frame
from deepnets_bench.harness.runs.job import Job, build_ghn
from deepnets_bench.harness.runs.launch import run_job
from deepnets_bench.harness.runs.options import RunOptions
from deepnets_bench.harness.training.frames import FrameTrainer, check_frames, frame_weights
from deepnets_bench.harness.training.splits import prepare_dataset
from deepnets_bench.harness.training.trainer import Trainer
from tests.harness.conftest import TINY, tiny_track

GNNS = ["mlp", "ghn2", "gat"]


def with_frames(*frames: dict):
    recipe = {"file": "missing.safetensors", "digest": "", "gnns": GNNS, "steps": 6, "seed": 7}
    return parse_track(TINY | {"frames": [recipe | frame for frame in frames]})


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def made(data, tmp_path_factory):
    """A track with a frame that is there."""
    track, path = with_frames({}), tmp_path_factory.mktemp("frames") / "frame.safetensors"
    digest = train_frame(track, track.frames[0], path, data=data, device="cpu").digest
    return with_frames({"file": str(path), "digest": digest}), path


def run(track, gnn, data, out, seed=0):
    return run_job(Job(track, identify(gnn), seed), prepare_dataset(track, data), out, RunOptions("cpu"))


def same(a, b) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_recipe_gives_the_same_bytes_again_and_when_interrupted(made, data, tmp_path):
    track, path = made
    frame = track.frames[0]
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert frame.digest == digest
    again, cut = tmp_path / "again.safetensors", tmp_path / "cut.safetensors"
    whole = train_frame(track, frame, again, data=data, device="cpu")
    assert whole.digest == digest
    assert whole.cpu_seconds > 0
    assert again.read_bytes() == path.read_bytes()

    def interrupt(progress) -> None:
        if progress.step == 4:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train_frame(track, frame, cut, data=data, device="cpu", report=interrupt)
    assert not cut.exists()
    steps = []
    report = lambda progress: steps.append(progress.step)  # noqa: E731
    resumed = train_frame(track, frame, cut, data=data, device="cpu", report=report)
    assert resumed.digest == digest
    assert steps == [5, 6]
    assert resumed.cpu_seconds > 0
    assert [entry.name for entry in tmp_path.iterdir() if entry.is_dir()] == []
    with pytest.raises(BadInput, match="exists already; nothing was trained"):
        train_frame(track, frame, cut, data=data, device="cpu")


def test_a_frame_shaped_by_one_gnn_is_that_of_its_run(architectures):
    torch.set_num_threads(1)
    track = tiny_track()
    for name in ("mlp", "ghn2"):
        gnn = identify(name)
        alone = Trainer(track, build_ghn(track, gnn, 10, 7), architectures["train"], digits(16), seed=7)
        turns = FrameTrainer(track, [gnn], architectures["train"], digits(16), seed=7)
        alone.run(), turns.run()
        assert same(frame_weights(alone.ghn), frame_weights(turns.ghn))


def test_each_turn_trains_one_gnn_and_the_frame(architectures):
    track = tiny_track(training={"steps": 2, "warmup_steps": 0})
    gnns = [identify(name) for name in GNNS]
    trainer = FrameTrainer(track, gnns, architectures["train"], digits(16), seed=7)
    before = {name: value.clone() for name, value in trainer.ghn.state_dict().items()}
    for name, gnn in zip(GNNS, trainer.ghn.gnn.gnns, strict=True):  # as in a run of each
        assert same(dict(gnn.state_dict()), dict(build_ghn(track, identify(name), 10, 7).gnn.state_dict()))
    trainer.run()
    after = trainer.ghn.state_dict()
    moved = {name for name in after if not torch.equal(before[name], after[name])}
    assert any(name.startswith("gnn.gnns.0.") for name in moved)
    assert any(name.startswith("gnn.gnns.1.") for name in moved)
    assert not any(name.startswith("gnn.gnns.2.") for name in moved)  # its turn has not come
    assert "embed.weight" in moved


def test_a_run_starts_from_the_frame_of_its_seed_with_fresh_weights_of_its_gnn(made, data, tmp_path):
    track, path = made
    other = tmp_path / "other.safetensors"
    recipe = track.frames[0].model_copy(update={"seed": 8})
    digest = train_frame(track, recipe, other, data=data, device="cpu").digest
    two = with_frames(
        {"file": str(path), "digest": track.frames[0].digest},
        {"file": str(other), "digest": digest, "seed": 8},
    )
    scratch = tiny_track()
    starts = [build_ghn(two, identify("gat"), 10, seed) for seed in range(3)]
    assert same(frame_weights(starts[0]), frame_weights(starts[2]))
    assert not torch.equal(starts[0].embed.weight, starts[1].embed.weight)
    assert same(frame_weights(starts[0]), frame_weights(build_ghn(track, identify("mlp"), 10, 1)))
    for seed, ghn in enumerate(starts):
        fresh = build_ghn(scratch, identify("gat"), 10, seed)
        assert same(ghn.gnn.state_dict(), fresh.gnn.state_dict())
        assert not torch.equal(ghn.embed.weight, fresh.embed.weight)
    jobs = [Job(two, identify("gat"), seed) for seed in range(2)]
    assert [two.frame_digest(job.seed) for job in jobs] == [track.frames[0].digest[:16], digest[:16]]
    rows = run(two, "mlp", data, tmp_path, seed=1)
    assert {row.frame_digest for row in rows} == {digest[:16]}
    assert rows[0].config_hash == Job(two, identify("mlp"), 1).config_hash(
        prepare_dataset(two, data).fingerprint
    )


def test_places_of_files_are_no_part_of_a_track_and_digests_and_recipes_are(made):
    track, _ = made
    assert "frames" not in tiny_track().identity()  # fingerprints without frames are as they were
    frame = {"digest": track.frames[0].digest}
    assert with_frames(frame | {"file": "elsewhere", "track": "digits"}).fingerprint() == track.fingerprint()
    for change in ({"digest": "0" * 64}, {"seed": 8}, {"steps": 5}, {"gnns": ["mlp"]}):
        assert with_frames(frame | change).fingerprint() != track.fingerprint()
    assert track.fingerprint() != tiny_track().fingerprint()


def test_files_are_found_beside_the_tracks_file(made, tmp_path):
    track, path = made
    (tmp_path / "frame.safetensors").write_bytes(path.read_bytes())
    toml = tmp_path / "mine.toml"
    toml.write_text(to_toml(track.frames[0].digest, "frame.safetensors"))
    found = load_track(str(toml))
    assert found.frames[0].file == str(tmp_path / "frame.safetensors")
    assert found.frames[0].track == str(tmp_path / "other.toml")
    check_frames(found)


def to_toml(digest: str, file: str) -> str:
    text = (
        'name = "mine"\nversion = 1\nlabel = "test"\ndescription = "A test."\ndataset_version = 1\n'
        "seeds = [0]\ntimeout_minutes = 5.0\n"
    )
    for table in ("images", "ghn", "training", "selection", "smoke"):
        values = "\n".join(f"{key} = {json.dumps(value)}" for key, value in TINY[table].items())
        text += f"[{table}]\n{values}\n"
    text += (
        "[networks]\ncount = 30\nreference_width = 8\nmeta_batch_size = 2\n"
        "[[networks.width_rules]]\nwidths = [8]\nfc_dims = [16]\n"
        "[evaluation]\nbatch_size = 32\nmax_images = 64\nwidth = 8\nfc_dim = 16\n"
        '[evaluation.splits]\nval = { count = 3, images = "val" }\n'
        f'[[frames]]\nfile = "{file}"\ndigest = "{digest}"\ngnns = ["mlp"]\nsteps = 6\nseed = 7\n'
        'track = "other.toml"\n'
    )
    return text


def test_frames_that_are_missing_changed_or_of_other_shapes_are_refused_in_one_sentence(made, data, tmp_path):
    track, path = made
    digest = track.frames[0].digest
    wider = parse_track(track.model_dump(mode="json") | {"ghn": TINY["ghn"] | {"hid": 16}})
    changed = tmp_path / "changed.safetensors"
    changed.write_bytes(path.read_bytes()[:-1] + b"\1")
    nonsense = tmp_path / "nonsense.safetensors"
    nonsense.write_bytes(b"nothing of the kind")
    faults = [
        (with_frames({}), "has no digest: make the frame with `deepnets-bench track frame`"),
        (with_frames({"digest": digest}), "missing.safetensors, which is not there"),
        (
            with_frames({"file": str(changed), "digest": digest}),
            "is not the one of track 'tiny': its SHA-256",
        ),
        (
            with_frames({"file": str(nonsense), "digest": hashlib.sha256(nonsense.read_bytes()).hexdigest()}),
            "not a safetensors file",
        ),
        (wider, r"tensor .* has shape \[.*\], expected \[.*\]"),
    ]
    for faulty, sentence in faults:
        for attempt in (check_frames, lambda t: build_ghn(t, identify("mlp"), 10)):
            with pytest.raises(BadInput, match=sentence) as caught:
                attempt(faulty)
            assert "\n" not in str(caught.value)
        with pytest.raises(BadInput, match=sentence):
            run(faulty, "mlp", data, tmp_path)
    with pytest.raises(CorruptFile, match="expected"):
        build_ghn(track, identify("mlp"), 7)  # images of another number of classes
    assert not list(tmp_path.glob("runs/*/curve.csv"))


def test_a_recipe_is_checked_before_it_is_trained(data, tmp_path):
    short = with_frames({"steps": 2})
    with pytest.raises(BadInput, match=r"warmup_steps \(2\) must be below steps \(2\)"):
        recipe_track(short, short.frames[0])
    for change, message in (
        ({"digest": "abc"}, "frames.0.digest"),
        ({"gnns": []}, "frames.0.gnns"),
        ({"wdith": 3}, "Unknown key 'frames.0.wdith'"),
    ):
        with pytest.raises(BadInput, match=message):
            with_frames(change)


def test_the_commands_say_it_too(data, tmp_path):
    toml = tmp_path / "mine.toml"
    toml.write_text(to_toml("", "mine.safetensors").replace('track = "other.toml"\n', ""))

    def command(*arguments: str) -> subprocess.CompletedProcess:
        line = [sys.executable, "-m", "deepnets_bench", *arguments, "--data", str(data)]
        return subprocess.run(line, capture_output=True, text=True, cwd=tmp_path)

    refused = command("run", "--gnn", "mlp", "--track", str(toml), "--out", "out")
    assert refused.returncode == 2
    assert "has no digest" in refused.stderr
    assert not (tmp_path / "out").exists()
    made_it = command("track", "frame", str(toml))
    assert made_it.returncode == 0, made_it.stderr
    digest = hashlib.sha256((tmp_path / "mine.safetensors").read_bytes()).hexdigest()
    printed = rf'digest = "{digest}"\n# trained in \d+\.\d CPU minutes on .+\n'
    assert re.fullmatch(printed, made_it.stdout)
    assert command("track", "frame", str(toml), "--frame", "1").returncode == 2
    toml.write_text(toml.read_text().replace('digest = ""', f'digest = "{"0" * 64}"'))
    other = command("track", "frame", str(toml), "--out", "again.safetensors")
    assert other.returncode == 1
    assert re.fullmatch(printed, other.stdout)
    assert "is not the frame of track 'mine'" in other.stderr

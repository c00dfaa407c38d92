"""The tracks with images in files, end to end on small files in the real formats."""

from __future__ import annotations

import pytest

from deepnets_bench.benchmark import Benchmark
from deepnets_bench.errors import BadInput
from deepnets_bench.gnn import identify
from deepnets_bench.harness.protocol.tracks import load_track
from deepnets_bench.harness.randomness import Streams
from deepnets_bench.harness.runs.job import RESULTS, Job, build_ghn
from deepnets_bench.harness.runs.launch import run_job
from deepnets_bench.harness.runs.options import RunOptions
from deepnets_bench.harness.training.sampling import NetworkSampler
from deepnets_bench.harness.training.splits import StoredArchitectures, load_networks, prepare_dataset
from deepnets_bench.leaderboard.results import read_rows
from deepnets_bench.predefined import ResNet50
from tests.harness.conftest import tiny_track
from tests.harness.images.image_files import accept_cifar10, write_cifar10, write_class, write_parts
from tests.harness.test_commands import TRACK, command


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


def write_images(name, root, monkeypatch):
    if name == "cifar10":
        write_cifar10(root)
        accept_cifar10(root, monkeypatch)
    elif name == "imagenet":
        for label in range(6):
            write_class(root / "train" / f"n{label}", 51, (40 * label, 9, 9))
            write_class(root / "val" / f"n{label}", 1, (40 * label, 9, 9))
    else:
        write_parts(root, {"train": 3, "val": 2, "test": 2})


@pytest.mark.parametrize("name", ["cifar10", "imagenet", "imagefolder"])
def test_a_smoke_run_of_a_track_with_image_files(name, data, tmp_path, monkeypatch):
    root = tmp_path / "images"
    write_images(name, root, monkeypatch)
    track = load_track(name).as_smoke()
    splits = {split: track.evaluation.splits[split] for split in ("val", "predefined")}
    track = track.model_copy(
        update={
            "networks": track.networks.model_copy(update={"meta_batch_size": 1}),
            "training": track.training.model_copy(update={"steps": 1}),
            "images": track.images.model_copy(update={"batch_size": 2}),
            "evaluation": track.evaluation.model_copy(update={"splits": splits, "max_images": 2}),
        }
    )
    dataset = prepare_dataset(track, data, images=root)
    rows = run_job(Job(track, identify("mlp"), 0), dataset, tmp_path / "out", RunOptions("cpu"))
    assert [(row.split, row.status, row.n_evaluated) for row in rows] == [
        ("val", "ok", 1),
        ("predefined", "ok", 1),
    ]
    assert not any(row.comparable for row in rows)
    assert read_rows(tmp_path / "out" / RESULTS) == rows


def test_smoke_reduces_the_images_too():
    smoke = load_track("imagenet").as_smoke()
    assert (smoke.images.batch_size, smoke.selection.images, smoke.evaluation.max_images) == (2, 2, 2)
    assert smoke.evaluation.top_k == 5
    assert load_track("digits").as_smoke().images == load_track("digits").images


def test_results_on_other_images_have_another_fingerprint(data, tmp_path):
    track = load_track("imagefolder").as_smoke()
    prints = []
    for number in (3, 4):
        write_parts(tmp_path / str(number), {"train": number, "val": 1, "test": 1}, n_classes=2)
        prints.append(prepare_dataset(track, data, images=tmp_path / str(number)).fingerprint)
    assert prints[0] != prints[1]
    with pytest.raises(BadInput, match="--images DIR or the environment variable"):
        prepare_dataset(track, data)


def test_stored_architectures_are_those_of_the_split_and_are_sampled_alike(tiny, data):
    prepare_dataset(tiny, data)
    stored = StoredArchitectures(data, "train", 30)
    listed = list(stored)
    assert len(listed) == len(stored) == 30
    assert [record.index for record in stored[3:5]] == [3, 4]
    assert stored[-1].index == 29
    with pytest.raises(IndexError):
        stored[30]
    for size in (16, 224):
        counts = [record.architecture.graph(8, size).num_nodes for record in listed]
        assert stored.node_counts().tolist() == counts
    sizes = {"image_size": 16, "num_classes": 10, "streams": Streams()}
    decoded = [record.architecture for record in listed]
    lazy, eager = (
        NetworkSampler(source, tiny.networks, **sizes).from_step(0) for source in (stored, decoded)
    )
    assert [next(lazy) for _ in range(20)] == [next(eager) for _ in range(20)]


def test_networks_of_evaluation_splits_have_the_widths_of_the_paper(data):
    track = load_track("cifar10").as_smoke()
    prepare_dataset(tiny_track(evaluation={"splits": track.evaluation.model_dump()["splits"]}), data)
    (test, *_), (wide, *_) = load_networks(data, "test", 3), load_networks(data, "wide", 3)
    assert test.architecture == wide.architecture
    assert (wide.width(32), wide.width(224)) == (4 * test.width(32), 2 * test.width(224))
    resnet, vit = load_networks(data, "predefined", 2)
    assert isinstance(resnet.architecture, ResNet50)
    assert (resnet.width(32), vit.width(32)) == (64, 128)
    program = test.program(width=test.width(32), image_size=32, num_classes=10, fc_dim=256)
    assert program.num_params >= 2_500_000


def test_a_gnn_above_the_budget_of_a_track_is_refused_before_training(data, tmp_path, tiny):
    params = sum(weight.numel() for weight in build_ghn(tiny, identify("gcn"), 10).gnn.parameters())
    build_ghn(tiny_track(ghn={"max_gnn_params": params}), identify("gcn"), 10)
    track = tiny_track(ghn={"max_gnn_params": params - 1})
    message = f"GNN 'gcn' has {params:,} parameters; track 'tiny' permits at most {params - 1:,}."
    with pytest.raises(BadInput) as caught:
        run_job(Job(track, identify("gcn"), 0), prepare_dataset(track, data), tmp_path, RunOptions("cpu"))
    assert str(caught.value) == message
    assert not list(tmp_path.glob("runs/*/curve.csv"))


def test_run_and_eval_with_a_folder_of_images(tmp_path):
    write_parts(tmp_path / "mine", {"train": 6, "val": 3, "test": 4})
    own = TRACK.replace('dataset = "digits", size = 16', 'dataset = "imagefolder", size = 16, flip = true')
    (tmp_path / "tiny.toml").write_text(
        own.replace("width = 8\nfc_dim = 16", "width = 8\nfc_dim = 16\nnoise = 0.1")
    )
    common = ["--track", "tiny.toml"]
    done = command(tmp_path, "run", "--gnn", "mlp", *common, "--seeds", "0")
    assert done.returncode == 2
    assert "The images of 'imagefolder' are files: name their folder with --images DIR" in done.stderr
    done = command(tmp_path, "run", "--gnn", "mlp", *common, "--seeds", "0", "--images", "mine")
    assert done.returncode == 0, done.stderr
    rows = read_rows(tmp_path / "leaderboards" / "tiny" / RESULTS)
    assert [(row.split, row.status) for row in rows] == [("val", "ok"), ("test", "ok")]
    (checkpoint,) = tmp_path.glob("leaderboards/tiny/runs/*/ghn.safetensors")
    scoring = ["eval", str(checkpoint), *common, "--images", "mine", "--split", "test", "--noise"]
    noisy = command(tmp_path, *scoring, "track")
    assert noisy.returncode == 0, noisy.stderr
    assert "Gaussian noise of 0.1 on the images" in noisy.stdout
    bench = Benchmark(tmp_path / "tiny.toml", tmp_path / "data", images=tmp_path / "mine")
    by_hand = bench.evaluate(checkpoint, ["test"], noise=0.1, device="cpu")
    assert f"{by_hand['accuracy'].mean():.2%}" in noisy.stdout
    refused = command(tmp_path, *scoring, "2")
    assert refused.returncode == 2
    assert "noise is a standard deviation above 0 and up to 1, or 'track', not '2'" in refused.stderr

"""Image sets that are files, on small files in the real formats; every mistake in them is one sentence."""

import pickle
from itertools import product

import pytest
import torch

from deepnets_bench.errors import BadInput, MissingExtra
from deepnets_bench.harness.images import loading, torchvision
from deepnets_bench.harness.images.loading import load_images
from deepnets_bench.harness.images.sets import training_rows
from deepnets_bench.harness.protocol.tracks import load_track
from deepnets_bench.harness.randomness import Streams
from tests.harness.images.image_files import TEST_BATCH, TRAIN_BATCH, accept_cifar10, write_cifar10

CIFAR10 = load_track("cifar10").images
RUN = Streams((3,))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cifar10")
    write_cifar10(folder)
    return folder


@pytest.fixture
def images(root, monkeypatch):
    accept_cifar10(root, monkeypatch)
    return load_images(CIFAR10, root)


def test_cifar10_the_last_5000_training_images_validate_unshuffled(root, images):
    assert images.num_classes == 10
    assert (len(images.train), len(images.val), len(images.test)) == (
        5 * TRAIN_BATCH - 5000,
        5000,
        TEST_BATCH,
    )
    assert images.train.images.dtype == torch.uint8
    first = pickle.loads((root / "cifar-10-batches-py" / "data_batch_1").read_bytes())
    row = len(images.train)
    assert images.train.images[3].flatten().tolist() == first["data"][3].tolist()
    assert images.val.images[0].flatten().tolist() == first["data"][row].tolist()
    assert images.val.labels[:12].tolist() == [(row + i) % 10 for i in range(12)]
    last = pickle.loads((root / "cifar-10-batches-py" / "data_batch_5").read_bytes())
    assert images.val.images[-1].flatten().tolist() == last["data"][-1].tolist()


def test_cifar10_pixels_are_normalised_channel_by_channel(images):
    (batch, labels), *rest = images.test.batches(32)
    assert [len(labels), *(len(more) for _, more in rest)] == [32, TEST_BATCH - 32]
    pixel = images.test.images[5, :, 7, 9].double() / 255
    by_hand = (pixel - torch.tensor([0.49139968, 0.48215827, 0.44653124])) / torch.tensor(
        [0.24703233, 0.24348505, 0.26158768]
    )
    torch.testing.assert_close(batch[5, :, 7, 9].double(), by_hand, rtol=1e-5, atol=1e-6)


def test_cifar10_training_images_are_crops_of_a_black_margin_half_of_them_mirrored(images):
    protocol = CIFAR10.model_copy(update={"batch_size": 50})
    batch, labels = images.training_batch(0, RUN, protocol)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (torchvision.MEAN, torchvision.STD))
    pixels = (((batch * std) + mean) * 255).round().to(torch.uint8)
    moves, mirrored = set(), 0
    for image, label, row in zip(pixels, labels, training_rows(len(images.train), 0, 50, RUN), strict=True):
        assert int(images.train.labels[row]) == int(label)
        source = torch.nn.functional.pad(images.train.images[row], (4, 4, 4, 4))
        found = [
            (y, x, flip)
            for y, x in product(range(9), range(9))
            for flip in (False, True)
            if torch.equal(image.flip(2) if flip else image, source[:, y : y + 32, x : x + 32])
        ]
        assert len(found) == 1
        moves.add(found[0][:2])
        mirrored += found[0][2]
    assert len(moves) > 20
    assert 10 <= mirrored <= 40
    assert not torch.equal(batch, images.training_batch(1, RUN, protocol)[0])


def test_a_training_batch_is_the_same_after_a_resumption(root, monkeypatch):
    accept_cifar10(root, monkeypatch)
    protocol = CIFAR10.model_copy(update={"batch_size": 8})
    whole = load_images(CIFAR10, root)
    for step in range(3):
        torch.rand(7)  # PyTorch's own generator must not matter
        last = whole.training_batch(step, RUN, protocol)
    resumed = load_images(CIFAR10, root).training_batch(2, RUN, protocol)
    assert torch.equal(last[0], resumed[0])
    assert torch.equal(last[1], resumed[1])


def test_noise_is_gaussian_on_clipped_pixels_and_depends_on_the_seed_alone(images):
    noisy = images.test.noisy(0.08)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (torchvision.MEAN, torchvision.STD))
    pixels = noisy.images * std + mean
    assert pixels.min() > -1e-6
    assert pixels.max() < 1 + 1e-6
    clean = images.test.images.float() / 255
    inside = (clean > 0.4) & (clean < 0.6)  # five deviations from the bounds
    difference = (pixels - clean)[inside]
    assert abs(float(difference.mean())) < 0.002
    assert float(difference.std()) == pytest.approx(0.08, rel=0.02)
    assert torch.equal(noisy.images, images.test.noisy(0.08).images)
    assert torch.equal(noisy.images[:5], images.test.head(5).noisy(0.08).images)
    assert not torch.equal(noisy.images, images.test.noisy(0.08, seed=1).images)


def test_digits_take_noise_too():
    digits = load_images(load_track("digits").images).test.head(30)
    noisy = digits.noisy(1e-6)
    assert not torch.equal(noisy.images, digits.images)
    torch.testing.assert_close(noisy.images, digits.images, rtol=0, atol=1e-4)


def test_missing_altered_and_unnamed_files_are_one_sentence(root, tmp_path, monkeypatch):
    with pytest.raises(BadInput, match="--images DIR or the environment variable DEEPNETS_BENCH_IMAGES"):
        load_images(CIFAR10)
    with pytest.raises(BadInput, match=r"There is no folder .*nowhere"):
        load_images(CIFAR10, tmp_path / "nowhere")
    with pytest.raises(
        BadInput, match="lacks CIFAR-10's folder cifar-10-batches-py; the option --download of `run`"
    ):
        load_images(CIFAR10, tmp_path)
    with pytest.raises(BadInput, match="a checksum differs"):  # files as written, but not the official ones
        loading.fingerprint(CIFAR10, root)
    accept_cifar10(root, monkeypatch)
    assert loading.fingerprint(CIFAR10, root) == ""
    for name in ("imagenet", "imagefolder"):
        with pytest.raises(BadInput, match="cannot be downloaded"):
            loading.download(load_track(name).images, root)


def test_without_torchvision_the_command_that_installs_it_is_named(root, monkeypatch):
    monkeypatch.setattr(loading, "find_spec", lambda name: None)
    for name in ("cifar10", "imagenet", "imagefolder"):
        with pytest.raises(MissingExtra, match=r"'\w+' needs .* pip install 'deepnets-bench\[vision\]'"):
            load_images(load_track(name).images, root)
    assert len(load_images(load_track("digits").images).test) == 359

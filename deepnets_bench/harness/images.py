"""Image sets: real images with a fixed train/val/test partition, held in memory as tensors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from deepnets_bench.errors import BadInput

_PARTITION_KEY = 0x64696769747331  # any constant: it fixes the partition for good
_VAL_SHARE = _TEST_SHARE = 0.2


@dataclass(frozen=True)
class LabelledImages:
    """Normalised `images`, float32 [n, 3, size, size], and their `labels`, int64 [n]."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device | str) -> LabelledImages:
        """The same images on another device."""
        return LabelledImages(self.images.to(device), self.labels.to(device))

    def head(self, count: int) -> LabelledImages:
        """The first `count` images, all if there are fewer."""
        return LabelledImages(self.images[:count], self.labels[:count])


@dataclass(frozen=True)
class ImageSet:
    """An image set in its three parts."""

    num_classes: int
    train: LabelledImages
    val: LabelledImages
    test: LabelledImages

    def part(self, name: str) -> LabelledImages:
        """'train', 'val' or 'test'."""
        parts = {"train": self.train, "val": self.val, "test": self.test}
        return parts[name]

    def to(self, device: torch.device | str) -> ImageSet:
        """The same images on another device."""
        return ImageSet(self.num_classes, self.train.to(device), self.val.to(device), self.test.to(device))


def load_images(dataset: str, size: int) -> ImageSet:
    """The image set of a track, at `size` × `size` pixels; only 'digits' needs no files."""
    if dataset != "digits":
        raise BadInput(f"Image set '{dataset}' is not available; the embedded one is 'digits'.")
    return digits(size)


def digits(size: int = 16) -> ImageSet:
    """scikit-learn's `load_digits`: 1,797 handwritten digits of 8×8 pixels (UCI, Alpaydin and Kaynak 1998).

    The partition is fixed: per class, a Philox permutation with a constant key gives the first fifth
    to test, the next fifth to val and the rest to train; each part is then shuffled once, so that its
    first n images are a random sample. Pixels are divided by 16, upsampled bilinearly, repeated over
    three channels and standardised by the mean and standard deviation of the training part.
    """
    from sklearn.datasets import load_digits

    data = load_digits()
    labels = torch.from_numpy(data.target).long()
    pixels = torch.from_numpy(data.images).float().unsqueeze(1) / 16
    pixels = F.interpolate(pixels, size=(size, size), mode="bilinear", align_corners=False)
    rows = digits_partition(data.target)
    train = pixels[rows["train"]]
    pixels = (pixels - train.mean()) / train.std()
    parts = {
        name: LabelledImages(pixels[index].expand(-1, 3, -1, -1).contiguous(), labels[index])
        for name, index in rows.items()
    }
    return ImageSet(10, **parts)


def digits_partition(labels: np.ndarray) -> dict[str, np.ndarray]:
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


def training_batch(
    data: LabelledImages, step: int, batch_size: int, shift: int, seed: int
) -> tuple[Tensor, Tensor]:
    """Images and labels of one training step, a function of (seed, step) alone.

    Each epoch passes through a new permutation of the images; the incomplete last batch is left out.
    With `shift`, every image moves by an integer offset drawn from ±shift in each direction.
    """
    batch_size = min(batch_size, len(data))
    epoch, position = divmod(step, len(data) // batch_size)
    order = np.random.Generator(np.random.Philox(key=(seed, epoch))).permutation(len(data))
    rows = order[position * batch_size : (position + 1) * batch_size]
    index = torch.from_numpy(rows).to(data.labels.device)
    images, labels = data.images[index], data.labels[index]
    if shift:
        random = np.random.Generator(np.random.Philox(key=(seed, step), counter=1 << 64))
        offsets = random.integers(-shift, shift + 1, size=(batch_size, 2))
        images = _shifted(images, torch.from_numpy(offsets).to(images.device))
    return images, labels


def _shifted(images: Tensor, offsets: Tensor) -> Tensor:
    """Move image i by `offsets[i]` pixels (rows, columns); the border is repeated."""
    size = images.shape[-1]
    grid = torch.arange(size, device=images.device)
    rows = (grid - offsets[:, :1]).clamp(0, size - 1)
    columns = (grid - offsets[:, 1:]).clamp(0, size - 1)
    picture = torch.arange(len(images), device=images.device)[:, None, None]
    return images.permute(0, 2, 3, 1)[picture, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)

"""Images in folders, one a class: listed by torchvision, decoded by threads when they are needed."""

from __future__ import annotations

import copy
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.datasets import ImageFolder
from torchvision.transforms import functional as change

from deepnets_bench.errors import BadInput
from deepnets_bench.harness.images.augmentation import jitter, random_part
from deepnets_bench.harness.images.sets import (
    Batch,
    ImageSet,
    normalised,
    stratified_partition,
    training_rows,
    with_noise,
)
from deepnets_bench.harness.protocol.tables import Images
from deepnets_bench.harness.randomness import IMAGE_CHANGES, Streams
from deepnets_bench.system.processes import usable_cores

# Of ImageNet's training images; customary for photographs of any kind.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_RESIZED = 256 / 224  # the shorter side before the central crop, in units of the crop
_ORDER_SEED = 1111
_VAL_PER_CLASS = 50  # ImageNet's training images that validate, the last of each class
_LEAST_PER_CLASS = 3  # where a partition is made: one for each part
_KEPT_BYTES = 8 << 30  # decoded images of a part that are kept; ImageNet's 50,000 at 224 pixels take 7 GiB
_PARTS = ("train", "val", "test")

Files = list[tuple[str, int]]  # (path, class)


class FolderImages:
    """An `ImagePart` of image files, at `size` × `size` pixels, of which a bounded number is in memory.

    Without random changes an image is resized to 256/224 of `size` on its shorter side and cropped in the
    centre. Threads decode, and read the next batch while the current one is in use; the image library works
    outside of the interpreter's lock.
    """

    def __init__(self, files: Files, size: int, device: torch.device | str = "cpu") -> None:
        self.paths = [path for path, _ in files]
        self.labels = torch.tensor([label for _, label in files], dtype=torch.int64)
        self.size, self.device = size, torch.device(device)
        self._noise: tuple[float, int] | None = None
        self._kept: dict[int, Tensor] = {}
        self._ahead: tuple[Any, list[Future[Tensor]]] = (None, [])

    def __len__(self) -> int:
        return len(self.paths)

    def to(self, device: torch.device | str) -> FolderImages:
        return self._changed(device=torch.device(device))

    def head(self, count: int) -> FolderImages:
        return self._changed(paths=self.paths[:count], labels=self.labels[:count])

    def noisy(self, std: float, seed: int = 0) -> FolderImages:
        return self._changed(_noise=(std, seed))

    def _changed(self, **attributes: Any) -> FolderImages:
        other = copy.copy(self)
        other.__dict__.update(attributes, _kept={}, _ahead=(None, []))
        return other

    def batches(self, batch_size: int) -> Iterator[Batch]:
        starts = range(0, len(self), batch_size)
        ahead = self._read_rows(range(batch_size))
        for start in starts:
            pixels = torch.stack([future.result() for future in ahead])
            ahead = self._read_rows(range(start + batch_size, start + 2 * batch_size))
            images = normalised(pixels.to(self.device), MEAN, STD)
            if self._noise:
                images = with_noise(images, *self._noise, start, MEAN, STD)
            yield images, self.labels[start : start + batch_size].to(self.device)

    def training_batch(self, step: int, streams: Streams, protocol: Images) -> Batch:
        key = (step, streams, protocol)
        known, ahead = self._ahead
        if known != key:
            ahead = self._read_training(*key)
        # The first image that cannot be read ends the training here, with its path.
        pixels = torch.stack([future.result() for future in ahead])
        self._ahead = (step + 1, streams, protocol), self._read_training(step + 1, streams, protocol)
        rows = training_rows(len(self), step, protocol.batch_size, streams)
        labels = self.labels[torch.from_numpy(rows)]
        return normalised(pixels.to(self.device), MEAN, STD), labels.to(self.device)

    def _read_training(self, step: int, streams: Streams, protocol: Images) -> list[Future[Tensor]]:
        rows = training_rows(len(self), step, protocol.batch_size, streams)

        def read(position: int, row: int) -> Tensor:
            random = streams.generator(IMAGE_CHANGES, step, position)
            return random_pixels(read_image(self.paths[row]), self.size, protocol, random)

        return [_pool().submit(read, position, row) for position, row in enumerate(rows.tolist())]

    def _read_rows(self, rows: Sequence[int]) -> list[Future[Tensor]]:
        return [_pool().submit(self._read, row) for row in rows if row < len(self)]

    def _read(self, row: int) -> Tensor:
        pixels = self._kept.get(row)
        if pixels is None:
            pixels = central_pixels(read_image(self.paths[row]), self.size)
            if len(self._kept) * pixels.numel() < _KEPT_BYTES:
                self._kept[row] = pixels
        return pixels


def folder_images(protocol: Images, root: Path) -> ImageSet:
    """The images of the tracks' sets 'imagenet' and 'imagefolder'; raises `BadInput` for other folders.

    Validation and test images come in an order shuffled once (seed 1111), because norm layers use the
    statistics of a batch, which must not be one class.
    """
    classes, parts = list_files(protocol.dataset, root)
    for name in _PARTS[1:]:
        order = torch.randperm(len(parts[name]), generator=torch.Generator().manual_seed(_ORDER_SEED))
        parts[name] = [parts[name][i] for i in order.tolist()]
    return ImageSet(len(classes), **{name: FolderImages(parts[name], protocol.size) for name in _PARTS})


def files_fingerprint(dataset: str, root: Path) -> str:
    """16 hexadecimal digits over parts, names and (but for ImageNet) sizes of all image files."""
    _, parts = list_files(dataset, root)
    digest = hashlib.sha256()
    for name in _PARTS:
        for path, label in parts[name]:
            size = os.stat(path).st_size if dataset == "imagefolder" else 0
            inside = path.removeprefix(str(root))
            digest.update(f"{name} {label} {inside} {size}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()[:16]


def list_files(dataset: str, root: Path) -> tuple[list[str], dict[str, Files]]:
    """Class names, and the image files of train, val and test.

    ImageNet: `root`/train and `root`/val; the last 50 training images of each class validate and the
    validation images test. Images of one's own: `root`/train, /val and /test, or `root`/CLASS, of which a
    fixed fifth of each class tests and another one validates.
    """
    if dataset == "imagenet":
        classes, train = _list_classes(root / "train")
        return classes, _imagenet_parts(root, classes, train)
    if not (root / "train").is_dir():
        return _own_partition(root)
    classes, train = _list_classes(root / "train")
    return classes, {"train": train} | {name: _same_classes(root, name, classes) for name in _PARTS[1:]}


def _imagenet_parts(root: Path, classes: list[str], files: Files) -> dict[str, Files]:
    parts: dict[str, Files] = {"train": [], "val": [], "test": _same_classes(root, "val", classes)}
    by_class: list[Files] = [[] for _ in classes]
    for file in files:
        by_class[file[1]].append(file)
    for name, members in zip(classes, by_class, strict=True):
        if len(members) <= _VAL_PER_CLASS:
            raise BadInput(
                f"{root / 'train' / name} has {len(members)} images; ImageNet's validation images are the "
                f"last {_VAL_PER_CLASS} of each class, so there must be more."
            )
        parts["train"] += members[:-_VAL_PER_CLASS]
        parts["val"] += members[-_VAL_PER_CLASS:]
    return parts


def _own_partition(root: Path) -> tuple[list[str], dict[str, Files]]:
    if (root / "val").is_dir() or (root / "test").is_dir():
        raise BadInput(f"{root} has a folder 'val' or 'test' but no 'train'; see `track show imagefolder`.")
    classes, files = _list_classes(root)
    labels = np.array([label for _, label in files])
    few = np.flatnonzero(np.bincount(labels) < _LEAST_PER_CLASS)
    if len(few):
        raise BadInput(f"{root / classes[few[0]]} has fewer than {_LEAST_PER_CLASS} images, too few to part.")
    rows = stratified_partition(labels)
    return classes, {name: [files[row] for row in rows[name]] for name in _PARTS}


def _same_classes(root: Path, part: str, classes: list[str]) -> Files:
    found, files = _list_classes(root / part)
    if found != classes:
        odd = sorted(set(found) ^ set(classes))[0]
        where, lacking = (part, "train") if odd in found else ("train", part)
        raise BadInput(
            f"The classes of {root / 'train'} and {root / part} differ: '{odd}' is in {where} but not in "
            f"{lacking}."
        )
    return files


def _list_classes(folder: Path) -> tuple[list[str], Files]:
    try:
        found = ImageFolder(folder)
    except OSError as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise BadInput(f"{folder} is not a folder with one folder of images a class ({reason}).") from error
    if len(found.classes) < 2:
        raise BadInput(f"{folder} has one class only, '{found.classes[0]}'; classifying needs two.")
    return found.classes, found.samples


def read_image(path: str) -> Image.Image:
    """An image file in RGB; raises `BadInput` for one that is damaged."""
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reason = str(error).splitlines()[0].replace(repr(path), "it") if str(error) else type(error).__name__
        raise BadInput(f"Image {path} cannot be read ({reason}); replace or remove it.") from error


def central_pixels(image: Image.Image, size: int) -> Tensor:
    """uint8 [3, size, size]: the image resized, and cropped in its centre."""
    return _pixels(change.center_crop(change.resize(image, [round(size * _RESIZED)]), [size, size]))


def random_pixels(image: Image.Image, size: int, protocol: Images, random: np.random.Generator) -> Tensor:
    """uint8 [3, size, size]: a random part, mirrored and in other colours, as far as the protocol says."""
    if protocol.crop_area:
        part = random_part(random, image.height, image.width, protocol.crop_area)
        image = change.resized_crop(image, *part, [size, size])
    if protocol.flip and random.random() < 0.5:
        image = change.hflip(image)
    if protocol.colour_jitter:
        for name, factor in jitter(random, protocol.colour_jitter):
            image = _ADJUST[name](image, factor)
    return _pixels(image) if protocol.crop_area else central_pixels(image, size)


_ADJUST: dict[str, Callable[[Image.Image, float], Image.Image]] = {
    "brightness": change.adjust_brightness,
    "contrast": change.adjust_contrast,
    "saturation": change.adjust_saturation,
    "hue": change.adjust_hue,
}


def _pixels(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


@lru_cache(maxsize=1)
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(usable_cores(), thread_name_prefix="images")

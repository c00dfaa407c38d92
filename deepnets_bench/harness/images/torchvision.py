"""CIFAR-10 through torchvision: fetched, verified and read."""

from __future__ import annotations

from pathlib import Path

import torch
from torchvision.datasets import CIFAR10

from deepnets_bench.errors import BadInput, RunFailed
from deepnets_bench.harness.images.sets import ImageSet, LabelledImages

# Of CIFAR-10's training images, as in the code of DARTS and of the paper.
MEAN = (0.49139968, 0.48215827, 0.44653124)
STD = (0.24703233, 0.24348505, 0.26158768)
_N_VAL = 5000  # the last training images validate
_FOLDER = "cifar-10-batches-py"


def download_cifar10(folder: Path) -> None:
    """Fetch the official files if they are not there; raises `RunFailed`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        CIFAR10(str(folder), download=True)
    except (OSError, RuntimeError, EOFError) as error:
        raise RunFailed(f"CIFAR-10 could not be downloaded into {folder}: {error}.") from error


def cifar10(folder: Path) -> ImageSet:
    """50,000 training and 10,000 test images of 32 × 32 pixels (Krizhevsky, 2009), as uint8 in memory."""
    train, test = read_cifar10(folder, train=True), read_cifar10(folder, train=False)
    count = len(train) - _N_VAL
    val = type(train)(train.images[count:], train.labels[count:], train.mean, train.std, train.border)
    return ImageSet(10, train.head(count), val, test)


def read_cifar10(folder: Path, *, train: bool) -> LabelledImages:
    """The training or the test images; raises `BadInput` where the official files are not in `folder`."""
    if not (folder / _FOLDER).is_dir():
        raise BadInput(
            f"{folder} lacks CIFAR-10's folder {_FOLDER}; the option --download of `run` fetches it (170 MB)."
        )
    try:
        found = CIFAR10(str(folder), train=train)  # it verifies checksums before it reads anything
    except RuntimeError as error:
        raise BadInput(
            f"The files in {folder / _FOLDER} are not the official ones (a checksum differs or one is "
            "missing); remove the folder, and the option --download of `run` fetches it again."
        ) from error
    images = torch.from_numpy(found.data).permute(0, 3, 1, 2).contiguous()
    return LabelledImages(images, torch.tensor(found.targets), MEAN, STD, border="zero")

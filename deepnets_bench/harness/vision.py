"""Image sets that are files: CIFAR-10, ImageNet and images of one's own, through torchvision."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from deepnets_bench.errors import BadInput, MissingExtra, RunFailed

if TYPE_CHECKING:
    from deepnets_bench.harness.images import ImageSet, LabelledImages
    from deepnets_bench.harness.tracks import Images

# Of CIFAR-10's training images, as in the code of DARTS and of the paper.
MEAN = (0.49139968, 0.48215827, 0.44653124)
STD = (0.24703233, 0.24348505, 0.26158768)
_N_VAL = 5000  # the last training images validate
_FOLDER = "cifar-10-batches-py"


def load(protocol: Images, root: Path | None) -> ImageSet:
    """The image set of a track from its files; errors as in `load_images`."""
    folder = _folder(protocol.dataset, root)
    if protocol.dataset == "cifar10":
        return _cifar10(folder)
    from deepnets_bench.harness.folders import folder_images

    return folder_images(protocol, folder)


def fingerprint(protocol: Images, root: Path | None) -> str:
    """Which files a run used; '' where they are known by name because checksums are verified.

    Raises the errors of `load_images` for files that are missing or in another layout, so that a run finds
    them before its jobs start.
    """
    if protocol.dataset == "digits":
        return ""
    folder = _folder(protocol.dataset, root)
    if protocol.dataset == "cifar10":
        _read_cifar10(folder, train=False)
        return ""
    from deepnets_bench.harness.folders import files_fingerprint

    return files_fingerprint(protocol.dataset, folder)


def download(protocol: Images, root: Path | None) -> None:
    """Fetch CIFAR-10 into `root` if it is not there; raises `BadInput` for sets that nobody may pass on."""
    if protocol.dataset == "digits":
        return
    if protocol.dataset != "cifar10":
        raise BadInput(
            f"The images of '{protocol.dataset}' cannot be downloaded; put them into a folder of your own "
            "(--images DIR)."
        )
    _need_torchvision("cifar10")
    from torchvision.datasets import CIFAR10

    folder = _named(protocol.dataset, root)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        CIFAR10(str(folder), download=True)
    except (OSError, RuntimeError, EOFError) as error:
        raise RunFailed(f"CIFAR-10 could not be downloaded into {folder}: {error}.") from error


def _cifar10(folder: Path) -> ImageSet:
    """50,000 training and 10,000 test images of 32 × 32 pixels (Krizhevsky, 2009), as uint8 in memory."""
    from deepnets_bench.harness.images import ImageSet

    train, test = _read_cifar10(folder, train=True), _read_cifar10(folder, train=False)
    count = len(train) - _N_VAL
    val = type(train)(train.images[count:], train.labels[count:], train.mean, train.std, train.border)
    return ImageSet(10, train.head(count), val, test)


def _read_cifar10(folder: Path, *, train: bool) -> LabelledImages:
    import torch
    from torchvision.datasets import CIFAR10

    from deepnets_bench.harness.images import LabelledImages

    if not (folder / _FOLDER).is_dir():
        raise BadInput(f"{folder} lacks CIFAR-10's folder {_FOLDER}; `run --download` fetches it (170 MB).")
    try:
        found = CIFAR10(str(folder), train=train)  # it verifies checksums before it reads anything
    except RuntimeError as error:
        raise BadInput(
            f"The files in {folder / _FOLDER} are not the official ones (a checksum differs or one is "
            "missing); remove the folder, and `run --download` fetches it again."
        ) from error
    images = torch.from_numpy(found.data).permute(0, 3, 1, 2).contiguous()
    return LabelledImages(images, torch.tensor(found.targets), MEAN, STD, border="zero")


def _folder(dataset: str, root: Path | None) -> Path:
    _need_torchvision(dataset)
    folder = _named(dataset, root)
    if not folder.is_dir():
        raise BadInput(f"There is no folder {folder} with the images of '{dataset}'.")
    return folder


def _named(dataset: str, root: Path | None) -> Path:
    if root is None:
        raise BadInput(
            f"The images of '{dataset}' are files: name their folder with --images DIR or the environment "
            "variable DEEPNETS_BENCH_IMAGES."
        )
    return root


def _need_torchvision(dataset: str) -> None:
    if find_spec("torchvision") is None:
        raise MissingExtra(f"Image set '{dataset}'", "vision")

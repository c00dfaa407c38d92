"""Small image files in the real formats: CIFAR-10's pickled batches, folders of PNG and JPEG files."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

TRAIN_BATCH, TEST_BATCH = 1010, 40  # images in each of the five files, and in the sixth


def write_cifar10(root: Path) -> None:
    """The layout of the official python archive: random rows of 3,072 bytes, red first, and labels."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    names = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
    for name in names:
        count = TEST_BATCH if name == "test_batch" else TRAIN_BATCH
        content = {
            "data": random.integers(0, 256, (count, 3072), np.uint8),
            "labels": (np.arange(count) % 10).tolist(),
            "batch_label": name,
            "filenames": [f"{i}.png" for i in range(count)],
        }
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
    meta = {
        "label_names": [f"class {i}" for i in range(10)],
        "num_vis": 3072,
        "num_cases_per_batch": TRAIN_BATCH,
    }
    (folder / "batches.meta").write_bytes(pickle.dumps(meta, protocol=2))


def accept_cifar10(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make torchvision expect the checksums of the files under `root` instead of the official ones."""
    from torchvision.datasets import CIFAR10

    def checksum(name: str) -> str:
        return hashlib.md5((root / "cifar-10-batches-py" / name).read_bytes()).hexdigest()

    monkeypatch.setattr(CIFAR10, "train_list", [[name, checksum(name)] for name, _ in CIFAR10.train_list])
    monkeypatch.setattr(CIFAR10, "test_list", [[name, checksum(name)] for name, _ in CIFAR10.test_list])
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": checksum("batches.meta")})


def write_class(
    folder: Path, count: int, colour: tuple[int, int, int], size: tuple[int, int] = (12, 10)
) -> None:
    """`count` images (width, height) of one colour, PNG and JPEG in turn."""
    folder.mkdir(parents=True)
    for number in range(count):
        suffix = "png" if number % 2 == 0 else "jpg"
        Image.new("RGB", size, colour).save(folder / f"{number:03d}.{suffix}")


def write_parts(root: Path, counts: dict[str, int], n_classes: int = 3) -> None:
    """`root`/PART/CLASS with `counts[PART]` images in each class."""
    for part, count in counts.items():
        for label in range(n_classes):
            write_class(root / part / f"class{label}", count, (20 + 40 * label, 100, 200 - 30 * label))

"""Shots: a few training images of each class, drawn by a seed and held in memory, some of them held out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from deepnets_bench.errors import BadInput
from deepnets_bench.harness.images.sets import ImagePart, ImageSet, LabelledImages
from deepnets_bench.uses.training import streams_of

_SHOTS = "images that a network is fine-tuned on"
_HELD_OUT = 0.2  # of the shots of a class, at least one


def split_shots(images: ImageSet, count: int, seed: int) -> tuple[ImageSet, ImageSet]:
    """(image set to choose rates with, whose test images are the shots held out; image set with all shots).

    Raises what `draw_shots` does, and `BadInput` for an image file that cannot be read.
    """
    kept, held = draw_shots(images, count, seed)
    shots = _in_memory(images.train, sorted(kept + held))
    is_held = torch.isin(torch.tensor(sorted(kept + held)), torch.tensor(held))
    learning, held_out = _chosen(shots, ~is_held), _chosen(shots, is_held)
    return replace(images, train=learning, test=held_out), replace(images, train=shots)


def draw_shots(images: ImageSet, count: int, seed: int) -> tuple[list[int], list[int]]:
    """Which training images to learn from, and which to hold out; a seed draws its own `count` of each class.

    Raises `BadInput` where a class has fewer, and for fewer than two shots.
    """
    if count < 2:
        raise BadInput("Fine-tuning needs at least two shots a class: one is held out to choose the rate.")
    train: Any = images.train
    random = streams_of(seed).generator(_SHOTS, count)
    kept, held = [], []
    for label in range(images.num_classes):
        members = (train.labels == label).nonzero().flatten().numpy()
        if len(members) < count:
            raise BadInput(f"Class {label} has {len(members)} training images, fewer than {count} shots.")
        chosen = random.permutation(members)[:count]
        out = max(1, round(count * _HELD_OUT))
        held += chosen[:out].tolist()
        kept += chosen[out:].tolist()
    return kept, held


def _in_memory(part: ImagePart, rows: list[int]) -> LabelledImages:
    """These images of a part; of a folder's as uint8 pixels, resized and cropped in their centre."""
    if isinstance(part, LabelledImages):
        return _chosen(part, torch.tensor(rows))
    from deepnets_bench.harness.images import folders

    files: Any = part
    pixels = [folders.central_pixels(folders.read_image(files.paths[row]), part.size) for row in rows]
    return LabelledImages(torch.stack(pixels), files.labels[rows], folders.MEAN, folders.STD)


def _chosen(part: LabelledImages, index: torch.Tensor) -> LabelledImages:
    return replace(part, images=part.images[index], labels=part.labels[index])

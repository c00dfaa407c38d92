"""Shots: a few training images of each class, drawn by a seed, some of them held out."""

from __future__ import annotations

from dataclasses import replace

import torch

from deepnets_bench.errors import BadInput
from deepnets_bench.harness.images.sets import ImageSet, LabelledImages
from deepnets_bench.uses.training import streams_of

_SHOTS = "images that a network is fine-tuned on"
_HELD_OUT = 0.2  # of the shots of a class, at least one


def split_shots(images: ImageSet, count: int, seed: int) -> tuple[ImageSet, ImageSet]:
    """(image set to choose rates with, whose test images are the shots held out; image set with all shots).

    A seed draws its own `count` images of each class. Raises `BadInput` where a class has fewer, for fewer
    than two shots, and for images that are not in memory.
    """
    train_part = images.train
    if not isinstance(train_part, LabelledImages):
        raise BadInput("Fine-tuning takes its shots from images in memory, not from folders.")
    if count < 2:
        raise BadInput("Fine-tuning needs at least two shots a class: one is held out to choose the rate.")
    random = streams_of(seed).generator(_SHOTS, count)
    kept, held = [], []
    for label in range(images.num_classes):
        members = (train_part.labels == label).nonzero().flatten().numpy()
        if len(members) < count:
            raise BadInput(f"Class {label} has {len(members)} training images, fewer than {count} shots.")
        chosen = random.permutation(members)[:count]
        out = max(1, round(count * _HELD_OUT))
        held += chosen[:out].tolist()
        kept += chosen[out:].tolist()

    def part(rows: list[int]) -> LabelledImages:
        index = torch.tensor(sorted(rows))
        return replace(train_part, images=train_part.images[index], labels=train_part.labels[index])

    return replace(images, train=part(kept), test=part(held)), replace(images, train=part(kept + held))

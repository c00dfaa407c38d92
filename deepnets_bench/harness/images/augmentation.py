"""Random changes of images: every one a function of numbers drawn from a generator it is given."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

_ASPECTS = (3 / 4, 4 / 3)  # lowest and highest width / height of a random part
_ATTEMPTS = 10
JITTERS = ("brightness", "contrast", "saturation", "hue")


def shifted(images: Tensor, offsets: Tensor, border: str) -> Tensor:
    """Move image i of [n, channels, size, size] by `offsets[i]` pixels (rows, columns).

    What becomes free is filled by the `border`: 'repeat' the image's own, or 'zero'.
    """
    size = images.shape[-1]
    margin = int(offsets.abs().max())
    grid, offsets = torch.arange(size, device=images.device), offsets.to(images.device)
    rows, columns = grid - offsets[:, :1], grid - offsets[:, 1:]
    if border == "zero":
        images = F.pad(images, (margin,) * 4)
        rows, columns = rows + margin, columns + margin
    else:
        rows, columns = rows.clamp(0, size - 1), columns.clamp(0, size - 1)
    picture = torch.arange(len(images), device=images.device)[:, None, None]
    return images.permute(0, 2, 3, 1)[picture, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def random_part(
    random: np.random.Generator, height: int, width: int, area: tuple[float, float]
) -> tuple[int, int, int, int]:
    """(top, left, height, width) of a random part of an image.

    Its share of the area is uniform in `area`, the logarithm of its aspect uniform from 3:4 to 4:3
    (Szegedy et al., "Going Deeper with Convolutions", CVPR 2015, section 6). Where ten draws do not fit
    into the image, the largest centred part of a permitted aspect.
    """
    for _ in range(_ATTEMPTS):
        target = height * width * random.uniform(*area)
        aspect = math.exp(random.uniform(math.log(_ASPECTS[0]), math.log(_ASPECTS[1])))
        w, h = round(math.sqrt(target * aspect)), round(math.sqrt(target / aspect))
        if 0 < w <= width and 0 < h <= height:
            top, left = random.integers(height - h + 1), random.integers(width - w + 1)
            return int(top), int(left), h, w
    h = min(height, round(width / _ASPECTS[0]))
    w = min(width, round(height * _ASPECTS[1]))
    return (height - h) // 2, (width - w) // 2, h, w


def jitter(
    random: np.random.Generator, strengths: tuple[float, float, float, float]
) -> list[tuple[str, float]]:
    """(name, factor) of changes of colour in random order; factors are 1 ± strength, of hue ± strength."""
    factors = [random.uniform(max(0.0, 1 - s), 1 + s) for s in strengths[:3]]
    factors.append(random.uniform(-strengths[3], strengths[3]))
    return [(JITTERS[i], float(factors[i])) for i in random.permutation(4)]


def noise(seed: int, image: int, shape: tuple[int, ...]) -> Tensor:
    """Standard normal float32 numbers for the image with a number in its part."""
    random = np.random.Generator(np.random.Philox(key=(seed, image)))
    return torch.from_numpy(random.standard_normal(shape, np.float32))

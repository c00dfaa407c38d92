"""Shape encoder: embeds the size of a node's parameter through two rounded vocabularies."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

MAX_CHANNELS = 8192


def channel_vocabulary(num_classes: int) -> list[int]:
    """Channel counts with a row of their own, ascending, as in the code of Knyazev et al. (NeurIPS 2021)."""
    steps = (range(8, 57, 8), range(64, 4081, 16), range(4096, MAX_CHANNELS + 1, 32))
    return sorted({1, 3, num_classes}.union(*steps))


def spatial_vocabulary(kernel_size: int) -> list[int]:
    """Kernel sizes with a row of their own, for a decoder of kernels up to `kernel_size`, ascending."""
    return sorted({*range(1, max(12, kernel_size), 2), 14, 16})


def rounding_table(vocabulary: Sequence[int], up_from: int, up_to: int, top: int) -> np.ndarray:
    """Row of the vocabulary for every value 0..max: int64 [max + 1].

    Value 0 stands for "no shape" and gets the dummy row, one past the vocabulary. An unlisted value takes
    the nearest listed one, the smaller of two equally near; unlisted values strictly between
    `up_from` and `up_to` take `up_to`, those above `top` take `top`.
    """
    listed = np.asarray(vocabulary)
    values = np.arange(listed[-1] + 1)
    rows: np.ndarray = np.abs(values[:, None] - listed).argmin(1)  # argmin keeps the first, i.e. the smaller
    rows[up_from + 1 : up_to] = vocabulary.index(up_to)
    rows[top + 1 :] = vocabulary.index(top)
    rows[listed] = np.arange(len(listed))
    rows[0] = len(listed)
    return rows


class ShapeEncoder(nn.Module):
    """Maps the four sizes of a parameter (out, in, height, width) to `dim` features, `dim`/4 per size.

    State dict: embed_spatial.weight [spatial + 1, dim/4], embed_channel.weight [channels + 1, dim/4].
    """

    channel_row: Tensor
    spatial_row: Tensor

    def __init__(self, dim: int, num_classes: int, kernel_size: int) -> None:
        super().__init__()
        channels, spatial = channel_vocabulary(num_classes), spatial_vocabulary(kernel_size)
        self.embed_spatial = nn.Embedding(len(spatial) + 1, dim // 4)
        self.embed_channel = nn.Embedding(len(channels) + 1, dim // 4)
        tables = {
            "channel_row": rounding_table(channels, up_from=3, up_to=8, top=MAX_CHANNELS),
            "spatial_row": rounding_table(spatial, up_from=1, up_to=3, top=spatial[-1]),
        }
        for name, table in tables.items():
            self.register_buffer(name, torch.from_numpy(table), persistent=False)

    def forward(self, shape: Tensor) -> Tensor:
        """shape int64 [N, 4] of the target network, zeros where a node has none → features [N, dim]."""
        channels = self.channel_row[shape[:, :2].clamp(max=len(self.channel_row) - 1)]
        spatial = self.spatial_row[shape[:, 2:].clamp(max=len(self.spatial_row) - 1)]
        return torch.cat([self.embed_channel(channels), self.embed_spatial(spatial)], 1).flatten(1)

"""Expected values made by an independent implementation, and the inputs they were made with (README.md)."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

TOLERANCE = 1e-4


def load(name: str) -> Any:
    """The values of networks.json.gz or ghn.json.gz."""
    with gzip.open(Path(__file__).with_name(f"{name}.json.gz")) as file:
        return json.load(file)


def images() -> Tensor:
    """float64 [4, 3, 32, 32]: the images of all expected logits."""
    return torch.sin(0.1 * torch.arange(4 * 3 * 32 * 32, dtype=torch.float64)).view(4, 3, 32, 32)


def assert_logits_agree(single: Tensor, double: Tensor, expected: list[list[float]]) -> None:
    """Compare a network's logits in float32 with expected ones; those in float64 tell how far they are known.

    Batch statistics of nearly constant channels magnify rounding in some networks: no implementation in
    float32 can come nearer there than a multiple of its own distance from float64.
    """
    wanted = torch.tensor(expected, dtype=torch.float64)
    rounding = (single.double() - double).abs().max().item()
    tolerance = max(TOLERANCE * wanted.abs().max().item(), 20 * rounding)
    torch.testing.assert_close(single.double(), wanted, rtol=0, atol=tolerance)

"""How large a track builds the networks that it evaluates: the sizes of their programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from deepnets_bench.compiler.instructions import IMAGENET_FROM
from deepnets_bench.errors import BadInput

if TYPE_CHECKING:
    from pathlib import Path

    from deepnets_bench.ghn.model import GHN
    from deepnets_bench.harness.protocol.tracks import Track


def evaluated_sizes(track: Track, split: str, own: tuple[int, int], num_classes: int) -> dict[str, Any]:
    """Arguments of `Architecture.program` for a network of a split, as `harness` evaluates it.

    `own` are its stored widths of the CIFAR-10 and of the ImageNet form. Splits that the track does not
    evaluate have its width.
    """
    evaluation, size = track.evaluation, track.images.size
    width, protocol = evaluation.width, evaluation.splits.get(split)
    if width == "stored":
        width = int(own[int(size > IMAGENET_FROM)])
    elif protocol:
        width *= protocol.width_factor
    return {
        "width": width,
        "image_size": size,
        "num_classes": num_classes,
        "fc_dim": evaluation.fc_dim,
    }


def check_image_form(ghn: GHN, path: Path, track: Track) -> None:
    """Raise `BadInput` where the one is of networks of the ImageNet form, and the other of CIFAR-10's."""
    own, size = ghn.input_shape[-1], track.images.size
    if (own > IMAGENET_FROM) != (size > IMAGENET_FROM):
        raise BadInput(
            f"{path} is for networks of {own}×{own} images; those of track '{track.name}' are {size}×{size}."
        )

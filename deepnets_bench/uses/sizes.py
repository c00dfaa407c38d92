"""How large a track builds the networks that it evaluates: the sizes of their programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from deepnets_bench.compiler.instructions import IMAGENET_FROM

if TYPE_CHECKING:
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

"""Scoring: a trained hypernetwork on the evaluation splits of a track."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from deepnets_bench.errors import BadInput
from deepnets_bench.ghn.model import GHN
from deepnets_bench.harness.images.sets import ImageSet
from deepnets_bench.harness.protocol.tracks import Track
from deepnets_bench.harness.training.distributed import use_full_float32
from deepnets_bench.harness.training.evaluation import Evaluation, evaluate
from deepnets_bench.harness.training.progress import JobProgress, Report
from deepnets_bench.harness.training.splits import load_networks


def score_splits(
    ghn: GHN,
    track: Track,
    root: Path,
    images: ImageSet,
    splits: Sequence[str],
    report: Report | None = None,
    noise: float | None = None,
) -> Iterator[tuple[str, Evaluation]]:
    """Evaluate `ghn` on splits generated under `root`, one after the other, by the rules of the track.

    `noise` is the standard deviation of Gaussian noise on the pixels, in [0, 1].
    """
    use_full_float32()
    # Once, because image files that were decoded are kept with the part.
    parts = {part: images.part(part).head(track.evaluation.max_images) for part in ("val", "test")}
    if noise:
        parts = {name: part.noisy(noise) for name, part in parts.items()}
    for name in splits:
        protocol = track.evaluation.splits[name]
        width = track.evaluation.width

        def report_network(done: Evaluation, name: str = name, total: int = protocol.count) -> None:
            if report:
                finished = len(done.accuracies) + len(done.failures)
                report(JobProgress(name, finished, total, f"accuracy {done.mean:.1%}"))

        yield (
            name,
            evaluate(
                ghn,
                load_networks(root, name, protocol.count),
                parts[protocol.images],
                width=width if width == "stored" else width * protocol.width_factor,
                fc_dim=track.evaluation.fc_dim,
                num_classes=images.num_classes,
                batch_size=track.evaluation.batch_size,
                top_k=track.evaluation.top_k,
                on_network=report_network,
            ),
        )


def check_device(name: str) -> None:
    """Raise `BadInput` for the name of a device of another kind than the CPU and CUDA GPUs."""
    if not re.fullmatch(r"auto|cpu|cuda(:(0|[1-9]\d{0,2}))?", name):
        raise BadInput(f"Device '{name}' is not supported: give auto, cpu, cuda or cuda:N.")


def pick_device(name: str, rank: int = 0) -> torch.device:
    """'auto' is a GPU where PyTorch sees one, otherwise the CPU; raises `BadInput` for what is not there.

    Of several processes that train together, each picks the GPU of its `rank`.
    """
    check_device(name)
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda:") and rank:
        raise BadInput(f"Several devices are the GPUs from cuda:0 on: give --device cuda, not {name}.")
    if name == "cuda" and rank:
        name = f"cuda:{rank}"
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        seen = f"{count} GPU{'' if count == 1 else 's'}" if count else "no GPU"
        raise BadInput(f"Device '{name}' is not available: PyTorch sees {seen}.")
    return device

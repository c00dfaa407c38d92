"""Scoring: a trained hypernetwork on the evaluation splits of a track."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from deepnets_bench.errors import BadInput, UnknownName
from deepnets_bench.ghn.model import GHN
from deepnets_bench.harness.images.loading import load_images
from deepnets_bench.harness.images.sets import ImageSet
from deepnets_bench.harness.protocol.tracks import Track
from deepnets_bench.harness.training.evaluation import Evaluation, evaluate
from deepnets_bench.harness.training.progress import JobProgress, Report
from deepnets_bench.harness.training.splits import load_networks
from deepnets_bench.leaderboard.results import accuracy_summary


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


def score_checkpoint(
    path: Path,
    track: Track,
    root: Path,
    splits: Sequence[str],
    device: str,
    *,
    images: Path | None = None,
    noise: float | None = None,
    trust: bool = False,
) -> Iterator[tuple[str, dict[str, Any]]]:
    """(split, accuracy summary) of a saved hypernetwork; arguments as in `load_images` and `score_splits`.

    `trust` is that of `GHN.load`.

    The summary has `reason` beside: failures, and smaller batches. Raises `UnknownName` for a split the
    track lacks, `BadInput` for a hypernetwork of another number of classes.
    """
    for name in splits:
        if name not in track.evaluation.splits:
            raise UnknownName("split", name, track.evaluation.splits, f"of track '{track.name}'")
    torch.set_num_threads(track.training.threads)
    target = pick_device(device)
    ghn = GHN.load(path, trust).to(target)
    loaded = load_images(track.images, images).to(target)
    if ghn.config.num_classes != loaded.num_classes:
        raise BadInput(
            f"{path} was trained for {ghn.config.num_classes} classes, the images of track '{track.name}' "
            f"have {loaded.num_classes}."
        )
    for name, result in score_splits(ghn, track, root, loaded, splits, noise=noise):
        summary = accuracy_summary(result.accuracies)
        count = track.evaluation.splits[name].count
        yield name, {"n_split": count, "reason": result.reason, **summary}


def pick_device(name: str, rank: int = 0) -> torch.device:
    """'auto' is a GPU where PyTorch sees one, otherwise the CPU; raises `BadInput` for what is not there.

    Of several processes that train together, each picks the GPU of its `rank`.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and rank:
        name = f"cuda:{rank}"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise BadInput(f"Unknown device '{name}': give auto, cpu, cuda or cuda:N.") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise BadInput(f"Device '{name}' is not available: PyTorch sees {torch.cuda.device_count()} GPUs.")
    return device

"""Published accuracies of the DeepNets-1M paper, to stand beside measured rows and never among them.

Source: Knyazev et al., "Parameter Prediction for Unseen Deep Architectures", NeurIPS 2021; means and standard
errors over architectures computed from the released per-architecture results.
"""

from __future__ import annotations

from deepnets_bench.leaderboard.table import Table

_SPLITS = ("val", "test", "wide", "deep", "dense", "bnfree")
_NOTE = (
    "Published figures, not measured by this package: mean ± standard error over architectures, one "
    "training run each. SGD trains every network itself for {epochs}."
)


def _row(name: str, values: str) -> tuple[str, ...]:
    return (name, *(value.replace("±", " ± ") for value in values.split()))


_CIFAR10 = Table(
    "Published · CIFAR-10 top-1 accuracy (%)",
    ("method", *_SPLITS, "ResNet-50", "ViT"),
    (
        _row("MLP", "43.83±0.63 42.23±0.62 22.29±0.88 37.92±1.23 44.79±1.06 23.89±0.75 17.69 10.00"),
        _row("GHN-1", "51.49±0.49 51.35±0.43 43.10±1.67 48.33±0.78 51.83±0.93 13.71±0.27 19.20 18.23"),
        _row("GHN-2", "67.52±0.40 66.88±0.35 63.97±1.13 60.54±1.17 65.84±0.68 36.80±1.51 58.62 11.41"),
        _row("SGD", "88.55±0.27 88.53±0.27 88.90±1.23 84.50±1.23 87.27±0.84 45.55±3.57 93.50 75.70"),
    ),
    (_NOTE.format(epochs="50 epochs"), "On val, MLP, GHN-1 and GHN-2 are scored on validation images."),
)

_IMAGENET = Table(
    "Published · ImageNet top-5 accuracy (%)",
    ("method", *_SPLITS, "ResNet-50", "ViT"),
    (
        _row("GHN-1", "17.56±0.39 17.22±0.37 15.79±0.90 15.88±0.80 15.15±0.75 0.51±0.00 6.94 0.90"),
        _row("GHN-2", "28.54±0.66 27.23±0.62 19.37±1.40 24.70±1.40 26.42±1.21 7.17±0.56 5.22 4.42"),
        _row("SGD", "36.43±0.57 37.66±0.55 38.74±1.59 22.05±1.45 36.28±1.23 7.99±1.20 57.70 33.40"),
    ),
    (_NOTE.format(epochs="1 epoch"),),
)


def reference_tables(track: str) -> list[Table]:
    """The published tables that belong beside a track; none for a track of our own."""
    return [table for name, table in (("cifar10", _CIFAR10), ("imagenet", _IMAGENET)) if name == track]

"""A track so small that training and evaluating on it takes seconds."""

from __future__ import annotations

import os

import pytest

from deepnets_bench.harness.protocol.tracks import Track, parse_track

os.environ.setdefault("OMP_NUM_THREADS", "1")

TINY = {
    "name": "tiny",
    "version": 1,
    "label": "test",
    "description": "Two-step trainings of tiny networks.",
    "dataset_version": 1,
    "seeds": [0, 1],
    "timeout_minutes": 5.0,
    "images": {"dataset": "digits", "size": 16, "batch_size": 16, "shift": 1},
    "networks": {
        "count": 30,
        "max_nodes": 120,
        "reference_width": 8,
        "meta_batch_size": 2,
        "max_meta_batch_nodes": 200,
        "width_rules": [{"widths": [8, 16], "fc_dims": [16, 32]}],
    },
    "ghn": {"config": "ghn2", "hid": 8, "max_shape": [8, 8, 3, 3], "virtual_edges": 50},
    "training": {
        "steps": 6,
        "optimiser": "adam",
        "lr": 0.001,
        "schedule": "cosine",
        "warmup_steps": 2,
        "clip_grad_norm": 5.0,
        "max_failures": 2,
        "threads": 1,
        "log_interval": 2,
        "checkpoint_interval": 2,
    },
    "selection": {"rule": "last", "interval": 3, "count": 2, "images": 32},
    "evaluation": {
        "batch_size": 32,
        "max_images": 64,
        "width": 8,
        "fc_dim": 16,
        "splits": {
            "val": {"count": 3, "images": "val"},
            "test": {"count": 3, "images": "test"},
            "wide": {"count": 2, "images": "test", "width_factor": 4},
        },
    },
    "smoke": {"steps": 2, "networks": 20, "evaluated": 2},
}


def tiny_track(**changes: dict) -> Track:
    """The tiny track with some keys of its tables replaced, e.g. training={"steps": 2}."""
    data = {key: dict(value) if isinstance(value, dict) else value for key, value in TINY.items()}
    for table, values in changes.items():
        data[table] = data[table] | values
    return parse_track(data)


@pytest.fixture(scope="session")
def tiny() -> Track:
    """The tiny track."""
    return tiny_track()


@pytest.fixture(scope="session")
def architectures() -> dict:
    """The first architectures of the splits that the tiny track uses, without files."""
    from deepnets_bench.generators import sample

    counts = {"train": 30, "val": 3, "test": 3}
    return {split: [sample(split, i) for i in range(count)] for split, count in counts.items()}

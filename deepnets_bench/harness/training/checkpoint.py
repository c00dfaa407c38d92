"""Checkpoints of a training: written atomically with a digest; the newest two are kept."""

from __future__ import annotations

import hashlib
import io
import re
import warnings
from pathlib import Path
from typing import Any

import torch

from deepnets_bench.errors import CorruptFile
from deepnets_bench.system.files import clear_unfinished, reading, write_atomically

_NAME = re.compile(r"checkpoint-(\d+)\.ckpt")
_KEPT = 2
_DIGEST_BYTES = 32


def save_checkpoint(folder: Path, step: int, content: dict[str, Any]) -> Path:
    """Write `content` (tensors, plain values) as the checkpoint of `step`; all but one older are removed."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    payload = buffer.getvalue()
    path = folder / f"checkpoint-{step}.ckpt"
    write_atomically(path, payload + hashlib.sha256(payload).digest())
    for old in checkpoints(folder)[_KEPT:]:
        old.unlink()
    clear_unfinished(folder, "checkpoint-*")
    return path


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoint files in a folder, newest first."""
    found = [(int(match[1]), path) for path in folder.glob("*.ckpt") if (match := _NAME.fullmatch(path.name))]
    return [path for _, path in sorted(found, reverse=True)]


def load_checkpoint(folder: Path) -> dict[str, Any] | None:
    """The content of the newest sound checkpoint, None if there is none; warns of damaged ones.

    Its tensors are on the CPU: whoever loads them moves what belongs on a device. Adam's counts of steps do
    not; there, it would read the count of every weight back at every step.
    """
    for path in checkpoints(folder):
        try:
            return _read(path)
        except CorruptFile as error:
            warnings.warn(f"{error} Falling back to the checkpoint before.", stacklevel=2)
    return None


def _read(path: Path) -> dict[str, Any]:
    with reading(path, "a checkpoint of a training"):
        data = path.read_bytes()
        payload, digest = data[:-_DIGEST_BYTES], data[-_DIGEST_BYTES:]
        if hashlib.sha256(payload).digest() != digest:
            raise CorruptFile(f"Checkpoint {path} is damaged.")
        content: dict[str, Any] = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
    return content


def remove_checkpoints(folder: Path) -> None:
    """Delete all checkpoints of a folder, so that a fresh training cannot be mistaken for the one before."""
    for path in checkpoints(folder):
        path.unlink()

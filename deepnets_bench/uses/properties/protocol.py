"""The protocol of property prediction, versioned: rows of versions never mix."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Protocol:
    """What predictors learn from and are tested on, and how those that are trained here are trained.

    Predictors learn from the first `labels[-1]` architectures of `train_split`, or a sample of them, another
    one for each seed, and are scored on the first `tested` of `test_split` by Kendall's tau-b.
    """

    name: str = "properties"
    version: int = 1
    train_split: str = "val"
    test_split: str = "test"
    labels: tuple[int, ...] = (50, 100, 500)
    tested: int = 500
    # The direct mode: one GNN between the node features of a hypernetwork and a mean over nodes.
    hid: int = 32
    max_shape: tuple[int, int, int, int] = (32, 32, 7, 7)
    virtual_edges: int = 50
    steps: int = 600
    batch_size: int = 32
    lr: float = 2e-3
    weight_decay: float = 1e-2
    clip_grad_norm: float = 1.0

    def digest(self) -> str:
        """12 hexadecimal digits that any change of the protocol changes."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:12]


PROTOCOL = Protocol()

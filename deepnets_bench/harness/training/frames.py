"""Frames: all of a hypernetwork but its GNN, the start of runs, and shaped by several GNNs in turn."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import safetensors.torch
import torch
from torch import Tensor, nn

from deepnets_bench.errors import BadInput
from deepnets_bench.ghn.checkpoint import check_tensors
from deepnets_bench.ghn.config import GHNConfig, preset
from deepnets_bench.ghn.model import GHN, build_gnn
from deepnets_bench.gnn import GNNIdentity
from deepnets_bench.harness.protocol.frames import read_frame
from deepnets_bench.harness.protocol.tables import Frame
from deepnets_bench.harness.protocol.tracks import Track
from deepnets_bench.harness.randomness import FRAME_WEIGHTS, GNN_WEIGHTS, Streams
from deepnets_bench.harness.training.sampling import SampledNetwork
from deepnets_bench.harness.training.trainer import Trainer
from deepnets_bench.system.files import reading

if TYPE_CHECKING:
    from deepnets_bench.data.dataset import GraphBatch

FORMAT = "deepnets-bench frame 1"
_CLASSES = "bias_class.1.weight"  # [classes, width of the decoder]


def ghn_config(track: Track, num_classes: int, gnn: GNNIdentity) -> GHNConfig:
    """The configuration of a track's hypernetwork around a GNN."""
    return replace(
        preset(track.ghn.config, num_classes),
        hid=track.ghn.hid,
        max_shape=track.ghn.max_shape,
        ve=gnn.edges in ("virtual", "undeclared"),
        virtual_edges=track.ghn.virtual_edges,
    ).around(gnn)


def frame_weights(ghn: GHN) -> dict[str, Tensor]:
    """All tensors of a hypernetwork but those of its GNN, by name."""
    return {name: tensor for name, tensor in ghn.state_dict().items() if not name.startswith("gnn.")}


def frame_bytes(ghn: GHN, recipe: Mapping[str, Any]) -> bytes:
    """The frame as safetensors, equal for equal weights; `recipe` (plain values) is kept inside."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in frame_weights(ghn).items()}
    # One entry: safetensors writes several in an order that changes from process to process.
    metadata = {"frame": json.dumps({"format": FORMAT, **recipe}, sort_keys=True)}
    return safetensors.torch.save(tensors, metadata)


def start_from(ghn: GHN, frame: Frame, track: str) -> None:
    """Give a hypernetwork the weights of a frame; `track` is the name of the one that starts from it.

    Raises what `read_frame` does, and `CorruptFile` for tensors of other names or shapes than those of `ghn`.
    """
    tensors = _tensors(frame, track)
    check_tensors(frame.file, frame_weights(ghn), tensors)
    ghn.load_state_dict(tensors, strict=False)


def check_frames(track: Track) -> int:
    """Raise `BadInput` where a frame of a track cannot be used; returns a number of classes to try GNNs with.

    That is ten, or for images from folders, whose classes nothing but the images tells, that of the frames.
    """
    classes = 10
    for frame in track.frames:
        tensors = _tensors(frame, track.name)
        if track.images.from_folders and _CLASSES in tensors:
            classes = len(tensors[_CLASSES])
        config = replace(preset(track.ghn.config, classes), hid=track.ghn.hid, max_shape=track.ghn.max_shape)
        with torch.device("meta"):
            expected = frame_weights(GHN(config, nn.Identity()))
        check_tensors(frame.file, expected, tensors)
    return classes


def _tensors(frame: Frame, track: str) -> dict[str, Tensor]:
    data = read_frame(frame, track)
    with reading(frame.file, "a safetensors file"):
        tensors: dict[str, Tensor] = safetensors.torch.load(data)
    return tensors


class Turns(nn.Module):
    """Several GNNs in the place of one; `turn` says which of them is meant."""

    def __init__(self, gnns: Sequence[nn.Module]) -> None:
        super().__init__()
        self.gnns, self.turn = nn.ModuleList(gnns), 0

    def forward(self, x: Tensor, batch: GraphBatch) -> Tensor:
        out: Tensor = self.gnns[self.turn](x, batch)
        return out


class FrameTrainer(Trainer):
    """A training in which several GNNs take turns around one frame: step s trains number s mod their count.

    With one GNN it is the run of that GNN: the same weights, bit for bit on the CPU.
    """

    def __init__(
        self,
        track: Track,
        gnns: Sequence[GNNIdentity],
        architectures: Sequence[Any],
        images: Any,
        *,
        seed: int,
        **options: Any,
    ) -> None:
        """`track` without frames and what `Trainer` takes; each GNN starts as in a run of `seed`."""
        if track.frames:
            raise BadInput(f"A frame is trained from scratch, but track '{track.name}' starts from a frame.")
        self.configs = [ghn_config(track, images.num_classes, gnn) for gnn in gnns]
        streams, cpu = Streams.of_run(track, seed), torch.device("cpu")
        modules = []
        for config, gnn in zip(self.configs, gnns, strict=True):
            with streams.seeded(cpu, GNN_WEIGHTS):
                modules.append(build_gnn(config, gnn))
        with streams.seeded(cpu, FRAME_WEIGHTS):
            ghn = GHN(self.configs[0], Turns(modules))
        super().__init__(track, ghn, architectures, images, seed=seed, **options)

    def _step(self, step: int, sampled: Sequence[SampledNetwork], lr: float) -> tuple[float, float, int]:
        turn = step % len(self.configs)
        self.ghn.gnn.turn = turn
        self.ghn.config = self.configs[turn]  # with or without virtual edges
        return super()._step(step, sampled, lr)

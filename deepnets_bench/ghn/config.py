"""Configuration of a graph hypernetwork, and the published models' settings by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from deepnets_bench.errors import BadInput, UnknownName
from deepnets_bench.ghn.decoders import DECODERS

if TYPE_CHECKING:
    from deepnets_bench.gnn import GNNIdentity

HYPERNETS = ("gatedgnn", "mlp", "graphormer")
MaxShape = tuple[int, int, int, int]
PUBLISHED_CUTOFF = 50  # of virtual edges, in all published hypernetworks


@dataclass(frozen=True)
class GHNConfig:
    """What a hypernetwork is made of; the first eight fields are those of the published checkpoints.

    `max_shape` is the largest (out, in, height, width) the decoder predicts by itself, `hypernet` the
    graph network, `ve` whether it reads virtual edges, `weight_norm` whether predictions are scaled by
    fan-in, `layernorm` whether node states are normalised before decoding, `hid` the width of node states.
    `layers` and `heads` belong to the graphormer. `gnn` names a plug-in (`deepnets_bench.gnn.resolve`)
    that takes the place of `hypernet`, `gnn_options` what it is built with, and `gnn_digest` its source
    (`deepnets_bench.gnn.identify`). `virtual_edges` is the largest directed distance of two nodes with a
    virtual edge, 50 in all published models.
    """

    num_classes: int = 10
    max_shape: MaxShape = (64, 64, 11, 11)
    hypernet: str = "gatedgnn"
    decoder: str = "conv"
    weight_norm: bool = True
    ve: bool = True
    layernorm: bool = True
    hid: int = 32
    layers: int = 0
    heads: int = 0
    gnn: str | None = None
    gnn_options: dict[str, Any] = field(default_factory=dict)
    gnn_digest: str = ""
    virtual_edges: int = PUBLISHED_CUTOFF

    def __post_init__(self) -> None:
        shape = tuple(self.max_shape)
        object.__setattr__(self, "max_shape", shape)
        if len(shape) != 4 or not all(isinstance(n, int) and n > 0 for n in shape):
            raise BadInput(f"max_shape must be four positive whole numbers, not {list(shape)}.")
        if self.hypernet not in HYPERNETS:
            raise UnknownName("hypernet", str(self.hypernet), HYPERNETS)
        if self.decoder not in DECODERS:
            raise UnknownName("decoder", str(self.decoder), DECODERS)
        if not isinstance(self.num_classes, int) or self.num_classes < 1:
            raise BadInput(f"num_classes must be a positive whole number, not {self.num_classes!r}.")
        if not isinstance(self.hid, int) or self.hid < 4 or self.hid % 4:
            raise BadInput(f"hid must be a positive multiple of 4, not {self.hid!r}.")
        for name in ("layers", "heads"):
            if not isinstance(getattr(self, name), int):
                raise BadInput(f"{name} must be a whole number, not {getattr(self, name)!r}.")
        for name in ("weight_norm", "ve", "layernorm"):
            if not isinstance(getattr(self, name), bool):
                raise BadInput(f"{name} must be true or false, not {getattr(self, name)!r}.")
        if not isinstance(self.gnn, str | None) or not isinstance(self.gnn_options, Mapping):
            raise BadInput("gnn must be the name of a GNN, and gnn_options a table of its options.")
        if not isinstance(self.virtual_edges, int) or self.virtual_edges < 1:
            raise BadInput(f"virtual_edges must be a positive whole number, not {self.virtual_edges!r}.")
        if self.is_graphormer and (self.layers < 1 or self.heads < 1 or self.hid % self.heads):
            raise BadInput("A graphormer needs layers, and heads that divide hid.")

    @property
    def is_graphormer(self) -> bool:
        return self.hypernet == "graphormer"

    @property
    def own_gnn(self) -> str:
        """The baseline that its own graph network is, where no plug-in takes its place."""
        if self.is_graphormer:
            return "ghn3"
        return "mlp" if self.hypernet == "mlp" else "ghn2" if self.ve else "ghn1"

    def around(self, gnn: GNNIdentity) -> GHNConfig:
        """The same with a plug-in in place of the graph network."""
        return replace(self, gnn=gnn.name, gnn_options=dict(gnn.options), gnn_digest=gnn.digest)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> GHNConfig:
        """Read `to_dict()` output or a published checkpoint's config; unknown keys raise `BadInput`."""
        values = dict(data)
        if not values.pop("is_ghn2", True):  # GHN-3 files name its graph network by this flag
            values["hypernet"] = "graphormer"
        unknown = sorted(set(values) - {f.name for f in fields(cls)})
        if unknown:
            raise BadInput(f"Unknown hypernetwork setting {', '.join(unknown)}.")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {**asdict(self), "max_shape": list(self.max_shape)}


_GRAPHORMERS = {"t": (64, 3, 8), "s": (128, 5, 16), "l": (256, 12, 16), "xl": (384, 24, 16)}
PRESETS = ("ghn1", "ghn2", "mlp", *(f"ghn3-{size}" for size in _GRAPHORMERS))


def preset(name: str, num_classes: int) -> GHNConfig:
    """The published settings called `name`: kernels up to 11×11, or 16×16 for ImageNet's 1000 classes."""
    window = 16 if num_classes == 1000 else 11
    max_shape = (64, 64, window, window)
    if name == "ghn1":
        return GHNConfig(num_classes, max_shape, weight_norm=False, ve=False, layernorm=False)
    if name == "ghn2":
        return GHNConfig(num_classes, max_shape)
    if name == "mlp":
        return GHNConfig(num_classes, max_shape, hypernet="mlp")
    if name in PRESETS:
        hid, layers, heads = _GRAPHORMERS[name.removeprefix("ghn3-")]
        return GHNConfig(
            num_classes, (hid, hid, window, window), "graphormer", hid=hid, layers=layers, heads=heads
        )
    raise UnknownName("hypernetwork", name, PRESETS)

"""Architectures that are written down instead of sampled: DARTS, PDARTS, ViT and ResNet-50."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from deepnets_bench.architecture import Architecture, Genotype
from deepnets_bench.compiler import instructions as ir
from deepnets_bench.compiler.program import NetworkSize, Program
from deepnets_bench.graphs.graph import ComputationGraph

if TYPE_CHECKING:
    from deepnets_bench.networks.network import Network

# Liu et al., "DARTS: Differentiable Architecture Search", ICLR 2019.
DARTS = Genotype(
    normal=(
        ("sep_conv_3x3", 0),
        ("sep_conv_3x3", 1),
        ("sep_conv_3x3", 0),
        ("sep_conv_3x3", 1),
        ("sep_conv_3x3", 1),
        ("skip_connect", 0),
        ("skip_connect", 0),
        ("dil_conv_3x3", 2),
    ),
    normal_concat=(2, 3, 4, 5),
    reduce=(
        ("max_pool_3x3", 0),
        ("max_pool_3x3", 1),
        ("skip_connect", 2),
        ("max_pool_3x3", 1),
        ("max_pool_3x3", 0),
        ("skip_connect", 2),
        ("skip_connect", 2),
        ("max_pool_3x3", 1),
    ),
    reduce_concat=(2, 3, 4, 5),
)

# Chen et al., "Progressive DARTS", ICCV 2019.
PDARTS = Genotype(
    normal=(
        ("skip_connect", 0),
        ("dil_conv_3x3", 1),
        ("skip_connect", 0),
        ("sep_conv_3x3", 1),
        ("sep_conv_3x3", 1),
        ("sep_conv_3x3", 3),
        ("sep_conv_3x3", 0),
        ("dil_conv_5x5", 4),
    ),
    normal_concat=(2, 3, 4, 5),
    reduce=(
        ("avg_pool_3x3", 0),
        ("sep_conv_5x5", 1),
        ("sep_conv_3x3", 0),
        ("dil_conv_5x5", 2),
        ("max_pool_3x3", 0),
        ("dil_conv_3x3", 1),
        ("dil_conv_3x3", 1),
        ("dil_conv_5x5", 3),
    ),
    reduce_concat=(2, 3, 4, 5),
)

# Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021, as a cell of DeepNets-1M.
VIT = Genotype(
    normal=(("none", 0), ("msa", 1)),
    normal_concat=(2,),
    reduce=(("none", 0), ("avg_pool_3x3", 1)),
    reduce_concat=(2,),
)
VIT_WIDTH = 128


@dataclass(frozen=True)
class ResNet50:
    """ResNet-50 (He et al., CVPR 2016) with torchvision's parameter names; not made of cells.

    Stands wherever an `Architecture` does. Images up to 64 pixels take the form of the CIFAR
    experiments: a first convolution of 3×3 with stride 1 and no max-pooling. Its width is fixed: 64.
    """

    def to_dict(self) -> dict[str, Any]:
        return {"predefined": "resnet50"}

    def fingerprint(self) -> str:
        """32 hexadecimal digits, as `Architecture.fingerprint`."""
        return hashlib.sha256(b"predefined:resnet50").hexdigest()[:32]

    @property
    def is_vit(self) -> bool:
        return False

    def program(
        self, width: int = 64, image_size: int = 32, num_classes: int = 10, fc_dim: int | None = None
    ) -> Program:
        """Compile; `fc_dim` has no effect and `width` scales the network (64 is the original)."""
        NetworkSize(width, image_size, num_classes, fc_dim).check(is_vit=False)
        return _resnet50(width, image_size > ir.IMAGENET_FROM, num_classes)

    def graph(self, *sizes: Any, **named: Any) -> ComputationGraph:
        """The computation graph; arguments as `program`."""
        return ComputationGraph.from_program(self.program(*sizes, **named))

    def build(self, *sizes: Any, **named: Any) -> Network:
        """The network as a `torch.nn.Module`; arguments as `program`."""
        from deepnets_bench.networks.network import Network

        return Network(self.program(*sizes, **named))


def predefined() -> tuple[tuple[ResNet50 | Architecture, int], ...]:
    """The predefined split: (architecture, width) of ResNet-50 and of the Vision Transformer."""
    vit = Architecture(VIT, n_cells=12, preproc=False, C_mult=1)
    return ((ResNet50(), 64), (vit, VIT_WIDTH))


@lru_cache(maxsize=8)
def _resnet50(width: int, imagenet: bool, num_classes: int) -> Program:
    rows: list[np.ndarray] = []
    names = [""]

    def add(kind: int, source: int, name: str = "", **columns: int) -> int:
        row = np.zeros(ir.N_COLUMNS, np.int32)
        row[[ir.STRIDE_H, ir.STRIDE_W, ir.DILATION, ir.GROUPS]] = 1
        row[[ir.KIND, ir.IN0, ir.IN1]] = kind, source, columns.pop("other", -1)
        if name:
            row[ir.SLOT] = len(names)
            names.append(name)
        for key, value in columns.items():
            row[getattr(ir, key)] = value
        rows.append(row)
        return len(rows) - 1

    def conv_bn(
        source: int, conv: str, bn: str, c_in: int, c_out: int, k: int, stride: int = 1, act: int = ir.RELU
    ) -> int:
        out = add(
            ir.CONV, source, conv, ACT=act, OUT_CH=c_out, IN_CH=c_in, KH=k, KW=k,
            STRIDE_H=stride, STRIDE_W=stride, PAD_H=k // 2, PAD_W=k // 2,
        )  # fmt: skip
        return add(ir.NORM, out, bn, OUT_CH=c_out, BIAS=1)

    x = add(ir.INPUT, -1)
    k, stride = (7, 2) if imagenet else (3, 1)
    x = conv_bn(x, "conv1", "bn1", 3, width, k, stride, act=ir.NO_ACT)
    if imagenet:
        x = add(ir.MAX_POOL, x, ACT=ir.RELU, KH=3, KW=3, STRIDE_H=2, STRIDE_W=2, PAD_H=1, PAD_W=1)
    channels = width
    for stage, blocks in enumerate((3, 4, 6, 3)):
        inner = width * 2**stage
        for block in range(blocks):
            stride = 2 if stage > 0 and block == 0 else 1
            name = f"layer{stage + 1}.{block}."
            out = conv_bn(x, name + "conv1", name + "bn1", channels, inner, 1)
            out = conv_bn(out, name + "conv2", name + "bn2", inner, inner, 3, stride)
            out = conv_bn(out, name + "conv3", name + "bn3", inner, 4 * inner, 1)
            identity = x
            if block == 0:
                names_down = name + "downsample.0", name + "downsample.1"
                identity = conv_bn(x, *names_down, channels, 4 * inner, 1, stride)
            # A residual sum is rectified by whatever reads it, the next sum included.
            x = add(ir.SUM, out, other=identity, ACT=ir.NO_ACT if block == 0 else ir.RELU)
            channels = 4 * inner
    x = add(ir.GLOB_AVG, x, ACT=ir.RELU)
    add(ir.LINEAR, x, "fc", OUT_CH=num_classes, IN_CH=channels, KH=1, KW=1, BIAS=1)
    return Program(np.array(rows), np.zeros(0, np.int32), True, True, tuple(names))

"""The one description of a network: its operations in execution order, with inputs and parameter shapes.

`compile` turns an architecture into a `Program`; the graph (`graph.py`) and the network (`network.py`) are
both derived from it, so they cannot disagree. The compiler works on integers only and is compiled by
numba, so that a program takes microseconds; names of parameters are spelled out when asked for.

Rules: Knyazev et al., "Parameter Prediction for Unseen Deep Architectures", NeurIPS 2021, appendix A, as
fixed by the authors' code; the cell layout is that of DARTS (Liu et al., ICLR 2019).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING

import numpy as np

from deepnets_bench.emit import count_params, emit, live_rows
from deepnets_bench.errors import BadInput
from deepnets_bench.ir import (
    BIAS,
    C_MULT,
    CELL,
    CONCAT_NORMAL,
    CONCAT_REDUCE,
    CONV,
    FC_DIM,
    FC_LAYERS,
    HEADER,
    HEADS,
    IMAGENET_FROM,
    IN_CH,
    KH,
    KIND,
    KS,
    KW,
    LINEAR,
    N_CELLS,
    NORM_KIND,
    OP,
    OUT_CH,
    POOL_HEAD,
    POS_ENC,
    PREPROC,
    SLOT,
    SLOT_NAMES,
    STEM_POOL,
    STEM_TYPE,
    STEPS_NORMAL,
    STEPS_REDUCE,
)
from deepnets_bench.primitives import CELL_OPS, NORMS

if TYPE_CHECKING:
    from deepnets_bench.architecture import Architecture


@dataclass(frozen=True)
class Program:
    """A compiled network.

    `table` is int32 [rows, N_COLUMNS], a row an operation, in execution order and cell by cell; `args`
    lists the inputs of concatenations (-1: zeros in the place of an empty state). The last row gives the
    logits. Rows that do not lead there are dead: their parameters exist but nothing reads them.
    """

    table: np.ndarray
    args: np.ndarray
    valid: bool
    tracks_statistics: bool = False
    slot_names: tuple[str, ...] = SLOT_NAMES

    def __len__(self) -> int:
        return len(self.table)

    @cached_property
    def live(self) -> np.ndarray:
        """bool [rows]: does the operation contribute to the logits?"""
        return live_rows(self.table, self.args)

    def require_output(self) -> None:
        """Raise `BadInput` where the output is empty: a network of `none` operations only."""
        if not self.valid:
            raise BadInput("The network has an empty output: no path leads from its input to its classifier.")

    @property
    def num_params(self) -> int:
        """Number of scalars in all parameters, those of dead operations included."""
        return int(count_params(self.table, len(self.table)))

    def module_names(self, rows: np.ndarray) -> list[str]:
        """Names of the modules that own the parameters of some operations ('' where there are none)."""
        return [
            _module_name(self.slot_names[slot], cell, op)
            for slot, cell, op in self.table[rows][:, [SLOT, CELL, OP]].tolist()
        ]

    @cached_property
    def param_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name → shape of every parameter, in execution order, dead ones included."""
        shapes: dict[str, tuple[int, ...]] = {}
        rows = np.flatnonzero(self.table[:, SLOT])
        for name, row in zip(self.module_names(rows), self.table[rows].tolist(), strict=True):
            shapes[name + ".weight"] = weight_shape(row)
            if row[BIAS]:
                shapes[name + ".bias"] = (row[OUT_CH],)
        return shapes


@cache
def _module_name(template: str, cell: int, op: int) -> str:
    return template.format(cell=cell, op=op)


def weight_shape(row: list[int]) -> tuple[int, ...]:
    """Shape of the weight of a parametrised row of `Program.table`."""
    kind = row[KIND]
    if kind == CONV:
        return (row[OUT_CH], row[IN_CH], row[KH], row[KW])
    if kind == LINEAR:
        return (row[OUT_CH], row[IN_CH])
    if kind == POS_ENC:
        return (1, row[OUT_CH], row[KH], row[KW])
    return (row[OUT_CH],)


def encode(arch: Architecture) -> np.ndarray:
    """An architecture as int32 numbers: the header, both cells' (operation, input) pairs, both concats."""
    genotype = arch.genotype
    header = [
        arch.n_cells,
        arch.ks,
        arch.stem_type,
        arch.stem_pool,
        NORMS.index(arch.norm),
        arch.preproc,
        arch.C_mult,
        arch.fc_layers,
        arch.fc_dim,
        arch.glob_avg,
        len(genotype.normal) // 2,
        len(genotype.reduce) // 2,
        len(genotype.normal_concat),
        len(genotype.reduce_concat),
    ]
    pairs = [x for op, state in genotype.normal + genotype.reduce for x in (CELL_OPS.index(op), state)]
    return np.array(header + pairs + [*genotype.normal_concat, *genotype.reduce_concat], dtype=np.int32)


def decode(code: np.ndarray) -> Architecture:
    """Invert `encode`; raises `BadInput` where the numbers are no architecture."""
    from deepnets_bench.architecture import Architecture, Genotype

    numbers = [int(x) for x in code]
    if len(numbers) < HEADER or min(numbers) < 0 or len(numbers) != encoded_length(numbers):
        raise BadInput("The encoded architecture has the wrong length.")
    steps = numbers[STEPS_NORMAL], numbers[STEPS_REDUCE]
    states = numbers[CONCAT_NORMAL], numbers[CONCAT_REDUCE]
    if numbers[NORM_KIND] >= len(NORMS) or max(numbers[STEM_POOL], numbers[PREPROC], numbers[POOL_HEAD]) > 1:
        raise BadInput("The encoded architecture has a field out of range.")
    tail = numbers[HEADER:]
    cells = []
    for n_steps in steps:
        pairs, tail = tail[: 4 * n_steps], tail[4 * n_steps :]
        if any(op >= len(CELL_OPS) for op in pairs[::2]):
            raise BadInput("The encoded architecture has an unknown operation.")
        cells.append(tuple((CELL_OPS[op], state) for op, state in zip(pairs[::2], pairs[1::2], strict=True)))
    genotype = Genotype(cells[0], tuple(tail[: states[0]]), cells[1], tuple(tail[states[0] :]))
    return Architecture(
        genotype,
        n_cells=numbers[N_CELLS],
        ks=numbers[KS],
        stem_type=numbers[STEM_TYPE],
        stem_pool=bool(numbers[STEM_POOL]),
        norm=NORMS[numbers[NORM_KIND]],
        preproc=bool(numbers[PREPROC]),
        C_mult=numbers[C_MULT],
        fc_layers=numbers[FC_LAYERS],
        fc_dim=numbers[FC_DIM],
        glob_avg=bool(numbers[POOL_HEAD]),
    )


def encoded_length(code: np.ndarray | list[int]) -> int:
    """Length that the header of an encoded architecture announces."""
    return int(
        HEADER + 4 * (code[STEPS_NORMAL] + code[STEPS_REDUCE]) + code[CONCAT_NORMAL] + code[CONCAT_REDUCE]
    )


def compile(
    arch: Architecture, *, width: int, image_size: int = 32, num_classes: int = 10, fc_dim: int | None = None
) -> Program:
    """Compile an architecture at a width (channels of its first cell).

    `image_size` up to 64 (a multiple of 8) takes the CIFAR form, above (a multiple of 32) the ImageNet
    form; `fc_dim` replaces the architecture's. Raises `BadInput` for sizes that no form supports.
    """
    check_sizes(width, image_size, num_classes, fc_dim, is_vit=arch.is_vit)
    return compile_code(encode(arch), width, image_size, num_classes, fc_dim)


def compile_code(
    code: np.ndarray, width: int, image_size: int, num_classes: int, fc_dim: int | None
) -> Program:
    """`compile` for a valid encoded architecture (int32) and sizes that were checked."""
    fc_dim = fc_dim or int(code[FC_DIM])
    table, args, n_rows, n_args, valid = emit(code, width, image_size, num_classes, fc_dim)
    tracks_statistics = NORMS[code[NORM_KIND]] == "bn-track"
    return Program(table[:n_rows], args[:n_args], bool(valid), tracks_statistics)


def check_sizes(width: int, image_size: int, num_classes: int, fc_dim: int | None, *, is_vit: bool) -> None:
    """Raise `BadInput` for a width, image size, number of classes or fc_dim that cannot be compiled."""
    for name, value in (
        ("width", width),
        ("num_classes", num_classes),
        ("fc_dim", 1 if fc_dim is None else fc_dim),
    ):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
            raise BadInput(f"{name} must be a positive whole number, not {value!r}.")
    if width % 2 or (is_vit and width < HEADS):
        raise BadInput(f"width must be even, and at least {HEADS} with attention; got {width}.")
    multiple = 8 if image_size <= IMAGENET_FROM else 32
    if isinstance(image_size, bool) or image_size < 16 or image_size % multiple:
        raise BadInput(f"image_size must be a multiple of 8 from 16 to 64, or of 32 above; got {image_size}.")

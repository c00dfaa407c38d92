"""The one description of a network: its operations in execution order, with inputs and parameter shapes.

`compile_code` turns an architecture, encoded as integers by `architecture.encode`, into a `Program`; the
graph (`graph.py`) and the network (`network.py`) are both derived from it, so they cannot disagree. The
compiler is compiled by numba, so that a program takes microseconds; names of parameters are spelled out when
asked for.

Rules: Knyazev et al., "Parameter Prediction for Unseen Deep Architectures", NeurIPS 2021, as fixed by the
authors' code; the cell layout is that of DARTS (Liu et al., ICLR 2019).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np

from deepnets_bench.compiler.instructions import (
    BIAS,
    CELL,
    CONV,
    FC_DIM,
    HEADS,
    IMAGENET_FROM,
    IN_CH,
    KH,
    KIND,
    KW,
    LINEAR,
    NORM_KIND,
    OP,
    OUT_CH,
    POS_ENC,
    SLOT,
    SLOT_NAMES,
)
from deepnets_bench.compiler.lowering import count_params, emit, live_rows
from deepnets_bench.compiler.primitives import NORMS
from deepnets_bench.errors import BadInput


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
    has_norms: bool = True  # of its kind: one of attention alone has none, and would have them elsewhere

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


@dataclass(frozen=True)
class NetworkSize:
    """How large an architecture is built: channels of its first cell, images, classes, hidden units.

    `image_size` up to 64 (a multiple of 8) takes the CIFAR form, above (a multiple of 32) the ImageNet form;
    `fc_dim` None is the architecture's own.
    """

    width: int = 32
    image_size: int = 32
    num_classes: int = 10
    fc_dim: int | None = None

    def check(self, *, is_vit: bool) -> None:
        """Raise `BadInput` for sizes that cannot be compiled; `is_vit` for a network with attention."""
        for name, value in (
            ("width", self.width),
            ("num_classes", self.num_classes),
            ("fc_dim", 1 if self.fc_dim is None else self.fc_dim),
        ):
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
                raise BadInput(f"{name} must be a positive whole number, not {value!r}.")
        if self.width % 2 or (is_vit and self.width < HEADS):
            raise BadInput(f"width must be even, and at least {HEADS} with attention; got {self.width}.")
        pixels = self.image_size
        multiple = 8 if pixels <= IMAGENET_FROM else 32
        if isinstance(pixels, bool) or pixels < 16 or pixels % multiple:
            raise BadInput(f"image_size must be a multiple of 8 from 16 to 64, or of 32 above; got {pixels}.")


def compile_code(code: np.ndarray, size: NetworkSize) -> Program:
    """Compile a valid encoded architecture (int32) at a size that was checked."""
    fc_dim = size.fc_dim or int(code[FC_DIM])
    table, args, n_rows, n_args, valid = emit(code, size.width, size.image_size, size.num_classes, fc_dim)
    norm = NORMS[code[NORM_KIND]]
    return Program(table[:n_rows], args[:n_args], bool(valid), norm == "bn-track", has_norms=norm != "none")

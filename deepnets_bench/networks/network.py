"""Run a `Program` with torch: as a module with its own parameters, or on parameters given from outside."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from deepnets_bench.compiler import instructions as ir
from deepnets_bench.compiler.program import Program
from deepnets_bench.errors import BadInput
from deepnets_bench.networks.operations import OPERATIONS, Execution, Step


class Network(nn.Module):
    """The network of a `Program`, with every parameter, those of dead branches included.

    Parameters carry the names of the published code and PyTorch's default initialisation. Images are
    float [batch, 3, size, size], logits float [batch, classes]. Norms use batch statistics, always for
    `bnorm`, and for `bn-track` in training mode and in `run`.
    """

    def __init__(self, program: Program) -> None:
        super().__init__()
        program.require_output()
        self.program = program
        self.steps = unpack(program)
        for name, shape in program.param_shapes.items():
            owner, leaf = self._owner(name)
            owner.register_parameter(leaf, nn.Parameter(torch.empty(shape)))
        if program.tracks_statistics:
            norms = (program.table[:, ir.KIND] == ir.NORM).nonzero()[0]
            for name, channels in zip(
                program.module_names(norms), program.table[norms, ir.OUT_CH].tolist(), strict=True
            ):
                owner, _ = self._owner(name + ".weight")
                owner.register_buffer("running_mean", torch.zeros(channels))
                owner.register_buffer("running_var", torch.ones(channels))
        self.reset_parameters()

    def _owner(self, name: str) -> tuple[nn.Module, str]:
        """The (nested) module that holds a parameter, made on first use, and the parameter's last name."""
        *path, leaf = name.split(".")
        owner: nn.Module = self
        for part in path:
            if part not in owner._modules:
                owner.add_module(part, nn.Module())
            owner = owner._modules[part]  # type: ignore[assignment]
        return owner, leaf

    def reset_parameters(self) -> None:
        """Initialise as PyTorch's layers do; the positional encoding from N(0, 1)."""
        program = self.program
        params = dict(self.named_parameters())
        with torch.no_grad():
            rows = program.table[:, ir.SLOT].nonzero()[0]
            kinds = program.table[rows, ir.KIND].tolist()
            for kind, name in zip(kinds, program.module_names(rows), strict=True):
                weight, bias = params[name + ".weight"], params.get(name + ".bias")
                if kind == ir.POS_ENC:
                    nn.init.normal_(weight)
                elif kind in (ir.NORM, ir.LAYER_NORM):
                    nn.init.ones_(weight)
                    nn.init.zeros_(params[name + ".bias"])
                else:
                    nn.init.kaiming_uniform_(weight, a=math.sqrt(5))
                    if bias is not None:
                        bound = 1 / math.sqrt(weight[0].numel())
                        nn.init.uniform_(bias, -bound, bound)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of the module's own parameters."""
        statistics = dict(self.named_buffers()) if self.program.tracks_statistics else None
        return execute(self.steps, images, dict(self.named_parameters()), self.training, statistics)

    def run(self, images: Tensor, params: Mapping[str, Tensor]) -> Tensor:
        """Logits of the given parameters (name → tensor, the live ones suffice), with batch statistics."""
        return execute(self.steps, images, params, self.training)


def execute(
    steps: tuple[Step, ...],
    images: Tensor,
    params: Mapping[str, Tensor],
    training: bool,
    statistics: dict[str, Tensor] | None = None,
    fast: bool = False,
) -> Tensor:
    """Run unpacked steps on images [batch, 3, size, size]; returns logits [batch, classes].

    `fast` shares activations and takes some convolutions and gradients in ways that sum in another order:
    equal up to rounding, not bit for bit, to results recorded without it. Under autocast it is always on.

    `statistics` holds running means and variances by buffer name: updated in training, used otherwise.
    Without them norms use batch statistics. Raises `BadInput` for a parameter that is missing, and for images
    of another form. Networks that end in a global average take square images of any size, the others (a flat
    head, position encodings) only those of the size they were compiled for.
    """
    _check_images(images)
    device = images.device.type
    # Tracing runs networks on the meta device, for which there is no autocast.
    fast = fast or (torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device))
    values: dict[int, Tensor] = {}
    rectified: dict[int, Tensor] | None = {} if fast else None
    run = Execution(images, params, training, statistics, values, rectified)
    x = images
    try:
        for step in steps:
            x = step.operation(step, run)
            values[step.row] = x
            for row in step.last_use:
                del values[row]
                if rectified:
                    rectified.pop(row, None)
    except KeyError as error:
        if error.args and error.args[0] not in params and isinstance(error.args[0], str):
            raise BadInput(f"The parameters lack '{error.args[0]}'.") from None
        raise
    return x


def _check_images(images: Tensor) -> None:
    shape = list(images.shape)
    if len(shape) != 4 or shape[1] != 3 or shape[2] != shape[3] or 0 in shape:
        raise BadInput(f"Images must be a tensor [batch, 3, size, size], not {shape}.")
    if not images.is_floating_point():
        raise BadInput(f"Images must be floating-point, not {images.dtype}.")


def unpack(program: Program) -> tuple[Step, ...]:
    """The live operations of a program, ready for `execute`: all that running predicted parameters needs."""
    table, args = program.table.tolist(), program.args.tolist()
    rows = program.live.nonzero()[0].tolist()
    inputs = {}
    for index in rows:
        a, b = table[index][ir.IN0], table[index][ir.IN1]
        if table[index][ir.KIND] == ir.CONCAT:
            inputs[index] = tuple(args[a : a + b])
        else:
            inputs[index] = tuple(i for i in (a, b) if i >= 0)
    last_reader: dict[int, int] = {}
    for index in rows:
        for source in inputs[index]:
            last_reader[source] = index
    freed: dict[int, list[int]] = {}
    for source, reader in last_reader.items():
        if source >= 0:
            freed.setdefault(reader, []).append(source)
    steps = []
    for index, name in zip(rows, program.module_names(np.array(rows)), strict=True):
        row = table[index]
        steps.append(
            Step(
                operation=OPERATIONS[row[ir.KIND]],
                row=index,
                inputs=inputs[index],
                act=row[ir.ACT],
                weight=name + ".weight" if name else "",
                bias=name + ".bias" if row[ir.BIAS] else "",
                stride=(row[ir.STRIDE_H], row[ir.STRIDE_W]),
                padding=(row[ir.PAD_H], row[ir.PAD_W]),
                dilation=row[ir.DILATION],
                groups=row[ir.GROUPS],
                crop=bool(row[ir.CROP]),
                last_use=tuple(freed.get(index, ())),
            )
        )
    return tuple(steps)

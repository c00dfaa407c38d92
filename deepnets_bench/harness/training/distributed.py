"""Compute: device, precision and processes of a training, by Lightning Fabric."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision, Precision
from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning_fabric.strategies.ddp import DDPStrategy
from torch import Tensor, distributed, nn

from deepnets_bench.errors import BadInput, RunFailed
from deepnets_bench.harness.protocol.tables import PrecisionName

# As in the code of GHN-3 (Knyazev et al., ICML 2023).
MIN_SCALE = 1024.0
GROWTH_INTERVAL = 100
# Longer than one process validates or writes a checkpoint while the others wait for it.
_PATIENCE = timedelta(hours=2)


@dataclass
class LossScale:
    """The factor of losses in fp16, whose gradients would be too small for its numbers otherwise.

    Kept on the host, which knows anyway whether a step overflowed, so that nothing is read from the device.
    The rule is that of `torch.amp.GradScaler`: half after an overflow, twice after `GROWTH_INTERVAL` steps
    without one; but never less than `MIN_SCALE`.
    """

    scale: float = 65536.0
    quiet_steps: int = 0  # since the scale last changed

    @property
    def may_fall(self) -> bool:
        """Whether an overflow is no failure yet, but the way the right scale is found."""
        return self.scale > MIN_SCALE

    def update(self, overflowed: bool) -> None:
        """Adapt the scale after a step."""
        if overflowed:
            self.scale, self.quiet_steps = max(MIN_SCALE, self.scale / 2), 0
            return
        self.quiet_steps += 1
        if self.quiet_steps == GROWTH_INTERVAL:
            self.scale, self.quiet_steps = self.scale * 2, 0


class LostProcess(RunFailed):
    """Another process of the same training is gone; it knows the reason, this one does not."""


@dataclass(frozen=True)
class Rank:
    """Process `rank`, from 0, of the `size` ones on this machine that train together and meet at `port`."""

    rank: int = 0
    size: int = 1
    port: int = 0


class Compute:
    """What one process of a training computes on, and what the processes exchange.

    A training of one process exchanges nothing. `precision` is '32', or 'bf16' and 'fp16' for mixed
    precision: weights and predicted parameters stay float32, and the products of the GNN and of the networks
    are computed in 16 bits. 'fp16' scales gradients; `scaler` is None otherwise.
    """

    def __init__(
        self, device: torch.device | str, precision: PrecisionName = "32", process: Rank | None = None
    ) -> None:
        device, process = torch.device(device), process or Rank()
        use_full_float32()
        self.rank, self.size = process.rank, process.size
        plugin = _precision(precision, device.type)
        self.scaler = LossScale() if precision == "fp16" else None
        self.dtype = {"32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
        devices: Any = device.index or 0
        environment: ClusterEnvironment = LightningEnvironment()
        strategy: Any = "auto"
        if self.size > 1:
            os.environ |= {
                "RANK": str(self.rank),
                "LOCAL_RANK": str(self.rank),
                "WORLD_SIZE": str(self.size),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(process.port),
            }
            devices, environment = list(range(self.size)), TorchElasticEnvironment()
            strategy = DDPStrategy(timeout=_PATIENCE)
        if device.type == "cpu":
            devices = self.size
        elif self.size == 1:
            devices = [devices]
        self.fabric = Fabric(
            accelerator=device.type, devices=devices, strategy=strategy, plugins=[plugin, environment]
        )
        self.fabric.launch()
        self.device = self.fabric.device

    def autocast(self) -> AbstractContextManager[Any]:
        """Inside, operations run in this precision."""
        return self.fabric.autocast()

    def scaled(self, loss: Tensor) -> Tensor:
        """The loss whose gradient is taken."""
        return loss if self.scaler is None else loss * self.scaler.scale

    def sums(self, values: Sequence[float]) -> list[float]:
        """The sum over all processes of each number."""
        if self.size == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        with _exchange():
            distributed.all_reduce(total)
        return total.tolist()

    def first(self, text: str) -> str:
        """The text of the first process that has one."""
        texts: list[str] = [text]
        if self.size > 1:
            texts = [""] * self.size
            with _exchange():
                distributed.all_gather_object(texts, text)
        return next(filter(None, texts), "")

    def sum_gradients(self, weights: Sequence[nn.Parameter]) -> None:
        """Give each weight the sum of its gradients in all processes; None where no process has one."""
        if self.size == 1:
            return
        present = self.sums([weight.grad is not None for weight in weights])
        used = [weight for weight, count in zip(weights, present, strict=True) if count]
        gradients = [torch.zeros_like(w) if w.grad is None else w.grad for w in used]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        with _exchange():
            distributed.all_reduce(flat)
        parts = flat.split([weight.numel() for weight in used])
        for weight, part in zip(used, parts, strict=True):
            weight.grad = part.view_as(weight)

    def spread(self, module: nn.Module) -> None:
        """Give the weights and buffers of a module the values that they have in the first process."""
        if self.size > 1:
            with _exchange(), torch.no_grad():
                for tensor in module.state_dict().values():
                    distributed.broadcast(tensor, 0)

    def leave(self) -> None:
        """End the exchange, so that the first process may go on alone."""
        if self.size > 1:
            self.sums([0])  # nobody leaves while another one still needs it
            distributed.destroy_process_group()


def use_full_float32() -> None:
    """Let float32 be float32 on every device, as the precision '32' of a result says.

    cuDNN would compute convolutions with the 10 bits of TF32 otherwise.
    """
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


def _precision(name: PrecisionName, device: str) -> Precision:
    if name == "32":
        return Precision()
    if name == "bf16":
        return MixedPrecision("bf16-mixed", device)
    if name == "fp16":
        return MixedPrecision("16-mixed", device)  # for its autocast: the loss is scaled by `LossScale`
    raise BadInput(f"Precision is 32, bf16 or fp16, not '{name}'.")


@contextmanager
def _exchange() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # as the errors of torch.distributed are
        raise LostProcess("another process of this training is gone.") from error

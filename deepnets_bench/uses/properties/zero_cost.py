"""Zero-cost scores: guesses of a network's accuracy from one batch through it, untrained."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from deepnets_bench.compiler import instructions as ir
from deepnets_bench.networks.network import Network, execute
from deepnets_bench.networks.operations import Execution, Step

if TYPE_CHECKING:
    from deepnets_bench.compiler.program import Program

_JITTER = 1e-5


def gradient_norm(network: Network, images: Tensor, labels: Tensor) -> float:
    """Sum over the parameter tensors of the norms of their gradients of the loss, without dropout.

    "grad_norm" of Abdelfattah et al., https://arxiv.org/abs/2101.08134: Euclidean norms after one batch.
    """
    params = _leaves(network)
    F.cross_entropy(network.run(images, params), labels).backward()
    return float(sum(leaf.grad.norm() for leaf in params.values() if leaf.grad is not None))


def synflow(network: Network, images: Tensor, labels: Tensor) -> float:
    """Σ w · ∂R/∂w of R, the sum of logits of an image of ones through absolute weights, as a logarithm.

    "SynFlow" of Tanaka et al., https://arxiv.org/abs/2006.05467. Norms multiply by their (absolute) weights
    alone: those of batches would undo the flow.
    """
    program = network.program
    params = {
        name: value.detach().abs().double().requires_grad_() for name, value in network.named_parameters()
    }
    steps = tuple(
        step._replace(operation=_scaled) if kind in (ir.NORM, ir.LAYER_NORM) else step
        for step, kind in zip(network.steps, program.table[program.live, ir.KIND].tolist(), strict=True)
    )
    execute(steps, torch.ones_like(images[:1]).double(), params, training=False).sum().backward()
    flows = [(leaf * leaf.grad).sum() for leaf in params.values() if leaf.grad is not None]
    total = torch.stack(flows).detach().sum()
    if not total.isfinite():  # excitation multiplies the flow by itself, again in every cell
        return math.inf
    return float(total.clamp(min=1e-300).log())


def jacobian_covariance(network: Network, images: Tensor, labels: Tensor) -> float:
    """-Σ (log(λ + k) + 1 / (λ + k)) over eigenvalues λ of the correlations between images of the gradient
    of the logits' sum.

    Mellor et al., first version, https://arxiv.org/abs/2006.04647v1, with k = 1e-5.
    """
    x = images.detach().clone().requires_grad_()
    logits = network.run(x, dict(network.named_parameters()))
    (gradient,) = torch.autograd.grad(logits.sum(), x)
    correlations = np.corrcoef(gradient.flatten(1).double().numpy())
    values = np.linalg.eigvalsh(np.nan_to_num(correlations)).clip(min=0) + _JITTER
    return float(-np.sum(np.log(values) + 1 / values))


@torch.no_grad()
def naswot(network: Network, images: Tensor, labels: Tensor) -> float:
    """log |det K|, K [i, j] the number of ReLU units that are on for both images i and j, or off for both.

    Mellor et al., "Neural Architecture Search without Training", https://arxiv.org/abs/2006.04647, eq. 2.
    Every use of a ReLU counts, and no other activation; minus infinity where two images have one pattern.
    """
    with _Patterns(len(images)) as patterns:
        network.run(images, dict(network.named_parameters()))
    sign, logarithm = np.linalg.slogdet(patterns.agreeing.numpy())
    return float(logarithm) if sign > 0 else -math.inf


SCORES: Mapping[str, Callable[[Network, Tensor, Tensor], float]] = MappingProxyType(
    {
        "gradient-norm": gradient_norm,
        "synflow": synflow,
        "jacobian-covariance": jacobian_covariance,
        "naswot": naswot,
    }
)


def zero_cost_scores(program: Program, images: Tensor, labels: Tensor, seed: int) -> dict[str, float]:
    """All scores of a network with PyTorch's initialisation.

    An infinite score keeps its place in an order, first or last; one that is no number comes last.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = Network(program)
        scores = {name: score(network, images, labels) for name, score in SCORES.items()}
    return {name: -math.inf if math.isnan(value) else value for name, value in scores.items()}


class _Patterns(TorchFunctionMode):
    """Counts, inside the block, for how many units of ReLUs each two images agree: `agreeing` [n, n]."""

    def __init__(self, images: int) -> None:
        super().__init__()
        self.agreeing = torch.zeros(images, images, dtype=torch.float64)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is F.relu:
            on = (args[0] > 0).flatten(1).double()
            self.agreeing += on @ on.T + (1 - on) @ (1 - on).T
        return func(*args, **(kwargs or {}))


def _leaves(network: Network) -> dict[str, Tensor]:
    return {name: value.detach().requires_grad_() for name, value in network.named_parameters()}


def _scaled(step: Step, run: Execution) -> Tensor:
    """In the place of a norm; what it reads is not negative, so that a ReLU before it changes nothing."""
    weight = run.params[step.weight]
    value = run.values[step.inputs[0]]
    return value * (weight if value.dim() == 2 else weight[:, None, None])

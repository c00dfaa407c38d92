"""Zero-cost scores: guesses of a network's accuracy from one batch through it, untrained."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from deepnets_bench.compiler import instructions as ir
from deepnets_bench.networks.network import Network, execute
from deepnets_bench.networks.operations import Execution, Step

if TYPE_CHECKING:
    from deepnets_bench.compiler.program import Program

_JITTER = 1e-5


def gradient_norm(network: Network, images: Tensor, labels: Tensor) -> float:
    """Norm of the gradient of the loss (Abdelfattah et al., https://arxiv.org/abs/2101.08134, 3.1)."""
    params = _leaves(network)
    F.cross_entropy(execute(network.steps, images, params, training=True), labels).backward()
    squares = [leaf.grad.square().sum() for leaf in params.values() if leaf.grad is not None]
    return float(torch.stack(squares).sum().sqrt())


def synflow(network: Network, images: Tensor, labels: Tensor) -> float:
    """Σ w · ∂R/∂w of R, the sum of logits of an image of ones through absolute weights, as a logarithm.

    Tanaka et al., https://arxiv.org/abs/2006.05467, eq. 3. Norms multiply by their (absolute) weights alone:
    those of batches would undo the flow.
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
    return float(total.clamp(min=1e-300).log())


def jacobian_covariance(network: Network, images: Tensor, labels: Tensor) -> float:
    """-Σ (log(λ + k) + 1 / (λ + k)) over eigenvalues λ of the correlations between images of the gradient
    of the logits' sum.

    Mellor et al., first version, https://arxiv.org/abs/2006.04647v1, eq. 2, with k = 1e-5.
    """
    x = images.detach().clone().requires_grad_()
    logits = execute(network.steps, x, dict(network.named_parameters()), training=True)
    (gradient,) = torch.autograd.grad(logits.sum(), x)
    correlations = np.corrcoef(gradient.flatten(1).double().numpy())
    values = np.linalg.eigvalsh(np.nan_to_num(correlations)).clip(min=0) + _JITTER
    return float(-np.sum(np.log(values) + 1 / values))


SCORES: Mapping[str, Callable[[Network, Tensor, Tensor], float]] = MappingProxyType(
    {"gradient-norm": gradient_norm, "synflow": synflow, "jacobian-covariance": jacobian_covariance}
)


def zero_cost_scores(program: Program, images: Tensor, labels: Tensor, seed: int) -> dict[str, float]:
    """All scores of a network with PyTorch's initialisation; those that are not finite are 0."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = Network(program)
        scores = {name: score(network, images, labels) for name, score in SCORES.items()}
    return {name: value if np.isfinite(value) else 0.0 for name, value in scores.items()}


def _leaves(network: Network) -> dict[str, Tensor]:
    return {name: value.detach().requires_grad_() for name, value in network.named_parameters()}


def _scaled(step: Step, run: Execution) -> Tensor:
    """In the place of a norm; what it reads is not negative, so that a ReLU before it changes nothing."""
    weight = run.params[step.weight]
    value = run.values[step.inputs[0]]
    return value * (weight if value.dim() == 2 else weight[:, None, None])

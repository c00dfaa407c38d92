"""`check`: does a GNN keep its contract? Seconds on small real graphs, before anything trains."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from deepnets_bench.errors import BadInput, DeepNetsError, located
from deepnets_bench.gnn.contract import finite_problem, output_problem
from deepnets_bench.gnn.materialise import materialise, small_batch
from deepnets_bench.gnn.spec import GNNSpec
from deepnets_bench.gnn.variants import permute, rebuilt, select, shuffled_edges, tensors, topological_order

if TYPE_CHECKING:
    from deepnets_bench.data.dataset import GraphBatch

TOLERANCE = 1e-4  # float32 sums in another order; relative to the largest output


class Remark(str):
    """A sentence about what is permitted, but worth knowing."""


@dataclass(frozen=True)
class CheckResult:
    """One property of the contract: `problem` is None where it holds, else one sentence.

    `remark` says what a user should know of a property that holds; None for nothing. `error` is the exception
    that the problem was, where it was one.
    """

    name: str
    problem: str | None
    remark: str | None = None
    error: BaseException | None = field(default=None, repr=False, compare=False)


def check(
    spec: GNNSpec,
    dim: int = 32,
    options: Mapping[str, Any] | None = None,
    device: str | torch.device = "cpu",
    batch: GraphBatch | None = None,
) -> list[CheckResult]:
    """Build a GNN and try every property of the contract on a batch of at least two graphs.

    `batch` defaults to three small architectures. Where outputs are of the wrong form, not finite or not
    deterministic, the properties that compare outputs are not tried, nor are they for a GNN that draws
    random numbers in evaluation. The global random state is left as it was. Raises what
    `GNNSpec.construct` raises.
    """
    on = torch.device(device)
    with torch.random.fork_rng(devices=[on] if on.type == "cuda" else []):
        torch.manual_seed(0)
        build = partial(spec.construct, dim, **(options or {}))
        trial = _Trial(
            spec.name, build, build(), spec.edges, batch if batch is not None else small_batch(), dim
        )
        results: list[CheckResult] = []
        for name, test in _CHECKS.items():
            if test in _COMPARING and any(result.remark == _DRAWS for result in results):
                continue
            results.append(_result(name, test, trial))
            if results[-1].problem and test in _FIRST:
                break
            if test is _parameters:
                trial = trial.to(on)
    return results


def require(spec: GNNSpec, dim: int = 32, **kwargs: Any) -> None:
    """Raise `BadInput` with the first broken property of the contract; arguments as `check`."""
    for result in check(spec, dim, **kwargs):
        if result.problem:
            raise BadInput(
                f"GNN '{spec.name}' breaks the contract ({result.name}): {result.problem}"
            ) from result.error


@dataclass(frozen=True)
class _Trial:
    name: str
    build: Callable[[], nn.Module]
    module: nn.Module
    edges: str
    batch: GraphBatch
    dim: int

    def to(self, device: torch.device) -> _Trial:
        return replace(self, module=self.module.to(device), batch=self.batch.to(device))

    @property
    def x(self) -> Tensor:
        """The same node states at every call, in fresh memory."""
        generator = torch.Generator().manual_seed(1)
        return torch.randn(len(self.batch.op), self.dim, generator=generator).to(self.batch.op.device)

    def evaluate(self, x: Tensor | None = None, batch: GraphBatch | None = None) -> Tensor:
        self.module.eval()
        with torch.inference_mode():  # as evaluation does
            out: Tensor = self.module(
                self.x if x is None else x, rebuilt(self.batch) if batch is None else batch
            )
        return out


def _result(name: str, test: Callable[[_Trial], str | None], trial: _Trial) -> CheckResult:
    try:
        found = test(trial)
    except DeepNetsError as error:
        return CheckResult(name, str(error), error=error)
    except (Exception, SystemExit) as error:  # a foreign model may raise anything: all of it is a finding
        return CheckResult(name, f"forward raises {located(error)}.", error=error)
    return CheckResult(name, None, found) if isinstance(found, Remark) else CheckResult(name, found)


def _moves(trial: _Trial) -> str | None:
    for path, module in trial.module.named_modules():
        for name, value in vars(module).items():
            tensors = value if isinstance(value, list | tuple) else [value]
            # Lists of parameters (as in nn.LSTM) and results of hooks (weight norm) follow the parameters.
            if any(type(tensor) is Tensor and tensor.is_leaf for tensor in tensors):
                where = f"{path}.{name}" if path else name
                return f"{where} holds a tensor that stays behind on another device; use register_buffer."
    return None


def _parameters(trial: _Trial) -> str | None:
    materialise(trial.name, trial.module, trial.dim)
    return None


def _output(trial: _Trial) -> str | None:
    x = trial.x
    return output_problem(x, trial.evaluate(x))


def _finite(trial: _Trial) -> str | None:
    return finite_problem(trial.evaluate())


def _deterministic(trial: _Trial) -> str | None:
    with _seeded():
        first = trial.evaluate()
    with _seeded():
        again = trial.evaluate()
    if differ(first, again):
        return "two calls in eval mode differ, though random numbers were the same; keep no state in forward."
    return Remark(_DRAWS) if differ(trial.evaluate(), trial.evaluate()) else None


@contextmanager
def _seeded() -> Iterator[None]:
    """The generators that evaluation seeds for every network, from one seed; afterwards as before."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        random.seed(0)
        np.random.seed(0)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


_DRAWS = (
    "forward draws random numbers in eval mode, which an evaluation seeds by the architecture; properties "
    "that compare outputs are not tried. If it should not, switch off dropout and sampling when not "
    "self.training."
)


def _saved(trial: _Trial) -> str | None:
    other = trial.build()
    materialise(trial.name, other, trial.dim)
    other.load_state_dict(trial.module.state_dict())
    loaded = replace(trial, module=other.to(trial.batch.op.device))
    if differ(trial.evaluate(), loaded.evaluate()):
        return (
            "another module with the saved weights gives other outputs; register what __init__ draws as a "
            "buffer or a parameter."
        )
    return None


def _inputs_kept(trial: _Trial) -> str | None:
    before = {"x": trial.x, **tensors(trial.batch)}
    for training in (False, True):
        x, batch = trial.x, rebuilt(trial.batch)
        trial.module.train(training)
        with torch.no_grad():
            trial.module(x, batch)
        for name, tensor in {"x": x, **tensors(batch)}.items():
            if not torch.equal(tensor, before[name]):
                return f"forward changes {name} in place; work on a copy."
    return None


def _single(trial: _Trial) -> str | None:
    together = trial.evaluate()
    for index in range(trial.batch.num_graphs):
        nodes = trial.batch.batch == index
        alone = trial.evaluate(trial.x[nodes], select(trial.batch, index))
        if differ(together[nodes], alone):
            return (
                f"graph {index} of the batch gets other states than alone; a node may depend on nothing "
                "but its own graph."
            )
    return None


def _node_permutation(trial: _Trial) -> str | None:
    order = topological_order(trial.batch).to(trial.batch.op.device)
    permuted = trial.evaluate(trial.x[order], permute(trial.batch, order))
    if differ(trial.evaluate()[order], permuted):
        return "renumbering the nodes in another topological order changes their states."
    return None


def _edge_order(trial: _Trial) -> str | None:
    if differ(trial.evaluate(), trial.evaluate(batch=shuffled_edges(trial.batch))):
        return "listing the edges in another order changes the node states."
    return None


def _edges_declared(trial: _Trial) -> str | None:
    if trial.edges == "undeclared":
        return Remark("edges is not declared; set edges = 'none', 'forward', 'both' or 'virtual'.")
    batch = trial.batch
    one_hop = {"virtual_edge_index": batch.edge_index, "distance": torch.ones_like(batch.edge_index[0])}
    if trial.edges in ("none", "forward", "both") and differ(
        trial.evaluate(), trial.evaluate(batch=rebuilt(batch, **one_hop))
    ):
        return f"edges = '{trial.edges}' is declared, but the virtual edges change the node states."
    if trial.edges == "forward":
        last = batch.ptr[1:] - 1  # the bias of the last layer, which no edge leaves
        x = trial.x
        x[last] += 1
        others = torch.ones(len(x), dtype=torch.bool, device=x.device)
        others[last] = False
        if differ(trial.evaluate()[others], trial.evaluate(x)[others]):
            return "edges = 'forward' is declared, but states travel against the dataflow."
    if trial.edges == "none":
        no_edges = rebuilt(batch, edge_index=batch.edge_index[:, :0])
        if differ(trial.evaluate(), trial.evaluate(batch=no_edges)):
            return "edges = 'none' is declared, but the edges change the node states."
    return None


def _gradients(trial: _Trial) -> str | None:
    alone = replace(trial, batch=select(trial.batch, 0))
    alone.evaluate()
    _differentiate(alone)  # after a validation: autograd takes no tensors that were cached there
    out, gradients = _differentiate(trial)
    if not out.requires_grad:
        return Remark(
            "the output has no gradient: neither the node states x nor parameters of the GNN are trained."
        )
    if problem := _gradient_problem(gradients):
        return problem
    without = [name for name, gradient in gradients.items() if gradient is None]
    if without:
        more = f" (and {len(without) - 1} more)" if len(without) > 1 else ""
        return Remark(
            f"{without[0]}{more} gets no gradient, so it is not trained; remove it or use it in forward."
        )
    return None


def _mixed_precision(trial: _Trial) -> str | None:
    """What fails in mixed precision is no fault under a track's own, which is 32 bits for all of ours."""
    device = trial.batch.op.device.type
    for precision, dtype in (("bf16", torch.bfloat16), ("fp16", torch.float16)):
        try:
            with torch.autocast(device, dtype):
                out, gradients = _differentiate(trial)
                problem = output_problem(trial.x, out)
            problem = problem or finite_problem(out) or _gradient_problem(gradients)
        except Exception as error:
            problem = f"forward raises {located(error)}."
        if problem:
            return Remark(f"not with --precision {precision}: {problem}")
    return None


def _differentiate(trial: _Trial) -> tuple[Tensor, dict[str, Tensor | None]]:
    """A training pass: the output, and the gradients of the node states and of each parameter."""
    trial.module.train()
    trial.module.zero_grad()
    x = trial.x.requires_grad_()
    out: Tensor = trial.module(x, rebuilt(trial.batch))
    if out.requires_grad:
        # Random weights: the plain sum of a layer norm's output has gradient zero.
        (out * torch.randn_like(out)).sum().backward()
    gradients = {"the node states x": x.grad}
    gradients |= {f"parameter {n}": p.grad for n, p in trial.module.named_parameters() if p.requires_grad}
    return out, gradients


def _gradient_problem(gradients: Mapping[str, Tensor | None]) -> str | None:
    for name, gradient in gradients.items():
        if gradient is not None and not gradient.isfinite().all():
            return f"the gradient of {name} is NaN or infinite."
    return None


_CHECKS: dict[str, Callable[[_Trial], str | None]] = {
    "moves to any device": _moves,  # first, before a forward pass leaves caches
    "parameters": _parameters,
    "output shape, type and device": _output,
    "finite output": _finite,
    "deterministic in eval mode": _deterministic,
    "inputs left unchanged": _inputs_kept,
    "saved and loaded": _saved,
    "batch = single graphs": _single,
    "node permutation": _node_permutation,
    "edge order": _edge_order,
    "edges as declared": _edges_declared,
    "finite gradients": _gradients,
    "mixed precision": _mixed_precision,
}
_FIRST = (_parameters, _output, _finite, _deterministic)  # without these, the others say nothing
_COMPARING = (_saved, _single, _node_permutation, _edge_order, _edges_declared)


def differ(a: Tensor, b: Tensor) -> bool:
    """True where two outputs differ by more than rounding."""
    return bool((a - b).abs().max() > TOLERANCE * (1 + b.abs().max()))

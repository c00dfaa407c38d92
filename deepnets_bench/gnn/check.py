"""`check`: does a GNN keep its contract? Seconds on small real graphs, before anything trains."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from deepnets_bench.errors import BadInput, DeepNetsError, one_line
from deepnets_bench.gnn.contract import finite_problem, output_problem
from deepnets_bench.gnn.spec import GNNSpec

if TYPE_CHECKING:
    from deepnets_bench.data.dataset import GraphBatch

TOLERANCE = 1e-4  # float32 sums in another order; relative to the largest output


@dataclass(frozen=True)
class CheckResult:
    """One property of the contract: `problem` is None where it holds, else one sentence."""

    name: str
    problem: str | None


def check(
    spec: GNNSpec,
    dim: int = 32,
    options: Mapping[str, Any] | None = None,
    device: str | torch.device = "cpu",
    batch: GraphBatch | None = None,
) -> list[CheckResult]:
    """Build a GNN and try every property of the contract on a batch of at least two graphs.

    `batch` defaults to three small architectures. Where outputs are of the wrong form, not finite or not
    deterministic, the properties that compare outputs are not tried. The global random state is left as it
    was. Raises what `GNNSpec.build` raises.
    """
    on = torch.device(device)
    with torch.random.fork_rng(devices=[on] if on.type == "cuda" else []):
        torch.manual_seed(0)
        module = spec.build(dim, **(options or {})).to(on)
        trial = _Trial(module, spec.edges, (batch if batch is not None else small_batch()).to(on), dim)
        results = []
        for name, test in _CHECKS.items():
            results.append(CheckResult(name, _problem(test, trial)))
            if results[-1].problem and test in (_output, _finite, _deterministic):
                break
    return results


def require(spec: GNNSpec, dim: int = 32, **kwargs: Any) -> None:
    """Raise `BadInput` with the first broken property of the contract; arguments as `check`."""
    for result in check(spec, dim, **kwargs):
        if result.problem:
            raise BadInput(f"GNN '{spec.name}' breaks the contract ({result.name}): {result.problem}")


def small_batch() -> GraphBatch:
    """A batch of three small real architectures: DARTS, PDARTS and a vision transformer."""
    from deepnets_bench.architecture import Architecture
    from deepnets_bench.data.dataset import GraphBatch
    from deepnets_bench.predefined import DARTS, PDARTS, VIT

    architectures = (
        Architecture(DARTS, n_cells=3),
        Architecture(PDARTS, n_cells=2, stem_type=1),
        Architecture(VIT, n_cells=3, preproc=False, C_mult=1),
    )
    return GraphBatch.from_graphs([arch.graph(width=16, image_size=32) for arch in architectures])


@dataclass(frozen=True)
class _Trial:
    module: nn.Module
    edges: str
    batch: GraphBatch
    dim: int

    @property
    def x(self) -> Tensor:
        """The same node states at every call, in fresh memory."""
        generator = torch.Generator().manual_seed(1)
        return torch.randn(len(self.batch.op), self.dim, generator=generator).to(self.batch.op.device)

    def evaluate(self, x: Tensor | None = None, batch: GraphBatch | None = None) -> Tensor:
        self.module.eval()
        with torch.no_grad():
            out: Tensor = self.module(
                self.x if x is None else x, rebuilt(self.batch) if batch is None else batch
            )
        return out


def _problem(test: Callable[[_Trial], str | None], trial: _Trial) -> str | None:
    try:
        return test(trial)
    except DeepNetsError as error:
        return str(error)
    except (Exception, SystemExit) as error:  # a foreign model may raise anything: all of it is a finding
        return f"forward raises {one_line(error)}."


def _moves(trial: _Trial) -> str | None:
    for path, module in trial.module.named_modules():
        for name, value in vars(module).items():
            tensors = value if isinstance(value, list | tuple) else [value]
            # Lists of parameters (as in nn.LSTM) and results of hooks (weight norm) follow the parameters.
            if any(type(tensor) is Tensor and tensor.is_leaf for tensor in tensors):
                where = f"{path}.{name}" if path else name
                return f"{where} holds a tensor that stays behind on another device; use register_buffer."
    return None


def _output(trial: _Trial) -> str | None:
    x = trial.x
    return output_problem(x, trial.evaluate(x))


def _finite(trial: _Trial) -> str | None:
    return finite_problem(trial.evaluate())


def _deterministic(trial: _Trial) -> str | None:
    if differ(trial.evaluate(), trial.evaluate()):
        return "two calls in eval mode differ; switch off dropout and sampling when not self.training."
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
    trial.module.train()
    trial.module.zero_grad()
    x = trial.x.requires_grad_()
    out = trial.module(x, rebuilt(trial.batch))
    # Random weights: the plain sum of a layer norm's output has gradient zero.
    (out * torch.randn_like(out)).sum().backward()
    gradients = {"the node states x": x.grad}
    gradients |= {f"parameter {n}": p.grad for n, p in trial.module.named_parameters() if p.requires_grad}
    for name, gradient in gradients.items():
        if gradient is None:
            return f"{name} gets no gradient; remove it or use it in forward."
        if not gradient.isfinite().all():
            return f"the gradient of {name} is NaN or infinite."
    return None


_CHECKS: dict[str, Callable[[_Trial], str | None]] = {
    "moves to any device": _moves,  # first, before a forward pass leaves caches
    "output shape, type and device": _output,
    "finite output": _finite,
    "deterministic in eval mode": _deterministic,
    "inputs left unchanged": _inputs_kept,
    "batch = single graphs": _single,
    "node permutation": _node_permutation,
    "edge order": _edge_order,
    "edges as declared": _edges_declared,
    "finite gradients": _gradients,
}


def differ(a: Tensor, b: Tensor) -> bool:
    """True where two outputs differ by more than rounding."""
    return bool((a - b).abs().max() > TOLERANCE * (1 + b.abs().max()))


_NODE_FIELDS = ("op", "cell", "shape", "level")
_FIELDS = (*_NODE_FIELDS, "edge_index", "virtual_edge_index", "distance", "batch", "ptr")


def tensors(batch: GraphBatch) -> dict[str, Tensor]:
    """The documented tensors of a batch by name."""
    return {name: getattr(batch, name) for name in _FIELDS}


def rebuilt(batch: GraphBatch, /, **changes: Any) -> GraphBatch:
    """A copy of the documented fields in fresh memory, so that nothing cached on `batch` is reused."""
    values: dict[str, Any] = {name: tensor.clone() for name, tensor in tensors(batch).items()}
    values |= {"num_graphs": batch.num_graphs, "graphs": batch.graphs, **changes}
    return type(batch)(**values)


def select(batch: GraphBatch, index: int) -> GraphBatch:
    """One graph of a batch as a batch of its own."""
    start, stop = int(batch.ptr[index]), int(batch.ptr[index + 1])
    inside = {
        name: (getattr(batch, name)[1] >= start) & (getattr(batch, name)[1] < stop)
        for name in ("edge_index", "virtual_edge_index")
    }
    return rebuilt(
        batch,
        **{name: getattr(batch, name)[start:stop].clone() for name in _NODE_FIELDS},
        edge_index=batch.edge_index[:, inside["edge_index"]] - start,
        virtual_edge_index=batch.virtual_edge_index[:, inside["virtual_edge_index"]] - start,
        distance=batch.distance[inside["virtual_edge_index"]],
        batch=torch.zeros_like(batch.batch[start:stop]),
        ptr=batch.ptr.new_tensor([0, stop - start]),
        num_graphs=1,
        graphs=batch.graphs[index : index + 1],
    )


def topological_order(batch: GraphBatch) -> Tensor:
    """int64 [N]: another topological order of the nodes, graph by graph, drawn at random."""
    n = len(batch.op)
    priority = (batch.batch.cpu() * n + torch.randperm(n)).tolist()
    followers: list[list[int]] = [[] for _ in range(n)]
    waiting = [0] * n
    for source, target in batch.edge_index.t().tolist():
        followers[source].append(target)
        waiting[target] += 1
    ready = [(priority[node], node) for node in range(n) if not waiting[node]]
    heapq.heapify(ready)
    order = []
    while ready:
        _, node = heapq.heappop(ready)
        order.append(node)
        for target in followers[node]:
            waiting[target] -= 1
            if not waiting[target]:
                heapq.heappush(ready, (priority[target], target))
    return torch.tensor(order)


def permute(batch: GraphBatch, order: Tensor) -> GraphBatch:
    """The batch with node `order[i]` renamed to `i`; edge lists sorted again by (target, source)."""
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order), device=order.device)
    changes: dict[str, Any] = {name: getattr(batch, name)[order] for name in _NODE_FIELDS}
    for name in ("edge_index", "virtual_edge_index"):
        index = rank[getattr(batch, name)]
        by_target = (index[1] * len(order) + index[0]).argsort()
        changes[name] = index[:, by_target]
        if name == "virtual_edge_index":
            changes["distance"] = batch.distance[by_target]
    return rebuilt(batch, **changes, graphs=[])


def shuffled_edges(batch: GraphBatch) -> GraphBatch:
    """The same graphs with both edge lists in random order."""
    device = batch.op.device
    real = torch.randperm(batch.edge_index.shape[1]).to(device)
    virtual = torch.randperm(batch.virtual_edge_index.shape[1]).to(device)
    return rebuilt(
        batch,
        edge_index=batch.edge_index[:, real],
        virtual_edge_index=batch.virtual_edge_index[:, virtual],
        distance=batch.distance[virtual],
    )

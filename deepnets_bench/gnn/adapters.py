"""Adapters that give unmodified PyG and DGL models the contract `forward(x, batch) -> x`.

Both feed exactly the edges a GNN declares (`conventions.EDGES`), each with a type (0 along the dataflow, 1
against it), a weight (1/distance) and features [E, 3]: along, against, 1/distance. What a GNN's own transform
adds arrives under its name.
"""

from __future__ import annotations

import inspect
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch_geometric.utils import coalesce

from deepnets_bench.data.graph_batch import FIELDS, NUMBERS
from deepnets_bench.errors import BadInput
from deepnets_bench.gnn.conventions import EDGE_DIM, convention
from deepnets_bench.gnn.transform import Reads, Transforming, declared_transform

if TYPE_CHECKING:
    from deepnets_bench.data.dataset import GraphBatch


@dataclass(frozen=True)
class Edges:
    """The edges a GNN sees: `index` int64 [2, E], `type` int64 [E], `weight` float32 [E]."""

    index: Tensor
    type: Tensor
    weight: Tensor

    @property
    def attr(self) -> Tensor:
        """Float features [E, 3]: one-hot direction and 1/distance."""
        return torch.stack([1.0 - self.type, self.type, self.weight], dim=1)


def edges_of(batch: GraphBatch, edges: str) -> Edges:
    """The edges of a batch under a declaration of `conventions.EDGES`."""
    if edges == "virtual":
        index, weight = batch.virtual_edge_index, 1.0 / batch.distance
    else:
        index = batch.edge_index if edges != "none" else batch.edge_index[:, :0]
        if edges != "none" and not batch.edges_ascend:
            return _changed_edges(batch, edges)
        weight = torch.ones(index.shape[1], device=index.device)
    against = torch.zeros_like(index[0])
    if edges in ("both", "virtual"):
        index = torch.cat([index, index.flip(0)], dim=1)
        against = torch.cat([against, torch.ones_like(against)])
        weight = torch.cat([weight, weight])
    return Edges(index, against, weight)


def _changed_edges(batch: GraphBatch, edges: str) -> Edges:
    """Edges that a transform made undirected or gave loops: each pair once, typed by its levels."""
    index = batch.edge_index
    if edges == "both":
        index = coalesce(torch.cat([index, index.flip(0)], dim=1), num_nodes=batch.num_nodes)
    against = (batch.level[index[0]] > batch.level[index[1]]).long()
    return Edges(index, against, torch.ones(index.shape[1], device=index.device))


# What `forward` may ask for by parameter name, beside the node states and (DGL) the graph.
Sources = Mapping[str, Callable[["GraphBatch", Edges], Any]]
_PYG_SOURCES: Sources = {
    "edge_index": lambda batch, edges: edges.index,
    "edge_type": lambda batch, edges: edges.type,
    "edge_weight": lambda batch, edges: edges.weight,
    "edge_attr": lambda batch, edges: edges.attr,
    "batch": lambda batch, edges: batch.batch,
    "batch_size": lambda batch, edges: batch.num_graphs,
    "ptr": lambda batch, edges: batch.ptr,
    "level": lambda batch, edges: batch.level,
}
_DGL_SOURCES: Sources = {
    "etypes": lambda batch, edges: edges.type,
    "edge_weight": lambda batch, edges: edges.weight,
    "edge_feat": lambda batch, edges: edges.attr,
    "efeats": lambda batch, edges: edges.attr,
}
_ALWAYS = frozenset({"edge_index", "edge_type", "batch", "batch_size", "ptr", "level"})


def adapt(
    module: nn.Module, name: str, edges: str, options: Mapping[str, Any] = MappingProxyType({})
) -> nn.Module:
    """`module` itself where it has `forward(x, batch)`, else the adapter for its library.

    `options` are those the module was built with: they say which optional edge data it reads.
    Raises `BadInput` where `forward` needs something a computation graph does not have.
    """
    if not isinstance(module, nn.Module):
        raise BadInput(f"GNN '{name}' must be a torch.nn.Module, not {type(module).__name__}.")
    kind = convention(module.forward, type(module).__module__)
    transform = declared_transform(module)
    parameters = list(inspect.signature(module.forward).parameters.values())
    if kind == "torch":
        if len(parameters) < 2 and not any(p.kind is p.VAR_POSITIONAL for p in parameters):
            raise BadInput(
                f"GNN '{name}' has forward({', '.join(p.name for p in parameters)}); it needs "
                "forward(x, batch), or forward(x, edge_index, ...) of PyG, or forward(g, x) of DGL."
            )
        return module if transform is None else Transforming(module, transform, name, Reads())
    if edges == "undeclared":
        edges = "both"
    # Layers refuse optional weights, features and types that they were not built for.
    applies = {
        "edge_weight": edges == "virtual" and getattr(module, "supports_edge_weight", True),
        "edge_attr": bool(options.get("edge_dim")),
        "edge_feat": bool(options.get("edge_feat_size")),
        "etypes": options.get("n_etypes", 1) > 1,
    }
    if options.get("edge_dim") not in (None, EDGE_DIM):
        raise BadInput(f"edge_dim of GNN '{name}' must be {EDGE_DIM}: along, against, 1/distance.")
    optional = _ALWAYS | {key for key, applied in applies.items() if applied}
    skip, sources = (1, _PYG_SOURCES) if kind == "pyg" else (2, _DGL_SOURCES)
    arguments, added = _wanted(name, parameters[skip:], sources, optional, transform is not None)
    adapter = PyGAdapter if kind == "pyg" else DGLAdapter
    adapted = adapter(module, edges, arguments, added)
    if transform is None:
        return adapted
    reads = Reads(
        taken=frozenset({parameters[skip - 1].name, *sources} - {"edge_index"}),
        named=frozenset(added),
        needed=frozenset(p.name for p in parameters if p.name in added and p.default is p.empty),
        others=kind == "dgl",
    )
    return Transforming(adapted, transform, name, reads)


def _wanted(
    name: str,
    parameters: Sequence[inspect.Parameter],
    sources: Sources,
    optional: frozenset[str],
    has_transform: bool,
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The parameters of `forward` to fill, from the graph and from what a transform adds.

    That is all required ones, the optional ones that apply, and where there is a transform all others.
    """
    wanted, added = [], []
    for parameter in parameters:
        named = parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        required = named and parameter.default is parameter.empty
        known = parameter.name in sources
        if required and not known and not has_transform:
            raise BadInput(
                f"forward of GNN '{name}' needs '{parameter.name}', which a computation graph does not "
                f"have; it may take {', '.join(sources)}, and what a transform adds that the class declares."
            )
        if known and (required or parameter.name in optional):
            wanted.append(parameter.name)
        elif named and not known and has_transform:
            added.append(parameter.name)
    return tuple(wanted), tuple(added)


def _arguments(
    batch: GraphBatch, edges: Edges, sources: Sources, arguments: Sequence[str], added: Sequence[str]
) -> dict[str, Any]:
    """What to call `forward` with; what a transform did not add is left to its default."""
    return {key: sources[key](batch, edges) for key in arguments} | {
        key: batch[key] for key in added if key in batch
    }


class PyGAdapter(nn.Module):
    """Calls `module(x, edge_index=..., ...)` with the declared edges of a batch."""

    def __init__(
        self, module: nn.Module, edges: str, arguments: tuple[str, ...], added: tuple[str, ...] = ()
    ) -> None:
        super().__init__()
        self.module, self.edges, self.arguments, self.added = module, edges, arguments, added

    def forward(self, x: Tensor, batch: GraphBatch) -> Tensor:
        edges = edges_of(batch, self.edges)
        out: Tensor = self.module(x, **_arguments(batch, edges, _PYG_SOURCES, self.arguments, self.added))
        return out


class DGLAdapter(nn.Module):
    """Calls `module(g, x, ...)` with a DGL graph of the declared edges of a batch.

    The graph carries `edata["type"]`, `["weight"]` and `["attr"]`, and in `ndata` what transforms added to
    the nodes; the [N, heads, d] of DGL's attention layers is flattened to [N, heads·d]. Autocast is off
    inside, as DGL's kernels know nothing of it. Where DGL cannot use the device of `x`, message passing runs
    on the CPU with copies of the parameters; gradients reach the originals.
    """

    def __init__(
        self, module: nn.Module, edges: str, arguments: tuple[str, ...], added: tuple[str, ...] = ()
    ) -> None:
        super().__init__()
        self.module, self.edges, self.arguments, self.added = module, edges, arguments, added

    def forward(self, x: Tensor, batch: GraphBatch) -> Tensor:
        on_device = _dgl_runs_on(x.device.type)
        edges = edges_of(batch, self.edges)
        extra = _arguments(batch, edges, _DGL_SOURCES, self.arguments, self.added)
        with torch.autocast(x.device.type, enabled=False):
            out = (self._call if on_device else self._call_on_cpu)(x, batch, edges, extra)
        return out.flatten(1) if out.dim() == 3 else out

    def _call(self, x: Tensor, batch: GraphBatch, edges: Edges, extra: dict[str, Any]) -> Tensor:
        out: Tensor = self.module(_dgl_graph(batch, edges), x, **extra)
        return out

    def _call_on_cpu(self, x: Tensor, batch: GraphBatch, edges: Edges, extra: dict[str, Any]) -> Tensor:
        _say_cpu_only(x.device.type)
        edges = Edges(edges.index.cpu(), edges.type.cpu(), edges.weight.cpu())
        extra = {key: value.cpu() if isinstance(value, Tensor) else value for key, value in extra.items()}
        buffers = {key: value.to("cpu", copy=True) for key, value in self.module.named_buffers()}
        state = {key: value.cpu() for key, value in self.module.named_parameters()} | buffers
        arguments = (_dgl_graph(batch, edges), x.to("cpu", torch.float32))
        out = functional_call(self.module, state, arguments, extra)
        for key, buffer in self.module.named_buffers():  # running statistics were updated in the copies
            buffer.copy_(buffers[key])
        moved: Tensor = out.to(x)
        return moved


def import_dgl() -> Any:
    """The dgl package, set to use torch so that it neither prints nor writes a configuration file."""
    os.environ.setdefault("DGLBACKEND", "pytorch")
    import dgl

    return dgl


def _dgl_graph(batch: GraphBatch, edges: Edges) -> Any:
    graph = import_dgl().graph((edges.index[0], edges.index[1]), num_nodes=len(batch.op))
    graph.set_batch_num_nodes(batch.ptr.diff().to(graph.device))
    graph.edata["type"], graph.edata["weight"], graph.edata["attr"] = edges.type, edges.weight, edges.attr
    for key in batch.node_attrs():
        if key not in FIELDS and key not in NUMBERS and isinstance(batch[key], Tensor):
            graph.ndata[key] = batch[key].to(graph.device)
    return graph


@cache
def _dgl_runs_on(device: str) -> bool:
    """False for a GPU under DGL's CPU-only wheel."""
    dgl = import_dgl()
    try:
        dgl.graph(([0], [0])).to(torch.device(device))
    except dgl.DGLError:
        return False
    return True


@cache
def _say_cpu_only(device: str) -> None:
    warnings.warn(
        f"This DGL has no {device} support: message passing of DGL models runs on the CPU, "
        "the rest of the model does not.",
        stacklevel=2,
    )

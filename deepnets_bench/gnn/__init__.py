"""GNNs as plug-ins: what one is (`GNNSpec`), which exist (the registry), how a name finds one (`resolve`).

A GNN is a class built as `Class(dim, **options)`, a `torch.nn.Module` with `forward(x, batch) -> x`:
`x` float [N, dim] node states, `batch` a `deepnets_bench.data.dataset.GraphBatch`. Unmodified PyG models
(`forward(x, edge_index, ...)`) and DGL models (`forward(g, x)`) are adapted (`adapters.py`).
Baselines, installed plug-ins and a user's file go through the same door; importing this package loads none.
"""

from deepnets_bench.gnn.conventions import EDGE_DIM, EDGES, WIDTHS, parse_options
from deepnets_bench.gnn.identity import GNNIdentity, GNNLike, identify
from deepnets_bench.gnn.importing import import_file, import_module
from deepnets_bench.gnn.registry import (
    BASELINES,
    ENTRY_POINTS,
    REGISTRY,
    catalogue,
    is_registered,
    register,
    register_folder,
    resolve,
)
from deepnets_bench.gnn.spec import ClassPath, GNNSpec, read_declaration, spec_of

__all__ = [
    "BASELINES",
    "EDGES",
    "EDGE_DIM",
    "ENTRY_POINTS",
    "REGISTRY",
    "WIDTHS",
    "ClassPath",
    "GNNIdentity",
    "GNNLike",
    "GNNSpec",
    "catalogue",
    "identify",
    "import_file",
    "import_module",
    "is_registered",
    "parse_options",
    "read_declaration",
    "register",
    "register_folder",
    "resolve",
    "spec_of",
]

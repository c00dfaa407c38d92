"""My GNN: messages along the dataflow and against it, each with weights of its own.

This file trains as it is. Check it, then run it:

    deepnets-bench gnn check ./THIS_FILE.py
    deepnets-bench run --gnn ./THIS_FILE.py
"""

from typing import Any

from torch import Tensor, nn


class MyGNN(nn.Module):
    """Built as MyGNN(dim, **options); options come from `--gnn-option layers=6` and need a default."""

    # What the GNN looks at: "none", "forward", "both" (directions) or "virtual" (all pairs, with distance).
    # It is printed and recorded with every result, and `gnn check` holds the class to it.
    edges = "both"
    source = "where the idea comes from: paper and equation"
    # Transforms of torch_geometric (or any function Data -> Data) that every graph passes before `forward`;
    # what they add is in `batch`. Walks need undirected edges, as along the dataflow none returns:
    #   transform = T.Compose([T.ToUndirected(), T.AddRandomWalkPE(16)])  # batch.random_walk_pe, [N, 16]

    def __init__(self, dim: int, layers: int = 4) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(layers))
        self.along = nn.ModuleList(nn.Linear(dim, dim) for _ in range(layers))
        self.against = nn.ModuleList(nn.Linear(dim, dim) for _ in range(layers))

    def forward(self, x: Tensor, batch: Any) -> Tensor:
        """Node states x, float [N, dim], to new node states of the same shape.

        `batch` holds several graphs as one; nodes of a graph are contiguous, in a topological order,
        the input first:
          op                  int64 [N]     what each node computes, an index into deepnets_bench.PRIMITIVES
          edge_index          int64 [2, E]  (source, target) of every dataflow edge
          virtual_edge_index  int64 [2, P]  pairs with a directed path; distance int64 [P] is its length
          batch               int64 [N]     which graph a node belongs to; ptr int64 [B + 1] where it starts
          level               int64 [N]     topological level: edges go to strictly higher levels
        """
        source, target = batch.edge_index
        for norm, along, against in zip(self.norms, self.along, self.against, strict=True):
            h = norm(x).relu()
            # index_add sums what arrives at a node and, unlike index_add_, leaves its input alone. Its two
            # tensors need the same type: in mixed precision linear layers return another one than x.
            x = x.index_add(0, target, along(h)[source].to(x.dtype))
            x = x.index_add(0, source, against(h)[target].to(x.dtype))
        return x

    # Two other forms of `forward` work as well, and then `edges` decides which edges arrive:
    #   def forward(self, x, edge_index, edge_attr):   as in PyG; also edge_type, edge_weight, batch, and by
    #                                                  its name what a transform adds (random_walk_pe)
    #   def forward(self, g, x):                       as in DGL; g.edata has "type", "weight" and "attr",
    #                                                  g.ndata what a transform adds to nodes

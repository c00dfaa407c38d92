"""The transformer over graphs of GHN-3: attention between all nodes, biased by their distances."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.utils import degree

if TYPE_CHECKING:
    from deepnets_bench.data.dataset import GraphBatch

MAX_DEGREE = 100
MAX_INPUT_DISTANCE = 1000
MAX_DISTANCE = 254  # with the offset of 2 the last of the 257 rows of the edge embedding
NO_EDGE = 2  # offset of the edge embedding: the row of distance 0
MASKED = -(2.0**15)  # logit of a padded pair


class EdgeEmbedding(nn.Module):
    """Embedding table of directed distances, under the name embed."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(MAX_DISTANCE + NO_EDGE + 1, dim)


class Attention(nn.Module):
    """Multi-head self-attention with an additive bias; the first layer's also makes that bias."""

    def __init__(self, dim: int, heads: int, first: bool) -> None:
        super().__init__()
        self.heads = heads
        self.to_qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.to_out = nn.Sequential(nn.Linear(dim, dim))
        if first:
            self.edge_embed = EdgeEmbedding(dim)
            self.proj_e = nn.Sequential(nn.Linear(2 * dim, dim), nn.ReLU(), nn.Linear(dim, heads))

    def bias(self, signed: Tensor) -> Tensor:
        """Bias of every pair of nodes [B, heads, N, N] from `signed` int64 [B, N, N].

        That is the distance from row to column, or minus the distance back: in a directed acyclic graph
        one of the two is always missing, so the bias of every possible pair fits a small table.
        """
        distance = torch.arange(-MAX_DISTANCE, MAX_DISTANCE + 1, device=signed.device)
        both_ways = torch.stack([distance, -distance], 1).clamp(min=0) + NO_EDGE
        table = self.proj_e(self.edge_embed.embed(both_ways).flatten(1))
        row = signed.clamp(-MAX_DISTANCE, MAX_DISTANCE) + MAX_DISTANCE
        return F.embedding(row, table).permute(0, 3, 1, 2)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """x [B, N, dim], bias [B, heads, N, N] → [B, N, dim]."""
        q, k, v = self.to_qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        out = self.to_out(out.transpose(1, 2).flatten(2))
        return out


class FeedForward(nn.Module):
    """Linear, GELU, Linear under the names net.0 and net.3."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Identity(), nn.Linear(4 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x)
        return out


class Layer(nn.Module):
    """A pre-norm transformer layer; the first one also embeds degrees and the distance from the input."""

    def __init__(self, dim: int, heads: int, first: bool) -> None:
        super().__init__()
        self.ln1 = nn.LayerNorm(dim)
        self.attn = Attention(dim, heads, first)
        self.ln2 = nn.LayerNorm(dim)
        self.ff = FeedForward(dim)
        if first:
            self.centrality_embed_in = nn.Embedding(MAX_DEGREE + 1, dim)
            self.centrality_embed_out = nn.Embedding(MAX_DEGREE + 1, dim)
            self.input_dist_embed = nn.Embedding(MAX_INPUT_DISTANCE + 1, dim)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        x = x + self.attn(self.ln1(x), bias)
        x = x + self.ff(self.ln2(x))
        return x


class Graphormer(nn.ModuleList):
    """Graphormer layers 0, 1, ... over the nodes of each graph (Ying et al. 2021, Knyazev et al. 2023)."""

    def __init__(self, dim: int, layers: int, heads: int) -> None:
        super().__init__(Layer(dim, heads, first=layer == 0) for layer in range(layers))

    def forward(self, x: Tensor, batch: GraphBatch) -> Tensor:
        """Node features x [N, dim] → states [N, dim]; reads distances from `virtual_edge_index`."""
        first = cast(Layer, self[0])
        start, end = batch.edge_index
        source, target = batch.virtual_edge_index
        degree_in, degree_out = (
            degree(nodes, len(x), torch.long).clamp(max=MAX_DEGREE) for nodes in (end, start)
        )
        from_input = torch.zeros(len(x), dtype=torch.long, device=x.device)
        rooted = source == batch.ptr[batch.batch[source]]  # the input is a graph's first node
        distance = batch.distance.clamp(max=MAX_INPUT_DISTANCE)
        from_input = from_input.index_add(0, target, distance.where(rooted, 0))
        x = x + first.centrality_embed_in(degree_in) + first.centrality_embed_out(degree_out)
        x = x + first.input_dist_embed(from_input)

        # The graphs side by side, with room for the largest one, whose size the host knows from the graphs.
        sizes = [graph.num_nodes for graph in batch.graphs] or batch.ptr.diff().tolist()
        width = max(sizes)
        places = torch.arange(len(x), device=x.device) - batch.ptr[batch.batch] + width * batch.batch
        dense = x.new_zeros(batch.num_graphs * width, x.shape[1]).index_put((places,), x)
        dense = dense.unflatten(0, (-1, width))
        mask = torch.arange(width, device=x.device) < batch.ptr.diff()[:, None]
        graph = batch.batch[source]
        row, column = source - batch.ptr[graph], target - batch.ptr[graph]
        signed = torch.zeros(len(dense), width, width, dtype=torch.long, device=x.device)
        signed[graph, row, column] = batch.distance
        signed[graph, column, row] = -batch.distance
        pairs = mask[:, None, :] & mask[:, :, None]
        bias = first.attn.bias(signed).masked_fill(~pairs[:, None], MASKED)
        for layer in self:
            dense = layer(dense, bias)
        return dense.flatten(0, 1)[places]

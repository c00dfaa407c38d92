"""Transformer: attention between all nodes of a graph, which knows nothing of its edges."""

from torch import Tensor, nn
from torch_geometric.utils import to_dense_batch

from deepnets_bench.data.dataset import GraphBatch


class Transformer(nn.Module):
    """Sees no edges and no order: what a set of nodes tells without its graph."""

    edges = "none"
    source = (
        "Vaswani et al., Attention Is All You Need, 2017, section 3, pre-norm and without positions "
        "(arXiv:1706.03762)"
    )

    def __init__(self, dim: int, layers: int = 3, heads: int = 4) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(
            dim, heads, 4 * dim, dropout=0.0, batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)

    def forward(self, x: Tensor, batch: GraphBatch) -> Tensor:
        dense, real = to_dense_batch(x, batch.batch)
        out: Tensor = self.encoder(dense, src_key_padding_mask=~real)[real]
        return out

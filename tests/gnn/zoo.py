"""Awkward GNNs, small ones: parameters made late, of other types, shared, unused, none; random numbers."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.utils import parametrizations
from torch_geometric.nn import GCNConv


class Base(nn.Module):
    """A linear layer over the mean of the sources' states; safe under autocast."""

    edges = "forward"

    def __init__(self, dim):
        super().__init__()
        self.linear = nn.Linear(dim, dim)

    def forward(self, x, batch):
        source, target = batch.edge_index
        return x.index_add(0, target, self.linear(x)[source].to(x.dtype))


class LazyLinear(Base):
    def __init__(self, dim):
        super().__init__(dim)
        self.linear = nn.LazyLinear(dim)


class LazyConvolution(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.convolution = GCNConv(-1, dim)

    def forward(self, x, edge_index):
        return self.convolution(x, edge_index)


class LazyNorm(Base):
    def __init__(self, dim):
        super().__init__(dim)
        self.norm = nn.LazyInstanceNorm1d(affine=True)

    def forward(self, x, batch):
        return super().forward(self.norm(x[:, :, None].expand(-1, -1, 2).cumsum(2))[:, :, 0], batch)


class MadeInForward(Base):
    def __init__(self, dim):
        super().__init__(dim)
        self.second = None

    def forward(self, x, batch):
        if self.second is None:
            self.second = nn.Linear(x.shape[1], x.shape[1])
        return self.second(super().forward(x, batch))


class MadeInTraining(Base):
    def forward(self, x, batch):
        if self.training and not hasattr(self, "second"):
            self.second = nn.Linear(x.shape[1], x.shape[1])
        return super().forward(x, batch) + (self.second(x) if hasattr(self, "second") else 0)


class MadeAnew(Base):
    def forward(self, x, batch):
        self.second = nn.Linear(x.shape[1], x.shape[1])
        return self.second(super().forward(x, batch))


class LazyUnused(Base):
    def __init__(self, dim):
        super().__init__(dim)
        self.spare = nn.LazyLinear(dim)


class LazyFailing(LazyLinear):
    def forward(self, x, batch):
        raise KeyError("level")


class Double(Base):
    def __init__(self, dim):
        super().__init__(dim)
        self.linear.double()

    def forward(self, x, batch):
        return super().forward(x.double(), batch).to(x.dtype)


class Half(Double):
    def __init__(self, dim):
        super().__init__(dim)
        self.linear.half()

    def forward(self, x, batch):
        return Base.forward(self, x.half(), batch).to(x.dtype)


class DoubleInside(Base):
    def __init__(self, dim):
        super().__init__(dim)
        self.register_buffer("scale", torch.ones(dim, dtype=torch.float64))

    def forward(self, x, batch):
        return (super().forward(x, batch) * self.scale).to(x.dtype)


class Meta(Base):
    def __init__(self, dim):
        super().__init__(dim)
        self.linear.to("meta")


class SparseEmbedding(Base):
    def __init__(self, dim):
        super().__init__(dim)
        self.embedding = nn.Embedding(200, dim, sparse=True)

    def forward(self, x, batch):
        return super().forward(x + self.embedding(batch.level), batch)


class SparseBuffer(Base):
    def __init__(self, dim):
        super().__init__(dim)
        self.register_buffer("mixing", torch.eye(dim).to_sparse())

    def forward(self, x, batch):
        return super().forward((self.mixing @ x.t()).t(), batch)


class ExtraState(Base):
    def get_extra_state(self):
        return {"calls": 0}

    def set_extra_state(self, state):
        pass


class Shared(Base):
    """One layer twice, as nn.ModuleList([layer] * 2): two names for each weight."""

    def __init__(self, dim):
        super().__init__(dim)
        self.again = self.linear

    def forward(self, x, batch):
        return self.again(super().forward(x, batch))


class Frozen(Base):
    def __init__(self, dim):
        super().__init__(dim)
        self.linear.weight.requires_grad_(False)


class Unused(Base):
    def __init__(self, dim):
        super().__init__(dim)
        self.spare = nn.Linear(dim, dim)


class WithoutParameters(nn.Module):
    edges = "none"

    def __init__(self, dim):
        super().__init__()

    def forward(self, x, batch):
        return x


class Detached(Base):
    def forward(self, x, batch):
        return super().forward(x, batch).detach()


class RandomFeatures(Base):
    def forward(self, x, batch):
        return super().forward(x + 0.01 * torch.randn_like(x), batch)


class SpectralNorm(Base):
    def __init__(self, dim):
        super().__init__(dim)
        self.linear = parametrizations.spectral_norm(self.linear)


class Recurrent(Base):
    def __init__(self, dim):
        super().__init__(dim)
        self.cell = nn.GRU(dim, dim)

    def forward(self, x, batch):
        return super().forward(self.cell(x[None])[0][0], batch)


class Cached(Base):
    """Keeps what it computed in evaluation for the training passes that follow a validation."""

    def __init__(self, dim):
        super().__init__(dim)
        self.scales = {}

    def forward(self, x, batch):
        if len(x) not in self.scales:
            self.scales[len(x)] = x.new_ones(len(x), 1)
        return super().forward(x * self.scales[len(x)], batch)


class WrongShape(Base):
    def forward(self, x, batch):
        return super().forward(x, batch)[:, 1:]


TRAIN = (
    Base,
    LazyLinear,
    LazyConvolution,
    LazyNorm,
    MadeInForward,
    MadeInTraining,
    DoubleInside,
    Shared,
    Frozen,
    Unused,
    WithoutParameters,
    Detached,
    RandomFeatures,
    SpectralNorm,
    Recurrent,
)
REFUSED = {
    MadeAnew: "forward makes parameter second.weight anew at each pass",
    LazyUnused: "parameter spare.weight has no shape after a forward pass; use it in forward or remove it",
    LazyFailing: "linear.weight has no shape after a forward pass, and forward raises KeyError: 'level'",
    Double: "parameter linear.weight is float64; parameters that are trained are float32",
    Half: "parameter linear.weight is float16; parameters that are trained are float32",
    Meta: "linear.weight is on the device meta, where it has no values",
    SparseEmbedding: "embedding has sparse gradients, which no track's optimiser takes",
    SparseBuffer: "mixing is sparse_coo float32, which a checkpoint cannot hold",
    ExtraState: "its state_dict holds a dict (_extra_state), not a tensor",
    WrongShape: "forward returns shape",
}

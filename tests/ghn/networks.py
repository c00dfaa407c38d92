"""Small architectures that between them have every kind of parameter."""

from __future__ import annotations

from deepnets_bench.architecture import Architecture, Genotype

CONVOLUTIONS = Architecture(
    Genotype(
        normal=(("sep_conv_3x3", 1), ("conv_7x1_1x7", 0), ("conv_5x5", 2), ("cse", 1)),
        normal_concat=(2, 3),
        reduce=(("max_pool_3x3", 0), ("skip_connect", 1), ("dil_conv_5x5", 2), ("conv_1x1", 0)),
        reduce_concat=(2, 3),
    ),
    n_cells=4,
    norm="bnorm",
    stem_type=1,
    fc_layers=2,
    fc_dim=48,
)
ATTENTION = Architecture(
    Genotype(
        normal=(("conv_1x1", 1), ("msa", 0)),
        normal_concat=(2,),
        reduce=(("avg_pool_3x3", 0), ("conv_3x3", 1)),
        reduce_concat=(2,),
    ),
    n_cells=4,
    norm="bnorm",
    C_mult=1,
)
# Without norms and with a single linear layer, no parameter but the classifier's bias is a vector.
BARE = Architecture(
    Genotype((("conv_3x3", 1), ("conv_1x1", 0)), (2,), (("max_pool_3x3", 0), ("conv_1x1", 1)), (2,)),
    n_cells=4,
    norm="none",
)

"""Hypothesis strategies: architectures of every split, and freely made ones that no split would hold."""

from __future__ import annotations

from hypothesis import strategies as st

from deepnets_bench import Architecture, Genotype
from deepnets_bench.compiler.primitives import CELL_OPS
from deepnets_bench.generators import SPLITS, sample

sampled = st.builds(sample, st.sampled_from([s for s in SPLITS if s != "wide"]), st.integers(0, 10**6))


@st.composite
def genotypes(draw: st.DrawFn, max_steps: int = 4) -> Genotype:
    steps = draw(st.integers(1, max_steps))
    n_concat = draw(st.integers(1, steps))

    def cell() -> tuple[tuple[str, int], ...]:
        return tuple(
            (draw(st.sampled_from(CELL_OPS)), draw(st.integers(0, pair // 2 + 1)))
            for pair in range(2 * steps)
        )

    def concat() -> tuple[int, ...]:
        return tuple(draw(st.permutations(range(2, steps + 2)))[:n_concat])

    return Genotype(cell(), concat(), cell(), concat())


@st.composite
def architectures(draw: st.DrawFn) -> Architecture:
    genotype = draw(genotypes())
    c_mult = draw(st.integers(1, 3))
    needs_preproc = c_mult > 1 or len(genotype.normal_concat) > 1
    return Architecture(
        genotype,
        n_cells=draw(st.integers(1, 9)),
        ks=draw(st.sampled_from([3, 5, 7])),
        stem_type=draw(st.integers(0, 1)),
        stem_pool=draw(st.booleans()),
        norm=draw(st.sampled_from(["none", "bnorm", "bn-track"])),
        preproc=needs_preproc or draw(st.booleans()),
        C_mult=c_mult,
        fc_layers=draw(st.integers(1, 2)),
        fc_dim=draw(st.integers(1, 300)),
        glob_avg=draw(st.booleans()),
    )

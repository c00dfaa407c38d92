"""Genotypes and architectures: dictionary forms, validation, fingerprints."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given

from deepnets_bench import Architecture, BadInput, Genotype, UnknownName
from deepnets_bench.architecture import decode, encode
from deepnets_bench.predefined import DARTS, VIT, ResNet50, predefined
from tests.strategies import architectures


def published() -> dict[str, Any]:
    """An entry as the published metadata spells it."""
    return {
        "norm": None,
        "ks": 5,
        "preproc": True,
        "glob_avg": True,
        "stem_pool": False,
        "C_mult": 2,
        "n_cells": 4,
        "fc_layers": 2,
        "fc_dim": 64,
        "stem_type": 1,
        "C": 48,
        "num_nodes": 100,
        "num_params": {"cifar10": 1, "imagenet": 2},
        "genotype": {
            "normal": [["sep_conv_3x3", 1], ["none", 0], ["skip_connect", 2], ["cse", 0]],
            "normal_concat": [2, 3],
            "reduce": [["max_pool_3x3", 0], ["skip_connect", 1], ["dil_conv_5x5", 2], ["conv_7x1_1x7", 0]],
            "reduce_concat": [2, 3],
        },
    }


def test_published_keys_are_read_and_a_missing_norm_is_none() -> None:
    arch = Architecture.from_dict(published())
    assert (arch.norm, arch.ks, arch.fc_dim, arch.n_cells) == ("none", 5, 64, 4)
    assert arch.genotype.normal[3] == ("cse", 0)
    assert Architecture.from_dict(published() | {"norm": ""}) == arch


@given(architectures())
def test_dictionary_and_encoding_round_trip(arch: Architecture) -> None:
    assert Architecture.from_dict(arch.to_dict()) == arch
    assert decode(encode(arch)) == arch
    assert hash(Architecture.from_dict(arch.to_dict())) == hash(arch)


def test_fingerprint_ignores_what_the_network_ignores() -> None:
    arch = Architecture.from_dict(published())
    reordered = dict(reversed(published().items()))
    assert Architecture.from_dict(reordered).fingerprint() == arch.fingerprint()
    genotype = arch.genotype
    swapped = (genotype.normal[1], genotype.normal[0], *genotype.normal[2:])
    elsewhere = (genotype.normal[0], ("none", 1), *genotype.normal[2:])
    for normal in (swapped, elsewhere):
        same = replace(arch, genotype=replace(genotype, normal=normal))
        assert same != arch
        assert same.fingerprint() == arch.fingerprint()
    one_layer = replace(arch, fc_layers=1)
    assert replace(one_layer, fc_dim=7).fingerprint() == one_layer.fingerprint()
    vit = Architecture(VIT, n_cells=12, preproc=False, C_mult=1)
    assert replace(vit, stem_type=1, ks=7).fingerprint() == vit.fingerprint()


@pytest.mark.parametrize(
    "change",
    [
        {"n_cells": 5},
        {"ks": 7},
        {"stem_type": 0},
        {"norm": "bnorm"},
        {"C_mult": 1},
        {"fc_dim": 128},
        {"fc_layers": 1},
        {"glob_avg": False},
    ],
)
def test_fingerprint_sees_what_the_network_sees(change: dict[str, Any]) -> None:
    arch = Architecture.from_dict(published())
    assert replace(arch, **change).fingerprint() != arch.fingerprint()


def test_fingerprints_are_pinned() -> None:
    """Published files name architectures by fingerprint: it must not change between versions."""
    assert Architecture.from_dict(published()).fingerprint() == "e51417b300fee363666603eb9be7021d"
    assert ResNet50().fingerprint() == "92b1302a59be4dbd6eb4d14e40193bae"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_cells": 0}, "n_cells must be a whole number from 1 to 255"),
        ({"n_cells": True}, "n_cells must be a whole number"),
        ({"ks": 4}, "ks must be odd"),
        ({"norm": "batchnorm"}, "Unknown norm 'batchnorm'. Did you mean 'bnorm'?"),
        ({"preproc": False}, "preproc may be off only"),
        ({"glob_avg": 1}, "glob_avg must be true or false"),
        ({"cells": 3}, "Unknown architecture key 'cells'. Did you mean 'n_cells'?"),
        ({"genotype": {"normal": []}}, "The genotype lacks"),
    ],
)
def test_bad_values_are_one_sentence(change: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput) as caught:
        Architecture.from_dict(published() | change)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"normal": (("sep_conv", 0), ("none", 1))}, "Unknown cell operation 'sep_conv'. Did you mean"),
        ({"normal": (("none", 0), ("none", 2))}, "normal[1] reads state 2; it may read 0 to 1"),
        ({"normal": (("none", 0),)}, "2 (operation, input) pairs per step"),
        ({"normal_concat": (2, 2, 3, 4)}, "normal_concat must list distinct states from 2 to 5"),
        ({"reduce_concat": (2, 9, 3, 4)}, "reduce_concat must list distinct states"),
        ({"reduce_concat": (2,)}, "must list equally many states"),
    ],
)
def test_bad_genotypes_are_one_sentence(change: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput) as caught:
        replace(DARTS, **change)
    assert message in str(caught.value)


def test_unknown_names_carry_their_choices() -> None:
    with pytest.raises(UnknownName) as caught:
        Genotype((("msaa", 0), ("none", 1)), (2,), VIT.reduce, (2,))
    assert "msa" in caught.value.choices


def test_the_predefined_split_is_resnet50_and_vit() -> None:
    (resnet, resnet_width), (vit, vit_width) = predefined()
    assert isinstance(resnet, ResNet50)
    assert isinstance(vit, Architecture)
    assert vit.is_vit
    assert (resnet_width, vit_width) == (64, 128)

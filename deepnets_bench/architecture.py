"""Neural architectures as data: `Genotype` (two cells), `Architecture` (a whole network) and its encoding."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from deepnets_bench.compiler import instructions as ir
from deepnets_bench.compiler.primitives import CELL_OPS, NORMS
from deepnets_bench.compiler.program import NetworkSize, Program, compile_code
from deepnets_bench.errors import BadInput, UnknownName
from deepnets_bench.graphs.graph import ComputationGraph

if TYPE_CHECKING:
    from deepnets_bench.networks.network import Network

Pair = tuple[str, int]

# Keys of the published metadata that describe one trained or stored instance, not the architecture.
_METADATA_KEYS = frozenset({"C", "num_nodes", "num_params", "is_vit"})


@dataclass(frozen=True)
class Genotype:
    """The normal and the reduction cell.

    `normal` and `reduce` hold 2·steps pairs (operation, input state); pairs 2i and 2i+1 feed state
    i+2, and states 0 and 1 are the outputs of the cell before last and of the last cell.
    `*_concat` lists the states whose channels are concatenated into the cell's output.
    """

    normal: tuple[Pair, ...]
    normal_concat: tuple[int, ...]
    reduce: tuple[Pair, ...]
    reduce_concat: tuple[int, ...]

    def __post_init__(self) -> None:
        for kind in ("normal", "reduce"):
            pairs = _pairs(kind, getattr(self, kind))
            object.__setattr__(self, kind, pairs)
            states = _integers(f"{kind}_concat", getattr(self, f"{kind}_concat"))
            object.__setattr__(self, f"{kind}_concat", states)
            n_states = len(pairs) // 2 + 2
            if not states or len(set(states)) < len(states) or not all(2 <= s < n_states for s in states):
                raise BadInput(
                    f"{kind}_concat must list distinct states from 2 to {n_states - 1}, not {list(states)}."
                )
        if len(self.normal_concat) != len(self.reduce_concat):
            raise BadInput("normal_concat and reduce_concat must list equally many states.")

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Genotype:
        """Read the four keys of the published metadata; raises `BadInput` for any other shape."""
        _check_keys("genotype", data, {f.name for f in fields(cls)})
        return cls(**data)

    @property
    def ops(self) -> tuple[str, ...]:
        """Names of all operations, normal cell first."""
        return tuple(op for op, _ in self.normal + self.reduce)


@dataclass(frozen=True)
class Architecture:
    """One network of DeepNets-1M up to its width, image size and number of classes.

    Fields carry the names of the published metadata: `ks` stem kernel, `stem_type` 0 simple or 1
    ImageNet-style, `C_mult` channel factor of a reduction, `preproc` 1×1 convolutions in front of each
    cell, `fc_layers` and `fc_dim` of the classifier, `glob_avg` pooling or flattening in front of it.
    """

    genotype: Genotype
    n_cells: int
    ks: int = 3
    stem_type: int = 0
    stem_pool: bool = False
    norm: str = "bn-track"
    preproc: bool = True
    C_mult: int = 2
    fc_layers: int = 1
    fc_dim: int = 256
    glob_avg: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.genotype, Genotype):
            raise BadInput("genotype must be a Genotype; use Architecture.from_dict for plain data.")
        if self.norm in (None, ""):
            object.__setattr__(self, "norm", "none")
        if self.norm not in NORMS:
            raise UnknownName("norm", str(self.norm), NORMS)
        for name in ("stem_pool", "preproc", "glob_avg"):
            if not isinstance(getattr(self, name), bool):
                raise BadInput(f"{name} must be true or false, not {getattr(self, name)!r}.")
        for name, low, high in (
            ("n_cells", 1, 255),
            ("ks", 1, 31),
            ("stem_type", 0, 1),
            ("C_mult", 1, 8),
            ("fc_layers", 0, 2),
            ("fc_dim", 1, 65535),
        ):
            value = getattr(self, name)
            if not _is_int(value) or not low <= value <= high:
                raise BadInput(f"{name} must be a whole number from {low} to {high}, not {value!r}.")
        if self.fc_layers == 0:  # the published code treats 0 as one linear layer
            object.__setattr__(self, "fc_layers", 1)
        if self.ks % 2 == 0:
            raise BadInput(f"ks must be odd, not {self.ks}.")
        if not self.preproc and (self.C_mult > 1 or len(self.genotype.normal_concat) > 1):
            raise BadInput("preproc may be off only when C_mult is 1 and one state is concatenated.")

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Architecture:
        """Build from `to_dict()` output or from an entry of the published metadata.

        Keys that describe an instance (C, num_nodes, num_params) are accepted and ignored; any other
        unknown key, a missing genotype or n_cells, or a value out of range raises `BadInput`.
        """
        names = {f.name for f in fields(cls)}
        _check_keys("architecture", data, names, ignored=_METADATA_KEYS, required={"genotype", "n_cells"})
        values = {name: data[name] for name in names if name in data}
        genotype = values["genotype"]
        if not isinstance(genotype, Genotype):
            values["genotype"] = Genotype.from_dict(genotype)
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, strings and numbers; `from_dict` inverts it."""
        data: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return data

    @property
    def is_vit(self) -> bool:
        """True where self-attention occurs: the stem is then a patch embedding and nothing strides."""
        return "msa" in self.genotype.ops

    @property
    def encoded(self) -> np.ndarray:
        """int32: the integers that files hold and the compiler reads (`encode`)."""
        return encode(self)

    @cached_property
    def _canonical(self) -> Architecture:
        """The representative of all architectures that build the same network.

        Fields that the network ignores take one value, and the two summands of a state one order.
        """
        ignored: dict[str, Any] = {}
        if self.is_vit:
            ignored.update(stem_type=0, stem_pool=False, ks=3)
        elif self.stem_type == 1:
            ignored.update(stem_pool=False)
        if self.fc_layers == 1:
            ignored.update(fc_dim=0)
        genotype = self.genotype
        canonical = object.__new__(Architecture)
        values = {f.name: getattr(self, f.name) for f in fields(self)} | ignored
        values["genotype"] = replace(
            genotype, normal=_sorted_steps(genotype.normal), reduce=_sorted_steps(genotype.reduce)
        )
        for name, value in values.items():
            object.__setattr__(canonical, name, value)
        return canonical

    def fingerprint(self) -> str:
        """32 hexadecimal digits, equal exactly for architectures that build the same network.

        Order of keys and of the two summands of a state, and fields without effect (`fc_dim` with one
        linear layer, the input of a `none`, the stem of a network with attention) do not change it; any
        other field does.
        """
        text = json.dumps(self._canonical.to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def program(
        self, width: int = 32, image_size: int = 32, num_classes: int = 10, fc_dim: int | None = None
    ) -> Program:
        """Compile to the list of operations both the graph and the network are derived from.

        Arguments are those of `NetworkSize`. Raises `BadInput` for sizes that no form supports.
        """
        size = NetworkSize(width, image_size, num_classes, fc_dim)
        size.check(is_vit=self.is_vit)
        return compile_code(self.encoded, size)

    def graph(
        self, width: int = 32, image_size: int = 32, num_classes: int = 10, fc_dim: int | None = None
    ) -> ComputationGraph:
        """The computation graph at a width (channels of the first cell); needs no torch."""
        return ComputationGraph.from_program(self.program(width, image_size, num_classes, fc_dim))

    def build(
        self, width: int = 32, image_size: int = 32, num_classes: int = 10, fc_dim: int | None = None
    ) -> Network:
        """The network as a `torch.nn.Module` with every parameter, those of dead branches included."""
        from deepnets_bench.networks.network import Network

        return Network(self.program(width, image_size, num_classes, fc_dim))


def encode(arch: Architecture) -> np.ndarray:
    """An architecture as int32 numbers: the header, both cells' (operation, input) pairs, both concats."""
    genotype = arch.genotype
    header = [
        arch.n_cells,
        arch.ks,
        arch.stem_type,
        arch.stem_pool,
        NORMS.index(arch.norm),
        arch.preproc,
        arch.C_mult,
        arch.fc_layers,
        arch.fc_dim,
        arch.glob_avg,
        len(genotype.normal) // 2,
        len(genotype.reduce) // 2,
        len(genotype.normal_concat),
        len(genotype.reduce_concat),
    ]
    pairs = [x for op, state in genotype.normal + genotype.reduce for x in (CELL_OPS.index(op), state)]
    return np.array(header + pairs + [*genotype.normal_concat, *genotype.reduce_concat], dtype=np.int32)


def decode(code: np.ndarray) -> Architecture:
    """Invert `encode`; raises `BadInput` where the numbers are no architecture."""
    numbers = [int(x) for x in code]
    if len(numbers) < ir.HEADER or min(numbers) < 0 or len(numbers) != _encoded_length(numbers):
        raise BadInput("The encoded architecture has the wrong length.")
    steps = numbers[ir.STEPS_NORMAL], numbers[ir.STEPS_REDUCE]
    states = numbers[ir.CONCAT_NORMAL], numbers[ir.CONCAT_REDUCE]
    if (
        numbers[ir.NORM_KIND] >= len(NORMS)
        or max(numbers[ir.STEM_POOL], numbers[ir.PREPROC], numbers[ir.POOL_HEAD]) > 1
    ):
        raise BadInput("The encoded architecture has a field out of range.")
    tail = numbers[ir.HEADER :]
    cells = []
    for n_steps in steps:
        pairs, tail = tail[: 4 * n_steps], tail[4 * n_steps :]
        if any(op >= len(CELL_OPS) for op in pairs[::2]):
            raise BadInput("The encoded architecture has an unknown operation.")
        cells.append(tuple((CELL_OPS[op], state) for op, state in zip(pairs[::2], pairs[1::2], strict=True)))
    genotype = Genotype(cells[0], tuple(tail[: states[0]]), cells[1], tuple(tail[states[0] :]))
    return Architecture(
        genotype,
        n_cells=numbers[ir.N_CELLS],
        ks=numbers[ir.KS],
        stem_type=numbers[ir.STEM_TYPE],
        stem_pool=bool(numbers[ir.STEM_POOL]),
        norm=NORMS[numbers[ir.NORM_KIND]],
        preproc=bool(numbers[ir.PREPROC]),
        C_mult=numbers[ir.C_MULT],
        fc_layers=numbers[ir.FC_LAYERS],
        fc_dim=numbers[ir.FC_DIM],
        glob_avg=bool(numbers[ir.POOL_HEAD]),
    )


def _encoded_length(code: list[int]) -> int:
    """Length that the header of an encoded architecture announces."""
    return int(
        ir.HEADER
        + 4 * (code[ir.STEPS_NORMAL] + code[ir.STEPS_REDUCE])
        + code[ir.CONCAT_NORMAL]
        + code[ir.CONCAT_REDUCE]
    )


def _sorted_steps(pairs: tuple[Pair, ...]) -> tuple[Pair, ...]:
    pairs = tuple((op, 0 if op == "none" else state) for op, state in pairs)
    steps = [sorted(pairs[i : i + 2]) for i in range(0, len(pairs), 2)]
    return tuple(pair for step in steps for pair in step)


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _integers(name: str, values: Any) -> tuple[int, ...]:
    if isinstance(values, range):
        values = tuple(values)
    if not isinstance(values, (list, tuple)) or not all(_is_int(v) for v in values):
        raise BadInput(f"{name} must be a list of whole numbers, not {values!r}.")
    return tuple(values)


def _pairs(name: str, values: Any) -> tuple[Pair, ...]:
    if not isinstance(values, (list, tuple)) or not values or len(values) % 2:
        raise BadInput(f"{name} must be a list of 2 (operation, input) pairs per step.")
    if len(values) > 40:
        raise BadInput(f"{name} has {len(values) // 2} steps; at most 20 are supported.")
    pairs = []
    for position, pair in enumerate(values):
        if not isinstance(pair, (list, tuple)) or len(pair) != 2 or not _is_int(pair[1]):
            raise BadInput(f"{name}[{position}] must be an (operation, input) pair, not {pair!r}.")
        op, state = pair
        if op not in CELL_OPS:
            raise UnknownName("cell operation", str(op), CELL_OPS)
        if not 0 <= state < position // 2 + 2:
            raise BadInput(f"{name}[{position}] reads state {state}; it may read 0 to {position // 2 + 1}.")
        pairs.append((op, state))
    return tuple(pairs)


def _check_keys(
    what: str,
    data: Any,
    known: set[str],
    ignored: frozenset[str] = frozenset(),
    required: set[str] | None = None,
) -> None:
    if not isinstance(data, Mapping):
        raise BadInput(f"An {what} must be a mapping, not {type(data).__name__}.")
    missing = sorted((known if required is None else required) - set(data))
    if missing:
        raise BadInput(f"The {what} lacks {', '.join(missing)}.")
    for key in data:
        if key not in known | ignored:
            raise UnknownName(f"{what} key", str(key), sorted(known))

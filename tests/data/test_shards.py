"""Shards: what is written is read, and what is damaged is refused."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepnets_bench.architecture import decode, encode
from deepnets_bench.compiler import instructions as ir
from deepnets_bench.compiler.canonical import canonical_key, is_valid
from deepnets_bench.compiler.primitives import PRIMITIVES
from deepnets_bench.data.graph_codec import pack_edges, unpack
from deepnets_bench.data.manifest import MANIFEST, Manifest, ShardEntry, read_manifest, write_manifest
from deepnets_bench.data.shards import DTYPES, Shard, open_split, write_shard
from deepnets_bench.data.verification import verify
from deepnets_bench.errors import BadInput, CorruptFile
from deepnets_bench.generators import generate
from deepnets_bench.generators.columns import sampled_columns
from deepnets_bench.generators.recipes import SPLITS
from deepnets_bench.predefined import ResNet50

SPLIT = SPLITS["test"]
N = 8
COLUMNS = sampled_columns(SPLIT, 0, N, 1)
UNHURRIED = settings(deadline=None)  # compiles at the first example


def write(root: Path, columns: Any = COLUMNS, split: str = "test") -> Path:
    """A finished split of one shard; returns the shard."""
    folder = root / split
    folder.mkdir()
    entry = write_shard(folder, split, 0, columns, 1)
    write_manifest(folder, Manifest(split, 1, "0", N, (entry,)))
    return folder / entry.file


def read_all(root: Path) -> list[Any]:
    return list(open_split(root, "test"))


def test_round_trip(tmp_path: Path) -> None:
    write(tmp_path)
    records = read_all(tmp_path)
    ends = COLUMNS["op_offset"]
    for i, record in enumerate(records):
        assert record.index == i
        assert (record.op == COLUMNS["op"][ends[i] : ends[i + 1]]).all()
        assert record.num_params == tuple(COLUMNS["num_params"][i])
        graph = record.architecture.graph(width=32)
        assert (record.edge_index == graph.edge_index).all()
        assert (record.cell == graph.cell).all()
    reader = open_split(tmp_path, "test")
    assert reader[-1].index == N - 1
    assert [record.index for record in reader[2:5]] == [2, 3, 4]
    assert (reader.column("key") == COLUMNS["key"]).all()
    with pytest.raises(IndexError, match="has 8 graphs; there is no number 8"):
        reader[N]


def test_opening_reads_the_manifest_only(tmp_path: Path) -> None:
    write(tmp_path).unlink()
    reader = open_split(tmp_path, "test")
    assert len(reader) == N
    with pytest.raises(CorruptFile, match="is missing"):
        reader[0]


def test_a_pickled_reader_opens_its_own_files(tmp_path: Path) -> None:
    write(tmp_path)
    reader = open_split(tmp_path, "test")
    expected = reader[3].edge_index
    data = pickle.dumps(reader)
    assert len(data) < 5000
    assert (pickle.loads(data)[3].edge_index == expected).all()


def test_any_flipped_byte_is_found(tmp_path: Path) -> None:
    path = write(tmp_path)
    data = path.read_bytes()
    assert not verify(tmp_path).problems
    random = np.random.default_rng(0)
    for position in random.choice(len(data), 200, replace=False):
        flipped = bytearray(data)
        flipped[position] ^= 1 << random.integers(8)
        path.write_bytes(flipped)
        (problem,) = verify(tmp_path).problems
        assert "checksum does not fit" in problem


@pytest.mark.parametrize("length", [0, 1, 100, 2000, -1])
def test_truncated_files_are_refused(length: int, tmp_path: Path) -> None:
    path = write(tmp_path)
    data = path.read_bytes()
    path.write_bytes(data[:length])
    with pytest.raises(CorruptFile, match=f"bytes instead of {len(data)}"):
        read_all(tmp_path)


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path)
    size = path.stat().st_size
    path.write_bytes(b"\0" * size)
    with pytest.raises(CorruptFile, match="truncated or not a shard"):
        Shard(path, "test", 0, 8)
    with h5py.File(path, "w") as file:
        file["adj"] = np.zeros((5, 5))
    path.write_bytes(path.read_bytes().ljust(size, b"\0"))
    with pytest.raises(CorruptFile, match="not one of deepnets-bench"):
        Shard(path, "test", 0, 8)
    with pytest.raises(CorruptFile, match="its checksum does not fit the manifest; generate the split again"):
        read_all(tmp_path)


@pytest.mark.parametrize(("version", "advice"), [(1, "older than .* generate"), (3, "newer than .* upgrade")])
def test_other_formats_are_refused(
    version: int, advice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deepnets_bench.data.shards.FORMAT_VERSION", version)
    write(tmp_path)
    monkeypatch.undo()
    with pytest.raises(CorruptFile, match=f"format version {version}, {advice}"):
        read_all(tmp_path)


def test_a_shard_has_no_heap(tmp_path: Path) -> None:
    # A damaged one has held HDF5 in an endless loop.
    assert b"GCOL" not in write(tmp_path).read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace('"count": 8', '"count": 7'), "changed after it was written"),
        (lambda text: text.replace("deepnets-bench graphs", "graphs"), "not a manifest"),
        (lambda text: text[:100], "not a manifest"),
        (lambda text: text.replace('"format_version": 2', '"format_version": 3'), "format version 3"),
        (lambda text: "[]", "not a manifest"),
    ],
)
def test_edited_manifests_are_refused(change: Any, message: str, tmp_path: Path) -> None:
    path = write(tmp_path).with_name(MANIFEST)
    path.write_text(change(path.read_text()))
    with pytest.raises(CorruptFile, match=message):
        open_split(tmp_path, "test")


def test_a_manifest_that_contradicts_itself_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path)
    manifest = read_manifest(tmp_path, "test")
    entry = manifest.shards[0]
    moved = type(entry)(**(vars(entry) | {"start": 1}))
    write_manifest(path.parent, Manifest("test", 1, "0", N, (moved,)))
    with pytest.raises(CorruptFile, match="contradicts itself"):
        open_split(tmp_path, "test")


def test_no_manifest_no_split(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"no finished split .test.; deepnets-bench generate --split val"):
        open_split(tmp_path, "test")


@given(st.sampled_from(sorted(DTYPES)), st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1))
def test_hostile_columns_are_refused_or_harmless(
    tmp_path_factory: Any, name: str, at: int, value: int
) -> None:
    """A file with a right checksum and any wrong number never crashes, hangs or reads out of bounds."""
    columns = {key: column.copy() for key, column in COLUMNS.items()}
    flat = columns[name].reshape(-1)
    flat[at % len(flat)] = np.array(value, np.uint64).astype(DTYPES[name])
    root = tmp_path_factory.mktemp("hostile")
    write(root, columns)
    try:
        records = read_all(root)
    except CorruptFile:
        records = []
    for record in records:
        assert record.op.max() < len(PRIMITIVES)
        assert (record.edge_index[0] < record.edge_index[1]).all()
        assert 0 <= record.edge_index.min() <= record.edge_index.max() < record.num_nodes
        assert (np.diff(record.cell) >= 0).all()
        assert record.architecture.fingerprint()
    verify(root)


@pytest.mark.parametrize("name", ["op", "width", "num_params"])
def test_columns_of_the_wrong_length_are_refused(name: str, tmp_path: Path) -> None:
    write(tmp_path, {**COLUMNS, name: COLUMNS[name][:-1]})
    with pytest.raises(CorruptFile, match=name):
        read_all(tmp_path)


@UNHURRIED
@given(st.data())
def test_edges_survive_packing(data: st.DataObject) -> None:
    """Any graph whose in-degrees suit its primitives, distances of one and of two bytes included."""
    n = data.draw(st.integers(2, 400))
    random = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    op = random.choice([PRIMITIVES.index(name) for name in ("conv", "sum", "concat", "pos_enc")], n)
    op[0] = PRIMITIVES.index("input")
    sources = []
    for node in range(n):
        degree = {"input": 0, "pos_enc": 0, "conv": 1}.get(PRIMITIVES[op[node]], random.integers(1, 9))
        sources.append(np.sort(random.choice(node, min(degree, node), replace=False)) if node else [])
    edges = np.array([(u, v) for v, us in enumerate(sources) for u in us], np.int64).reshape(-1, 2).T.copy()
    packed = np.empty(3 * edges.shape[1] + n, np.uint8)
    end = pack_edges(op.astype(np.uint8), edges[0], edges[1], packed, 0)
    nothing = np.empty(0, np.uint16)
    problem, found_op, _, found, _ = unpack(
        op.astype(np.uint8), np.array([n], np.uint16), packed[:end], nothing
    )
    assert problem == 0
    assert (found_op == op).all()
    assert (found == edges).all()


def test_edges_that_do_not_fit_are_not_packed() -> None:
    out = np.empty(20, np.uint8)
    conv = np.array([PRIMITIVES.index("input"), PRIMITIVES.index("conv")], np.uint8)
    for source, target in (([], []), ([1], [1]), ([0, 0], [1, 1]), ([0], [0]), ([-1], [1])):
        assert pack_edges(conv, np.array(source, np.int64), np.array(target, np.int64), out, 0) == -1


def test_keys_agree_with_fingerprints() -> None:
    """Of small networks, so that equal ones are frequent."""
    random = np.random.default_rng(0)
    by_print: dict[str, set[Any]] = {}
    for _ in range(3000):
        ops = random.choice([0, 1, 3, 13], 4)
        states = random.integers(0, 2, 4)
        pairs = np.stack([ops, states], axis=1).reshape(-1)
        header = [4, random.choice([3, 5]), *random.integers(0, 2, 2), 1, 1, 1, random.integers(1, 3)]
        code = np.array([*header, random.choice([64, 128]), 1, 1, 1, 1, 1, *pairs, 2, 2], np.int32)
        assert is_valid(code)
        arch = decode(code)
        assert (encode(arch) == code).all()
        by_print.setdefault(arch.fingerprint(), set()).add(canonical_key(code))
    assert len(by_print) < 2500
    assert all(len(keys) == 1 for keys in by_print.values())
    assert len(set.union(*by_print.values())) == len(by_print)


@UNHURRIED
@given(st.integers(0, 60), st.integers(-2, 20) | st.integers(-(2**31), 2**31 - 1), st.integers(0, N - 1))
def test_validity_agrees_with_decoding(at: int, value: int, graph: int) -> None:
    ends = COLUMNS["architecture_offset"]
    code = COLUMNS["architecture"][ends[graph] : ends[graph + 1]].astype(np.int32)
    code[at % len(code)] = value
    try:
        # 0 classifier layers are published for 1; files hold 1.
        expected = code[ir.FC_LAYERS] != 0 and bool(decode(code))
    except BadInput:
        expected = False
    assert is_valid(code) == expected


def test_manifests_are_plain_json(tmp_path: Path) -> None:
    data = json.loads(write(tmp_path).with_name(MANIFEST).read_text())
    assert (data["split"], data["count"], data["dataset_version"], data["shard_size"]) == ("test", 8, 1, 8)


def test_the_stored_integers_compile_to_the_programs_of_the_architectures(tmp_path: Path) -> None:
    generate("train", tmp_path, 200)
    generate("predefined", tmp_path)
    for record in open_split(tmp_path, "train"):
        assert record.encoded.tobytes() == record.architecture.encoded.tobytes()
        assert record.fc_layers == record.architecture.fc_layers
        for sizes in ((32, 32, 10, None), (48, 224, 1000, 128)):
            stored, made = record.program(*sizes), record.architecture.program(*sizes)
            assert stored.table.tobytes() == made.table.tobytes()
            assert stored.args.tobytes() == made.args.tobytes()
            assert (stored.valid, stored.tracks_statistics) == (made.valid, made.tracks_statistics)
    resnet, vit = open_split(tmp_path, "predefined")
    assert resnet.program(64).param_shapes == ResNet50().program(64).param_shapes
    assert vit.program(64).param_shapes == vit.architecture.program(64).param_shapes
    assert resnet.fc_layers == 1


def test_a_file_is_hashed_once_until_it_is_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generate("test", tmp_path, 8)
    (path,) = (tmp_path / "test").glob("*.h5")
    os.utime(path, ns=(10**18, 10**18))
    read: list[Path] = []
    fault = ShardEntry.fault
    monkeypatch.setattr(
        ShardEntry, "fault", lambda entry, folder: read.append(folder) or fault(entry, folder)
    )
    for _ in range(3):
        open_split(tmp_path, "test")[0]
        generate("test", tmp_path, 8)
    assert len(read) == 1
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptFile, match="its checksum does not fit"):
        open_split(tmp_path, "test")[0]
    path.unlink()
    with pytest.raises(CorruptFile, match="is missing"):
        open_split(tmp_path, "test")[0]

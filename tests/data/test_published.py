"""Files in the released format, made here, become our splits; differences are found and named."""

from __future__ import annotations

import json
import re
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from deepnets_bench import Architecture, ComputationGraph
from deepnets_bench.cli import main
from deepnets_bench.compiler.primitives import PRIMITIVES
from deepnets_bench.data.published import ImportReport, import_published
from deepnets_bench.data.published_graphs import ROW_ORDER, StoredNames, compare, param_name, primitive_name
from deepnets_bench.data.shards import open_split
from deepnets_bench.data.verification import verify
from deepnets_bench.errors import BadInput
from deepnets_bench.generators import sample
from deepnets_bench.generators.generation import generate
from tests import golden

TYPES = dict(enumerate((*PRIMITIVES, "conv_1x1", "sep_conv_3x3", "max_pool_3x3", "fc-b")))
OLD_TYPES = {"sep_conv": "sep_conv_3x3", "max_pool": "max_pool_3x3", "bias": "fc-b", "conv": "conv_1x1"}
WIDTHS = {"train": None, "test": 48, "wide": 48}


def short(name: str | None, old: bool) -> str:
    """A parameter's name as released: without its cell and, in older files, `op` and `.weight`."""
    if name is None:
        return ""
    if name.startswith("cells."):
        name = name.split(".", 2)[2]
    return re.sub(r"^(_ops\.\d+)\.op\.", r"\1.", name).removesuffix(".weight") if old else name


def stored(graph: ComputationGraph, table: dict[str, int], old: bool = False) -> tuple[Any, Any]:
    """(adj, nodes) of a graph; names are entered into the table."""
    adj = np.zeros((graph.num_nodes, graph.num_nodes), np.uint8)
    (source, target), distance = graph.shortest_paths(250)
    adj[source, target] = distance
    by_type = {name: i for i, name in TYPES.items()}
    nodes = []
    for op, cell, name in zip(graph.op, graph.cell, graph.param_name, strict=True):
        primitive = PRIMITIVES[op]
        kind = by_type[OLD_TYPES.get(primitive, primitive) if old else primitive]
        nodes.append((kind, cell, table.setdefault(short(name, old), len(table))))
    return adj, np.array(nodes, np.uint16)


def released(
    folder: Path, archs: dict[str, list[Architecture]], old: bool = False, change: Any = None
) -> tuple[Path, Path]:
    """A metadata and an HDF5 file; `change(adj, nodes)` replaces what is stored."""
    meta = {}
    with h5py.File(folder / "deepnets1m_x.hdf5", "w") as file:
        file.attrs["title"] = "DeepNets-1M"
        for split, members in archs.items():
            table: dict[str, int] = {}
            nets = []
            for i, arch in enumerate(members):
                width = WIDTHS[split]
                scale = (4, 2) if split == "wide" else (1, 1)
                sizes = [(width or 32) * k for k in scale]
                graph = arch.graph(width=sizes[0])
                adj, nodes = stored(graph, table, old)
                adj, nodes = change(adj, nodes) if change else (adj, nodes)
                group = file.create_group(f"{split}/{i}")
                group["adj"], group["nodes"] = adj, nodes
                counts = {
                    "cifar10": arch.program(width=sizes[0]).num_params,
                    "imagenet": arch.program(width=sizes[1], image_size=224, num_classes=1000).num_params,
                }
                extra = {"C": width} if width else {}
                nets.append(arch.to_dict() | extra | {"num_nodes": graph.num_nodes, "num_params": counts})
            tables = {"primitives_ext": TYPES, "unique_op_names": {i: name for name, i in table.items()}}
            meta[split] = {"nets": nets, "meta": tables}
    (folder / "deepnets1m_x_meta.json").write_text(json.dumps(meta))
    return folder / "deepnets1m_x_meta.json", folder / "deepnets1m_x.hdf5"


def differences(reports: list[ImportReport]) -> dict[str, int]:
    return dict(sum((report.items for report in reports), start=reports[0].items.__class__()))


@pytest.fixture(scope="module")
def archs() -> dict[str, list[Architecture]]:
    test = [sample("test", i) for i in range(6)]
    return {"train": [sample("train", i) for i in range(3)], "test": test, "wide": test[:3]}


def with_op(name: str) -> Architecture:
    return next(
        arch
        for arch in (sample("train", i) for i in range(1000))
        if PRIMITIVES.index(name) in arch.graph().op and arch.graph().num_nodes < 150
    )


@pytest.mark.parametrize("old", [False, True])
def test_round_trip(tmp_path: Path, archs: dict[str, list[Architecture]], old: bool) -> None:
    done: list[tuple[int, int]] = []
    reports = import_published(
        released(tmp_path, archs, old), tmp_path / "out", lambda *args: done.append(args)
    )
    assert {report.split: (report.count, report.equal) for report in reports} == {
        split: (len(members), len(members)) for split, members in archs.items()
    }
    assert differences(reports) == {}
    assert done[-1] == (12, 12)
    for split, members in archs.items():
        reader = open_split(tmp_path / "out", split)
        assert [record.architecture for record in reader] == members
        assert reader.manifest.dataset_version == 0
        for record, arch in zip(reader, members, strict=True):
            assert np.array_equal(record.edge_index, arch.graph().edge_index)
    assert open_split(tmp_path / "out", "wide")[0].width == (192, 96)
    assert open_split(tmp_path / "out", "train")[0].width == (32, 32)
    assert verify(tmp_path / "out").problems == ()


def test_metadata_alone_and_in_an_archive(tmp_path: Path, archs: dict[str, list[Architecture]]) -> None:
    meta, _ = released(tmp_path, archs)
    with tarfile.open(tmp_path / "deepnets1m_meta.tar.gz", "w:gz") as archive:
        archive.add(meta, "data/" + meta.name)
    for i, file in enumerate((meta, tmp_path / "deepnets1m_meta.tar.gz")):
        (report, *_) = import_published([file], tmp_path / str(i))
        assert (report.count, report.compared) == (3, 0)
    first, second = (open_split(tmp_path / str(i), "test").manifest.fingerprint for i in range(2))
    assert first == second


def small_networks() -> list[Any]:
    entries = [e for e in golden.load("networks") if not e["imagenet"] and len(e["nodes"]) < 130]
    return [pytest.param(e, id=f"{e['split']}-{e['index']}") for e in entries[:12]]


@pytest.mark.parametrize("entry", small_networks())
def test_golden_graphs_equal_when_stored(entry: dict[str, Any]) -> None:
    graph = Architecture.from_dict(entry["net_args"]).graph(width=entry["C"])
    n = len(entry["nodes"])
    distance = np.where(np.eye(n, dtype=bool), 0, n)
    for u, v in sorted(entry["edges"], key=lambda edge: edge[1]):
        distance[:, v] = np.minimum(distance[:, v], distance[:, u] + 1)
    adj = np.where(distance < n, distance, 0)
    table: dict[str, int] = {}
    by_type = {name: i for i, name in TYPES.items()}
    nodes = [
        (by_type[primitive], cell, table.setdefault(short(name, False), len(table)))
        for cell, name, primitive, _ in entry["nodes"]
    ]
    names = StoredNames(TYPES, {i: name for name, i in table.items()})
    assert compare(graph, adj, np.array(nodes), names) == {}


def test_differences_are_counted_by_kind() -> None:
    graph = with_op("cse").graph()
    table: dict[str, int] = {}
    adj, nodes = stored(graph, table)
    names = StoredNames(TYPES, {i: name for name, i in table.items()})
    assert compare(graph, adj, nodes, names) == {}

    kept = np.arange(len(nodes)) != np.flatnonzero(graph.op == PRIMITIVES.index("cse"))[0]
    found = compare(graph, adj[kept][:, kept], nodes[kept], names)
    assert found["missing node: cse"] == 1
    assert found["missing edge into: cse"] >= 2

    convs = np.flatnonzero(graph.op == PRIMITIVES.index("conv"))[[1, -1]]
    swapped = nodes.copy()
    swapped[convs] = nodes[convs[::-1]]
    assert compare(graph, adj, swapped, names) == {ROW_ORDER: 1}

    edges_only = np.where(adj == 1, adj, 0)
    assert compare(graph, edges_only, nodes, names) == {"distances": int((adj > 1).sum())}
    source, target = graph.edge_index[:, -1]
    fewer = adj.copy()
    fewer[source, target] = 2
    assert compare(graph, fewer, nodes, names) == {"missing edge into: bias": 1}
    assert "edges against the order of nodes" in compare(graph, adj.T, nodes, names)


@pytest.mark.parametrize(
    ("name", "primitive", "expected"),
    [
        ("stem0.3", "conv", "stem0.3.weight"),
        ("stem0.4.weight", "bn", "stem0.4.weight"),
        ("_ops.2.5", "sep_conv", "cells.7._ops.2.op.5.weight"),
        ("_ops.2.op.5.weight", "sep_conv", "cells.7._ops.2.op.5.weight"),
        ("_ops.3.to_out.0.", "conv", "cells.7._ops.3.to_out.0.weight"),
        ("_ops.3.to_out.0.bias", "bias", "cells.7._ops.3.to_out.0.bias"),
        ("preprocess0.bn", "bn", "cells.7.preprocess0.bn.weight"),
        ("pos_enc", "pos_enc", "pos_enc.weight"),
        ("classifier.0.weight", "conv", "classifier.0.weight"),
        ("", "sum", None),
    ],
)
def test_stored_spellings(name: str, primitive: str, expected: str | None) -> None:
    assert param_name(name, primitive, 7) == expected


def test_stored_types() -> None:
    older = ("conv_1x1", "conv_7x7", "sep_conv_3x3", "avg_pool_3x3", "fc-b", "pos_enc", "glob_avg")
    expected = ["conv", "conv", "sep_conv", "avg_pool", "bias", "pos_enc", "glob_avg"]
    assert [primitive_name(name) for name in older] == expected


def test_wrong_counts_are_reported(tmp_path: Path, archs: dict[str, list[Architecture]]) -> None:
    meta, _ = released(tmp_path, {"test": archs["test"][:2]})
    data = json.loads(meta.read_text())
    data["test"]["nets"][1]["num_params"]["cifar10"] += 1
    data["test"]["nets"][1]["num_nodes"] -= 3
    meta.write_text(json.dumps(data))
    assert differences(import_published([meta], tmp_path / "out")) == {
        "num_params cifar10": 1,
        "num_nodes": 3,
    }


def test_nothing_is_overwritten(tmp_path: Path, archs: dict[str, list[Architecture]]) -> None:
    meta, _ = released(tmp_path, archs)
    import_published([meta], tmp_path / "out")
    before = sorted((path, path.stat().st_mtime_ns) for path in (tmp_path / "out").rglob("*.h5"))
    with pytest.raises(BadInput, match="overwrites nothing"):
        import_published([meta], tmp_path / "out")
    assert sorted((path, path.stat().st_mtime_ns) for path in (tmp_path / "out").rglob("*.h5")) == before
    with pytest.raises(BadInput, match="dataset version 0"):
        generate("val", tmp_path / "out", 3)
    generate("val", tmp_path / "own", 3)
    with pytest.raises(BadInput, match="do not mix"):
        import_published([meta], tmp_path / "own")
    assert not (tmp_path / "own" / "test").exists()


def broken(change: Callable[[dict[str, Any]], object]) -> Callable[[Path, Path], None]:
    def apply(meta: Path, _: Path) -> None:
        data = json.loads(meta.read_text())
        change(data)
        meta.write_text(json.dumps(data))

    return apply


def remove_adjacency(_: Path, graphs: Path) -> None:
    with h5py.File(graphs, "a") as file:
        del file["test/0/adj"]


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda meta, _: meta.write_text("{"), "not a JSON file"),
        (lambda meta, _: meta.write_text("[]"), "is not a metadata file"),
        (lambda meta, _: meta.unlink(), "No such file"),
        (lambda _, graphs: graphs.write_bytes(graphs.read_bytes()[:500]), "not an HDF5 file"),
        (lambda _, graphs: graphs.unlink(), "does not exist"),
        (remove_adjacency, "graph at /test/0"),
        (broken(lambda d: d.update(tset=d.pop("test"))), "Did you mean 'test'"),
        (broken(lambda d: d["test"].update(nets=[])), "lists no networks"),
        (broken(lambda d: d["test"]["nets"].append(3)), "lists no networks"),
        (broken(lambda d: d["test"]["nets"][1].pop("C")), "Network 1 of split 'test'"),
        (broken(lambda d: d["test"]["nets"][1].update(C=7)), "width must be even"),
        (broken(lambda d: d["test"]["nets"][0].update(ks=2)), "Network 0 of split 'test'"),
        (broken(lambda d: d["test"]["nets"][0].update(colour="red")), "Unknown architecture key 'colour'"),
        (broken(lambda d: d["test"]["nets"][0]["genotype"].pop("reduce")), "lacks reduce"),
    ],
)
def test_a_bad_file_is_one_sentence_and_leaves_nothing(
    tmp_path: Path,
    archs: dict[str, list[Architecture]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    damage: Callable[[Path, Path], None],
    sentence: str,
) -> None:
    meta, graphs = released(tmp_path, {"test": archs["test"][:2]})
    damage(meta, graphs)
    out = tmp_path / "out"
    arguments = ["deepnets-bench", "import", str(meta), str(graphs), "--out", str(out)]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as exit_:
        main()
    errors = capsys.readouterr().err
    assert exit_.value.code == 2
    assert sentence in errors
    assert errors.count("\n") == 1
    assert not [path for path in out.glob("*") if path.is_dir()]


def test_command(
    tmp_path: Path,
    archs: dict[str, list[Architecture]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def without_distances(adj: Any, nodes: Any) -> tuple[Any, Any]:
        return np.where(adj == 1, adj, 0), nodes

    files = released(tmp_path, {"test": archs["test"][:2]}, change=without_distances)
    monkeypatch.setattr(
        sys, "argv", ["deepnets-bench", "import", *map(str, files), "--out", str(tmp_path / "o")]
    )
    with pytest.raises(SystemExit) as exit_:
        main()
    output = capsys.readouterr().out
    assert not exit_.value.code
    assert "test: 2 networks, 0 of 2 stored graphs equal" in output
    assert "in 2 graphs" in output

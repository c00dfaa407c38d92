"""Files are data: whatever they hold, every reader returns or raises one of our errors, and runs nothing.

`pytest --hypothesis-profile=thorough tests/test_readers.py` tries ten times as many files.
"""

from __future__ import annotations

import copy
import csv
import hashlib
import io
import json
import tarfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import deepnets_bench as dnb
from deepnets_bench.data.manifest import Manifest, write_manifest
from deepnets_bench.data.published import import_published
from deepnets_bench.data.shards import DTYPES, Shard
from deepnets_bench.data.verification import verify
from deepnets_bench.errors import BadInput, DeepNetsError
from deepnets_bench.generators import sample
from deepnets_bench.generators.generation import generate
from deepnets_bench.harness.protocol.tracks import load_track, track_text
from deepnets_bench.harness.training.checkpoint import load_checkpoint, save_checkpoint
from deepnets_bench.harness.training.curve import CURVE_COLUMNS, learning_curve
from deepnets_bench.leaderboard.results import append_rows, read_rows
from deepnets_bench.leaderboard.scores import read_scores, write_scores
from deepnets_bench.uses.models import find_architecture
from tests.damage import DEEP, HUGE, ODD_TOML, damaged, foreign, json_text, odd_csv, odd_hdf5, odd_json
from tests.data.test_published import released
from tests.leaderboard.conftest import make_row

GRAPHS = 3
CONFIG = {"hid": 8, "max_shape": [8, 8, 3, 3], "num_classes": 10}
STORED_GRAPHS = ("test/0/adj", "test/0/nodes", "test/1/adj", "test/1/nodes")


@dataclass(frozen=True)
class Reader:
    """A kind of file: its name in the folder `place`, sound bytes, how it is read, and hostile variants."""

    name: str
    content: bytes = field(repr=False)
    read: Callable[[Path], Any]
    variants: Callable[[st.DataObject], bytes] | None = None


# Sound files, made once.


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("readers")


READERS: dict[str, Reader] = {}  # no argument of tests, as hypothesis would print all of it


@pytest.fixture(scope="module", autouse=True)
def _sound_files(place: Path) -> None:
    READERS.update({name: make(place) for name, make in MAKERS.items()})


def shard_reader(place: Path) -> Reader:
    generate("val", place / "data", num=GRAPHS)
    name = f"val-00000000-{GRAPHS:08d}.h5"

    def read(path: Path) -> None:
        shard = Shard(path, "val", 0, GRAPHS)
        for i in range(GRAPHS):
            shard.record(i, i)

    content = (place / "data" / "val" / name).read_bytes()
    return Reader(name, content, read, odd_hdf5(content, tuple(DTYPES)))


def split_reader(place: Path) -> Reader:
    """A shard whose manifest was written for it, so that no checksum stands before what it holds."""
    shard = shard_reader(place)

    def read(path: Path) -> None:
        entry = Shard(path, "val", 0, GRAPHS).entry()
        write_manifest(path.parent, Manifest("val", 1, "0", GRAPHS, (entry,)))
        if not verify(path.parent.parent).problems:
            dataset = dnb.DeepNets1M(path.parent.parent, "val")
            assert [dataset[i].num_graphs for i in range(GRAPHS)] == [1] * GRAPHS

    return replace(shard, name=f"split/val/{shard.name}", read=read)


def manifest_reader(place: Path) -> Reader:
    generate("val", place / "data", num=GRAPHS)
    content = (place / "data" / "val" / "manifest.json").read_bytes()

    def read(path: Path) -> None:
        reader = dnb.DeepNets1M(path.parent.parent, "val").reader
        assert isinstance(reader.manifest.fingerprint, str)
        verify(path.parent.parent)
        with pytest.raises(BadInput):  # the shard is missing
            reader[0]

    def variants(data: st.DataObject) -> bytes:
        changed = odd_json(json.loads(content))(data)
        values = json.loads(changed) if DEEP not in changed and HUGE not in changed else None
        if not isinstance(values, dict):
            return json_text(changed)
        values.pop("checksum", None)
        text = json.dumps(values, sort_keys=True, separators=(",", ":"))
        return json.dumps(values | {"checksum": hashlib.sha256(text.encode()).hexdigest()}).encode()

    return Reader("manifest/val/manifest.json", content, read, variants)


def results_reader(place: Path) -> Reader:
    path = place / "make" / "results.csv"
    append_rows(path, [make_row(seed=seed) for seed in range(3)])
    return Reader("results.csv", path.read_bytes(), read_rows, odd_csv(path.read_text()))


def scores_reader(place: Path) -> Reader:
    name = write_scores(place / "make", "job", {"test": {0: 0.5, 1: 0.25}, "wide": {0: 0.125}})
    path = place / "make" / name
    return Reader("scores.csv", path.read_bytes(), read_scores, odd_csv(path.read_text()))


def curve_reader(place: Path) -> Reader:
    with learning_curve(place / "make", 0) as write:
        for step in range(1, 4):
            write([step, 2.5, 0.1, "", 0.001, 1.5 * step, 0])
    text = (place / "make" / "curve.csv").read_text()

    def read(path: Path) -> None:
        with learning_curve(path.parent, 2):
            pass
        with path.open(newline="") as file:
            assert all(len(row) == len(CURVE_COLUMNS) for row in csv.reader(file))

    return Reader("curve/curve.csv", text.encode(), read, odd_csv(text))


def training_reader(place: Path) -> Reader:
    content = {"step": 3, "weights": {"a": torch.zeros(2)}, "state": {"window": [(1, 2.0)]}}
    path = save_checkpoint(place / "make", 3, content)

    def read(path: Path) -> None:
        load_checkpoint(path.parent)

    def variants(data: st.DataObject) -> bytes:
        """Damaged or foreign, but with the right digest."""
        payload = damaged(data, path.read_bytes()[:-32], foreign(place))
        return payload + hashlib.sha256(payload).digest()

    return Reader("training/checkpoint-3.ckpt", path.read_bytes(), read, variants)


def safetensors_reader(place: Path) -> Reader:
    path = place / "make" / "ghn.safetensors"
    dnb.GHN.from_config(CONFIG).save(path)
    data_of = path.read_bytes()
    size = int.from_bytes(data_of[:8], "little")
    header = json.loads(data_of[8 : 8 + size])

    def variants(data: st.DataObject) -> bytes:
        changed = copy.deepcopy(header)
        config = json_text(odd_json(json.loads(changed["__metadata__"]["config"]))(data))
        changed["__metadata__"]["config"] = config.decode()
        text = json.dumps(changed).encode()
        if data.draw(st.booleans()):
            text = json_text(odd_json(header)(data))
        return len(text).to_bytes(8, "little") + text + data_of[8 + size :]

    return Reader("ghn.safetensors", data_of, dnb.GHN.load, variants)


def published_reader(place: Path) -> Reader:
    path = place / "make" / "ghn.pt"
    dnb.GHN.from_config(CONFIG).save(path)
    content = torch.load(path, weights_only=True)
    odd_values = [
        None,
        0,
        -1,
        2**70,
        2.5,
        "x",
        [],
        {},
        torch.zeros(0),
        torch.zeros(3),
        torch.zeros(2, 2, dtype=torch.int8),
    ]

    def variants(data: st.DataObject) -> bytes:
        changed = copy.deepcopy(content)
        part = changed[data.draw(st.sampled_from(["config", "state_dict"]))]
        for key in data.draw(st.lists(st.sampled_from(sorted(part)), max_size=3)):
            part[key] = data.draw(st.sampled_from(odd_values))
        if data.draw(st.integers(0, 9)) == 0:
            changed[data.draw(st.sampled_from(sorted(changed)))] = data.draw(st.sampled_from(odd_values))
        buffer = io.BytesIO()
        torch.save(data.draw(st.sampled_from([changed, changed["state_dict"], [changed]])), buffer)
        return buffer.getvalue()

    return Reader("ghn.pt", path.read_bytes(), dnb.GHN.load, variants)


def track_reader(place: Path) -> Reader:
    text = track_text("digits")

    def variants(data: st.DataObject) -> bytes:
        lines = text.splitlines()
        places = [i for i, line in enumerate(lines) if "=" in line and not line.lstrip().startswith("#")]
        for i in data.draw(st.lists(st.sampled_from(places), min_size=1, max_size=2)):
            lines[i] = f"{lines[i].split('=')[0]}= {data.draw(st.sampled_from(ODD_TOML))}"
        return "\n".join(lines).encode()

    return Reader("track.toml", text.encode(), lambda path: load_track(str(path)), variants)


def architecture_reader(place: Path) -> Reader:
    values = sample("test", 0).to_dict()

    def variants(data: st.DataObject) -> bytes:
        return json_text(odd_json(values)(data))

    return Reader(
        "arch.json", json.dumps(values).encode(), lambda path: find_architecture(str(path)), variants
    )


def metadata_reader(place: Path) -> Reader:
    folder = place / "released"
    folder.mkdir(exist_ok=True)
    path, _ = released(folder, {"test": [sample("test", i) for i in (9, 14)]})
    values = json.loads(path.read_text())

    def variants(data: st.DataObject) -> bytes:
        return json_text(odd_json(values)(data))

    return Reader("x_meta.json", path.read_bytes(), imported, variants)


def archive_reader(place: Path) -> Reader:
    meta = metadata_reader(place).content
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        member = tarfile.TarInfo("x_meta.json")
        member.size = len(meta)
        archive.addfile(member, io.BytesIO(meta))
    return Reader("x.tar.gz", buffer.getvalue(), imported)


def graphs_reader(place: Path) -> Reader:
    meta = metadata_reader(place)
    (place / "beside_meta.json").write_bytes(meta.content)
    content = (place / "released" / "deepnets1m_x.hdf5").read_bytes()
    return Reader(
        "x.hdf5",
        content,
        lambda path: imported(path.parent / "beside_meta.json", path),
        odd_hdf5(content, STORED_GRAPHS),
    )


def imported(*paths: Path) -> None:
    root = paths[0].parent / "imported"
    try:
        import_published(paths, root)
    finally:
        for path in sorted(root.rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()


MAKERS: dict[str, Callable[[Path], Reader]] = {
    "shard": shard_reader,
    "split": split_reader,
    "manifest": manifest_reader,
    "results": results_reader,
    "scores": scores_reader,
    "curve": curve_reader,
    "training": training_reader,
    "safetensors": safetensors_reader,
    "published": published_reader,
    "track": track_reader,
    "architecture": architecture_reader,
    "metadata": metadata_reader,
    "archive": archive_reader,
    "graphs": graphs_reader,
}


# The test.


@pytest.fixture(autouse=True)
def _no_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.mark.parametrize("name", MAKERS)
def test_a_sound_file_is_read(name: str, place: Path) -> None:
    attempt(READERS[name], READERS[name].content, place, sound=True)


@pytest.mark.parametrize("name", MAKERS)
def test_foreign_files_are_refused_in_a_sentence(name: str, place: Path) -> None:
    contents = [*foreign(place), *(r.content for other, r in READERS.items() if other != name)]
    for content in contents:
        attempt(READERS[name], content, place)


@pytest.mark.parametrize("name", MAKERS)
@given(data=st.data())
def test_damaged_files_are_read_or_refused_in_a_sentence(name: str, place: Path, data: st.DataObject) -> None:
    reader = READERS[name]
    if reader.variants is not None and data.draw(st.booleans()):
        content = reader.variants(data)
    else:
        content = damaged(data, reader.content, foreign(place))
    attempt(reader, content, place)


def attempt(reader: Reader, content: bytes, place: Path, sound: bool = False) -> None:
    """Read `content`: an error must be one of ours, one line, and nothing may have been run."""
    path = place / reader.name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    text = said(reader, path)
    if text is not None:
        assert not sound, text
        assert text.isprintable(), repr(text)
        assert 10 < len(text) < 3000
    assert not (place / "marker").exists()


def said(reader: Reader, path: Path) -> str | None:
    try:
        reader.read(path)
    except DeepNetsError as error:
        return str(error)
    return None

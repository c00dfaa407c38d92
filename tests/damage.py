"""Files that are not what they should be: cut off, altered, foreign, or odd in form."""

from __future__ import annotations

import copy
import csv
import gzip
import io
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from hypothesis import strategies as st

# Stand for what a JSON text may say and Python values cannot.
HUGE, DEEP = "@huge@", "@deep@"
ODD_JSON = [
    None, True, -1, 0, 1, 2.5, float("nan"), float("inf"), 10**30, -(10**30), 2**63, HUGE, DEEP, "",
    "a\nb\x1b[31m", "x" * 5000, "\ud800", "../../etc", [], {}, [[]], [None], {"": {}}, ["a"], {"a": 1},
]  # fmt: skip
ODD_CELLS = [
    "",
    "nan",
    "inf",
    "-1",
    "9" * 5000,
    "1e999",
    "a\nb",
    '"',
    "'",
    "[" * 10_000,
    '{"a":' * 10_000,
    "x" * 200_000,
]
ODD_TOML = [
    "[]", "{}", "true", "nan", "inf", "-1", "0", "9" * 5000, "1e999", "'x'", '"a\\nb"', "1979-05-27", "[[]]",
    "'''", "[" * 10_000, "[" * 400 + "]" * 400, "{a=" * 10_000, ".".join("a" * 10_000) + "=1",
]  # fmt: skip


class Payload:
    """Unpickled, it leaves a file behind."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.marker), "w")


def odd_json(values: Any) -> Callable[[st.DataObject], str]:
    """JSON in which some values anywhere in `values` are replaced, dropped, renamed or added."""

    def make(data: st.DataObject) -> str:
        root = [copy.deepcopy(values)]
        for _ in range(data.draw(st.integers(1, 2))):
            at: Any = root
            while True:
                key = data.draw(st.sampled_from(sorted(at) if isinstance(at, dict) else range(len(at))))
                inner = at[key]
                if not inner or not isinstance(inner, dict | list) or data.draw(st.integers(0, 5)) == 0:
                    break
                at = inner
            action = data.draw(st.sampled_from(["replace"] * 5 + ["drop", "add"]))
            odd = copy.deepcopy(data.draw(st.sampled_from(ODD_JSON)))
            if action == "replace" or at is root:
                at[key] = odd
            elif action == "drop":
                del at[key]
            elif isinstance(at, dict):
                at[data.draw(st.sampled_from(["", "x\ny", "9" * 5000, "genotype", "nets"]))] = odd
            else:
                at.append(odd)
            if not isinstance(root[0], dict | list) or not root[0]:
                break
        return json.dumps(root[0])

    return make


def json_text(text: str) -> bytes:
    return text.replace(f'"{HUGE}"', "9" * 5000).replace(f'"{DEEP}"', "[" * 10_000 + "]" * 10_000).encode()


def odd_csv(text: str) -> Callable[[st.DataObject], bytes]:
    rows = list(csv.reader(io.StringIO(text)))

    def make(data: st.DataObject) -> bytes:
        changed = copy.deepcopy(rows)
        for _ in range(data.draw(st.integers(1, 3))):
            row = changed[data.draw(st.integers(1, len(rows) - 1))]
            row[data.draw(st.integers(0, len(row) - 1))] = data.draw(st.sampled_from(ODD_CELLS))
        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerows(changed)
        return out.getvalue().encode(errors="replace")

    return make


def odd_hdf5(content: bytes, names: tuple[str, ...]) -> Callable[[st.DataObject], bytes]:
    """The sound `content` with one or two of the datasets `names`, or attributes, made something else."""

    def make(data: st.DataObject) -> bytes:
        buffer = io.BytesIO(content)
        with h5py.File(buffer, "r+") as file:
            for key in data.draw(st.lists(st.sampled_from(sorted(file.attrs)), max_size=1)):
                del file.attrs[key]
                data.draw(st.sampled_from(ATTRIBUTES))(file.attrs, key)
            for name in data.draw(st.lists(st.sampled_from(names), max_size=2, unique=True)):
                shape, dtype = file[name].shape, file[name].dtype
                del file[name]
                data.draw(st.sampled_from(DATASETS))(file, name, shape, dtype)
        return buffer.getvalue()

    return make


def opaque(size: int, tag: bytes) -> h5py.h5t.TypeID:
    kind = h5py.h5t.create(h5py.h5t.OPAQUE, size)
    kind.set_tag(tag)
    return kind


def opaque_attribute(attributes: Any, key: str) -> None:
    """Bytes that say they are Python objects."""
    space = h5py.h5s.create_simple((2,))
    attribute = h5py.h5a.create(attributes._id, key.encode(), opaque(8, b"NUMPY:|O"), space)
    del attribute


def opaque_dataset(file: h5py.File, name: str, shape: Any, dtype: Any) -> None:
    h5py.h5d.create(file.id, name.encode(), opaque(8, b"NUMPY:|O"), h5py.h5s.create_simple((2, 2)))


ATTRIBUTES: list[Callable[[Any, str], None]] = [
    lambda at, key: None,
    lambda at, key: at.create(key, [1, 2, 3]),
    lambda at, key: at.create(key, "a\nb"),
    lambda at, key: at.create(key, np.bytes_("a\nb")),
    lambda at, key: at.create(key, np.bytes_(b"\xff\xfe")),
    lambda at, key: at.create(key, np.array(["x", "y"], h5py.string_dtype())),
    lambda at, key: at.create(key, h5py.Empty("f4")),
    lambda at, key: at.create(key, float("nan")),
    lambda at, key: at.create(key, 2**63),
    lambda at, key: at.create(key, np.bytes_("[" * 10_000)),
    lambda at, key: at.create(key, np.bytes_(json.dumps({"1": [1], "-5": "x\ny", "99": {}}))),
    lambda at, key: at.create(key, np.bytes_(json.dumps({"9" * 5000: "x"}))),
    lambda at, key: at.create(key, np.array([1], "M8[s]").astype(h5py.opaque_dtype("M8[s]"))),
    opaque_attribute,
]
DATASETS: list[Callable[[h5py.File, str, Any, Any], Any]] = [
    lambda f, name, shape, dtype: None,
    lambda f, name, shape, dtype: f.create_group(name),
    lambda f, name, shape, dtype: f.create_dataset(name, data=np.zeros(shape, dtype)),
    lambda f, name, shape, dtype: f.create_dataset(name, data=np.full(shape, np.iinfo(dtype).max, dtype)),
    lambda f, name, shape, dtype: f.create_dataset(name, data=np.full(shape, np.iinfo(dtype).min, dtype)),
    lambda f, name, shape, dtype: f.create_dataset(name, data=np.arange(np.prod(shape)).reshape(shape)),
    lambda f, name, shape, dtype: f.create_dataset(name, data=np.full(shape, 2**60, "i8")),
    lambda f, name, shape, dtype: f.create_dataset(name, data=np.full(shape, 2**64 - 1, "u8")),
    lambda f, name, shape, dtype: f.create_dataset(name, data=np.full(shape, -1, "i8")),
    lambda f, name, shape, dtype: f.create_dataset(name, data=np.full(shape, np.nan)),
    lambda f, name, shape, dtype: f.create_dataset(name, data=np.zeros(shape[:1], dtype)),
    lambda f, name, shape, dtype: f.create_dataset(name, data=dtype.type(0)),
    lambda f, name, shape, dtype: f.create_dataset(name, data=h5py.Empty(dtype)),
    lambda f, name, shape, dtype: f.create_dataset(name, (0, *shape[1:]), dtype),
    lambda f, name, shape, dtype: f.create_dataset(name, shape, dtype, chunks=True, compression="gzip"),
    lambda f, name, shape, dtype: f.create_dataset(name, (10**9,) * 2, dtype, chunks=(1000, 1000)),
    lambda f, name, shape, dtype: f.create_dataset(name, (2**32,), dtype, chunks=(1000,)),
    lambda f, name, shape, dtype: f.create_dataset(name, shape, h5py.string_dtype()),
    lambda f, name, shape, dtype: f.create_dataset(name, shape, h5py.vlen_dtype(np.uint8)),
    lambda f, name, shape, dtype: f.create_dataset(name, shape, h5py.ref_dtype),
    lambda f, name, shape, dtype: f.create_dataset(name, shape, [("a", "u1"), ("b", h5py.string_dtype())]),
    lambda f, name, shape, dtype: f.create_dataset(name, shape, dtype, external=[("/dev/zero", 0, 10**6)]),
    lambda f, name, shape, dtype: f.__setitem__(name, h5py.ExternalLink("/dev/null", "/x")),
    lambda f, name, shape, dtype: f.__setitem__(name, h5py.SoftLink(f"/{name}")),
    lambda f, name, shape, dtype: f.__setitem__(name, h5py.SoftLink("/nowhere")),
    opaque_dataset,
]  # fmt: skip


def foreign(place: Path) -> list[bytes]:
    """Content of other kinds, programs among it."""
    payload = Payload(place / "marker")
    as_torch, as_old_torch, as_numpy = io.BytesIO(), io.BytesIO(), io.BytesIO()
    torch.save({"state_dict": payload, "config": payload}, as_torch)
    torch.save(payload, as_old_torch, _use_new_zipfile_serialization=False)
    np.save(as_numpy, np.array([payload], dtype=object), allow_pickle=True)
    return [
        b"",
        b"\0" * 1000,
        b"\xef\xbb\xbf{}",
        b"{}",
        b"[]",
        b"null",
        b'{"a":' * 10_000,
        b"[" * 10_000,
        b"[" * 10_000 + b"]" * 10_000,
        b"a=" + b"[" * 10_000 + b"]" * 10_000,
        b"9" * 5000,
        pickle.dumps(payload),
        pickle.dumps({"state_dict": payload}, protocol=0),
        as_torch.getvalue(),
        as_old_torch.getvalue(),
        as_numpy.getvalue(),
        gzip.compress(b"x" * 1000),
        (2**63).to_bytes(8, "little") + b"{",
        (2).to_bytes(8, "little") + b"{}",
        b"#!/bin/sh\necho\n",
    ]


def damaged(data: st.DataObject, content: bytes, others: list[bytes]) -> bytes:
    """`content` cut off, with bytes changed, put in or doubled, or something else altogether."""
    kind = data.draw(st.sampled_from(["cut", "flip", "insert", "repeat", "foreign"]))
    if kind == "foreign":
        return data.draw(st.sampled_from(others))
    if not content:
        return content
    place = st.integers(0, len(content) - 1)
    if kind == "cut":
        return content[: data.draw(place)]
    changed = bytearray(content)
    if kind == "flip":
        for i, value in data.draw(st.lists(st.tuples(place, st.integers(1, 255)), min_size=1, max_size=8)):
            changed[i] ^= value
    elif kind == "insert":
        at = data.draw(place)
        changed[at:at] = data.draw(st.binary(min_size=1, max_size=9))
    else:
        start, length = data.draw(place), data.draw(st.integers(1, 64))
        changed[start:start] = changed[start : start + length]
    return bytes(changed)

"""Atomic replacement of files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from deepnets_bench.system.files import replacing, write_atomically


def test_a_file_is_replaced_with_ordinary_permissions(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    write_atomically(path, b"new")
    ordinary = tmp_path / "ordinary"
    ordinary.touch()
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode == ordinary.stat().st_mode
    assert sorted(tmp_path.iterdir()) == [path, ordinary]


def test_a_writer_that_makes_its_own_file_does_not_choose_the_permissions(tmp_path: Path) -> None:
    path, ordinary = tmp_path / "a.bin", tmp_path / "ordinary"
    ordinary.touch()
    with replacing(path) as temporary:
        private = tmp_path / "private"
        private.touch(mode=0o600)
        private.replace(temporary)
    assert path.stat().st_mode == ordinary.stat().st_mode


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")

    def interrupted() -> None:
        with replacing(path) as temporary:
            temporary.write_bytes(b"half")
            raise error

    with pytest.raises(type(error)):
        interrupted()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_disk_that_refuses_to_sync_counts_as_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int) -> None:
        raise OSError("no space")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match="no space"):
        write_atomically(tmp_path / "a.bin", b"new")
    assert list(tmp_path.iterdir()) == []

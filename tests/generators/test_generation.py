"""Generation: the same bytes by any route, resumption, and every way of asking wrongly."""

from __future__ import annotations

import errno
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from filelock import FileLock

from deepnets_bench.data.manifest import MANIFEST
from deepnets_bench.data.shards import open_split
from deepnets_bench.errors import BadInput, RunFailed, UnknownName
from deepnets_bench.generators import PREDEFINED, Interrupted, generate, generation, sample

SPLIT = "val"
ARGUMENTS = {"num": 25, "shard_size": 10}


def contents(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()
    }


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("complete")
    generate(SPLIT, root, **ARGUMENTS)
    return root


def test_files_hold_the_sampled_architectures(complete: Path) -> None:
    reader = open_split(complete, SPLIT)
    assert len(reader) == 25
    assert [entry.stop for entry in reader.manifest.shards] == [10, 20, 25]
    for i in (0, 9, 10, 24):
        arch = sample(SPLIT, i)
        record = reader[i]
        graph = arch.graph(width=32)
        assert record.architecture == arch
        assert (record.op == graph.op).all()
        assert (record.cell == graph.cell).all()
        assert (record.edge_index == graph.edge_index).all()


def test_evaluation_widths_are_the_smallest_with_enough_parameters(complete: Path) -> None:
    for record in open_split(complete, SPLIT)[:10]:
        cifar, imagenet = record.width
        assert cifar == imagenet
        assert cifar % 16 == 0
        arch = record.architecture
        assert arch.program(width=cifar).num_params == record.num_params[0] >= 2_500_000
        if cifar > 32:
            assert arch.program(width=cifar - 16).num_params < 2_500_000
        form = arch.program(width=imagenet, image_size=224, num_classes=1000)
        assert form.num_params == record.num_params[1]


def test_wide_multiplies_the_width_of_test(tmp_path: Path) -> None:
    generate(["test", "wide"], tmp_path, num=5)
    for test, wide in zip(open_split(tmp_path, "test"), open_split(tmp_path, "wide"), strict=True):
        assert wide.architecture == test.architecture
        assert wide.width == (4 * test.width[0], 2 * test.width[1])
        assert wide.num_params[0] == test.architecture.program(width=wide.width[0]).num_params


def test_training_networks_are_counted_at_width_32(tmp_path: Path) -> None:
    generate("train", tmp_path, num=5)
    for record in open_split(tmp_path, "train"):
        assert record.width == (32, 32)
        assert record.num_params[0] == record.architecture.program(width=32).num_params


def test_predefined(tmp_path: Path) -> None:
    generate(PREDEFINED, tmp_path)
    resnet, vit = open_split(tmp_path, PREDEFINED)
    assert (resnet.name, resnet.num_params, resnet.num_nodes) == ("resnet50", (23_520_842, 25_557_032), 126)
    assert (vit.name, vit.num_params, vit.num_nodes) == (None, (1_012_234, 1_244_392), 129)
    with pytest.raises(BadInput, match="'resnet50' is not built from cells"):
        _ = resnet.architecture


def test_workers_do_not_change_a_byte(complete: Path, tmp_path: Path) -> None:
    generate(SPLIT, tmp_path, workers=2, **ARGUMENTS)
    assert contents(tmp_path) == contents(complete)


def test_an_executor_does_not_change_a_byte(complete: Path, tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as executor:
        generate(SPLIT, tmp_path, executor=executor, **ARGUMENTS)
    assert contents(tmp_path) == contents(complete)


def test_more_graphs_keep_the_first(complete: Path, tmp_path: Path) -> None:
    generate(SPLIT, tmp_path, num=12, shard_size=10)
    first = contents(tmp_path)
    generate(SPLIT, tmp_path, num=25)
    assert contents(tmp_path) == contents(complete)
    assert (
        first[f"{SPLIT}/val-00000000-00000010.h5"] == contents(complete)[f"{SPLIT}/val-00000000-00000010.h5"]
    )


def test_fewer_graphs_change_nothing(complete: Path) -> None:
    before = contents(complete)
    assert generate(SPLIT, complete, num=3)[SPLIT].count == 25
    assert contents(complete) == before


def test_finished_work_is_not_done_again(complete: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generation, "make_shard", lambda job: pytest.fail("made a shard again"))
    generate(SPLIT, complete, num=25)


@pytest.mark.parametrize("after", [0, 1, 2])
def test_ctrl_c_keeps_finished_shards(
    after: int, complete: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []

    def make_or_stop(job: generation.Job) -> object:
        if len(made) == after:
            raise KeyboardInterrupt
        made.append(job)
        return make_shard(job)

    make_shard = generation.make_shard
    monkeypatch.setattr(generation, "make_shard", make_or_stop)
    with pytest.raises(Interrupted, match="the same command goes on from there"):
        generate(SPLIT, tmp_path, **ARGUMENTS)
    assert len(list(tmp_path.rglob("*.h5"))) == after
    with pytest.raises(BadInput, match="no finished split 'val'"):
        open_split(tmp_path, SPLIT)

    monkeypatch.setattr(generation, "make_shard", make_shard)
    done = []
    generate(SPLIT, tmp_path, on_shard=lambda n, total: done.append((n, total)), **ARGUMENTS)
    assert contents(tmp_path) == contents(complete)
    assert done[-1][0] == done[-1][1] == 25 - 10 * after


def test_damaged_leftovers_are_replaced(complete: Path, tmp_path: Path) -> None:
    generate(SPLIT, tmp_path, **ARGUMENTS)
    (tmp_path / SPLIT / MANIFEST).unlink()
    shards = sorted(tmp_path.rglob("*.h5"))
    shards[0].write_bytes(shards[0].read_bytes()[:1000])
    data = bytearray(shards[1].read_bytes())
    data[len(data) // 2] ^= 1
    shards[1].write_bytes(data)
    (tmp_path / SPLIT / ".val-00000000-00000010.h5.1.tmp").write_bytes(b"half a file")
    generate(SPLIT, tmp_path, **ARGUMENTS)
    assert contents(tmp_path) == contents(complete)


def test_a_missing_shard_is_made_again(complete: Path, tmp_path: Path) -> None:
    generate(SPLIT, tmp_path, **ARGUMENTS)
    sorted(tmp_path.rglob("*.h5"))[1].unlink()
    generate(SPLIT, tmp_path, num=25)
    assert contents(tmp_path) == contents(complete)


def test_a_changed_shard_is_made_again(complete: Path, tmp_path: Path) -> None:
    generate(SPLIT, tmp_path, **ARGUMENTS)
    shard = sorted(tmp_path.rglob("*.h5"))[1]
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    generate(SPLIT, tmp_path, num=25)
    assert contents(tmp_path) == contents(complete)


@pytest.mark.parametrize("error", [FileNotFoundError, PermissionError])
def test_a_folder_that_cannot_be_made_is_bad_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[OSError]
) -> None:
    def refuse(*_: object, **__: object) -> None:
        number = errno.ENOENT if error is FileNotFoundError else errno.EACCES
        raise error(number, os.strerror(number))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(BadInput, match="is not a folder this user can write to"):
        generate(SPLIT, tmp_path / "new", **ARGUMENTS)


def test_a_full_disk_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(RunFailed, match=r"No space left on device.*goes on from there"):
        generate(SPLIT, tmp_path, **ARGUMENTS)
    assert not list((tmp_path / SPLIT).iterdir())


def test_a_dead_worker_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generation, "_made", _die)
    with pytest.raises(RunFailed, match="A worker process died"):
        generate(SPLIT, tmp_path, workers=2, **ARGUMENTS)


def _die(job: object) -> None:
    os._exit(9)


def test_one_process_at_a_time(complete: Path, tmp_path: Path) -> None:
    with (
        FileLock(tmp_path / generation.LOCK),
        pytest.raises(RunFailed, match="Another process is generating"),
    ):
        generate(SPLIT, tmp_path, **ARGUMENTS)
    assert not list(tmp_path.rglob("*.h5"))


def test_bad_arguments(complete: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match=r"Unknown split 'vall'\. Did you mean 'val'"):
        generate("vall", tmp_path)
    for num in (0, -3):
        with pytest.raises(BadInput, match=rf"number of graphs must be from 1 to .*, not {num}"):
            generate(SPLIT, tmp_path, num=num)
    with pytest.raises(BadInput, match="number of workers"):
        generate(SPLIT, tmp_path, workers=0)
    with pytest.raises(BadInput, match="holds dataset version 1, not 2; choose another folder"):
        generate("test", complete, num=3, dataset_version=2)
    with pytest.raises(BadInput, match="shards of 10 graphs, not 20"):
        generate(SPLIT, complete, num=30, shard_size=20)
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="is not a folder"):
        generate(SPLIT, tmp_path / "file")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_unfinished_shards_of_another_version_are_refused(tmp_path: Path) -> None:
    generate(SPLIT, tmp_path, dataset_version=2, **ARGUMENTS)
    (tmp_path / SPLIT / MANIFEST).unlink()
    with pytest.raises(BadInput, match="dataset version 2, not 1"):
        generate(SPLIT, tmp_path, **ARGUMENTS)

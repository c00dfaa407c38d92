"""Verification: every kind of wrong dataset is found and named."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from deepnets_bench.data.manifest import MANIFEST, Manifest, write_manifest
from deepnets_bench.data.shards import write_shard
from deepnets_bench.data.verification import count_duplicates, count_shared, verify
from deepnets_bench.errors import BadInput
from deepnets_bench.generators import generate
from deepnets_bench.generators.columns import sampled_columns
from deepnets_bench.generators.recipes import SPLITS


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sound")
    generate(["train", "val", "test", "wide", "bnfree", "predefined"], root, num=12, shard_size=5)
    return root


@pytest.fixture
def dataset(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "dataset"))


def store(root: Path, split: str, columns: dict[str, np.ndarray]) -> None:
    folder = root / split
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    entry = write_shard(folder, split, 0, columns, 1)
    write_manifest(folder, Manifest(split, 1, "0", entry.stop, (entry,)))


def test_a_sound_dataset(sound: Path) -> None:
    done = []
    found = verify(sound, lambda n, total: done.append((n, total)))
    assert found.problems == ()
    assert [report.manifest.split for report in found.splits] == sorted(
        ["train", "val", "test", "wide", "bnfree", "predefined"]
    )
    assert done[-1] == (62, 62)


def test_missing_and_unlisted_shards(dataset: Path) -> None:
    first, second, _ = sorted((dataset / "val").glob("*.h5"))
    first.rename(first.with_name("val-00000007-00000009.h5"))
    problems = " ".join(verify(dataset).problems)
    assert f"{first} is missing; generate the split again." in problems
    assert "val-00000007-00000009.h5 is not listed" in problems
    assert str(second) not in problems


def test_unfinished_splits(dataset: Path) -> None:
    (dataset / "val" / MANIFEST).unlink()
    assert "holds shards but no manifest" in verify(dataset).problems[0]


def test_edited_manifests(dataset: Path) -> None:
    path = dataset / "val" / MANIFEST
    path.write_text(path.read_text().replace('"dataset_version": 1', '"dataset_version": 3'))
    assert "was changed after it was written" in verify(dataset).problems[0]


def test_networks_in_two_splits(dataset: Path) -> None:
    shutil.rmtree(dataset / "wide")
    store(dataset, "val", sampled_columns(SPLITS["test"], 10, 20, 1))
    assert verify(dataset).problems == ("2 architectures occur both in test and in val.",)


def test_wide_must_be_made_of_test(dataset: Path) -> None:
    store(dataset, "wide", sampled_columns(SPLITS["test"], 20, 25, 1))
    assert verify(dataset).problems == ("wide is not made of the first architectures of test.",)


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ("key", "a key that is not its architecture's in graph 3"),
        ("num_params", "a number of parameters that is not its architecture's in graph 3"),
    ],
)
def test_figures_of_another_network(column: str, message: str, dataset: Path) -> None:
    columns = sampled_columns(SPLITS["val"], 0, 10, 1)
    columns[column][3, 1] += np.array(1, columns[column].dtype)
    store(dataset, "val", columns)
    assert message in verify(dataset).problems[0]


def test_a_graph_of_another_network(dataset: Path) -> None:
    columns = sampled_columns(SPLITS["val"], 0, 10, 1)
    conv = np.flatnonzero(columns["op"][columns["op_offset"][3] :] == 4)[0] + columns["op_offset"][3]
    columns["op"][conv] = 2
    store(dataset, "val", columns)
    assert "a graph that is not its architecture's in graph 3" in verify(dataset).problems[0]


def test_nothing_to_verify(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="holds no finished split"):
        verify(tmp_path)


def test_counting() -> None:
    keys = np.array([[1, 1], [1, 2], [2, 1], [1, 2], [1, 2]], np.uint64)
    assert count_duplicates(keys) == 2
    assert count_shared(keys, np.array([[1, 2], [2, 2], [2, 1]], np.uint64)) == 2

"""Long tests of generation, outside the default suite: kills at random moments, a Dask cluster."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from deepnets_bench.data.shards import open_split
from deepnets_bench.generators import generate
from tests.generators.test_generation import contents

pytestmark = pytest.mark.stress

ARGUMENTS = {"num": 60_000, "shard_size": 2_000}


def command(shard_size: int, *options: object) -> list[str]:
    """`deepnets-bench generate --split train` with files smaller than they are for users."""
    code = (
        f"from deepnets_bench.generators import generation; generation.SHARD_SIZE = {shard_size}; "
        "from deepnets_bench.cli import main; main()"
    )
    return [sys.executable, "-c", code, "generate", "--split", "train", *map(str, options)]


def test_fifty_kills_do_not_change_a_byte(tmp_path: Path) -> None:
    """SIGKILL to the command and its workers; at the end the files are those of an undisturbed run."""
    generate("train", tmp_path / "undisturbed", **ARGUMENTS)
    root = tmp_path / "killed"
    generation = command(2_000, "--num", 60_000, "--workers", 2, "--out", root)
    chance = random.Random(0)
    found = []  # shards that were there after each kill
    for kill in range(50):
        # The moment is set by progress: by the clock, a busy machine would see kills of imports only. One in
        # five comes at any time from the start on.
        wanted = shards(root) + chance.randint(0, 5)
        process = subprocess.Popen(generation, start_new_session=True)
        if kill % 5:
            while shards(root) < wanted and process.poll() is None:
                time.sleep(0.002)
            time.sleep(chance.uniform(0, 0.1))
        else:
            time.sleep(chance.uniform(0, 3))
        with contextlib.suppress(ProcessLookupError):  # it may have ended
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        found.append(shards(root))
        if kill % 7 == 6:  # begin again, so that kills meet all stages
            for path in root.rglob("*.h5"):
                path.unlink()
    subprocess.run(generation, check=True)
    assert contents(root) == contents(tmp_path / "undisturbed")
    print(f"\nshards of 30 after each of 50 kills: {found}")
    assert sum(0 < n < 30 for n in found) >= 25  # kills met work under way, not only starts and ends


def shards(root: Path) -> int:
    return len(list(root.rglob("*.h5")))


def test_a_dask_cluster_makes_the_same_bytes(tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed")
    arguments = {"num": 5_000, "shard_size": 500}
    generate("train", tmp_path / "here", **arguments)
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        options = ["--num", 5_000, "--out", tmp_path / "there", "--scheduler", cluster.scheduler_address]
        subprocess.run(command(500, *options), check=True)
    assert len(open_split(tmp_path / "there", "train")) == 5_000
    assert contents(tmp_path / "there") == contents(tmp_path / "here")


def test_a_killed_dask_worker_costs_only_its_shard(tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed")
    arguments = {"num": 200_000, "shard_size": 5_000}
    there = tmp_path / "there"
    before: dict[Path, int] = {}  # when the shards that were there at the kill were written
    taken = 0  # shards whose results had arrived by then
    generate("train", tmp_path / "here", **arguments)

    def kill_once(done: int, total: int) -> None:
        nonlocal taken
        if done < total // 2 or before:
            return
        taken = done // arguments["shard_size"]
        before.update({path: path.stat().st_mtime_ns for path in there.rglob("*.h5")})
        os.kill(min(client.run(os.getpid).values()), signal.SIGKILL)

    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        executor = client.get_executor(pure=False)
        generate("train", there, executor=executor, on_shard=kill_once, **arguments)
    assert contents(there) == contents(tmp_path / "here")
    assert len(before) >= 20
    again = sum(path.stat().st_mtime_ns != written for path, written in before.items())
    print(f"\n{len(before)} shards at the kill, {taken} results taken, {again} made again")
    # A shard whose result `generate` has taken is finished for good, once the scheduler hears of it: that of
    # the last result may still be on its way there. The others that were on disk had results on their way
    # here; Dask makes those again that the dead worker alone held.
    assert again <= len(before) - taken + 1

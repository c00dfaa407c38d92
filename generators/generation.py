"""Generation of splits into shards: in parallel, resumable, the same bytes whoever makes them."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, Executor
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from deepnets_bench import __version__
from deepnets_bench.data.manifest import (
    LOCK,
    MANIFEST,
    SUFFIX,
    Manifest,
    ShardEntry,
    finished_splits,
    read_manifest,
    shard_name,
    write_manifest,
)
from deepnets_bench.data.shards import Shard, write_shard
from deepnets_bench.errors import BadInput, CorruptFile, Interrupted, RunFailed, UnknownName
from deepnets_bench.generators.columns import predefined_columns, sampled_columns
from deepnets_bench.generators.recipes import DATASET_VERSION, PREDEFINED, SPLIT_NAMES, SPLITS
from deepnets_bench.system.files import clear_unfinished
from deepnets_bench.system.pool import carried_out
from deepnets_bench.system.signals import one_interrupt

SHARD_SIZE = 10_000
_MAX_DATASET_VERSION = 2**31 - 1
_N_PREDEFINED = 2
# What the system says of a folder that is none, or that this user may not write to.
_UNUSABLE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EEXIST}
_WORTH_PROCESSES = 50_000  # graphs; starting a process takes as long as making that many


@dataclass(frozen=True)
class Job:
    """One shard to make."""

    folder: Path
    split: str
    start: int
    stop: int
    dataset_version: int


@dataclass
class _Plan:
    """A split on its way: entries by start, in order; None where the shard is still to be made."""

    folder: Path
    split: str
    shard_size: int
    entries: dict[int, ShardEntry | None]
    jobs: list[Job]


def generate(
    splits: str | Sequence[str],
    root: str | Path,
    num: int | None = None,
    *,
    workers: int | None = 1,
    executor: Executor | None = None,
    shard_size: int | None = None,
    dataset_version: int = DATASET_VERSION,
    lock_timeout: float = 0,
    on_shard: Callable[[int, int], None] | None = None,
) -> dict[str, Manifest]:
    """Make splits in `root/<split>/`, or what is missing of them, and return their manifests.

    `num` graphs each (default: as in the paper); of a split that already holds as many or more, only files
    that are missing or not as they were written are made again. `workers` processes (None: one a core where
    that pays), or an `executor`, change the time and nothing else.
    `on_shard(graphs done, graphs to do)` is called after each shard. Where another process is generating
    into `root`, waits `lock_timeout` seconds for it.

    Raises `BadInput` for unusable arguments or folders, `RunFailed` where work could not be finished, and
    `Interrupted` at Ctrl-C and SIGTERM; finished shards are then kept and used by the next call.
    """
    names = [splits] if isinstance(splits, str) else list(dict.fromkeys(splits))
    root = Path(root)
    _check_arguments(names, num, workers, shard_size, dataset_version)
    _check_versions(root, dataset_version)
    done = {name: _finished(root, name, _count(name, num), shard_size) for name in names}
    if all(done.values()):
        return {name: manifest for name, manifest in done.items() if manifest}
    try:
        root.mkdir(parents=True, exist_ok=True)
        lock = FileLock(root / LOCK, timeout=lock_timeout)
        with lock, one_interrupt():
            _check_versions(root, dataset_version)
            plans = [_plan(root, name, num, shard_size, dataset_version) for name in names]
            try:
                return _run(plans, workers, executor, dataset_version, on_shard or (lambda done, total: None))
            finally:
                for plan in plans:
                    clear_unfinished(plan.folder)
    except Timeout:
        raise RunFailed(
            f"Another process is generating into {root}; wait until it ends or choose another folder."
        ) from None
    except OSError as error:
        if error.errno in _UNUSABLE:
            raise BadInput(f"{root} is not a folder this user can write to ({error.strerror}).") from error
        raise RunFailed(
            f"Writing to {root} failed: {error.strerror or error}; finished shards are kept, "
            "and the same command goes on from there."
        ) from error


def make_shard(job: Job) -> ShardEntry:
    """Make and write one shard."""
    if job.split == PREDEFINED:
        columns, names = predefined_columns()
        return write_shard(job.folder, job.split, job.start, columns, job.dataset_version, names)
    columns = sampled_columns(SPLITS[job.split], job.start, job.stop, job.dataset_version)
    return write_shard(job.folder, job.split, job.start, columns, job.dataset_version)


def _check_arguments(
    names: list[str], num: int | None, workers: int | None, shard_size: int | None, dataset_version: int
) -> None:
    for name in names:
        if name not in SPLIT_NAMES:
            raise UnknownName("split", name, SPLIT_NAMES)
    for what, value, high in (
        ("The number of graphs", num, 10**8),
        ("The number of workers", workers, 1024),
        ("The shard size", shard_size, 1_000_000),
        ("The dataset version", dataset_version, _MAX_DATASET_VERSION),
    ):
        if value is not None and not 1 <= value <= high:
            raise BadInput(f"{what} must be from 1 to {high:,}, not {value}.")


def _count(split: str, num: int | None) -> int:
    if split == PREDEFINED:
        return _N_PREDEFINED
    return num or SPLITS[split].size


def _check_versions(root: Path, dataset_version: int) -> None:
    for name in finished_splits(root):
        found = read_manifest(root, name).dataset_version
        if found != dataset_version:
            raise BadInput(
                f"{root} holds dataset version {found}, not {dataset_version}; choose another folder (--out)."
            )


def _finished(root: Path, split: str, count: int, shard_size: int | None) -> Manifest | None:
    """The manifest, if the split holds at least `count` graphs in files that are as they were written."""
    if not (root / split / MANIFEST).exists():
        return None
    manifest = read_manifest(root, split)
    if shard_size is not None and shard_size != manifest.shard_size and split != PREDEFINED:
        raise BadInput(
            f"{root / split} has shards of {manifest.shard_size} graphs, not {shard_size}; "
            "choose another folder or leave shard_size out."
        )
    whole = manifest.count >= count and not any(entry.new_fault(root / split) for entry in manifest.shards)
    return manifest if whole else None


def _plan(root: Path, split: str, num: int | None, shard_size: int | None, dataset_version: int) -> _Plan:
    """What is there and what is to do."""
    folder = (root / split).absolute()  # workers may run elsewhere
    folder.mkdir(exist_ok=True)
    clear_unfinished(folder)
    count = _count(split, num)
    known: dict[str, ShardEntry] = {}
    if (folder / MANIFEST).exists():
        _finished(root, split, count, shard_size)  # refuses another shard size
        manifest = read_manifest(root, split)
        count, shard_size = max(count, manifest.count), manifest.shard_size
        known = {entry.file: entry for entry in manifest.shards}
    shard_size = shard_size or SHARD_SIZE
    plan = _Plan(folder, split, shard_size, {}, [])
    for start in range(0, count, shard_size):
        stop = min(start + shard_size, count)
        path = folder / shard_name(split, start, stop)
        entry = known.get(path.name)
        if entry is None or entry.new_fault(folder):
            entry = _existing(path, split, start, stop, dataset_version)
        plan.entries[start] = entry
        if entry is None:
            plan.jobs.append(Job(folder, split, start, stop, dataset_version))
    return plan


def _existing(path: Path, split: str, start: int, stop: int, dataset_version: int) -> ShardEntry | None:
    """The entry of a shard that an earlier, unfinished run left; None where there is no sound one."""
    if not path.exists():
        return None
    try:
        shard = Shard(path, split, start, stop)
    except CorruptFile:
        return None
    if shard.dataset_version != dataset_version:
        raise BadInput(
            f"{path} is of dataset version {shard.dataset_version}, not {dataset_version}; "
            "choose another folder (--out)."
        )
    entry = shard.entry()
    return entry if shard.content == entry.content else None


def _run(
    plans: list[_Plan],
    workers: int | None,
    executor: Executor | None,
    dataset_version: int,
    on_shard: Callable[[int, int], None],
) -> dict[str, Manifest]:
    by_folder = {plan.folder: plan for plan in plans}
    jobs = [job for plan in plans for job in plan.jobs]
    done, total = 0, sum(job.stop - job.start for job in jobs)
    if workers is None:
        workers = (os.cpu_count() or 1) if total > _WORTH_PROCESSES else 1
    manifests = {}

    def finish(plan: _Plan) -> None:
        entries = tuple(entry for entry in plan.entries.values() if entry)
        if len(entries) < len(plan.entries):
            return
        manifest = Manifest(plan.split, dataset_version, __version__, plan.shard_size, entries)
        if not (plan.folder / MANIFEST).exists() or plan.jobs:
            write_manifest(plan.folder, manifest)
        listed = {entry.file for entry in entries}
        for path in plan.folder.glob(f"*{SUFFIX}"):
            if path.name not in listed:
                path.unlink(missing_ok=True)
        manifests[plan.split] = manifest

    for plan in plans:
        finish(plan)
    with contextlib.closing(carried_out(_made, jobs, workers, executor)) as results:
        try:
            for job, entry in results:
                plan = by_folder[job.folder]
                plan.entries[job.start] = entry
                done += job.stop - job.start
                on_shard(done, total)
                finish(plan)
        except KeyboardInterrupt:
            raise Interrupted(
                f"Interrupted after {done:,} of {total:,} graphs; finished shards are kept, "
                "and the same command goes on from there."
            ) from None
        except BrokenExecutor:
            raise RunFailed(
                "A worker process died (killed, or out of memory); finished shards are kept, "
                "and the same command goes on from there."
            ) from None
    return {plan.split: manifests[plan.split] for plan in plans}


def _made(job: Job) -> tuple[Job, ShardEntry]:
    return job, make_shard(job)

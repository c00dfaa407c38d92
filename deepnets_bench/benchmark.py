"""`Benchmark`: a track with its data, to run GNNs and evaluate hypernetworks; the commands stand on it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console

from deepnets_bench.errors import BadInput, RunFailed, UnknownName
from deepnets_bench.gnn import EDGES, GNNIdentity, GNNLike, identify
from deepnets_bench.harness.protocol.tracks import Track, load_track
from deepnets_bench.harness.runs.display import view
from deepnets_bench.harness.runs.job import (
    RESULTS,
    Job,
    build_ghn,
    finished_jobs,
    finished_rows,
    make_folder,
)
from deepnets_bench.harness.runs.options import RunOptions
from deepnets_bench.harness.runs.scheduler import run_jobs, unfinished
from deepnets_bench.harness.training.splits import Dataset, prepare_dataset
from deepnets_bench.leaderboard.results import rows_frame
from deepnets_bench.leaderboard.scores import SCORE_COLUMNS
from deepnets_bench.system.dask import connected
from deepnets_bench.system.processes import usable_cores

if TYPE_CHECKING:
    import pandas as pd
    from distributed import Client

    from deepnets_bench.ghn.model import GHN
    from deepnets_bench.harness.runs.worker import Outcome

Seeds = int | Sequence[int] | Literal["all"]


class Benchmark:
    """A track and its data: fresh hypernetworks, runs of GNNs, and evaluations as the track prescribes them.

    `track` is a name, the path of a .toml file, or a `Track`; `data` the folder of the generated splits,
    where missing ones are generated when they are first needed; `images` the folder of the images of all
    tracks but digits, into which `download` fetches CIFAR-10. What goes on is shown on standard error, in
    bars on a terminal and in lines elsewhere (notebooks), unless `quiet`.

    Raises `UnknownName` for a track that does not exist, `BadInput` for a faulty file.

        bench = Benchmark("digits", data="data")
        rows = bench.run(MyGNN, seeds=(0, 1), out="mine")
        accuracies = bench.evaluate(bench.ghn("gat", seed=0), splits=("test",))
    """

    def __init__(
        self,
        track: str | Path | Track = "digits",
        data: str | Path = "data",
        *,
        images: str | Path | None = None,
        download: bool = False,
        quiet: bool = False,
    ) -> None:
        self.track = track if isinstance(track, Track) else load_track(str(track))
        self.data = Path(data)
        self.images = None if images is None else Path(images)
        self._download = download
        self._console = Console(stderr=True, quiet=quiet)

    def __repr__(self) -> str:
        return f"Benchmark({self.track.name} v{self.track.version}, data={str(self.data)!r})"

    def ghn(self, gnn: GNNLike, seed: int = 0, *, options: Mapping[str, Any] | None = None) -> GHN:
        """The track's hypernetwork around a GNN, on the CPU, with the weights a run of `seed` starts from.

        The weights of everything but the GNN depend on (track, seed) alone; the GNN's come from a stream of
        their own. `gnn` and `options` are those of `deepnets_bench.gnn.identify`. Raises `UnknownName`,
        `BadInput` for an option the GNN does not take or more parameters than the track permits.
        """
        from deepnets_bench.harness.images.loading import load_images

        images = load_images(self.track.images, self.images)
        return build_ghn(self.track, identify(gnn, options), images.num_classes, _checked_seed(seed))

    def run(
        self,
        gnn: GNNLike | Sequence[GNNLike],
        seeds: Seeds | None = None,
        *,
        out: str | Path | None = None,
        options: Mapping[str, Any] | None = None,
        smoke: bool = False,
        precision: str | None = None,
        device: str = "auto",
        devices: int = 1,
        jobs: int | None = None,
        scheduler: str | None = None,
        resume: bool = True,
        tensorboard: bool = False,
        tuning_trials: int = 0,
    ) -> pd.DataFrame:
        """Train and evaluate GNNs, one job a seed; returns their rows, as in results.csv, one a split.

        `gnn` is a name, './file.py:Class', 'package.module:Class' or a class, wherever it is defined; or a
        list of these. `options` are handed to each. `seeds` are numbers, or 'all' for the track's; its first
        one when not given. Rows, scores, learning curves and trained hypernetworks go into the folder `out`,
        ./leaderboards/TRACK when not given. Finished jobs found there are not run again: their rows are
        returned. Every job runs in a process of its own; a class of a notebook or script reaches it by value,
        so that a script needs no `if __name__ == "__main__"`.

        `smoke` runs everything once, in little, and `precision` (32, bf16, fp16) differs from the track's:
        such rows are marked as not comparable. `device` is auto, cpu, cuda or cuda:N; `devices` processes
        train a job together, one a GPU. `jobs` run at a time, as many as there are cores when not given and
        one on a GPU; with `scheduler`, the address of a Dask scheduler, its workers run them. Interrupted
        trainings go on, or anew without `resume`; `tensorboard` writes event files beside each curve.csv.
        `tuning_trials` declares how many settings of the GNN were trained on the track to find this one.

        Raises `RunFailed` where a job has failed or took too long, after all jobs have ended: it has left a
        row with its reason, and the rows of the others are in `out`. Raises `BadInput` before anything runs.
        """
        track = variant(self.track, smoke, precision)
        numbers = _seeds(seeds, track)
        _check_at_least(0, tuning_trials=tuning_trials)
        run_options = _run_options(track, device, devices, jobs, scheduler, resume, tensorboard)
        gnns = _identities(track, gnn, options)
        folder = Path("leaderboards") / track.name if out is None else Path(out)
        self._say(f"Track {track.name} v{track.version} ({track.label}): {track.description}")
        with connected(scheduler) as cluster:  # first, for it may not answer
            dataset = self._prepare(track)
            make_folder(folder)
            planned = [Job(track, each, seed, tuning_trials) for each in gnns for seed in numbers]
            todo = unfinished(planned, dataset, folder)
            self._announce(planned, todo, folder)
            outcomes = self._run(todo, dataset, folder, run_options, cluster)
        self._sum_up(outcomes, len(planned) - len(todo), folder)
        finished = finished_jobs(folder)
        return rows_frame(
            row
            for job in planned
            for row in finished_rows(job, finished.get(job.config_hash(dataset.fingerprint), []))
        )

    def evaluate(
        self,
        ghn: GHN | str | Path,
        splits: Sequence[str] | None = None,
        *,
        noise: float | str | None = None,
        device: str = "auto",
        trust: bool = False,
    ) -> pd.DataFrame:
        """Accuracy of every network of some splits, in [0, 1]; columns split, index (in the split), accuracy.

        `ghn` is a hypernetwork, which is moved to `device` and keeps its mode, or the file of a saved one
        (`trust` is that of `GHN.load`). `splits` are all of the track when not given. `noise` is the standard
        deviation of Gaussian noise on pixels in [0, 1], 'track' for the track's.

        Networks that fail have no row, and a warning says why. Raises `UnknownName` for a split the track
        lacks, `BadInput` for a hypernetwork of another number of classes.
        """
        names = _splits([splits] if isinstance(splits, str) else splits, self.track)
        std = noise_of(self.track, noise)
        if isinstance(ghn, (str, Path)) and not Path(ghn).exists():
            raise BadInput(f"There is no checkpoint {ghn}.")
        import pandas as pd

        rows: list[tuple[str, int, float]] = []
        for name, result in self._scored(ghn, names, std, device, trust):
            rows += [(name, index, accuracy) for index, accuracy in sorted(result.accuracies.items())]
            if result.reason:
                warnings.warn(f"{name}: {result.reason}", stacklevel=2)
        return pd.DataFrame(rows, columns=list(SCORE_COLUMNS)).astype({"index": int, "accuracy": float})

    def _scored(
        self, ghn: GHN | str | Path, splits: Sequence[str], noise: float | None, device: str, trust: bool
    ) -> Iterator[tuple[str, Any]]:
        from deepnets_bench.ghn.model import GHN
        from deepnets_bench.harness.images.loading import load_images
        from deepnets_bench.harness.training.scoring import pick_device, score_splits

        title = str(ghn) if isinstance(ghn, (str, Path)) else "hypernetwork"
        target = pick_device(device)
        model = (ghn if isinstance(ghn, GHN) else GHN.load(Path(ghn), trust)).to(target)
        dataset = self._prepare(self.track)
        images = load_images(self.track.images, self.images).to(target)
        if model.config.num_classes != images.num_classes:
            raise BadInput(
                f"{title} was trained for {model.config.num_classes} classes, the images of track "
                f"'{self.track.name}' have {images.num_classes}."
            )
        with view(self._console) as shown, _threads(self.track.training.threads):
            yield from score_splits(
                model,
                self.track,
                dataset.root,
                images,
                splits,
                report=lambda progress: shown.update(title, progress),
                noise=noise,
            )

    def _prepare(self, track: Track) -> Dataset:
        """The data of the track, or of a reduced copy of it, generated where they are missing."""
        if self._download:
            from deepnets_bench.harness.images.loading import download

            download(track.images, self.images)
        text = f"Preparing the splits of track {track.name} in {self.data}"
        with self._console.status(text) if self._console.is_terminal else nullcontext():
            return prepare_dataset(track, self.data, images=self.images, workers=usable_cores())

    def _run(
        self, todo: Sequence[Job], dataset: Dataset, out: Path, options: RunOptions, cluster: Client | None
    ) -> list[Outcome]:
        try:
            with view(self._console) as shown:
                return run_jobs(todo, dataset, out, options, shown, cluster)
        except KeyboardInterrupt:
            self._say("Interrupted; the same run goes on from here.")
            raise

    def _announce(self, planned: Sequence[Job], todo: Sequence[Job], folder: Path) -> None:
        """What each GNN sees of a graph, as it declares and every row records; and what is going to run."""
        for gnn in {job.gnn.name: job.gnn for job in planned}.values():
            self._say(f"{gnn.name} sees {gnn.edges}: {EDGES[gnn.edges]}")
        names = ", ".join(job.name for job in todo) or "none"
        skipped = len(planned) - len(todo)
        note = f" ({skipped} finished ones in {folder} are skipped)" if skipped else ""
        self._say(f"{len(todo)} job{'' if len(todo) == 1 else 's'}{note}: {names}")

    def _sum_up(self, outcomes: Sequence[Outcome], skipped: int, folder: Path) -> None:
        """Say how the jobs ended; raises `RunFailed` where one did not end well."""
        failed = [outcome for outcome in outcomes if outcome.status != "ok"]
        ok = len(outcomes) - len(failed)
        self._say(f"{ok} ok, {len(failed)} failed, {skipped} skipped; results in {folder / RESULTS}")
        if failed:
            first = failed[0]
            more = f" ({len(failed) - 1} more failed)" if len(failed) > 1 else ""
            raise RunFailed(f"{first.job.name}: {first.reason}; its log is {first.log}{more}.")

    def _say(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


def variant(track: Track, smoke: bool = False, precision: str | None = None) -> Track:
    """The track as `Benchmark.run` is asked for it; raises `UnknownName` for a precision that is none."""
    track = track.as_smoke() if smoke else track
    return track.in_precision(precision) if precision else track


def _identities(
    track: Track, gnn: GNNLike | Sequence[GNNLike], options: Mapping[str, Any] | None
) -> list[GNNIdentity]:
    """The GNNs, each built once: a misspelt name or a wrong option must not become a row."""
    from deepnets_bench.harness.training.frames import check_frames

    several = [gnn] if isinstance(gnn, (str, GNNIdentity)) or callable(gnn) else list(gnn)
    if not several:
        raise BadInput("Give at least one GNN, such as 'gat'; `deepnets-bench gnn list` shows them.")
    found: list[GNNIdentity] = []
    for each in several:
        if (identity := identify(each, options)) not in found:
            found.append(identity)
    classes = check_frames(track)
    for identity in found:  # whatever the number of classes
        build_ghn(track, identity, num_classes=classes)
    return found


def _run_options(
    track: Track,
    device: str,
    devices: int,
    jobs: int | None,
    scheduler: str | None,
    resume: bool,
    tensorboard: bool,
) -> RunOptions:
    """The options of a run, checked; raises `BadInput` and `MissingExtra`."""
    if scheduler is not None and jobs is not None:
        raise BadInput("Give jobs or a scheduler, not both: a cluster runs a job a worker thread.")
    _check_at_least(1, jobs=1 if jobs is None else jobs, devices=devices)
    if tensorboard:
        from deepnets_bench.harness.runs.tensorboard import require_tensorboard

        require_tensorboard()
    from deepnets_bench.harness.training.scoring import check_device, pick_device

    workers = 1
    check_device(device)
    if scheduler is None:  # the workers of a cluster have devices of their own
        on_gpu = pick_device(device, devices - 1).type == "cuda"
        free = 1 if on_gpu else usable_cores() // (track.training.threads * devices)
        workers = jobs or max(1, free)
    return RunOptions(device, devices, resume, workers, tensorboard)


def _check_at_least(lowest: int, **numbers: int) -> None:
    for name, value in numbers.items():
        if value < lowest:
            raise BadInput(f"{name} must be at least {lowest}, not {value}.")


def _seeds(seeds: Seeds | None, track: Track) -> list[int]:
    if seeds is None:
        return [track.seeds[0]]
    if isinstance(seeds, str):
        if seeds != "all":
            raise BadInput(f"Seeds are whole numbers such as (0, 1, 2), or 'all', not {seeds!r}.")
        return list(track.seeds)
    numbers = [seeds] if isinstance(seeds, int) else list(seeds)
    if not numbers:
        raise BadInput("Give at least one seed.")
    return list(dict.fromkeys(map(_checked_seed, numbers)))


def _checked_seed(seed: int) -> int:
    if isinstance(seed, bool) or not hasattr(seed, "__index__") or int(seed) < 0:
        raise BadInput(f"A seed is a whole number from 0 on, not {seed!r}.")
    return int(seed)


def _splits(names: Iterable[str] | None, track: Track) -> list[str]:
    known = track.evaluation.splits
    found = list(known) if names is None else list(dict.fromkeys(names))
    for name in found:
        if name not in known:
            raise UnknownName("split", name, known, f"of track '{track.name}'")
    return found


def noise_of(track: Track, noise: float | str | None) -> float | None:
    """The standard deviation that `Benchmark.evaluate` is asked for; raises `BadInput`."""
    if noise is None:
        return None
    if noise == "track":
        if track.evaluation.noise is None:
            raise BadInput(f"Track '{track.name}' sets no noise; give a standard deviation, such as 0.08.")
        return track.evaluation.noise
    std = noise if isinstance(noise, (int, float)) else math.nan
    if not 0 < std <= 1:
        given = noise if isinstance(noise, str) else f"{noise:g}"
        raise BadInput(f"noise is a standard deviation above 0 and up to 1, or 'track', not '{given}'.")
    return float(std)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Inside, PyTorch uses `count` threads, on which the last digits of sums depend."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)

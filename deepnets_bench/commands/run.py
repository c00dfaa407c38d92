"""`deepnets-bench run`, `eval` and `track`: from a GNN's name to result rows."""

from __future__ import annotations

import os
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from deepnets_bench.gnn import GNNIdentity
    from deepnets_bench.harness.protocol.tracks import Track
    from deepnets_bench.harness.runs.job import Job
    from deepnets_bench.harness.runs.worker import Outcome
    from deepnets_bench.harness.training.splits import Dataset

track_app = typer.Typer(help="Protocols: what is trained on what, for how long, and how it is scored.")

TrackOption = Annotated[str, typer.Option("--track", help="A track's name, or a .toml file of your own.")]
DataOption = Annotated[
    Path,
    typer.Option("--data", envvar="DEEPNETS_BENCH_DATA", help="Folder of the generated splits."),
]
ImagesOption = Annotated[
    Path | None,
    typer.Option(
        "--images", envvar="DEEPNETS_BENCH_IMAGES", help="Folder of the images, for all tracks but digits."
    ),
]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command()(run)
    app.command("eval")(evaluate)
    track_app.command("list")(list_tracks)
    track_app.command("show")(show_track)
    app.add_typer(track_app, name="track", no_args_is_help=True)


def run(
    gnn: Annotated[
        str, typer.Option(help="One or more: a name, ./file.py:Class or package.module:Class, with commas.")
    ],
    track: TrackOption = "digits",
    seeds: Annotated[
        str | None, typer.Option(help="Such as 0,1,2, or 'all' for the track's; its first one by default.")
    ] = None,
    gnn_option: Annotated[
        list[str] | None, typer.Option(help="key=value, handed to the GNN; may be repeated.")
    ] = None,
    smoke: Annotated[bool, typer.Option(help="Everything once, in little; not comparable.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the results; ./leaderboards/TRACK when not given.")
    ] = None,
    data: DataOption = Path("data"),
    images: ImagesOption = None,
    download: Annotated[bool, typer.Option("--download", help="Fetch CIFAR-10 into --images.")] = False,
    device: DeviceOption = "auto",
    devices: Annotated[
        int, typer.Option(min=1, help="Processes that train a job together, one a GPU; torchrun sets it too.")
    ] = 1,
    precision: Annotated[
        str | None,
        typer.Option(help="32, or mixed: bf16, fp16; the track's by default, any other is not comparable."),
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Jobs at a time; as many as there are cores, one on a GPU.")
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(
            help="Address of a Dask scheduler, such as tcp://host:8786, whose workers run the jobs; "
            "--data and --out must be on a file system they share."
        ),
    ] = None,
    log: Annotated[
        str | None,
        typer.Option(help="'tensorboard' writes event files beside every curve.csv, which is always there."),
    ] = None,
    tuning_trials: Annotated[
        int,
        typer.Option(
            min=0,
            help="Settings of the GNN that were trained on the track to find this one, whatever their seeds: "
            "declared by you, kept in every row.",
        ),
    ] = 0,
    resume: Annotated[bool, typer.Option(help="Continue interrupted trainings.")] = False,
) -> None:
    """Train and evaluate GNNs on a track; missing splits are generated first, finished jobs skipped."""
    from rich.console import Console

    from deepnets_bench.errors import BadInput, RunFailed, UnknownName
    from deepnets_bench.gnn import identify, parse_options
    from deepnets_bench.harness.protocol.tracks import load_track
    from deepnets_bench.harness.runs.ddp import under_torchrun
    from deepnets_bench.harness.runs.display import view
    from deepnets_bench.harness.runs.job import RESULTS, Job, build_ghn, make_folder
    from deepnets_bench.harness.runs.options import RunOptions
    from deepnets_bench.harness.runs.scheduler import run_jobs, unfinished
    from deepnets_bench.harness.runs.tensorboard import require_tensorboard
    from deepnets_bench.harness.training.scoring import pick_device
    from deepnets_bench.system.dask import connected

    launched = under_torchrun(os.environ)
    if launched is not None:
        rank, devices = launched
        if rank:
            return  # the first process starts and watches its own
    protocol = load_track(track)
    chosen = _seeds(seeds, protocol)
    protocol = protocol.as_smoke() if smoke else protocol
    protocol = protocol.in_precision(precision) if precision else protocol
    options = parse_options(gnn_option or [])
    names = list(dict.fromkeys(name.strip() for name in gnn.split(",") if name.strip()))
    if not names:
        raise BadInput("Give at least one GNN, such as --gnn gat; `deepnets-bench gnn list` shows them.")
    if scheduler is not None and jobs is not None:
        raise BadInput("Give --jobs or --scheduler, not both: a cluster runs a job a worker thread.")
    if log not in (None, "tensorboard"):
        raise UnknownName("log", log, ["tensorboard"])
    if log:
        require_tensorboard()
    gnns = [identify(name, options) for name in names]  # a misspelt name must not wait for the jobs before
    for each in gnns:  # for ten classes as for any other number: a wrong option must not become a row
        build_ghn(protocol, each, num_classes=10)
    if scheduler is None:
        pick_device(device)
    folder = out or Path("leaderboards") / protocol.name
    make_folder(folder)
    console = Console(stderr=True)
    console.print(
        f"Track {protocol.name} v{protocol.version} ({protocol.label}): {protocol.description}",
        highlight=False,
        soft_wrap=True,
    )
    if download:
        from deepnets_bench.harness.images.loading import download as fetch

        fetch(protocol.images, images)
    dataset = _dataset(protocol, data, images, console)
    everything = [Job(protocol, each, seed, tuning_trials) for each in gnns for seed in chosen]
    todo = unfinished(everything, dataset, folder)
    workers = 1 if scheduler else jobs or _default_workers(device, protocol, devices)
    _announce_gnns(console, gnns)
    _announce(console, everything, todo, folder)
    try:
        with connected(scheduler) if scheduler else nullcontext() as cluster, view(console) as shown:
            outcomes = run_jobs(
                todo,
                dataset,
                folder,
                RunOptions(device, devices, resume, workers, tensorboard=log == "tensorboard"),
                shown,
                cluster,
            )
    except KeyboardInterrupt:
        console.print("Interrupted; the same command with --resume goes on from here.", highlight=False)
        raise
    _print_ranking(protocol, folder, smoke)
    failed = [outcome for outcome in outcomes if outcome.status != "ok"]
    console.print(
        f"{len(outcomes) - len(failed)} ok, {len(failed)} failed, {len(everything) - len(todo)} skipped; "
        f"results in {folder / RESULTS}",
        highlight=False,
        soft_wrap=True,
    )
    if failed:
        raise RunFailed(_failure(failed))


def evaluate(
    checkpoint: Annotated[Path, typer.Argument(help="A trained hypernetwork, such as ghn.safetensors.")],
    split: Annotated[str | None, typer.Option(help="Such as val,wide; all of the track by default.")] = None,
    track: TrackOption = "digits",
    data: DataOption = Path("data"),
    images: ImagesOption = None,
    noise: Annotated[
        str | None,
        typer.Option(help="Gaussian noise on pixels in [0, 1]: its standard deviation, or 'track'."),
    ] = None,
    device: DeviceOption = "auto",
    trust: Annotated[
        bool, typer.Option("--trust", help="Load a GNN that the checkpoint names and that is not registered.")
    ] = False,
) -> None:
    """Score a trained hypernetwork as a track does, and print the accuracies; no results are written."""
    from rich.console import Console

    from deepnets_bench.errors import BadInput
    from deepnets_bench.harness.protocol.tracks import load_track

    protocol = load_track(track)
    noise_std = _noise(noise, protocol)
    if not checkpoint.exists():
        raise BadInput(f"There is no checkpoint {checkpoint}.")
    from deepnets_bench.harness.training.scoring import (
        score_checkpoint,  # with PyTorch, after the cheap checks
    )

    console = Console(stderr=True)
    dataset = _dataset(protocol, data, images, console)
    names = [name.strip() for name in split.split(",")] if split else list(protocol.evaluation.splits)
    added = f", Gaussian noise of {noise_std:g} on the images" if noise_std else ""
    typer.echo(f"{checkpoint} on track {protocol.name} v{protocol.version}{added}")
    typer.echo("split    networks  accuracy  std     sem     max")
    for name, summary in score_checkpoint(
        checkpoint, protocol, dataset.root, names, device, images=images, noise=noise_std, trust=trust
    ):
        if summary["reason"]:
            console.print(f"{name}: {summary['reason']}", markup=False, highlight=False, soft_wrap=True)
        if not summary["n_evaluated"]:
            continue
        std, sem = summary["accuracy_std"] or 0.0, summary["accuracy_sem"] or 0.0
        count = f"{summary['n_evaluated']}/{summary['n_split']}"
        typer.echo(
            f"{name:8s} {count:>8s}  {summary['accuracy_mean']:7.2%}  {std:6.2%}  {sem:6.2%}  "
            f"{summary['accuracy_max']:6.2%}"
        )


def list_tracks() -> None:
    """Print the tracks that come with the package."""
    from deepnets_bench.harness.protocol.tracks import load_track, track_names

    for name in track_names():
        track = load_track(name)
        typer.echo(f"{name:14s} v{track.version}  {track.label:18s} {track.description}")


def show_track(name: Annotated[str, typer.Argument(help="A track's name.")]) -> None:
    """Print a track's file, which says what every number means."""
    from deepnets_bench.harness.protocol.tracks import load_track, track_text

    load_track(name)
    typer.echo(track_text(name), nl=False)


def _seeds(text: str | None, track: Track) -> list[int]:
    from deepnets_bench.errors import BadInput

    if text is None:
        return [track.seeds[0]]
    if text == "all":
        return list(track.seeds)
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise BadInput(f"Seeds are whole numbers separated by commas, such as 0,1,2, not '{text}'.")
    return list(dict.fromkeys(int(part) for part in parts))


def _noise(text: str | None, track: Track) -> float | None:
    from deepnets_bench.errors import BadInput

    if text is None:
        return None
    if text == "track":
        if track.evaluation.noise is None:
            raise BadInput(f"Track '{track.name}' sets no noise; give a standard deviation, such as 0.08.")
        return track.evaluation.noise
    try:
        std = float(text)
    except ValueError:
        std = -1.0
    if not 0 < std <= 1:
        raise BadInput(f"--noise is a standard deviation above 0 and up to 1, or 'track', not '{text}'.")
    return std


def _default_workers(device: str, track: Track, devices: int) -> int:
    if device.startswith("cuda"):
        return 1
    if device == "auto":
        import torch

        if torch.cuda.is_available():
            return 1
    from deepnets_bench.system.processes import usable_cores

    return max(1, usable_cores() // (track.training.threads * devices))


def _dataset(track: Track, root: Path, images: Path | None, console: Console) -> Dataset:
    """The track's splits, generated where they are missing."""
    from deepnets_bench.harness.training.splits import prepare_dataset
    from deepnets_bench.system.processes import usable_cores

    with console.status(f"Preparing the splits of track {track.name} in {root}"):
        return prepare_dataset(track, root, images=images, workers=usable_cores())


def _announce_gnns(console: Console, gnns: list[GNNIdentity]) -> None:
    """What each GNN sees of a graph: a declaration that `gnn check` holds it to and every row records."""
    from deepnets_bench.gnn import EDGES

    for gnn in gnns:
        line = f"{gnn.name} sees {gnn.edges}: {EDGES[gnn.edges]}"
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _announce(console: Console, everything: list[Job], todo: list[Job], folder: Path) -> None:
    names = ", ".join(job.name for job in todo) or "none"
    skipped = len(everything) - len(todo)
    note = f" ({skipped} finished ones in {folder} are skipped)" if skipped else ""
    plural = "" if len(todo) == 1 else "s"
    console.print(f"{len(todo)} job{plural}{note}: {names}", markup=False, highlight=False, soft_wrap=True)


def _print_ranking(track: Track, folder: Path, smoke: bool) -> None:
    from rich.console import Console

    from deepnets_bench.harness.runs.job import RESULTS
    from deepnets_bench.leaderboard.aggregate import select_board
    from deepnets_bench.leaderboard.inference import analyse_board
    from deepnets_bench.leaderboard.report import ranking_table
    from deepnets_bench.leaderboard.results import read_rows
    from deepnets_bench.leaderboard.table import print_table

    path = folder / RESULTS
    if not path.exists():
        return
    board = select_board(
        read_rows(path), track.name, track.version, smoke or not track.comparable, track.calibration
    )
    print_table(ranking_table(board, track.label, analyse_board(board)), Console())


def _failure(failed: list[Outcome]) -> str:
    first = failed[0]
    more = f" ({len(failed) - 1} more failed)" if len(failed) > 1 else ""
    return f"{first.job.name}: {first.reason}; its log is {first.log}{more}."

"""`deepnets-bench run`, `eval` and `track`: from a GNN's name to result rows."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deepnets_bench.commands.options import TrustOption, listed, listed_gnns, listed_seeds

if TYPE_CHECKING:
    import pandas as pd

    from deepnets_bench.harness.protocol.tracks import Track

track_app = typer.Typer(help="Protocols: what is trained on what, for how long, and how it is scored.")

TrackOption = Annotated[str, typer.Option("--track", help="A track's name, or a .toml file of your own.")]
DataOption = Annotated[
    Path,
    typer.Option("--data", envvar="DEEPNETS_BENCH_DATA", help="Folder of the generated splits."),
]
ImagesOption = Annotated[
    Path | None,
    typer.Option(
        "--images",
        envvar="DEEPNETS_BENCH_IMAGES",
        help="Folder of the images, for tracks whose images are files.",
    ),
]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")]
GNNsOption = Annotated[
    list[str],
    typer.Option(
        "--gnn",
        help="A name, ./file.py:Class or package.module:Class; several with commas or by repeating.",
    ),
]
SeedsOption = Annotated[
    list[str] | None,
    typer.Option("--seeds", help="Such as 0,1,2, or 'all' for the track's; its first one by default."),
]
GNNOptions = Annotated[
    list[str] | None, typer.Option("--gnn-option", help="key=value, handed to the GNN; may be repeated.")
]
SmokeOption = Annotated[bool, typer.Option("--smoke", help="Everything once, in little; not comparable.")]
OutOption = Annotated[
    Path | None, typer.Option("--out", help="Folder of the results; leaderboards/TRACK when not given.")
]
DownloadOption = Annotated[bool, typer.Option("--download", help="Fetch CIFAR-10 into --images.")]
DevicesOption = Annotated[
    int,
    typer.Option(
        min=1, metavar="N", help="Processes that train a job together, one a GPU; torchrun sets it too."
    ),
]
PrecisionOption = Annotated[
    str | None,
    typer.Option(help="32, or mixed: bf16, fp16; the track's by default, any other is not comparable."),
]
JobsOption = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="Jobs at a time; as many as there are cores, one on a GPU."),
]
SchedulerOption = Annotated[
    str | None,
    typer.Option(
        help="Address of a Dask scheduler, such as tcp://host:8786, whose workers run the jobs; "
        "--data and --out must be on a file system they share."
    ),
]
LogOption = Annotated[
    str | None,
    typer.Option(help="'tensorboard' writes event files beside every curve.csv, which is always there."),
]
TuningTrialsOption = Annotated[
    int,
    typer.Option(
        min=0,
        metavar="N",
        help="Settings of the GNN that were trained on the track to find this one, whatever their seeds: "
        "declared by you, kept in every row.",
    ),
]
ResumeOption = Annotated[
    bool, typer.Option("--resume/--no-resume", help="Go on with interrupted trainings, or train them anew.")
]


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command()(run)
    app.command("eval")(evaluate)
    track_app.command("list")(list_tracks)
    track_app.command("show")(show_track)
    track_app.command("frame")(train_frame)
    app.add_typer(track_app, name="track", no_args_is_help=True)


def run(
    gnn: GNNsOption,
    track: TrackOption = "digits",
    seeds: SeedsOption = None,
    gnn_option: GNNOptions = None,
    smoke: SmokeOption = False,
    out: OutOption = None,
    data: DataOption = Path("data"),
    images: ImagesOption = None,
    download: DownloadOption = False,
    device: DeviceOption = "auto",
    devices: DevicesOption = 1,
    precision: PrecisionOption = None,
    jobs: JobsOption = None,
    scheduler: SchedulerOption = None,
    log: LogOption = None,
    tuning_trials: TuningTrialsOption = 0,
    resume: ResumeOption = True,
) -> None:
    """Train and evaluate GNNs on a track; missing splits are generated first, finished jobs skipped."""
    from deepnets_bench.benchmark import Benchmark, variant
    from deepnets_bench.gnn import parse_options
    from deepnets_bench.harness.runs.ddp import under_torchrun

    rank, devices = under_torchrun(os.environ) or (0, devices)
    if rank:
        return  # the first process starts and watches its own
    bench = Benchmark(track, data, images=images, download=download)
    folder = out or Path("leaderboards") / bench.track.name
    with _ranking_afterwards(variant(bench.track, smoke, precision), folder, smoke):
        bench.run(
            listed_gnns(gnn), listed_seeds(seeds), out=folder, options=parse_options(gnn_option or []),
            smoke=smoke, precision=precision, device=device, devices=devices, jobs=jobs, scheduler=scheduler,
            resume=resume, tensorboard=_tensorboard(log), tuning_trials=tuning_trials,
        )  # fmt: skip


def evaluate(
    checkpoint: Annotated[Path, typer.Argument(help="A trained hypernetwork, such as ghn.safetensors.")],
    split: Annotated[
        list[str] | None, typer.Option(help="Such as val,wide; all of the track by default.")
    ] = None,
    track: TrackOption = "digits",
    data: DataOption = Path("data"),
    images: ImagesOption = None,
    noise: Annotated[
        str | None,
        typer.Option(help="Gaussian noise on pixels in [0, 1]: its standard deviation, or 'track'."),
    ] = None,
    device: DeviceOption = "auto",
    trust: TrustOption = False,
) -> None:
    """Score a trained hypernetwork as a track does, and print the accuracies; no results are written."""
    from deepnets_bench.benchmark import Benchmark, noise_of

    bench = Benchmark(track, data, images=images)
    std = noise_of(bench.track, _number(noise))
    names = listed(split) or None
    accuracies = bench.evaluate(checkpoint, names, noise=std, device=device, trust=trust)
    added = f", Gaussian noise of {std:g} on the images" if std else ""
    typer.echo(f"{checkpoint} on track {bench.track.name} v{bench.track.version}{added}")
    _print_summary(accuracies, bench.track)


def list_tracks() -> None:
    """Print the tracks that come with the package."""
    from deepnets_bench.harness.protocol.tracks import load_track, track_names
    from deepnets_bench.system.terminal import aligned, wrapped

    tracks = [load_track(name) for name in track_names()]
    lines = aligned([(track.name, f"v{track.version}", track.label) for track in tracks])
    for line, track in zip(lines, tracks, strict=True):
        typer.echo(line)
        typer.echo(wrapped(track.description, indent=4))


def show_track(name: Annotated[str, typer.Argument(help="A track's name.")]) -> None:
    """Print a track's file, which says what every number means."""
    from deepnets_bench.harness.protocol.tracks import load_track, track_text

    load_track(name)
    typer.echo(track_text(name), nl=False)


def train_frame(
    name: Annotated[str, typer.Argument(help="A track's name, or a .toml file of your own.")],
    number: Annotated[
        int, typer.Option("--frame", min=0, metavar="N", help="Which of the track's frames, counted from 0.")
    ] = 0,
    out: Annotated[
        Path | None, typer.Option(help="File to write, which must not exist; the track's when not given.")
    ] = None,
    data: DataOption = Path("data"),
    images: ImagesOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Train a frame by its recipe, print its digest and CPU minutes; goes on where it was stopped."""
    from rich.console import Console

    from deepnets_bench.errors import BadInput, RunFailed
    from deepnets_bench.harness.protocol.tracks import load_track
    from deepnets_bench.harness.runs.frames import train_frame as train
    from deepnets_bench.harness.runs.provenance import cpu_name
    from deepnets_bench.harness.training.trainer import Progress

    protocol = load_track(name)
    if number >= len(protocol.frames):
        raise BadInput(
            f"Track '{protocol.name}' has {len(protocol.frames)} frames; there is no number {number}."
        )
    frame = protocol.frames[number]
    target = out or Path(frame.file)
    console = Console(stderr=True)
    console.print(
        f"Frame {number} of track {protocol.name} v{protocol.version}: {', '.join(frame.gnns)} in turn, "
        f"{frame.steps} steps",
        highlight=False,
        soft_wrap=True,
    )
    with console.status("Training") as status:

        def show(progress: Progress) -> None:
            text = f"step {progress.step} of {progress.steps}, loss {progress.loss:.3f}"
            status.update(f"Training: {text}")
            if not console.is_terminal and progress.step % protocol.training.log_interval == 0:
                console.print(text, highlight=False)

        trained = train(protocol, frame, target, data=data, images=images, device=device, report=show)
    digest, minutes = trained.digest, trained.cpu_seconds / 60
    typer.echo(f'digest = "{digest}"\n# trained in {minutes:.1f} CPU minutes on {cpu_name()}')
    if frame.digest not in ("", digest):
        raise RunFailed(
            f"{target} is not the frame of track '{protocol.name}', whose digest is {frame.digest}: another "
            "machine or version of PyTorch rounds differently."
        )


def _number(text: str | None) -> float | str | None:
    """The number that a text is, else the text."""
    try:
        return None if text is None else float(text)
    except ValueError:
        return text


def _tensorboard(log: str | None) -> bool:
    from deepnets_bench.errors import UnknownName

    if log not in (None, "tensorboard"):
        raise UnknownName("log", log, ["tensorboard"])
    return log is not None


@contextmanager
def _ranking_afterwards(track: Track, folder: Path, smoke: bool) -> Iterator[None]:
    """Print the ranking at the end of a run, even where a job failed: the others have left their rows."""
    from deepnets_bench.errors import RunFailed

    try:
        yield
    except RunFailed:
        _print_ranking(track, folder, smoke)
        raise
    _print_ranking(track, folder, smoke)


def _print_ranking(track: Track, folder: Path, smoke: bool) -> None:
    from rich.console import Console

    from deepnets_bench.board import Leaderboard
    from deepnets_bench.harness.runs.job import RESULTS
    from deepnets_bench.leaderboard.table import print_table

    if not (folder / RESULTS).exists():
        return
    board = Leaderboard(folder, track, version=track.version, smoke=smoke or not track.comparable)
    if any(entry.seeds for entry in board.board.entries):  # else there are reasons only, which were said
        print_table(board.tables()[0], Console())


def _print_summary(accuracies: pd.DataFrame, track: Track) -> None:
    """A line for each split: how many networks were evaluated, and their accuracy."""
    from deepnets_bench.leaderboard.results import accuracy_summary

    typer.echo("split    networks  accuracy  std     sem     max")
    for split, found in accuracies.groupby("split", sort=False):
        summary = accuracy_summary(dict(zip(found["index"], found["accuracy"], strict=True)))
        std, sem = summary["accuracy_std"] or 0.0, summary["accuracy_sem"] or 0.0
        count = f"{summary['n_evaluated']}/{track.evaluation.splits[str(split)].count}"
        typer.echo(
            f"{split:8s} {count:>8s}  {summary['accuracy_mean']:7.2%}  {std:6.2%}  {sem:6.2%}  "
            f"{summary['accuracy_max']:6.2%}"
        )

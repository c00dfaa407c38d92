"""`deepnets-bench train` and `label`: networks trained by SGD, one or all of a split."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deepnets_bench.commands.options import TrustOption, listed, whole_numbers
from deepnets_bench.commands.progress import (
    JobsOption,
    SchedulerOption,
    cluster_executor,
    progress_of,
    workers_of,
)
from deepnets_bench.commands.run import DataOption, ImagesOption, TrackOption

EpochsOption = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Passes over the training images; the recipe's.")
]
SeedsOption = Annotated[list[str], typer.Option("--seeds", help="Such as 0,1,2.")]
_SEED, _SEEDS = ["0"], ["0,1"]


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command()(train)
    app.command()(label)


def train(
    model: Annotated[
        str,
        typer.Argument(
            help="SPLIT/INDEX such as test/12, an architecture's JSON file, resnet50 or vit; "
            "torchvision:NAME, ./file.py:function or package.module:function (that makes the module)."
        ),
    ],
    track: TrackOption = "digits",
    epochs: EpochsOption = None,
    shots: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Training images of each class; all by default.")
    ] = None,
    init: Annotated[
        str, typer.Option(help="random, he, orthogonal, or the checkpoint of a hypernetwork.")
    ] = "random",
    seeds: SeedsOption = _SEED,
    lr: Annotated[float | None, typer.Option(help="Learning rate; the recipe's.")] = None,
    weight_decay: Annotated[float | None, typer.Option(help="Weight decay; the recipe's.")] = None,
    cutout: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Blank a square of this side in every image.")
    ] = None,
    auxiliary: Annotated[
        float | None,
        typer.Option(min=0, metavar="W", help="Weight of an auxiliary classifier's loss, such as 0.4."),
    ] = None,
    drop_path: Annotated[
        float | None,
        typer.Option(min=0, max=1, metavar="P", help="Drop paths, at a rate that rises to P, such as 0.2."),
    ] = None,
    width: Annotated[
        int | None, typer.Option(min=1, help="Channels of the first cell, for an architecture; the track's.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the results; trainings/MODEL when not given.")
    ] = None,
    images: ImagesOption = None,
    trust: TrustOption = False,
) -> None:
    """Train one network by SGD; interrupted, the same command goes on.

    Leaves the learning curve, the weights and the result of every seed, and prints accuracy, accuracy under
    noise on the pixels, and CPU time.
    """
    from deepnets_bench.harness.images.loading import fingerprint
    from deepnets_bench.harness.protocol.tracks import load_track
    from deepnets_bench.uses.initialisation import load_initialisation, name_of
    from deepnets_bench.uses.labelling import images_of
    from deepnets_bench.uses.models import build_for, source_digest, width_for
    from deepnets_bench.uses.recipe import recipe_of
    from deepnets_bench.uses.run import NetworkRun, run_seed

    numbers = whole_numbers(seeds)
    protocol = load_track(track)
    recipe = recipe_of(
        protocol.images.dataset,
        epochs=epochs,
        lr=lr,
        weight_decay=weight_decay,
        cutout=cutout,
        auxiliary=auxiliary,
        drop_path=drop_path,
    )
    weights = load_initialisation(init, trust)
    pictures = images_of(protocol, images)
    channels = width or width_for(model, protocol)

    run = NetworkRun(
        model,
        protocol,
        recipe,
        name_of(init),
        shots,
        width=channels,
        source=source_digest(model),
        images=fingerprint(protocol.images, images),
    )
    folder = out or Path("trainings") / _slug(model)
    for seed in numbers:
        result = run_seed(
            run,
            seed,
            lambda: build_for(model, protocol, pictures.num_classes, channels),
            weights,
            pictures,
            folder / f"seed-{seed}",
        )
        if seed == numbers[0]:
            typer.echo("seed  accuracy  under noise  converged after  CPU seconds")
        after = f"{result['convergence']:.0%}" if result["converged"] else "not"
        typer.echo(
            f"{seed:4d}  {result['accuracy']:8.1%}  {result['accuracy_noise']:11.1%}  {after:>15s}  "
            f"{result['cpu_seconds']:11.1f}"
        )
    typer.echo(f"Curves, weights and results: {folder}")


def label(
    split: Annotated[list[str], typer.Option(help="One or more splits, such as val,test.")],
    count: Annotated[int, typer.Option(min=1, help="The first so many architectures of each split.")],
    track: TrackOption = "digits",
    seeds: SeedsOption = _SEEDS,
    out: Annotated[
        Path,
        typer.Option(
            help="The CSV file, to which rows are added; leaderboards/properties/labels.csv when not given.",
            show_default=False,
        ),
    ] = Path("leaderboards/properties/labels.csv"),
    jobs: JobsOption = None,
    scheduler: SchedulerOption = None,
    time: Annotated[
        bool,
        typer.Option("--time", help="Measure inference times instead, one network after the other."),
    ] = False,
    data: DataOption = Path("data"),
    images: ImagesOption = None,
) -> None:
    """Train many architectures, and keep a row of properties of each; goes on where it was stopped.

    --time writes times.csv beside the labels: run it on a quiet machine, with nothing beside it.
    """
    from rich.console import Console

    from deepnets_bench.harness.protocol.tracks import load_track
    from deepnets_bench.leaderboard.table import print_table
    from deepnets_bench.uses.labelling import label_tasks, run_labelling
    from deepnets_bench.uses.labels import read_labels
    from deepnets_bench.uses.recipe import recipe_of
    from deepnets_bench.uses.reliability import reliability_table
    from deepnets_bench.uses.timing import TIMES, run_timing

    workers = workers_of(jobs, scheduler)
    protocol = load_track(track)
    recipe = recipe_of(protocol.images.dataset)
    tasks = label_tasks(protocol, listed(split), count, whole_numbers(seeds), recipe, data, images)
    if time:
        with progress_of("timing", "networks") as report:
            run_timing(tasks, out.with_name(TIMES), report)
        return
    with progress_of("labelling", "trainings") as report, cluster_executor(scheduler) as executor:
        run_labelling(tasks, out, workers=workers, executor=executor, report=report)
    print_table(reliability_table(read_labels(out)), Console())


def _slug(model: str) -> str:
    """A name for a folder."""
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in model).strip("-.") or "model"

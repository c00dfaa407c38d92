"""`deepnets-bench finetune`: networks trained on a few images a class, from predicted and random weights."""

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
from deepnets_bench.commands.run import ImagesOption, TrackOption

_SHOTS, _INITS, _SEEDS = ["5,20"], ["predicted,he,orthogonal"], ["0,1,2,3,4"]


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(finetune)


def finetune(
    ghn: Annotated[Path, typer.Option(help="A hypernetwork trained on other images.")],
    model: Annotated[
        list[str],
        typer.Option(help="SPLIT/INDEX, resnet50, vit, torchvision:NAME, ./file.py:function; several."),
    ],
    track: TrackOption = "mnist",
    shots: Annotated[list[str], typer.Option(help="Training images of each class, such as 5,20.")] = _SHOTS,
    init: Annotated[
        list[str], typer.Option(help="predicted, orthogonalised, he, orthogonal, random.")
    ] = _INITS,
    seeds: Annotated[list[str], typer.Option("--seeds", help="Such as 0,1,2.")] = _SEEDS,
    epochs: Annotated[int | None, typer.Option(min=1, metavar="N", help="Passes over the shots.")] = None,
    noise: Annotated[
        float, typer.Option(min=0, help="Of orthogonalised weights, in units of their correlations' spread.")
    ] = 0.0,
    recalibrate: Annotated[
        bool,
        typer.Option(
            "--recalibrate", help="Re-estimate running statistics on the shots first, for all alike."
        ),
    ] = False,
    random_classifier: Annotated[
        bool, typer.Option("--random-classifier", help="Predict everything but the classifier.")
    ] = False,
    out: Annotated[Path, typer.Option(help="The CSV file; rows are added to it.")] = Path("finetune.csv"),
    plot: Annotated[
        Path | None,
        typer.Option(help="Draw accuracy over epochs, with bands over seeds: .png, .svg or .pdf."),
    ] = None,
    jobs: JobsOption = None,
    scheduler: SchedulerOption = None,
    images: ImagesOption = None,
    trust: TrustOption = False,
) -> None:
    """Fine-tune models on a few images of a track, and compare initial weights; goes on where it stopped.

    The learning rate is chosen on held-out shots, for every model and all initial weights alike.
    """
    from dataclasses import replace

    from rich.console import Console

    from deepnets_bench.errors import UnknownName
    from deepnets_bench.ghn.model import GHN
    from deepnets_bench.graphs import drawing
    from deepnets_bench.harness.protocol.tracks import load_track
    from deepnets_bench.leaderboard.table import print_table
    from deepnets_bench.uses import finetuning as work
    from deepnets_bench.uses.finetuning_rows import CurvePoint, curves_path, read_fine_tuning
    from deepnets_bench.uses.gains import compared, gain_table
    from deepnets_bench.uses.rows import read_rows

    workers = workers_of(jobs, scheduler)
    if plot is not None:
        drawing.check_target(plot)
    models, inits = listed(model), listed(init)
    for name in inits:
        if name not in work.INITS:
            raise UnknownName("initial weights", name, work.INITS)
    GHN.load(ghn, trust)  # what is wrong with it is said before anything is trained
    recipe = work.RECIPE if epochs is None else replace(work.RECIPE, epochs=epochs)
    study = work.FineTuning(
        load_track(track), ghn, images, trust, recipe, noise=noise, recalibrate=recalibrate,
        random_classifier=random_classifier,
    )  # fmt: skip
    tasks = work.fine_tune_tasks(
        study,
        models,
        inits,
        whole_numbers(shots, "Shots"),
        whole_numbers(seeds),
    )
    with progress_of("fine-tuning", "trainings") as report, cluster_executor(scheduler) as executor:
        work.run_fine_tuning(tasks, out, workers=workers, executor=executor, report=report)
    rows = read_fine_tuning(out)
    console = Console()
    for first, against in compared(inits, work.PREDICTED):
        print_table(gain_table(rows, against, first), console)
    if len(inits) == 1:
        typer.echo(f"Trained from {inits[0]} weights alone; their accuracies are in {out}.")
    if plot is not None:
        from deepnets_bench.uses.finetuning_plots import mean_curves

        drawing.save_figure(mean_curves(read_rows(curves_path(out), CurvePoint)), plot)

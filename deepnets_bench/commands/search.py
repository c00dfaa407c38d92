"""`deepnets-bench search`: the best of many architectures by predicted properties."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deepnets_bench.commands.options import TrustOption, whole_numbers
from deepnets_bench.commands.progress import (
    JobsOption,
    SchedulerOption,
    cluster_executor,
    progress_of,
    workers_of,
)
from deepnets_bench.commands.properties import LabelsOption, study_of
from deepnets_bench.commands.run import DataOption, ImagesOption, TrackOption

if TYPE_CHECKING:
    from deepnets_bench.uses.properties.study import Study

_SEEDS = ["0,1,2"]


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(search)


def search(
    ghn: Annotated[Path, typer.Option(help="A trained hypernetwork.")],
    name: Annotated[
        str, typer.Option("--property", help="accuracy, accuracy_noise, convergence or speed.")
    ] = "accuracy",
    pareto: Annotated[
        str | None, typer.Option(help="A second property: the Pareto front of the two is found.")
    ] = None,
    no_worse: Annotated[
        str | None,
        typer.Option(metavar="PROPERTY", help="Search only the best tenth by this predicted property."),
    ] = None,
    top: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="So many of the best; 10, or the whole Pareto front."),
    ] = None,
    count: Annotated[
        int, typer.Option(min=1, metavar="N", help="The first so many architectures of the split search.")
    ] = 100_000,
    head: Annotated[str, typer.Option(help="svr, ridge or boosting.")] = "svr",
    train: Annotated[
        bool, typer.Option("--train", help="Train what was found and as many at random, and compare.")
    ] = False,
    seeds: Annotated[list[str], typer.Option("--seeds", help="Of --train, such as 0,1,2.")] = _SEEDS,
    track: TrackOption = "digits",
    labels: LabelsOption = Path("leaderboards/properties/labels.csv"),
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = Path("search"),
    jobs: JobsOption = None,
    scheduler: SchedulerOption = None,
    data: DataOption = Path("data"),
    images: ImagesOption = None,
    trust: TrustOption = False,
) -> None:
    """Rank architectures by properties predicted from a hypernetwork's embeddings and labels.

    What was found goes into OUT/found.csv. Embeddings are kept in OUT: interrupted, the same command goes on.
    """
    from deepnets_bench.errors import BadInput, UnknownName
    from deepnets_bench.ghn.model import GHN
    from deepnets_bench.uses import search as work
    from deepnets_bench.uses.properties.heads import HEADS
    from deepnets_bench.uses.properties.targets import NAMES
    from deepnets_bench.uses.sizes import check_image_form

    workers = workers_of(jobs, scheduler)
    numbers = whole_numbers(seeds)
    names = [wanted for wanted in (name, pareto, no_worse) if wanted is not None]
    for wanted in names:
        if wanted not in NAMES:
            raise UnknownName("property", wanted, NAMES)
    if len(set(names)) < len(names):
        raise BadInput(f"--pareto and --no-worse need another property than {name}.")
    if len(names) > 2:
        raise BadInput("Give either --pareto or --no-worse.")
    if top is None and pareto is None:
        top = 10
    if train and top is not None:
        _check_others(top, count)
    if head not in HEADS:
        raise UnknownName("head", head, HEADS)
    study = study_of(track, labels, data, images, names)
    hypernetwork = GHN.load(ghn, trust)
    check_image_form(hypernetwork, ghn, study.track)
    with progress_of("embedding", "architectures") as report, cluster_executor(scheduler) as executor:
        vectors = work.embeddings_of_split(
            study.track, data, ghn, count, out, trust=trust, workers=workers, executor=executor, report=report
        )
    predicted = work.predict_properties(study, hypernetwork, vectors, head)
    if pareto:
        indices = work.pareto_front(predicted, name, pareto)[:top]
    else:
        indices = work.best(predicted, name, top or len(vectors), no_worse)
    rows = work.found(data, indices, predicted)
    work.write_found(out / "found.csv", rows)
    typer.echo("rank  architecture   " + "  ".join(f"{key:>14s}" for key in predicted))
    for rank, row in enumerate(rows, 1):
        values = "  ".join(f"{row.predicted[key]:14.4g}" for key in predicted)
        typer.echo(f"{rank:4d}  {f'search/{row.index}':13s}  {values}")
    if train:
        _check_others(len(indices), count)
        _train(study, indices, count, numbers, out, workers, scheduler)


def _check_others(found: int, count: int) -> None:
    from deepnets_bench.errors import BadInput

    if count < 2 * found:
        raise BadInput(
            f"--train compares {found} architectures with as many others, for which --count {count} is "
            "too few."
        )


def _train(
    study: Study,
    indices: list[int],
    count: int,
    seeds: list[int],
    out: Path,
    workers: int,
    scheduler: str | None,
) -> None:
    """Train and time what was found and random architectures; prints the differences."""
    from deepnets_bench.uses.proof import random_indices, train_both

    random = random_indices(count, len(indices), indices)
    with progress_of("training", "networks") as report, cluster_executor(scheduler) as executor:
        proofs = train_both(
            study.track, study.data, study.images, indices, random, seeds, out / "trained.csv",
            workers=workers, executor=executor, report=report,
        )  # fmt: skip
    typer.echo("\nproperty          found   random  difference [95 %]")
    for proof in proofs:
        gap = proof.found - proof.random
        typer.echo(
            f"{proof.name:15s} {proof.found:7.4g}  {proof.random:7.4g}  {gap:+.4g} "
            f"[{proof.low:+.4g}, {proof.high:+.4g}]"
        )
    failed = proofs[0].failed
    if any(failed):
        each = len(indices) * len(seeds)
        typer.echo(
            f"Failed trainings: {failed[0]} of {each} found, {failed[1]} of {each} random; they count with "
            "the accuracy of chance, and as never converged."
        )

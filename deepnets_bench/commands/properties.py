"""`deepnets-bench properties`: predict accuracy, robustness, convergence and speed of architectures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deepnets_bench.commands.options import TrustOption, listed_gnns, whole_numbers
from deepnets_bench.commands.run import DataOption, GNNOptions, GNNsOption, ImagesOption, TrackOption

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from deepnets_bench.uses.properties.study import Study, Vectors
    from deepnets_bench.uses.properties.trained import TrainedGHN

app = typer.Typer(
    help="Properties of architectures, predicted from labels (see `label`) and by GNNs.", no_args_is_help=True
)

LabelsOption = Annotated[
    Path,
    typer.Option(
        "--labels",
        help="File of labels, times.csv beside it; leaderboards/properties/labels.csv when not given.",
        show_default=False,
    ),
]
OutOption = Annotated[
    Path,
    typer.Option(
        "--out",
        help="CSV file, to which rows are added; leaderboards/properties/results.csv when not given.",
        show_default=False,
    ),
]
SeedsOption = Annotated[list[str], typer.Option("--seeds", help="Such as 0,1,2.")]
_LABELS = Path("leaderboards/properties/labels.csv")
_RESULTS = Path("leaderboards/properties/results.csv")
_SEEDS = ["0,1,2,3,4"]


def register(app_: typer.Typer) -> None:
    """Add the group `properties` to the command line."""
    app_.add_typer(app, name="properties")


@app.command()
def direct(
    gnn: GNNsOption,
    gnn_option: GNNOptions = None,
    seeds: SeedsOption = _SEEDS,
    track: TrackOption = "digits",
    labels: LabelsOption = _LABELS,
    out: OutOption = _RESULTS,
    data: DataOption = Path("data"),
    images: ImagesOption = None,
) -> None:
    """Train GNNs with a mean readout on the labels; what is there already is not run again."""
    from deepnets_bench.gnn import identify, parse_options
    from deepnets_bench.uses.properties import study as work

    study = study_of(track, labels, data, images)
    options = parse_options(gnn_option or ())
    gnns = [identify(name, options) for name in listed_gnns(gnn)]
    for identity in gnns:
        identity.build(study.protocol.hid)
    for identity in gnns:
        for seed in work.missing(out, study, "direct", whole_numbers(seeds), work.columns_of(identity)):
            work.direct(study, identity, [seed], work.sink_of(out))
            typer.echo(f"{identity.name} seed {seed}: done")
    _print(out, "direct", study)


@app.command()
def frozen(
    ghn: Annotated[
        list[Path],
        typer.Argument(
            help="Trained hypernetworks, or their embeddings (.npz): files, or folders of results, whose "
            "runs keep their seeds; other files around one GNN stand for the seeds 0, 1, 2, ..."
        ),
    ],
    track: TrackOption = "digits",
    labels: LabelsOption = _LABELS,
    out: OutOption = _RESULTS,
    data: DataOption = Path("data"),
    images: ImagesOption = None,
    trust: TrustOption = False,
    protocol: Annotated[
        str,
        typer.Option(
            help="properties; or published, the paper's, on a released results_*.json (--labels) and "
            "imported splits (--data)."
        ),
    ] = "properties",
) -> None:
    """Predict from node embeddings of trained hypernetworks: SVR, ridge regression and boosted trees."""
    from collections import Counter

    from deepnets_bench.errors import UnknownName
    from deepnets_bench.uses.properties import study as work
    from deepnets_bench.uses.properties.trained import trained_ghns

    if protocol not in ("properties", "published"):
        raise UnknownName("protocol", protocol, ("properties", "published"))
    if protocol == "published":
        _as_published(ghn, labels, out, data, trust)
        return
    study = study_of(track, labels, data, images)
    seen: Counter[tuple[str, str]] = Counter()
    for trained in trained_ghns(ghn, study.track):
        identity, embed = _opened(trained, study, trust)
        name, options = identity["gnn"], identity["gnn_options"]
        seed = seen[name, options] if trained.seed is None else trained.seed
        seen[name, options] += trained.seed is None
        if work.missing(out, study, "boosting", [seed], identity):
            work.frozen(study, embed, seed, work.sink_of(out), identity)
        typer.echo(f"{trained.path}: {name} seed {seed}, done")
    _print(out, "svr", study)


@app.command()
def baselines(
    seeds: SeedsOption = _SEEDS,
    track: TrackOption = "digits",
    labels: LabelsOption = _LABELS,
    out: OutOption = _RESULTS,
    data: DataOption = Path("data"),
    images: ImagesOption = None,
) -> None:
    """Predict from costs, features of graphs, zero-cost scores, an untrained hypernetwork and the mean.

    What is there already is not run again.
    """
    from deepnets_bench.uses.properties import study as work

    study = study_of(track, labels, data, images)
    work.baselines(study, whole_numbers(seeds), out)
    _print(out, "baselines", study)


@app.command()
def show(
    mode: Annotated[
        str, typer.Option(help="direct, svr, ridge, boosting, published or baselines.")
    ] = "direct",
    count: Annotated[
        int | None, typer.Option("--count", min=1, metavar="N", help="Number of labels; the largest.")
    ] = None,
    labels: LabelsOption = _LABELS,
    out: OutOption = _RESULTS,
    output: Annotated[str, typer.Option("--format", help="table, markdown or latex.")] = "table",
    plot: Annotated[
        Path | None, typer.Option(help="Draw tau over the number of labels: .png, .svg or .pdf.")
    ] = None,
    scatter: Annotated[
        Path | None, typer.Option(help="Draw predicted against measured values: .png, .svg or .pdf.")
    ] = None,
    gnn: Annotated[
        str | None, typer.Option(help="Of --scatter: a line of the table; the first one when not given.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of --scatter; its first one when not given.")] = None,
) -> None:
    """Print Kendall's tau of one mode, with letters and the difference that could have been detected."""
    from rich.console import Console

    from deepnets_bench.errors import UnknownName
    from deepnets_bench.graphs import drawing
    from deepnets_bench.leaderboard.table import print_table, to_latex, to_markdown
    from deepnets_bench.uses.properties.bounds import bounds_of
    from deepnets_bench.uses.properties.results import read_results
    from deepnets_bench.uses.properties.tables import property_table

    formats = {"markdown": to_markdown, "latex": to_latex}
    if output not in ("table", *formats):
        raise UnknownName("format", output, ("table", *formats))
    _check_results(out)
    for picture in filter(None, (plot, scatter)):
        drawing.check_target(picture)
    rows = read_results(out)
    bounds = bounds_of([row for row in rows if row.mode == mode], labels)
    table = property_table(rows, mode, count, bounds)
    if output == "table":
        print_table(table, Console())
    else:
        typer.echo(formats[output](table), nl=False)
    if plot is not None:
        from deepnets_bench.uses.properties.plots import learning_curves

        drawing.save_figure(learning_curves(rows, mode, bounds.taus), plot)
    if scatter is not None:
        from deepnets_bench.uses.properties.plots import predicted_against_measured
        from deepnets_bench.uses.properties.tables import rows_of_run

        chosen = rows_of_run(rows, mode, gnn or table.rows[0][0], seed)
        drawing.save_figure(predicted_against_measured(out, chosen, labels, bounds.taus), scatter)


@app.command()
def html(
    labels: LabelsOption = _LABELS,
    out: OutOption = _RESULTS,
    page: Annotated[
        Path | None,
        typer.Option(help="Page to write; index.html beside the results when not given.", show_default=False),
    ] = None,
) -> None:
    """Write the tables of all modes, with pictures, as one static page; it needs no network and no server."""
    from deepnets_bench.system.locks import write_output
    from deepnets_bench.uses.properties.page import render

    _check_results(out)
    target = page or out.with_name("index.html")
    write_output(target, render(out, labels).encode())
    typer.echo(f"wrote {target}")


def study_of(track: str, labels: Path, data: Path, images: Path | None, names: Sequence[str] = ()) -> Study:
    """The study that options ask for, its labels read and checked; of all properties where none are named.

    Raises `UnknownName` for a property that there is not.
    """
    from deepnets_bench.errors import UnknownName
    from deepnets_bench.harness.protocol.tracks import load_track
    from deepnets_bench.uses.properties.study import Study
    from deepnets_bench.uses.properties.targets import NAMES

    for name in names:
        if name not in NAMES:
            raise UnknownName("property", name, NAMES)
    study = Study(load_track(track), labels, data, images, tuple(names) or NAMES)
    study.targets  # noqa: B018  # what is wrong with the labels is said before anything is trained
    return study


def _opened(trained: TrainedGHN, study: Study, trust: bool) -> tuple[dict[str, str], Callable[[], Vectors]]:
    """What rows say of a hypernetwork, and what makes or reads the embeddings."""
    from functools import partial

    from deepnets_bench.ghn.model import GHN
    from deepnets_bench.uses.embedding_files import read_embeddings
    from deepnets_bench.uses.properties import study as work
    from deepnets_bench.uses.properties.trained import identity_of, identity_of_kept
    from deepnets_bench.uses.sizes import check_image_form

    if trained.path.suffix == ".npz":
        kept = read_embeddings(trained.path)
        return identity_of_kept(trained, kept.about), partial(work.kept, study, kept)
    hypernetwork = GHN.load(trained.path, trust)
    check_image_form(hypernetwork, trained.path, study.track)
    return identity_of(trained, hypernetwork.config), partial(work.embedded, study, hypernetwork)


def _as_published(ghns: list[Path], labels: Path, out: Path, data: Path, trust: bool) -> None:
    """The published setting for each of the files of hypernetworks."""
    from deepnets_bench.errors import BadInput
    from deepnets_bench.ghn.model import GHN
    from deepnets_bench.uses.properties import published
    from deepnets_bench.uses.properties import study as work
    from deepnets_bench.uses.properties.trained import TrainedGHN, identity_of

    if labels == _LABELS:
        raise BadInput(
            "--protocol published reads a released file of results: --labels results_cifar10.json."
        )
    for path in ghns:
        hypernetwork = GHN.load(path, trust)
        study = published.released_study(labels, data, hypernetwork, str(path))
        identity = identity_of(TrainedGHN(path), hypernetwork.config)
        if work.missing(out, study, published.METHOD, range(published.ORDERS), identity):
            published.predict_as_published(study, hypernetwork, work.sink_of(out), identity)
        typer.echo(f"{path}: {identity['gnn']}, done")
    _print(out, published.METHOD, study)


def _check_results(out: Path) -> None:
    from deepnets_bench.errors import BadInput

    if not out.exists():
        raise BadInput(
            f"There are no results at {out}; `deepnets-bench properties direct --gnn gat` makes some."
        )


def _print(out: Path, mode: str, study: Study) -> None:
    from rich.console import Console

    from deepnets_bench.leaderboard.table import print_table
    from deepnets_bench.uses.properties.bounds import bounds_of
    from deepnets_bench.uses.properties.results import read_results
    from deepnets_bench.uses.properties.tables import property_table

    rows = [row for row in read_results(out) if row.labels_digest == study.digest]
    bounds = bounds_of([row for row in rows if row.mode == mode], study.labels)
    print_table(property_table(rows, mode, bounds=bounds), Console())

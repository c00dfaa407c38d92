"""`deepnets-bench leaderboard`: rankings and statistics computed from the result rows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deepnets_bench.commands.options import listed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from deepnets_bench.board import Leaderboard
    from deepnets_bench.leaderboard.table import Table

DEFAULT = "digits"  # the track of a command that is given neither --track nor --results

app = typer.Typer(help="Rankings and statistics of finished runs.", no_args_is_help=True)

TrackOption = Annotated[
    str | None,
    typer.Option("--track", help="Track whose results are read; digits, or the only one in --results."),
]
ResultsOption = Annotated[
    Path | None,
    typer.Option("--results", help="Results file; ./leaderboards/TRACK/results.csv when not given."),
]
VersionOption = Annotated[
    int | None, typer.Option("--version", help="Track version; the newest if not given.")
]
FormatOption = Annotated[str, typer.Option("--format", help="auto, text, markdown, latex or json.")]
SmokeOption = Annotated[bool, typer.Option("--smoke", help="Take the rows that are not comparable.")]


def register(app_: typer.Typer) -> None:
    """Add the group `leaderboard` to the command line."""
    app_.add_typer(app, name="leaderboard")


@app.command()
def show(
    track: TrackOption = None,
    results: ResultsOption = None,
    version: VersionOption = None,
    smoke: SmokeOption = False,
    sort: Annotated[str, typer.Option(help="A metric, or a split's name.")] = "average_rank",
    cost: Annotated[bool, typer.Option(help="Also print parameters, times and memory.")] = True,
    format_: FormatOption = "auto",
) -> None:
    """Print the ranking of a track: mean over seeds ± std on every split, and which GNNs differ."""
    from deepnets_bench.leaderboard.reference import reference_tables

    put = _printer(format_)
    if format_ != "json" and not (results or _default_results(track)).exists():
        put(reference_tables(track or DEFAULT))  # published figures are there before anything is measured
    board = _board(track, results, version, smoke, sort)
    if format_ == "json":
        typer.echo(board.to_json())
    else:
        put(board.tables(cost))


@app.command()
def compare(
    a: Annotated[str, typer.Argument(help="A method of the board, for example gat.")],
    b: Annotated[str, typer.Argument(help="The method it is compared with.")],
    track: TrackOption = None,
    results: ResultsOption = None,
    version: VersionOption = None,
    smoke: SmokeOption = False,
    format_: FormatOption = "auto",
) -> None:
    """Test whether method A differs from method B, paired by seed: on test, out of distribution, by split."""
    put = _printer(format_)
    board = _board(track, results, version, smoke)
    if format_ == "json":
        typer.echo(board.comparison_json(a, b))
    else:
        put([board.comparison_table(a, b)])


@app.command()
def agree(
    a: Annotated[str, typer.Argument(help="A track with results in ./leaderboards, or a results file.")],
    b: Annotated[
        str | None,
        typer.Argument(help="The board to compare with; without it, halves of the seeds of A."),
    ] = None,
    smoke: SmokeOption = False,
    format_: FormatOption = "auto",
) -> None:
    """Print how well the ranks of two boards agree (Kendall's tau), or of the halves of one board's seeds."""
    put = _printer(format_)
    first, second = _named_board(a, smoke), None if b is None else _named_board(b, smoke)
    if format_ != "json":
        put([first.agreement_table(second)])
    else:
        found = first.halves() if second is None else first.agreement(second)
        typer.echo(found.to_json(orient="records", indent=2))


@app.command()
def build(
    track: TrackOption = None,
    results: ResultsOption = None,
    version: VersionOption = None,
    smoke: SmokeOption = False,
    formats: Annotated[
        list[str] | None,
        typer.Option("--format", help="csv, markdown, latex; several with commas or by repeating."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write into; that of the results.")] = None,
) -> None:
    """Write the leaderboard as files beside the results: CSV and Markdown, or the formats given."""
    from deepnets_bench.errors import UnknownName
    from deepnets_bench.leaderboard.build import FILES
    from deepnets_bench.system.locks import write_output

    chosen = listed(formats) or ["csv", "markdown"]
    for name in chosen:
        if name not in FILES:
            raise UnknownName("format", name, FILES)
    board = _board(track, results, version, smoke)
    target = out or board.path.parent
    for name in chosen:
        file_name, render = FILES[name]
        write_output(target / file_name, render(board.board, board.analyses, board.label).encode())
        typer.echo(f"wrote {target / file_name}")


@app.command()
def html(
    track: TrackOption = None,
    results: ResultsOption = None,
    version: VersionOption = None,
    smoke: SmokeOption = False,
    out: Annotated[Path | None, typer.Option(help="Page to write; index.html beside the results.")] = None,
) -> None:
    """Write the leaderboard as one static page with charts; it needs no network and no server."""
    from deepnets_bench.system.locks import write_output

    board = _board(track, results, version, smoke)
    target = out or board.path.parent / "index.html"
    write_output(target, board.to_html().encode())
    typer.echo(f"wrote {target}")


@app.command()
def validate(
    file: Annotated[Path, typer.Argument(help="A results file; its scores/ folder lies beside it.")],
    track: Annotated[str | None, typer.Option(help="Track to check against; that of the first row.")] = None,
    unfinished: Annotated[
        bool, typer.Option("--unfinished", help="Permit missing seeds: a board in the making.")
    ] = False,
) -> None:
    """List every fault of a results file: schema, protocol, completeness, and scores that do not add up."""
    from deepnets_bench.board import find_track
    from deepnets_bench.errors import CorruptFile
    from deepnets_bench.harness.protocol.tracks import load_track
    from deepnets_bench.leaderboard.results import check_rows
    from deepnets_bench.leaderboard.validate import Protocol
    from deepnets_bench.leaderboard.validate import validate as find_faults

    rows, _ = check_rows(file)
    name = rows[0][1].track if rows else None
    protocol = None
    if found := load_track(track) if track else find_track(name) if name else None:
        counts = {split: rule.count for split, rule in found.evaluation.splits.items()}
        values = {
            "track_digest": found.fingerprint(),
            "metric": f"top{found.evaluation.top_k}",
            "steps": found.training.steps,
            "precision": found.training.precision,
            "threads": found.training.threads,
        }
        seeds = () if unfinished else found.seeds
        protocol = Protocol(
            found.name, found.version, seeds, counts, values, found.calibration, found.frame_digest
        )
    faults = find_faults(file, protocol)
    for fault in faults:
        typer.echo(f"{file}, {fault}")
    if faults:
        count = "one fault" if len(faults) == 1 else f"{len(faults)} faults"
        raise CorruptFile(f"{file} is not fit for a leaderboard: {count}, listed above.")
    checked = f"track {protocol.track} v{protocol.version}" if protocol else "no track: protocol not checked"
    typer.echo(f"{file}: {len(rows)} rows, no faults ({checked}).")


@app.command()
def reproduce(
    again: Annotated[Path, typer.Argument(help="Results of your own run, such as mine/results.csv.")],
    by: Annotated[str, typer.Option(help="Your name, as it will stand in the tables.")],
    track: TrackOption = None,
    results: ResultsOption = None,
) -> None:
    """Mark rows of a board as reproduced: compare them with another run of the same work and append that."""
    from rich.console import Console

    from deepnets_bench.leaderboard.marking import reproduce as mark
    from deepnets_bench.leaderboard.report import reproduction_table
    from deepnets_bench.leaderboard.table import print_table

    path = _results_path(track, results)
    print_table(reproduction_table(mark(path, again, by)), Console())
    typer.echo(f"appended to {path}, marked as reproduced by {by}")


@app.command()
def summary(
    tracks: Annotated[list[str], typer.Argument(help="Tracks with results in ./leaderboards.")],
    into: Annotated[
        Path | None, typer.Option(help="A Markdown page between whose markers the tables are written.")
    ] = None,
) -> None:
    """Put tracks beside each other: the same GNNs early in training and late, then each track's ranking."""
    from rich.console import Console

    from deepnets_bench.leaderboard.summary import summary as make_tables
    from deepnets_bench.leaderboard.summary import write_into
    from deepnets_bench.leaderboard.table import print_table

    found = [_board(track, None, None, False) for track in tracks]
    labels = {track: board.label for track, board in zip(tracks, found, strict=True)}
    tables = make_tables([board.board for board in found], [board.analyses for board in found], labels)
    if into:
        write_into(into, tables)
        typer.echo(f"wrote {into}")
        return
    for table in tables:
        print_table(table, Console())


def _printer(format_: str) -> Callable[[Iterable[Table]], None]:
    """What prints tables in a format; raises `UnknownName`."""
    from rich.console import Console

    from deepnets_bench.errors import UnknownName
    from deepnets_bench.leaderboard.table import FORMATS, print_table

    if format_ not in (choices := ("auto", *FORMATS, "json")):
        raise UnknownName("format", format_, choices)
    console = Console()

    def put(tables: Iterable[Table]) -> None:
        for table in tables:
            if format_ == "auto":
                print_table(table, console)
            else:
                typer.echo(FORMATS[format_](table))

    return put


def _board(
    track: str | None, results: Path | None, version: int | None, smoke: bool, sort: str = "average_rank"
) -> Leaderboard:
    from deepnets_bench.board import Leaderboard

    path = _results_path(track, results)
    wanted = track if results else track or DEFAULT
    return Leaderboard(path, wanted, version=version, smoke=smoke, sort=sort)


def _named_board(name: str, smoke: bool) -> Leaderboard:
    """The board of a track, or of a results file or its folder, which holds one track only."""
    from deepnets_bench.board import Leaderboard

    if name.endswith(".csv") or Path(name).is_dir():
        return Leaderboard(name, smoke=smoke)
    return _board(name, None, None, smoke)


def _default_results(track: str | None) -> Path:
    return Path("leaderboards") / (track or DEFAULT) / "results.csv"


def _results_path(track: str | None, results: Path | None) -> Path:
    """`results`, or the track's file under ./leaderboards.

    Raises `UnknownName` where neither is known, `BadInput` for a known track without results.
    """
    from deepnets_bench.errors import BadInput, UnknownName
    from deepnets_bench.harness.protocol.tracks import load_track, track_names

    path = results or _default_results(track)
    track = track or DEFAULT
    if results is None and not path.exists():
        known = {*track_names(), *(found.parent.name for found in Path("leaderboards").glob("*/results.csv"))}
        if track not in known:
            raise UnknownName("track", track, sorted(known))
        images = "" if load_track(track).images.embedded else " --images DIR"
        command = f"deepnets-bench run --gnn gat --track {track}{images}"
        raise BadInput(f"There is no {path}; make one with `{command}`.")
    return path

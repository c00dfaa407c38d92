"""`deepnets-bench grid`: run what a grid file asks for and is not there yet, and analyse a pilot."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deepnets_bench.commands.run import DataOption, DeviceOption, ImagesOption

if TYPE_CHECKING:
    from rich.console import Console

    from deepnets_bench.harness.protocol.grid import Board
    from deepnets_bench.harness.runs.job import Job
    from deepnets_bench.harness.training.splits import Dataset
    from deepnets_bench.leaderboard.aggregate import Board as Ranking
    from deepnets_bench.leaderboard.table import Table

app = typer.Typer(help="Grids: which GNNs run with which seeds on which tracks.", no_args_is_help=True)

GridArgument = Annotated[Path, typer.Argument(help="A grid's .toml file.")]
BoardOption = Annotated[str | None, typer.Option("--board", help="One board of the grid, by its folder.")]


def register(app_: typer.Typer) -> None:
    """Add the group `grid` to the command line."""
    app_.add_typer(app, name="grid")


@app.command()
def show(
    grid: GridArgument,
    board: BoardOption = None,
    data: DataOption = Path("data"),
    images: ImagesOption = None,
) -> None:
    """Print how many jobs of each board are finished, and which one comes next."""
    from rich.console import Console

    from deepnets_bench.harness.runs.scheduler import unfinished

    for each, jobs, dataset in _planned(grid, board, data, images, Console(stderr=True)):
        todo = unfinished(jobs, dataset, each.out)
        following = f", next {todo[0].name}" if todo else ""
        typer.echo(f"{each.name}: {len(jobs) - len(todo)} of {len(jobs)} jobs finished{following}")


@app.command()
def run(
    grid: GridArgument,
    board: BoardOption = None,
    jobs: Annotated[int, typer.Option(min=1, help="Jobs at a time, each on the threads of its track.")] = 2,
    commit: Annotated[
        bool, typer.Option("--commit", help="Commit the rows of each job with git; nothing is pushed.")
    ] = False,
    data: DataOption = Path("data"),
    images: ImagesOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Run the jobs of a grid that are not finished; interrupted anywhere, the same command goes on."""
    from rich.console import Console

    from deepnets_bench.errors import RunFailed
    from deepnets_bench.harness.runs.display import view
    from deepnets_bench.harness.runs.options import RunOptions
    from deepnets_bench.harness.runs.queue import git_commit, require_repository, run_board
    from deepnets_bench.harness.training.scoring import pick_device

    pick_device(device)
    console = Console(stderr=True)
    planned = _planned(grid, board, data, images, console)
    if commit:
        require_repository(grid.parent)
    failed = []
    for each, all_jobs, dataset in planned:

        def committed(message: str, folder: Path = each.out) -> None:
            if refused := git_commit(folder, message):
                console.print(f"git has not committed {folder}: {refused}", markup=False, highlight=False)

        console.print(f"Board {each.name}: {len(all_jobs)} jobs", markup=False, highlight=False)
        options = RunOptions(device, resume=True, workers=jobs)
        with view(console) as shown:
            outcomes = run_board(each, all_jobs, dataset, options, shown, committed if commit else None)
        failed += [outcome for outcome in outcomes if outcome.status != "ok"]
    if failed:
        first = failed[0]
        raise RunFailed(
            f"{len(failed)} jobs failed: {first.job.name}, {first.reason}; its log is {first.log}."
        )


@app.command()
def report(grid: GridArgument) -> None:
    """Print a pilot's analysis as Markdown: cost, choice, each GNN, bias of frames, agreement of ranks."""
    from deepnets_bench.errors import BadInput
    from deepnets_bench.harness.protocol.grid import load_grid
    from deepnets_bench.leaderboard.pilot_tables import bias_table, candidate, gnn_table, pilot_table
    from deepnets_bench.leaderboard.table import to_markdown

    boards = load_grid(grid)
    held = [(board, _ranking(board)) for board in boards]  # several may share a folder, and its name
    for board, ranking in held:
        if ranking is None:
            typer.echo(f"{board.name} has no results yet.", err=True)
    shaped = {board.shaper: ranking for board, ranking in held if board.shaper and ranking}
    ranked = {board.name: ranking for board, ranking in held if not board.shaper and ranking}
    candidates, absent = [], []
    for board, ranking in held:
        if board.shaper or board.reference:
            continue
        complexity = board.track.selection.mean_steps is not None, len(board.track.frames)
        runs = len(board.gnns) * len(board.seeds)
        if ranking and (made := candidate(board.name, ranking, runs=runs, complexity=complexity)):
            candidates.append(made)
            continue
        absent.append(board.name)
        if ranking:
            typer.echo(f"{board.name}: no two GNNs have two seeds in common yet.", err=True)
    if not candidates and not shaped:
        raise BadInput(f"There are no results of {grid} yet; `deepnets-bench grid run {grid}` makes them.")
    tables = [pilot_table(candidates, absent), gnn_table(candidates)] if candidates else []
    if bias := bias_table(shaped) if shaped else None:
        tables.append(bias)
    tables += _agreements(boards, ranked)
    typer.echo("\n".join(to_markdown(table) for table in tables), nl=False)


def _agreements(boards: list[Board], ranked: dict[str, Ranking]) -> list[Table]:
    """The candidates beside the reference of a grid, where there is one with results."""
    from deepnets_bench.leaderboard.aggregate import REFERENCE_SPLIT
    from deepnets_bench.leaderboard.agreement_tables import reference_table
    from deepnets_bench.leaderboard.inference import analyse_board

    names = dict.fromkeys(board.name for board in boards if board.reference and board.name in ranked)
    analyses = {name: analyse_board(ranking)[REFERENCE_SPLIT] for name, ranking in ranked.items()}
    return [reference_table(name, analyses.pop(name), analyses) for name in names]


def _planned(
    grid: Path, only: str | None, data: Path, images: Path | None, console: Console
) -> list[tuple[Board, list[Job], Dataset]]:
    """Every board with its jobs and data: all that can be wrong with one is said before the first runs."""
    from deepnets_bench.harness.protocol.grid import load_grid
    from deepnets_bench.harness.runs.queue import dataset_of, jobs_of
    from deepnets_bench.system.processes import usable_cores

    boards = [(board, jobs_of(board)) for board in load_grid(grid, only)]
    with console.status(f"Preparing the splits in {data}"):
        return [(board, jobs, dataset_of(board, data, images, usable_cores())) for board, jobs in boards]


def _ranking(board: Board) -> Ranking | None:
    """The rows of a board that the grid asks for."""
    from deepnets_bench.leaderboard.aggregate import select_board
    from deepnets_bench.leaderboard.results import canonical_json, read_rows

    path, track = board.out / "results.csv", board.track
    if not path.exists():
        return None
    wanted = {(entry.gnn, canonical_json(entry.options)) for entry in board.gnns}
    rows = [
        row
        for row in read_rows(path)
        if row.seed in board.seeds
        and (row.gnn, row.gnn_options) in wanted
        and row.track_version == track.version
    ]
    return select_board(rows, track.name, track.version, calibration=track.calibration) if rows else None

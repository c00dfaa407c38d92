"""`deepnets-bench grid`: run what a grid file asks for and is not there yet, and analyse a pilot."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
    from deepnets_bench.leaderboard.results import ResultRow
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
    from deepnets_bench.harness.runs.provenance import git_commit, other_code
    from deepnets_bench.harness.runs.queue import folders_of, require_repository, run_board
    from deepnets_bench.harness.training.scoring import pick_device

    pick_device(device)
    console = Console(stderr=True)
    planned = _planned(grid, board, data, images, console)
    if commit:
        require_repository(grid.parent)
    failed = []
    for each, all_jobs, dataset in planned:
        console.print(f"Board {each.name}: {len(all_jobs)} jobs", markup=False, highlight=False)
        if others := other_code([git_commit(), *_commits(_rows(each))]):
            console.print(
                f"{each.name} has rows of other code, {_short(others)}", markup=False, highlight=False
            )
        options = RunOptions(device, workers=jobs)
        record = _recorder(each, folders_of(each, all_jobs, dataset), data, commit, console)
        with view(console) as shown:
            outcomes = run_board(each, all_jobs, dataset, options, shown, record)
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
    from deepnets_bench.harness.runs.provenance import other_code
    from deepnets_bench.leaderboard.admission import group_by
    from deepnets_bench.leaderboard.pilot_tables import (
        FrameBoard,
        bias_table,
        candidate,
        gnn_table,
        pilot_table,
    )
    from deepnets_bench.leaderboard.table import to_markdown

    folders = [_filled(steps) for steps in group_by(load_grid(grid), lambda board: board.name).values()]
    candidates, absent, shaped = [], [], []
    for folder in folders:
        board, ranking = folder.board, folder.ranking
        if ranking is None:
            typer.echo(f"{board.name} has no results yet.", err=True)
        if board.bias and ranking:
            shaped.append(FrameBoard(board.name, ranking, board.shapers))
        if board.bias or board.reference:
            continue
        complexity = board.track.selection.mean_steps is not None, len(board.track.frames)
        if ranking and (made := candidate(board.name, ranking, runs=folder.runs, complexity=complexity)):
            candidates.append(made)
            continue
        absent.append(board.name)
        if ranking:
            typer.echo(f"{board.name}: no two GNNs have two seeds in common yet.", err=True)
    if others := other_code(commit for folder in folders for commit in folder.commits):
        typer.echo(f"Rows are not all of one code: it is another one at {_short(others)}.", err=True)
    if not candidates and not shaped:
        raise BadInput(f"There are no results of {grid} yet; `deepnets-bench grid run {grid}` makes them.")
    tables = [pilot_table(candidates, absent), gnn_table(candidates)] if candidates else []
    if bias := bias_table(shaped) if shaped else None:
        tables.append(bias)
    elif shaped:
        typer.echo("Bias of frames: the boards have no two seeds of all their GNNs in common yet.", err=True)
    tables += _agreements(folders)
    typer.echo("\n".join(to_markdown(table) for table in tables), nl=False)


@dataclass(frozen=True)
class _Folder:
    """A folder of a grid: one of the boards that fill it, how many runs they ask for, and its rows.

    `commits` are those that all rows of the folder name.
    """

    board: Board
    runs: int
    commits: Sequence[str]
    ranking: Ranking | None


def _recorder(
    board: Board, folders: Sequence[Path], data: Path, commit: bool, console: Console
) -> Callable[[str], None]:
    """What is done after each job of a board: embeddings kept in its runs' `folders`, rows committed."""
    from deepnets_bench.harness.runs.queue import commit_folder
    from deepnets_bench.uses.embedding_files import Embedder

    embedder = Embedder(board.track, ("val", "test"), board.embeddings, data, nodes=False)

    def record(message: str) -> None:
        said = embedder.keep(folders) if board.embeddings else []
        if commit and (refused := commit_folder(board.out, message)):
            said.append(f"git has not committed {board.out}: {refused}")
        for sentence in said:
            console.print(sentence, markup=False, highlight=False)

    return record


def _filled(steps: Sequence[Board]) -> _Folder:
    """The folder that boards of one track fill, each a part of its runs."""
    from deepnets_bench.leaderboard.aggregate import select_board
    from deepnets_bench.leaderboard.results import canonical_json

    board, track = steps[0], steps[0].track
    everything = _rows(board)
    wanted = {
        (entry.gnn, canonical_json(entry.options), seed)
        for step in steps
        for entry in step.gnns
        for seed in step.seeds
    }
    held = [
        row
        for row in everything
        if (row.gnn, row.gnn_options, row.seed) in wanted and row.track == track.name
    ]
    rows = [row for row in held if row.comparable and row.track_digest == track.fingerprint()]
    if others := len(held) - len(rows):
        typer.echo(f"{board.name}: {others} rows are not of this protocol, and left out.", err=True)
    calibration = track.calibration
    ranking = select_board(rows, track.name, track.version, calibration=calibration) if rows else None
    return _Folder(board, len(wanted), _commits(everything), ranking)


def _rows(board: Board) -> list[ResultRow]:
    """All rows in a board's folder."""
    from deepnets_bench.leaderboard.results import read_rows

    path = board.out / "results.csv"
    return read_rows(path) if path.exists() else []


def _commits(rows: Sequence[ResultRow]) -> list[str]:
    """The commits that rows name."""
    return list(dict.fromkeys(row.git_commit for row in rows))


def _short(commits: Sequence[str]) -> str:
    """For example "commit 1a2b3c4 and 3 more"."""
    more = f" and {len(commits) - 1} more" if len(commits) > 1 else ""
    return f"commit {commits[0][:7]}{more}"


def _agreements(folders: Sequence[_Folder]) -> list[Table]:
    """The candidates beside the reference of a grid, where there is one with results."""
    from deepnets_bench.leaderboard.aggregate import REFERENCE_SPLIT
    from deepnets_bench.leaderboard.agreement_tables import reference_table
    from deepnets_bench.leaderboard.inference import analyse_board

    reference = next((folder.board.name for folder in folders if folder.board.reference), None)
    analyses = {
        folder.board.name: found[REFERENCE_SPLIT]
        for folder in folders
        if reference and folder.ranking and REFERENCE_SPLIT in (found := analyse_board(folder.ranking))
    }
    if reference not in analyses:
        return []
    return [reference_table(reference, analyses.pop(reference), analyses)]


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

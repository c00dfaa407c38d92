"""`deepnets-bench generate`, `import`, `verify` and `inspect`: the dataset on disk."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deepnets_bench.commands.options import listed
from deepnets_bench.commands.progress import cluster_executor, progress_of

if TYPE_CHECKING:
    from rich.console import Console

    from deepnets_bench.data.manifest import Manifest
    from deepnets_bench.graphs.graph import ComputationGraph

_TABLE_COLUMNS = 110
_FORMS = "a dataset folder, a JSON file of an architecture, SPLIT/INDEX such as test/12, resnet50 or vit"


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command()(generate)
    app.command("import")(import_files)
    app.command()(verify)
    app.command()(inspect)


def generate(
    split: Annotated[
        list[str],
        typer.Option(
            help="all, or one or more of train, val, test, wide, deep, dense, bnfree, search, predefined."
        ),
    ],
    num: Annotated[
        int | None, typer.Option(help="Graphs in each split; as in the paper when not given.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the dataset.")] = Path("data"),
    workers: Annotated[int | None, typer.Option(help="Processes; one a core when not given.")] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(help="Address of a Dask scheduler, such as tcp://host:8786."),
    ] = None,
    dataset_version: Annotated[
        int | None, typer.Option(help="Key of all random streams; another one gives other graphs.")
    ] = None,
) -> None:
    """Make splits of DeepNets-1M on this machine.

    The same command after an interruption goes on from the finished files and ends with the same bytes.
    """
    from rich.console import Console

    from deepnets_bench.errors import BadInput
    from deepnets_bench.generators import DATASET_VERSION, SPLIT_NAMES, generation

    if scheduler is not None and workers is not None:
        raise BadInput("Give --workers or --scheduler, not both.")
    names = list(SPLIT_NAMES) if "all" in listed(split) else listed(split)
    start = time.perf_counter()
    with progress_of("generating") as on_shard, cluster_executor(scheduler) as executor:
        manifests = generation.generate(
            names,
            out,
            num,
            workers=workers,
            executor=executor,
            dataset_version=DATASET_VERSION if dataset_version is None else dataset_version,
            on_shard=on_shard,
        )
    console = Console()
    _print_manifests(console, manifests, num)
    console.print(f"{out}: ready in {time.perf_counter() - start:.1f} s", highlight=False, soft_wrap=True)


def import_files(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILES",
            help="deepnets1m_*_meta.json or deepnets1m_meta.tar.gz; the .hdf5 files too, to compare graphs.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the dataset; existing splits are refused.")] = Path(
        "published"
    ),
) -> None:
    """Turn the officially released files into splits in our format, and count where they differ.

    Graphs are rebuilt from the released architectures.
    """
    from rich.console import Console

    from deepnets_bench.data.published import import_published

    with progress_of("importing") as on_graphs:
        reports = import_published(files, out, on_graphs)
    console = Console()
    for report in reports:
        compared = f", {report.equal:,} of {report.compared:,} stored graphs equal" if report.compared else ""
        lines = [f"{report.split}: {report.count:,} networks{compared}"]
        for kind, graphs in sorted(report.graphs.items()):
            lines.append(f"  {kind}: {report.items[kind]:,} in {graphs:,} graphs")
        console.print("\n".join(lines), highlight=False, soft_wrap=True)
    console.print(
        f"{out}: ready; the splits are marked as released ones (dataset version 0).", soft_wrap=True
    )


def verify(
    folder: Annotated[Path, typer.Argument(help="Folder of the dataset, as given to generate --out.")],
) -> None:
    """Check every byte, every graph and that no architecture is in two splits; exit code 2 where not so."""
    from deepnets_bench.data.shards import open_split
    from deepnets_bench.data.statistics import split_statistics, statistics_tables
    from deepnets_bench.data.verification import verify as verify_folder
    from deepnets_bench.errors import CorruptFile

    console = _wide_console()
    with progress_of("verifying") as on_shard:
        found = verify_folder(folder, on_shard)
    if found.problems:
        for problem in found.problems[1:]:
            print(f"error: {problem}", file=sys.stderr)
        raise CorruptFile(found.problems[0])
    statistics = []
    for report in found.splits:
        manifest = report.manifest
        console.print(
            f"{manifest.split}: {manifest.count:,} graphs in {len(manifest.shards)} files, "
            f"{report.bytes / manifest.count:.0f} bytes a graph, {report.duplicates} duplicates, "
            f"fingerprint {manifest.fingerprint[:16]}",
            highlight=False,
            soft_wrap=True,
        )
        statistics.append(split_statistics(open_split(folder, manifest.split)))
    console.print(*statistics_tables(statistics, console.width))
    console.print(f"{folder} is sound: files and graphs agree, splits share no architecture.", soft_wrap=True)


def inspect(
    what: Annotated[
        str,
        typer.Argument(
            metavar="DIR|ARCH",
            help="A dataset folder; or one architecture: a JSON file, SPLIT/INDEX, resnet50 or vit.",
        ),
    ],
    width: Annotated[int, typer.Option(help="Channels of the first cell, for one architecture.")] = 32,
    image_size: Annotated[int, typer.Option(help="Side of the images, for one architecture.")] = 32,
    draw: Annotated[
        Path | None,
        typer.Option(help="Draw the graph of one architecture: .png, .svg or .pdf."),
    ] = None,
    stats: Annotated[
        Path | None, typer.Option(help="Draw the distributions of the splits of DIR: .png, .svg or .pdf.")
    ] = None,
) -> None:
    """Print a dataset's statistics beside the published ones, or describe one architecture."""
    from deepnets_bench.data import statistics as inspection
    from deepnets_bench.data.manifest import finished_splits, no_finished_split
    from deepnets_bench.data.shards import open_split
    from deepnets_bench.errors import BadInput
    from deepnets_bench.uses.models import find_architecture

    console = _wide_console()
    for target in (draw, stats):
        _check_picture(target)
    if not Path(what).is_dir():
        if stats is not None:
            raise BadInput(f"--stats draws the splits of a dataset folder; {what} is one architecture.")
        arch = find_architecture(what, _FORMS)
        console.print(inspection.architecture_table(arch, width, image_size))
        if draw is not None:
            _draw(arch.graph(width=width, image_size=image_size), draw)
        return
    names = finished_splits(what)
    if not names:
        raise no_finished_split(what)
    if draw is not None:
        raise BadInput("--draw draws one architecture, such as test/12; for a folder there is --stats.")
    readers = [open_split(what, name) for name in names]
    found = [inspection.split_statistics(reader) for reader in readers]
    console.print(*inspection.statistics_tables(found, console.width))
    if stats is not None:
        from deepnets_bench.data import plots
        from deepnets_bench.graphs import drawing

        drawing.save_figure(plots.draw_statistics([plots.distributions(r) for r in readers]), stats)


def _check_picture(target: Path | None) -> None:
    if target is not None:
        from deepnets_bench.graphs import drawing

        drawing.check_target(target)


def _draw(graph: ComputationGraph, target: Path) -> None:
    from deepnets_bench.graphs import drawing

    figure: Any = drawing.draw_graph(graph).figure  # not a part of another figure
    drawing.save_figure(figure, target)


def _wide_console() -> Console:
    """The terminal, or enough columns for a table where output goes elsewhere."""
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=_TABLE_COLUMNS)


def _print_manifests(console: Console, manifests: dict[str, Manifest], num: int | None) -> None:
    for manifest in manifests.values():
        size = sum(shard.bytes for shard in manifest.shards)
        more = f" ({num:,} asked for)" if num and manifest.count > num else ""
        console.print(
            f"{manifest.split}: {manifest.count:,} graphs{more}, {size / manifest.count:.0f} bytes each",
            highlight=False,
            soft_wrap=True,
        )

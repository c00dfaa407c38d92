"""`deepnets-bench gnn`: list the GNNs, check one against the contract, start a new one."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="GNNs: list them, check one, start your own.", no_args_is_help=True)

OptionsOption = Annotated[
    list[str] | None,
    typer.Option("--gnn-option", help="Option of the GNN as name=value; may be repeated."),
]


def register(app_: typer.Typer) -> None:
    """Add the group `gnn` to the command line."""
    app_.add_typer(app, name="gnn")


@app.command("list")
def list_(
    verbose: Annotated[bool, typer.Option("--verbose", help="Also print the paper of each.")] = False,
) -> None:
    """Every GNN that `--gnn` knows by name: its library, the edges it sees, its options."""
    from deepnets_bench.gnn import EDGES, catalogue
    from deepnets_bench.system.terminal import aligned, wrapped

    specs, broken = catalogue()
    rows = [
        (
            spec.name,
            f"{spec.backend} (missing)" if spec.missing else spec.backend,
            spec.edges,
            " ".join(f"{key}={value}" for key, value in spec.options.items()),
        )
        for spec in specs
    ]
    heading, *lines = aligned([("gnn", "library", "edges", "options"), *rows])
    typer.echo(heading)
    for spec, line in zip(specs, lines, strict=True):
        typer.echo(line)
        if verbose and spec.source:
            typer.echo(wrapped(spec.source, indent=4))
    typer.echo()
    for edges in dict.fromkeys(spec.edges for spec in specs):
        typer.echo(wrapped(f"edges {edges}: {EDGES[edges]}", indent=4, first=0))
    controls = (
        "Controls of any GNN: control:same:GNN, control:shuffled:GNN, control:matched:GNN, "
        "control:untrained:GNN (docs/controls.md)"
    )
    typer.echo(wrapped(controls, indent=4, first=0))
    for extra in sorted({str(spec.extra) for spec in specs if spec.missing}):
        typer.echo(f"To install {extra}: pip install 'deepnets-bench[{extra}]'")
    for name, reason in broken.items():
        typer.echo(f"Warning: GNN '{name}' is skipped: {reason}", err=True)


@app.command()
def check(
    name: Annotated[str, typer.Argument(help="A name, ./file.py:Class, or package.module:Class.")],
    option: OptionsOption = None,
    dim: Annotated[int, typer.Option(help="Node width.", min=1, metavar="N")] = 32,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "cpu",
) -> None:
    """Try a GNN on small real graphs: shapes, invariances, gradients, determinism. Seconds."""
    from deepnets_bench.errors import BadInput
    from deepnets_bench.gnn import parse_options, resolve
    from deepnets_bench.gnn.check import check as run_checks
    from deepnets_bench.harness.training.scoring import pick_device

    on = pick_device(device)
    spec = resolve(name)
    typer.echo(f"{spec.name}: library {spec.backend}, edges {spec.edges}")
    results = run_checks(spec, dim, options=parse_options(option or ()), device=on)
    for result in results:
        verdict = "FAIL" if result.problem else "note" if result.remark else "ok"
        sentence = result.problem or result.remark
        typer.echo(f"  {verdict:4}  {result.name}" + (f": {sentence}" if sentence else ""))
    failed = [result for result in results if result.problem]
    if failed:
        count = f"{len(failed)} of {len(results)}"
        raise BadInput(f"GNN '{spec.name}' breaks the contract in {count} checks.") from failed[0].error


@app.command()
def new(
    file: Annotated[Path, typer.Argument(help="File to write, e.g. mine.py; must not exist.")],
) -> None:
    """Write a commented GNN that trains as it is."""
    from importlib.resources import files

    from deepnets_bench.errors import BadInput

    if file.suffix != ".py":
        raise BadInput(f"{file} must end in .py: a GNN is a Python file.")
    text = files("deepnets_bench.gnn").joinpath("template.py").read_text(encoding="utf-8")
    shown = file.as_posix() if file.is_absolute() else f"./{file.as_posix()}"
    text = text.replace("./THIS_FILE.py", shlex.quote(shown))
    try:
        with file.open("x", encoding="utf-8") as out:
            out.write(text)
    except FileExistsError:
        raise BadInput(f"{file} exists already; nothing was written.") from None
    except OSError as error:
        raise BadInput(f"{file} cannot be written: {error.strerror}.") from error
    typer.echo(f"Wrote {file}. Next: deepnets-bench gnn check {shlex.quote(shown)}")

"""`deepnets-bench embed`: node embeddings of trained hypernetworks, as compressed files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deepnets_bench.commands.options import TrustOption, listed
from deepnets_bench.commands.run import DataOption, TrackOption

_SPLITS = ["val,test"]


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(embed)


def embed(
    ghn: Annotated[list[Path], typer.Argument(help="Trained hypernetworks, such as runs/*/ghn.safetensors.")],
    split: Annotated[list[str], typer.Option("--split", help="Such as val,test.")] = _SPLITS,
    count: Annotated[
        int, typer.Option(min=1, metavar="N", help="The first so many architectures of each split.")
    ] = 500,
    out: Annotated[
        Path | None,
        typer.Option(help="File to write, of one hypernetwork; embeddings.npz beside each when not given."),
    ] = None,
    means: Annotated[bool, typer.Option("--means", help="Means over nodes alone.")] = False,
    track: TrackOption = "digits",
    data: DataOption = Path("data"),
    trust: TrustOption = False,
) -> None:
    """Write what hypernetworks make of architectures: the state of each node, and the mean of each graph."""
    from deepnets_bench.errors import BadInput
    from deepnets_bench.harness.protocol.tracks import load_track
    from deepnets_bench.uses.embedding_files import EMBEDDINGS, Embedder

    if out is not None and len(ghn) > 1:
        raise BadInput(f"--out is for one hypernetwork, and {len(ghn)} are given; leave it out.")
    embedder = Embedder(load_track(track), listed(split), count, data, nodes=not means)
    for path in ghn:
        target = out or path.with_name(EMBEDDINGS)
        counts = embedder.write(path, target, trust)
        held = ", ".join(f"{number} of {name}" for name, number in counts.items())
        typer.echo(f"wrote {target}: {held} ({target.stat().st_size / 1e6:.1f} MB)")

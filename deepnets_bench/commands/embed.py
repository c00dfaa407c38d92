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
    from deepnets_bench.ghn.model import GHN
    from deepnets_bench.harness.protocol.tracks import load_track
    from deepnets_bench.uses.embedding_files import EMBEDDINGS, about, evaluation_graphs, write_embeddings

    if out is not None and len(ghn) > 1:
        raise BadInput(f"--out is for one hypernetwork, and {len(ghn)} are given; leave it out.")
    splits, protocol = listed(split), load_track(track)
    graphs = {}
    for path in ghn:
        hypernetwork = GHN.load(path, trust)
        classes = hypernetwork.config.num_classes
        if classes not in graphs:
            graphs[classes] = evaluation_graphs(protocol, splits, count, data, classes)
        target = out or path.with_name(EMBEDDINGS)
        write_embeddings(
            target,
            hypernetwork,
            graphs[classes],
            about(path, hypernetwork, protocol, splits),
            nodes=not means,
        )
        held = ", ".join(f"{len(of)} of {name}" for name, of in graphs[classes].items())
        typer.echo(f"wrote {target}: {held} ({target.stat().st_size / 1e6:.1f} MB)")

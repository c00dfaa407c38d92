"""Trained hypernetworks for the frozen mode, or their kept embeddings: files, and runs with their seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from deepnets_bench.errors import BadInput, UnknownName
from deepnets_bench.harness.protocol.tracks import Track, load_track
from deepnets_bench.harness.runs.job import GHN_FILE, RESULTS
from deepnets_bench.leaderboard.aggregate import CONTROL
from deepnets_bench.leaderboard.results import ResultRow, canonical_json, read_rows, run_folders
from deepnets_bench.system.files import SHORT, short_digest
from deepnets_bench.uses.embedding_files import EMBEDDINGS

if TYPE_CHECKING:
    from deepnets_bench.ghn.config import GHNConfig
    from deepnets_bench.uses.embedding_files import About

_FILES = (GHN_FILE, EMBEDDINGS)  # of a run, the first that is there


@dataclass(frozen=True)
class TrainedGHN:
    """The file of a hypernetwork or, where its run keeps them alone, of its embeddings.

    Its seed, and "digits v3" for its track, where the run's row says them.
    """

    path: Path
    seed: int | None = None
    track: str = ""


def trained_ghns(places: Sequence[Path], track: Track) -> list[TrainedGHN]:
    """The hypernetworks of files and of results folders (results.csv and runs/), in their order.

    A folder stands for its finished runs, controls and smoke runs apart; of repeated ones the newest counts.
    `track` is the one of the labels. Raises `BadInput` for a folder without trained hypernetworks, and for
    runs on images of another size.
    """
    found: list[TrainedGHN] = []
    for place in places:
        found += _of_folder(place, track) if place.is_dir() else [_of_file(place, track)]
    return found


def identity_of(trained: TrainedGHN, config: GHNConfig) -> dict[str, str]:
    """The columns of a row that say whose embeddings it is of."""
    return _identity(trained, config.gnn or config.own_gnn, config, short_digest(trained.path))


def identity_of_kept(trained: TrainedGHN, about: About) -> dict[str, str]:
    """The same columns where embeddings were kept: those that their hypernetwork's file would give."""
    return _identity(trained, about.gnn, about, about.checkpoint[:SHORT])


def _identity(trained: TrainedGHN, gnn: str, of: GHNConfig | About, source: str) -> dict[str, str]:
    return {
        "gnn": gnn,
        "gnn_options": canonical_json(of.gnn_options),
        "gnn_digest": of.gnn_digest,
        "source": source,
        "ghn_track": trained.track,
    }


def _of_folder(folder: Path, track: Track) -> list[TrainedGHN]:
    newest: dict[tuple[str, str, int], ResultRow] = {}
    for row in sorted(_finished(folder / RESULTS), key=lambda row: row.utc_time):
        if not row.gnn.startswith(CONTROL):
            newest[row.gnn, row.gnn_options, row.seed] = row
    found = []
    for _, row in sorted(newest.items()):
        runs = run_folders(folder, row.config_hash)
        files = [path for name in _FILES for run in runs if (path := run / name).exists()]
        found += [_described(path, row, track) for path in files[:1]]
    if not found:
        raise BadInput(
            f"{folder} has no trained hypernetworks; `deepnets-bench run --out {folder}` makes them."
        )
    return found


def _of_file(path: Path, track: Track) -> TrainedGHN:
    run = path.absolute().parent
    results = run.parent.parent / RESULTS
    if path.name in _FILES and run.parent.name == "runs" and results.exists():
        for row in _finished(results):
            if run in run_folders(results.parent, row.config_hash):
                return _described(path, row, track)
    return TrainedGHN(path)


def _finished(results: Path) -> list[ResultRow]:
    rows = read_rows(results)
    return [row for row in rows if row.status == "ok" and row.comparable and not row.reproduced_by]


def _described(path: Path, row: ResultRow, track: Track) -> TrainedGHN:
    """The file with what its run's row says; raises `BadInput` for a track with images of another size."""
    try:
        size = load_track(row.track).images.size
    except UnknownName:  # of the user's own file, which rows do not name
        size = track.images.size
    if size != track.images.size:
        raise BadInput(
            f"{path} was trained on track '{row.track}', for images of {size}×{size}; the labels are of "
            f"{track.images.size}×{track.images.size}."
        )
    return TrainedGHN(path, row.seed, f"{row.track} v{row.track_version}")

"""Grids: a committed TOML file that says which GNNs run with which seeds on which tracks (no torch)."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from deepnets_bench.errors import BadInput, UnknownName
from deepnets_bench.harness.protocol.tables import Table
from deepnets_bench.harness.protocol.tracks import Track, load_track
from deepnets_bench.system.files import reading

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


class GNNEntry(Table):
    """A GNN with options."""

    gnn: str
    options: dict[str, Any] = Field(default_factory=dict)


class GridBoard(Table):
    """One track with a folder for its results; `gnns` and `seeds` are those of the grid unless given."""

    track: str  # a name, or a .toml file; relative to the grid's file
    out: str | None = None  # relative to the grid's file; the name of the track when not given
    gnns: tuple[str | GNNEntry, ...] | None = Field(None, min_length=1)
    seeds: tuple[int, ...] | None = Field(None, min_length=1)
    embeddings: int = Field(0, ge=0)  # graphs of val and of test whose mean embeddings each run keeps


class _Grid(Table):
    gnns: tuple[str | GNNEntry, ...] = ()
    seeds: tuple[int, ...] = ()
    boards: tuple[GridBoard, ...] = Field(min_length=1)
    reference: str | None = None  # the board, by its folder, that ranks of the others are compared with
    bias: bool = False  # boards differ by their frames alone, whose bias they measure: none is a candidate


class Board(Table):
    """A board to be filled: its name (that of its folder), track, results folder, GNNs and seeds.

    `embeddings`: of so many graphs of val and of test each run keeps mean embeddings. `reference`: the board
    is no candidate, but what the ranks of candidates are compared with. `bias`: it is one of those between
    which the bias of frames is measured.
    """

    name: str
    track: Track
    out: Path
    gnns: tuple[GNNEntry, ...]
    seeds: tuple[int, ...]
    embeddings: int = 0
    reference: bool = False
    bias: bool = False

    @property
    def shapers(self) -> frozenset[str]:
        """The GNNs that have shaped the frames from which runs start."""
        return frozenset(gnn for frame in self.track.frames for gnn in frame.gnns)


def load_grid(path: Path, only: str | None = None) -> list[Board]:
    """The boards of a grid in its order, or those named `only`: a folder may be filled in several steps.

    Raises `BadInput` for a file that is no grid, in one sentence, and what `load_track` does.
    """
    with reading(path, "a grid"):
        text = path.read_text(encoding="utf-8")
        try:
            data = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise BadInput(f"Grid {path} is not valid TOML: {error}.") from error
    try:
        grid = _Grid.model_validate_json(json.dumps(data, default=str))
    except ValidationError as invalid:
        errors = invalid.errors(include_url=False)
        # Of an entry that is neither a name nor a table, the last error says what is wrong with the table.
        told = [error for error in errors if error["loc"][:2] == errors[0]["loc"][:2]][-1]
        key, message = ".".join(map(str, told["loc"])), told["msg"]
        raise BadInput(f"Grid {path}, {key}: {message[:1].lower()}{message[1:]}.") from invalid
    boards = [_board(grid, board, path) for board in grid.boards]
    names = dict.fromkeys(board.name for board in boards)
    for name in filter(None, (only, grid.reference)):
        if name not in names:
            raise UnknownName("board", name, names, f"of {path}")
    for name in names:
        if len({board.track.fingerprint() for board in boards if board.name == name}) > 1:
            raise BadInput(f"Grid {path}: board {name} is filled by several tracks; give each a folder.")
    return [board for board in boards if only in (None, board.name)]


def _board(grid: _Grid, board: GridBoard, path: Path) -> Board:
    folder = path.parent
    track = load_track(str(folder / board.track) if board.track.endswith(".toml") else board.track)
    name, gnns, seeds = board.out or track.name, board.gnns or grid.gnns, board.seeds or grid.seeds
    if not gnns or not seeds:
        raise BadInput(
            f"Grid {path}: board {name} has no {'seeds' if gnns else 'gnns'}, and nor has the grid."
        )
    if min(seeds) < 0:
        raise BadInput(f"Grid {path}: a seed of board {name} is {min(seeds)}; seeds are numbers from 0 on.")
    if not (folder / name).resolve().is_relative_to(folder.resolve()):
        raise BadInput(f"Grid {path}: the folder {name} of a board lies outside that of the grid.")
    entries = tuple(GNNEntry(gnn=gnn) if isinstance(gnn, str) else gnn for gnn in gnns)
    for what, items in (("GNN", entries), ("seed", seeds)):
        if twice := [item for i, item in enumerate(items) if item in items[:i]]:
            named = twice[0].gnn if isinstance(twice[0], GNNEntry) else twice[0]
            raise BadInput(f"Grid {path}: board {name} lists {what} {named} twice.")
    return Board(
        name=name,
        track=track,
        out=folder / name,
        gnns=entries,
        seeds=seeds,
        embeddings=board.embeddings,
        reference=name == grid.reference,
        bias=grid.bias,
    )

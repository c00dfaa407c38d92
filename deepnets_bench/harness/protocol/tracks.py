"""Tracks: versioned protocols, each one commented TOML file read into frozen pydantic models (no torch)."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, Field, PrivateAttr, ValidationError, model_validator

from deepnets_bench.data.widths import WidthRule
from deepnets_bench.errors import BadInput, UnknownName
from deepnets_bench.harness.protocol.tables import (
    Count,
    Evaluation,
    EvaluationSplit,
    Frame,
    Hypernetwork,
    Images,
    Networks,
    Optimisation,
    PrecisionName,
    Selection,
    Smoke,
    Table,
    added,
)
from deepnets_bench.leaderboard.admission import Calibration
from deepnets_bench.system.files import reading

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


class Track(Table):
    """A whole protocol. Results of different names or versions are never compared."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    version: int = Count
    label: str  # printed with every table, e.g. "early training"
    description: str
    dataset_version: int = Count
    seeds: tuple[int, ...] = Field(min_length=1)
    timeout_minutes: float = Field(gt=0)
    images: Images
    networks: Networks
    ghn: Hypernetwork
    training: Optimisation
    selection: Selection
    evaluation: Evaluation
    smoke: Smoke
    frames: tuple[Frame, ...] = added(())  # none: every run starts from scratch
    calibration: Calibration | None = None  # without one, a board holds rows of one stack only
    _changed: bool = PrivateAttr(False)  # a copy by `as_smoke` or `in_precision`

    @model_validator(mode="after")
    def _mean_is_of_the_training(self) -> Track:
        if (self.selection.mean_steps or 0) > self.training.steps:
            raise ValueError(
                f"selection.mean_steps ({self.selection.mean_steps}) must not be above training.steps "
                f"({self.training.steps})"
            )
        return self

    def frame_of(self, seed: int) -> Frame | None:
        """The frame that a run of a seed starts from; None where it starts from scratch."""
        return self.frames[seed % len(self.frames)] if self.frames else None

    def frame_digest(self, seed: int) -> str:
        """The first 16 digits of the digest of `frame_of`, as rows carry it; '' from scratch."""
        frame = self.frame_of(seed)
        return frame.digest[:16] if frame else ""

    def identity(self) -> dict[str, Any]:
        """All that decides how a row is made; the calibration decides which rows stand together."""
        return {key: value for key, value in super().identity().items() if key != "calibration"}

    def fingerprint(self) -> str:
        """16 hexadecimal digits over `identity`, so that an edited copy of a track is another track."""
        return _digest(self.identity())

    @property
    def chance(self) -> float | None:
        """The accuracy of guessing, a fraction; None where the number of classes is not known here."""
        classes = self.images.classes
        return None if classes is None else self.evaluation.top_k / classes

    @property
    def comparable(self) -> bool:
        """False for a smoke run, another precision, and a packaged track changed under its name."""
        if self._changed:
            return False
        return self.name not in track_names() or self.fingerprint() == load_track(self.name).fingerprint()

    def _changed_copy(self, **tables: Any) -> Track:
        """A copy with other tables, whose rows are not comparable with those of this track."""
        copy = self.model_copy(update=tables)
        copy._changed = True
        return copy

    def in_precision(self, name: str) -> Track:
        """The same track trained in another precision, which is another protocol unless it is the track's.

        Raises `UnknownName` for a precision that does not exist.
        """
        if name not in get_args(PrecisionName):
            raise UnknownName("precision", name, get_args(PrecisionName))
        if name == self.training.precision:
            return self
        training = self.training.model_copy(update={"precision": name})
        return self._changed_copy(training=training, label=f"{self.label}, {name}")

    def as_smoke(self) -> Track:
        """The same path through the code in seconds; rows made with it are marked as not comparable."""
        small = self.smoke
        splits = {
            name: split.model_copy(update={"count": min(split.count, small.evaluated)})
            for name, split in self.evaluation.splits.items()
        }
        interval = max(1, small.steps // 2)

        def fewer_images(count: int) -> int:
            return count if small.images is None else min(count, small.images)

        return self._changed_copy(
            label="smoke test, not comparable",
            images=self.images.model_copy(update={"batch_size": fewer_images(self.images.batch_size)}),
            networks=self.networks.model_copy(update={"count": min(self.networks.count, small.networks)}),
            training=self.training.model_copy(
                update={
                    "steps": small.steps,
                    "warmup_steps": min(self.training.warmup_steps, small.steps // 4),
                    "log_interval": interval,
                    "epoch_steps": None,
                }
            ),
            selection=self.selection.model_copy(
                update={
                    "interval": interval,
                    "count": min(self.selection.count, small.evaluated),
                    "images": fewer_images(self.selection.images),
                    "mean_steps": self.selection.mean_steps and min(self.selection.mean_steps, interval),
                }
            ),
            evaluation=self.evaluation.model_copy(
                update={"splits": splits, "max_images": fewer_images(self.evaluation.max_images)}
            ),
        )


def track_names() -> list[str]:
    """Names of the tracks that come with the package."""
    folder = files("deepnets_bench") / "tracks"
    return sorted(entry.name[:-5] for entry in folder.iterdir() if entry.name.endswith(".toml"))


def track_text(name: str) -> str:
    """The commented TOML of a track that comes with the package, or of a file given by its path."""
    if name.endswith(".toml"):
        try:
            return Path(name).read_text(encoding="utf-8")
        except OSError as error:
            raise BadInput(f"Track file '{name}' cannot be read: {error.strerror}.") from error
        except UnicodeDecodeError as error:
            raise BadInput(f"Track file '{name}' is not text.") from error
    names = track_names()
    if name not in names:
        raise UnknownName("track", name, names)
    return (files("deepnets_bench") / "tracks" / f"{name}.toml").read_text(encoding="utf-8")


def load_track(name: str) -> Track:
    """Read a track by name or by the path of a .toml file; `BadInput` says what is wrong in one sentence."""
    text = track_text(name)
    with reading(name, "a track"):
        try:
            data = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise BadInput(f"Track '{name}' is not valid TOML: {error}.") from error
        track = parse_track(data, name)
    if not track.frames:
        return track
    folder = Path(name).parent if name.endswith(".toml") else Path(str(files("deepnets_bench") / "tracks"))
    return track.model_copy(update={"frames": tuple(_placed(frame, folder) for frame in track.frames)})


def _placed(frame: Frame, folder: Path) -> Frame:
    """A frame of a track's file in `folder`, with places that are good from any directory."""
    track = frame.track
    if track and track.endswith(".toml"):
        track = str((folder / track).absolute())
    return frame.model_copy(update={"file": str((folder / frame.file).absolute()), "track": track})


def parse_track(data: Mapping[str, Any], source: str = "track") -> Track:
    """Validate plain data; unknown keys, wrong types and values out of range raise `BadInput`."""
    try:
        # JSON mode, because it is strict about types and yet takes lists for tuples.
        return Track.model_validate_json(json.dumps(data, default=str))
    except ValidationError as invalid:
        first = invalid.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            raise UnknownName("key", key, _keys_beside(first["loc"]), f"in track '{source}'") from invalid
        message = first["msg"].removeprefix("Value error, ")
        where = f", {key}" if key else ""
        raise BadInput(f"Track '{source}'{where}: {message[:1].lower()}{message[1:]}.") from invalid


def _keys_beside(location: tuple[int | str, ...]) -> list[str]:
    """Full names of the keys that the table holding `location` does have."""
    tables: dict[str, type[BaseModel]] = {
        "images": Images,
        "networks": Networks,
        "width_rules": WidthRule,
        "ghn": Hypernetwork,
        "training": Optimisation,
        "selection": Selection,
        "evaluation": Evaluation,
        "splits": EvaluationSplit,
        "smoke": Smoke,
        "frames": Frame,
        "calibration": Calibration,
    }
    parents = [str(part) for part in location[:-1]]
    table = next((tables[part] for part in reversed(parents) if part in tables), Track)
    prefix = "".join(f"{part}." for part in parents)
    return [prefix + name for name in table.model_fields]


def _digest(data: Any) -> str:
    text = json.dumps(data, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]

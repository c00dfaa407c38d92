"""Tracks: versioned protocols, each one commented TOML file read into frozen pydantic models (no torch)."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from deepnets_bench.data.widths import WidthRule
from deepnets_bench.errors import BadInput, UnknownName
from deepnets_bench.leaderboard.admission import Calibration
from deepnets_bench.system.files import reading

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_Count = Field(ge=1)

PrecisionName = Literal["32", "bf16", "fp16"]


def _added(default: Any, **limits: Any) -> Any:
    """A field that came after tracks with results: at its default it is no part of a track's fingerprint."""
    return Field(default, json_schema_extra={"added": True}, **limits)


class _Table(BaseModel):
    """One table of a track file: no unknown keys, no silent conversion of types, immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    def identity(self) -> dict[str, Any]:
        """All fields as plain data, without those that were added later and hold their default."""
        data = self.model_dump(mode="json")
        for name, field in type(self).model_fields.items():
            value, extra = getattr(self, name), field.json_schema_extra
            if isinstance(value, _Table):
                data[name] = value.identity()
            elif isinstance(value, tuple) and value and isinstance(value[0], _Table):
                data[name] = [table.identity() for table in value]
            elif isinstance(extra, dict) and extra.get("added") and value == field.default:
                del data[name]
        return data


class Images(_Table):
    """The images that networks classify, and how a training batch of them is drawn."""

    dataset: Literal["digits", "cifar10", "imagenet", "imagefolder"]
    size: int = Field(ge=16, multiple_of=8)
    batch_size: int = Field(ge=2)
    shift: int = Field(0, ge=0)  # training images move by up to this many pixels each way
    flip: bool = _added(False)  # half of the training images are mirrored
    # Training images are random parts of the files, of this share of their area (lowest, highest), resized.
    crop_area: tuple[float, float] | None = _added(None)
    # Largest relative change of brightness, contrast and saturation, and of the hue in turns.
    colour_jitter: tuple[float, float, float, float] | None = _added(None)

    @model_validator(mode="after")
    def _fits_the_image_set(self) -> Images:
        if self.size > 64 and self.size % 32:
            raise ValueError(f"images.size must be a multiple of 32 above 64, not {self.size}")
        if self.dataset == "cifar10" and self.size != 32:
            raise ValueError(f"images of CIFAR-10 have the size 32, not {self.size}")
        if self.from_folders and self.shift:
            raise ValueError("images.shift is for digits and cifar10; images from folders take crop_area")
        if not self.from_folders and (self.crop_area or self.colour_jitter):
            raise ValueError("images.crop_area and colour_jitter are for imagenet and imagefolder")
        low, high = self.crop_area or (1.0, 1.0)
        if not 0 < low <= high <= 1:
            raise ValueError(f"images.crop_area must be two shares from 0 to 1 in order, not {[low, high]}")
        jitter = self.colour_jitter or (0.0,)
        if min(jitter) < 0 or max(jitter) > 1 or jitter[-1] > 0.5:
            raise ValueError("images.colour_jitter must be from 0 to 1, its last number to 0.5")
        return self

    @property
    def from_folders(self) -> bool:
        """Are the images files in a folder a class?"""
        return self.dataset in ("imagenet", "imagefolder")


class Networks(_Table):
    """The training architectures and how large each one is built."""

    count: int = _Count  # the first `count` architectures of the split `train`
    max_nodes: int | None = Field(None, ge=8)  # leave out architectures with larger graphs
    max_params: int | None = Field(None, ge=1)  # ... or with more parameters at the reference width
    reference_width: int = _Count
    meta_batch_size: int = _Count
    max_meta_batch_nodes: int | None = Field(None, ge=8)  # a larger meta-batch is left out
    width_rules: tuple[WidthRule, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _last_rule_matches_everything(self) -> Networks:
        if not self.width_rules[-1].unconditional:
            raise ValueError("the last of networks.width_rules must have no condition")
        return self


class Hypernetwork(_Table):
    """The fixed parts of the graph hypernetwork around the GNN."""

    config: str  # a named configuration of deepnets_bench.ghn
    hid: int = Field(ge=4)
    max_shape: tuple[int, int, int, int]  # largest tensor the decoder makes; larger ones are tiled
    virtual_edges: int = Field(ge=1)  # graphs carry node pairs up to this directed distance
    max_gnn_params: int | None = _added(None, ge=1)  # a GNN with more parameters is refused


class Optimisation(_Table):
    """How the hypernetwork is trained."""

    steps: int = _Count
    optimiser: Literal["adam", "adamw"]
    lr: float = Field(gt=0)
    weight_decay: float = Field(0.0, ge=0)
    schedule: Literal["constant", "cosine", "milestones"]
    warmup_steps: int = Field(0, ge=0)  # linear from lr / warmup_steps
    milestones: tuple[float, ...] = ()  # fractions of `steps` after which lr is multiplied by `gamma`
    gamma: float = Field(0.1, gt=0, le=1)
    clip_grad_norm: float = Field(gt=0)
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    max_failures: int = Field(ge=0)  # networks that fail (not finite, out of memory) before the run fails
    threads: int = _Count  # of PyTorch on the CPU; part of the protocol because times are reported
    log_interval: int = _Count
    checkpoint_interval: int = _Count
    fast_gradients: bool = _added(False)  # on the CPU: sums in a faster order, equal up to rounding
    precision: PrecisionName = _added(
        "32"
    )  # bf16 and fp16: mixed, see `deepnets_bench.harness.training.distributed`
    # Of the sum of the Frobenius norms of a network's predicted parameters, added to its loss (GHN-3).
    predicted_norm_penalty: float = _added(0.0, ge=0)
    # Largest norm of the gradient of one network's parameters, so that no network outweighs the others of
    # its meta-batch: those without normalisation layers have gradients hundreds of times the usual.
    clip_network_grad_norm: float | None = _added(None, gt=0)
    # Steps of an epoch, within which the learning rate stays the same (GHN-3); for the cosine schedule.
    epoch_steps: int | None = _added(None, ge=1)

    @model_validator(mode="after")
    def _epochs_are_whole(self) -> Optimisation:
        if self.epoch_steps is None:
            return self
        if self.schedule != "cosine":
            raise ValueError("training.epoch_steps is for the cosine schedule")
        if self.steps % self.epoch_steps or self.warmup_steps % self.epoch_steps:
            raise ValueError("training.steps and warmup_steps must be multiples of epoch_steps")
        if self.warmup_steps == self.epoch_steps:
            raise ValueError("training.warmup_steps must be 0 or at least two epochs")
        return self

    @model_validator(mode="after")
    def _warm_up_ends(self) -> Optimisation:
        if self.warmup_steps >= self.steps:
            raise ValueError(
                f"training.warmup_steps ({self.warmup_steps}) must be below steps ({self.steps})"
            )
        return self


class Selection(_Table):
    """Which weights are evaluated; only validation networks on validation images may decide it.

    Rule "mean" takes the mean of the weights after each of the last `mean_steps` steps (Izmailov et al. 2018,
    "Averaging Weights Leads to Wider Optima and Better Generalization", equation 2).
    """

    rule: Literal["last", "best-val", "mean"]
    interval: int = _Count  # steps between the validations of the learning curve
    count: int = _Count  # validation networks in each
    images: int = Field(ge=2)  # validation images in each
    mean_steps: int | None = _added(None, ge=1)

    @model_validator(mode="after")
    def _mean_has_steps(self) -> Selection:
        if (self.rule == "mean") != (self.mean_steps is not None):
            raise ValueError("selection.mean_steps and the rule 'mean' need each other")
        return self


class EvaluationSplit(_Table):
    """The first `count` architectures of a split, built at `width_factor` times the track's width."""

    count: int = _Count
    images: Literal["val", "test"]
    width_factor: int = Field(1, ge=1)


class Evaluation(_Table):
    """How predicted networks are scored: batch statistics in norm layers, batches of `batch_size`."""

    batch_size: int = Field(ge=2)
    max_images: int = Field(ge=2)  # the first so many images of the part
    width: Annotated[int, _Count] | Literal["stored"]  # one for all, or each network's in the files
    fc_dim: int = _Count
    top_k: int = _added(1, ge=1)  # right is a label among the `top_k` classes that were rated highest
    noise: float | None = _added(None, gt=0)  # `eval --noise track`: standard deviation on pixels in [0, 1]
    splits: dict[str, EvaluationSplit] = Field(min_length=1)

    @model_validator(mode="after")
    def _stored_widths_are_final(self) -> Evaluation:
        scaled = [name for name, split in self.splits.items() if split.width_factor > 1]
        if self.width == "stored" and scaled:
            raise ValueError(f"split '{scaled[0]}' has a width_factor, but evaluation.width is 'stored'")
        return self


class Smoke(_Table):
    """What a smoke run reduces the protocol to."""

    steps: int = _Count
    networks: int = _Count
    evaluated: int = _Count
    images: int | None = _added(None, ge=2)  # in a training batch, and in an evaluation


class Frame(_Table):
    """A file with the weights of all but the GNN, from which runs start, and the recipe it is remade by.

    It is trained by the protocol of its track, from scratch for `steps` steps with the random streams of
    `seed`. The `gnns` take turns around it: step s trains number s mod their count, and the frame.
    """

    file: str  # safetensors; in a track's file, relative to that
    digest: str = Field(pattern=r"^([0-9a-f]{64})?$")  # SHA-256 of the file; empty until it is made
    gnns: tuple[str, ...] = Field(min_length=1)
    steps: int = _Count
    seed: int = Field(ge=0)
    track: str | None = None  # whose protocol it is trained by, where that is another one; written as `file`

    def identity(self) -> dict[str, Any]:
        """Without places: they decide nothing."""
        return {key: value for key, value in super().identity().items() if key not in ("file", "track")}


class Track(_Table):
    """A whole protocol. Results of different names or versions are never compared."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    version: int = _Count
    label: str  # printed with every table, e.g. "early training"
    description: str
    dataset_version: int = _Count
    seeds: tuple[int, ...] = Field(min_length=1)
    timeout_minutes: float = Field(gt=0)
    images: Images
    networks: Networks
    ghn: Hypernetwork
    training: Optimisation
    selection: Selection
    evaluation: Evaluation
    smoke: Smoke
    frames: tuple[Frame, ...] = _added(())  # none: every run starts from scratch
    calibration: Calibration | None = None  # without one, a board holds rows of one stack only

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
    def comparable(self) -> bool:
        """False for a smoke run, and for any other change of a packaged track that keeps its name."""
        return self.name not in track_names() or self.fingerprint() == load_track(self.name).fingerprint()

    def in_precision(self, name: str) -> Track:
        """The same track trained in another precision, which is another protocol unless it is the track's.

        Raises `UnknownName` for a precision that does not exist.
        """
        if name not in get_args(PrecisionName):
            raise UnknownName("precision", name, get_args(PrecisionName))
        if name == self.training.precision:
            return self
        training = self.training.model_copy(update={"precision": name})
        return self.model_copy(update={"training": training, "label": f"{self.label}, {name}"})

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

        return self.model_copy(
            update={
                "label": "smoke test, not comparable",
                "images": self.images.model_copy(update={"batch_size": fewer_images(self.images.batch_size)}),
                "networks": self.networks.model_copy(
                    update={"count": min(self.networks.count, small.networks)}
                ),
                "training": self.training.model_copy(
                    update={
                        "steps": small.steps,
                        "warmup_steps": min(self.training.warmup_steps, small.steps // 4),
                        "log_interval": interval,
                        "epoch_steps": None,
                    }
                ),
                "selection": self.selection.model_copy(
                    update={
                        "interval": interval,
                        "count": min(self.selection.count, small.evaluated),
                        "images": fewer_images(self.selection.images),
                        "mean_steps": self.selection.mean_steps and min(self.selection.mean_steps, interval),
                    }
                ),
                "evaluation": self.evaluation.model_copy(
                    update={"splits": splits, "max_images": fewer_images(self.evaluation.max_images)}
                ),
            }
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
        except (OSError, UnicodeDecodeError) as error:
            raise BadInput(f"Track file '{name}' cannot be read: {error}.") from error
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

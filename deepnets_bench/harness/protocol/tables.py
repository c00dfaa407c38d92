"""The tables of a track's file: frozen models without unknown keys or silent conversions (no torch)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from deepnets_bench.data.widths import WidthRule

Count = Field(ge=1)

PrecisionName = Literal["32", "bf16", "fp16"]


def added(default: Any, **limits: Any) -> Any:
    """A field that came after tracks with results: at its default it is no part of a track's fingerprint."""
    return Field(default, json_schema_extra={"added": True}, **limits)


class Table(BaseModel):
    """One table of a track file: no unknown keys, no silent conversion of types, immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    def identity(self) -> dict[str, Any]:
        """All fields as plain data, without those that were added later and hold their default."""
        data = self.model_dump(mode="json")
        for name, field in type(self).model_fields.items():
            value, extra = getattr(self, name), field.json_schema_extra
            if isinstance(value, Table):
                data[name] = value.identity()
            elif isinstance(value, tuple) and value and isinstance(value[0], Table):
                data[name] = [table.identity() for table in value]
            elif isinstance(extra, dict) and extra.get("added") and value == field.default:
                del data[name]
        return data


class Images(Table):
    """The images that networks classify, and how a training batch of them is drawn."""

    dataset: Literal["digits", "mnist", "cifar10", "imagenet", "imagefolder"]
    size: int = Field(ge=16, multiple_of=8)
    batch_size: int = Field(ge=2)
    shift: int = Field(0, ge=0)  # training images move by up to this many pixels each way
    flip: bool = added(False)  # half of the training images are mirrored
    # Training images are random parts of the files, of this share of their area (lowest, highest), resized.
    crop_area: tuple[float, float] | None = added(None)
    # Largest relative change of brightness, contrast and saturation, and of the hue in turns.
    colour_jitter: tuple[float, float, float, float] | None = added(None)

    @model_validator(mode="after")
    def _fits_the_image_set(self) -> Images:
        if self.size > 64 and self.size % 32:
            raise ValueError(f"images.size must be a multiple of 32 above 64, not {self.size}")
        if self.dataset == "cifar10" and self.size != 32:
            raise ValueError(f"images of CIFAR-10 have the size 32, not {self.size}")
        if self.from_folders and self.shift:
            raise ValueError("images.shift is not for images from folders, which take crop_area")
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
    def classes(self) -> int | None:
        """How many classes there are; None where the images of a folder tell."""
        return {"digits": 10, "mnist": 10, "cifar10": 10, "imagenet": 1000}.get(self.dataset)

    @property
    def embedded(self) -> bool:
        """Do the images come with a Python package, so that they need no folder?"""
        return self.dataset in ("digits", "mnist")

    @property
    def from_folders(self) -> bool:
        """Are the images files in a folder a class?"""
        return self.dataset in ("imagenet", "imagefolder")


class Networks(Table):
    """The training architectures and how large each one is built."""

    count: int = Count  # the first `count` architectures of the split `train`
    max_nodes: int | None = Field(None, ge=8)  # leave out architectures with larger graphs
    max_params: int | None = Field(None, ge=1)  # ... or with more parameters at the reference width
    reference_width: int = Count
    meta_batch_size: int = Count
    max_meta_batch_nodes: int | None = Field(None, ge=8)  # a larger meta-batch is left out
    width_rules: tuple[WidthRule, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _last_rule_matches_everything(self) -> Networks:
        if not self.width_rules[-1].unconditional:
            raise ValueError("the last of networks.width_rules must have no condition")
        return self


class Hypernetwork(Table):
    """The fixed parts of the graph hypernetwork around the GNN."""

    config: str  # a named configuration of deepnets_bench.ghn
    hid: int = Field(ge=4)
    max_shape: tuple[int, int, int, int]  # largest tensor the decoder makes; larger ones are tiled
    virtual_edges: int = Field(ge=1)  # graphs carry node pairs up to this directed distance
    max_gnn_params: int | None = added(None, ge=1)  # a GNN with more parameters is refused


class Optimisation(Table):
    """How the hypernetwork is trained."""

    steps: int = Count
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
    threads: int = Count  # of PyTorch on the CPU; part of the protocol because times are reported
    log_interval: int = Count
    checkpoint_interval: int = Count
    fast_gradients: bool = added(False)  # on the CPU: sums in a faster order, equal up to rounding
    precision: PrecisionName = added(
        "32"
    )  # bf16 and fp16: mixed, see `deepnets_bench.harness.training.distributed`
    # Of the sum of the Frobenius norms of a network's predicted parameters, added to its loss (GHN-3).
    predicted_norm_penalty: float = added(0.0, ge=0)
    # Largest norm of the gradient of one network's parameters, so that no network outweighs the others of
    # its meta-batch: those without normalisation layers have gradients hundreds of times the usual.
    clip_network_grad_norm: float | None = added(None, gt=0)
    # Steps of an epoch, within which the learning rate stays the same (GHN-3); for the cosine schedule.
    epoch_steps: int | None = added(None, ge=1)

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


class Selection(Table):
    """Which weights are evaluated; only validation networks on validation images may decide it.

    Rule "mean" takes the mean of the weights after each of the last `mean_steps` steps (Izmailov et al. 2018,
    "Averaging Weights Leads to Wider Optima and Better Generalization").
    """

    rule: Literal["last", "best-val", "mean"]
    interval: int = Count  # steps between the validations of the learning curve
    count: int = Count  # validation networks in each
    images: int = Field(ge=2)  # validation images in each
    mean_steps: int | None = added(None, ge=1)

    @model_validator(mode="after")
    def _mean_has_steps(self) -> Selection:
        if (self.rule == "mean") != (self.mean_steps is not None):
            raise ValueError("selection.mean_steps and the rule 'mean' need each other")
        return self


class EvaluationSplit(Table):
    """The first `count` architectures of a split, built at `width_factor` times the track's width."""

    count: int = Count
    images: Literal["val", "test"]
    width_factor: int = Field(1, ge=1)


class Evaluation(Table):
    """How predicted networks are scored: batch statistics in norm layers, batches of `batch_size`."""

    batch_size: int = Field(ge=2)
    max_images: int = Field(ge=2)  # the first so many images of the part
    width: Annotated[int, Count] | Literal["stored"]  # one for all, or each network's in the files
    fc_dim: int = Count
    top_k: int = added(1, ge=1)  # right is a label among the `top_k` classes that were rated highest
    noise: float | None = added(None, gt=0)  # `eval --noise track`: standard deviation on pixels in [0, 1]
    splits: dict[str, EvaluationSplit] = Field(min_length=1)

    @model_validator(mode="after")
    def _stored_widths_are_final(self) -> Evaluation:
        scaled = [name for name, split in self.splits.items() if split.width_factor > 1]
        if self.width == "stored" and scaled:
            raise ValueError(f"split '{scaled[0]}' has a width_factor, but evaluation.width is 'stored'")
        return self


class Smoke(Table):
    """What a smoke run reduces the protocol to."""

    steps: int = Count
    networks: int = Count
    evaluated: int = Count
    images: int | None = added(None, ge=2)  # in a training batch, and in an evaluation


class Frame(Table):
    """A file with the weights of all but the GNN, from which runs start, and the recipe it is remade by.

    It is trained by the protocol of its track, from scratch for `steps` steps with the random streams of
    `seed`. The `gnns` take turns around it: step s trains number s mod their count, and the frame.
    """

    file: str  # safetensors; in a track's file, relative to that
    digest: str = Field(pattern=r"^([0-9a-f]{64})?$")  # SHA-256 of the file; empty until it is made
    gnns: tuple[str, ...] = Field(min_length=1)
    steps: int = Count
    seed: int = Field(ge=0)
    track: str | None = None  # whose protocol it is trained by, where that is another one; written as `file`

    def identity(self) -> dict[str, Any]:
        """Without places: they decide nothing."""
        return {key: value for key, value in super().identity().items() if key not in ("file", "track")}

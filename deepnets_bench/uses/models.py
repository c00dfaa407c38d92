"""Models by name: torchvision's, a function's of a file or package, and architectures of the data set."""

from __future__ import annotations

import copy
import inspect
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepnets_bench.architecture import Architecture
from deepnets_bench.errors import BadInput, MissingExtra, UnknownName, one_line
from deepnets_bench.generators import PREDEFINED, SPLITS, sample
from deepnets_bench.predefined import predefined
from deepnets_bench.system.files import reading, short_digest

if TYPE_CHECKING:
    import torch
    from torch import nn

    from deepnets_bench.harness.protocol.tracks import Track
    from deepnets_bench.predefined import ResNet50

TORCHVISION = "torchvision:"
CHOICES = (
    "torchvision:NAME, a file ./file.py:function, package.module:function, or an architecture: a JSON file, "
    "SPLIT/INDEX, resnet50 or vit"
)
FORMS = f"MODEL is {CHOICES}"
_PREDEFINED = dict(zip(("resnet50", "vit"), predefined(), strict=True))  # and their widths


def build_model(
    model: str,
    num_classes: int,
    image_size: int,
    width: int,
    options: Mapping[str, Any],
    device: torch.device,
    fc_dim: int | None = None,
    *,
    to_train: bool = False,
) -> nn.Module:
    """The module that MODEL names, on the device meta where it need not compute with its parameters.

    One that is `to_train` is the caller's alone: what a function returns is copied, and an object of a file
    is refused, whose weights would be those of no seed.
    """
    if model.startswith(TORCHVISION):
        return _torchvision_model(model.removeprefix(TORCHVISION), num_classes, options, device)
    path, _, function = model.rpartition(":")
    if model.endswith(".py"):
        raise BadInput(f"Which function of {model}? Write {model}:function.")
    if path and not Path(model).is_file():
        return _call(path, function, options, to_train)
    if options:
        raise BadInput(f"{model} is an architecture, which takes no --model-option.")
    architecture = find_architecture(model)
    with device:
        return architecture.build(width, image_size, num_classes, fc_dim)


def build_for(model: str, track: Track, num_classes: int, width: int | None = None) -> nn.Module:
    """The module that MODEL names for a track's images, on the CPU; at `width_for` it if not given."""
    import torch

    size, hidden, cpu = track.images.size, track.evaluation.fc_dim, torch.device("cpu")
    width = width or width_for(model, track)
    return build_model(model, num_classes, size, width, {}, cpu, hidden, to_train=True)


def check_trainable(module: nn.Module, model: str, image_size: int, num_classes: int) -> None:
    """Raise `BadInput` for a module without parameters, or without logits [batch, classes] in either mode.

    Two blank images are tried, which may change the module's buffers; MODEL is what messages call it.
    """
    import torch

    from deepnets_bench.uses.training import logits_of

    if not any(parameter.requires_grad for parameter in module.parameters()):
        raise BadInput(f"{model} has no parameters to train.")
    for training in (True, False):
        module.train(training)
        try:
            with torch.no_grad():
                logits = logits_of(module, torch.zeros(2, 3, image_size, image_size))
        except BadInput:
            raise
        except Exception as error:
            size = f"{image_size}×{image_size}"
            raise BadInput(f"{model} cannot take images of {size} pixels: {one_line(error)}.") from error
        if logits.shape[1] != num_classes:
            raise BadInput(
                f"{model} tells {logits.shape[1]} classes apart, and the images have {num_classes}."
            )


def width_for(model: str, track: Track) -> int:
    """The width at which a track evaluates MODEL, and labels are made.

    What is in no split has the track's width, or 32 where each architecture has its own.
    """
    from deepnets_bench.generators.columns import sampled_columns
    from deepnets_bench.uses.sizes import evaluated_sizes

    split, _, index = model.partition("/")
    widths = (32, 32)
    if model in _PREDEFINED:
        split, widths = PREDEFINED, (_PREDEFINED[model][1],) * 2
    elif _is_sampled(model):
        number = int(index)
        sample(split, number)  # refuses a number that is too large
        columns = sampled_columns(SPLITS[split], number, number + 1, track.dataset_version)
        widths = tuple(columns["width"][0].tolist())
    else:
        split = ""
    width: int = evaluated_sizes(track, split, widths, 0)["width"]
    return width


def source_digest(model: str) -> str:
    """12 hexadecimal digits of the file that MODEL names, '' where it names none."""
    path = next((path for path in (model, model.rpartition(":")[0]) if path and Path(path).is_file()), None)
    return short_digest(Path(path)) if path else ""


def _torchvision_model(
    name: str, num_classes: int, options: Mapping[str, Any], device: torch.device
) -> nn.Module:
    try:
        from torchvision import models
    except ImportError as error:
        raise MissingExtra(TORCHVISION + name, "vision") from error
    dense = models.list_models(models.segmentation)
    names = [*models.list_models(models), *dense]
    if name not in names:
        raise UnknownName("torchvision model", name, names)
    arguments = {"weights": None, "num_classes": num_classes, **options}
    if name in dense:
        arguments.setdefault("weights_backbone", None)
    try:
        try:
            with device:
                return models.get_model(name, **arguments)
        except (NotImplementedError, RuntimeError):  # RegNet computes its widths with tensors
            return models.get_model(name, **arguments)
    except Exception as error:
        raise BadInput(f"{TORCHVISION}{name} cannot be built: {one_line(error)}.") from error


def _call(path: str, name: str, options: Mapping[str, Any], to_train: bool) -> nn.Module:
    """The module that the function (or class) `name` of a file or package returns, or that it is."""
    import torch
    from torch import nn

    from deepnets_bench.gnn import import_file, import_module

    if path.endswith(".py"):
        source = import_file(Path(path), FORMS)
    elif "/" in path or os.sep in path:
        raise BadInput(f"'{path}' is no Python file; {FORMS}.")
    else:
        source = import_module(path, path, FORMS)
    function: Any = getattr(source, name, None)
    if not callable(function):
        choices = [key for key, value in vars(source).items() if callable(value) and not key.startswith("_")]
        raise UnknownName("function", name, choices, f"in {path}")
    if isinstance(function, nn.Module):
        if to_train:
            raise BadInput(
                f"{path}:{name} is a module, with the same weights for every seed; name a function or class "
                "that makes one."
            )
        return function
    _check_options(function, options, f"of {path}:{name}")
    given = ", ".join(f"{key}={value!r}" for key, value in options.items())
    try:
        with torch.set_grad_enabled(not to_train):  # a copy cannot have tensors that were computed of others
            module = function(**options)
    except Exception as error:
        raise BadInput(f"{path}:{name}({given}) failed: {one_line(error)}.") from error
    if not isinstance(module, nn.Module):
        raise BadInput(f"{path}:{name}({given}) returned {type(module).__name__}, not a torch.nn.Module.")
    return _copy(module, f"{path}:{name}") if to_train else module


def _copy(module: nn.Module, model: str) -> nn.Module:
    """A module that shares nothing with another, which a function may return again or have parts of."""
    try:
        return copy.deepcopy(module)
    except Exception as error:
        raise BadInput(f"What {model} returns cannot be copied: {one_line(error)}.") from error


def _check_options(function: Any, options: Mapping[str, Any], where: str) -> None:
    """Raise `UnknownName` for an option that a function does not take, as far as its signature tells."""
    try:
        parameters = inspect.signature(function).parameters
    except ValueError:  # of some functions that are not written in Python
        return
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        for key in options:
            if key not in parameters:
                raise UnknownName("option", key, parameters, where)


def find_architecture(text: str, forms: str = CHOICES) -> Architecture | ResNet50:
    """The architecture that a JSON file, SPLIT/INDEX or a name stands for; raises `BadInput` with `forms`."""
    if text in _PREDEFINED:
        return _PREDEFINED[text][0]
    if Path(text).is_file():
        with reading(text, "a JSON file"):
            return Architecture.from_dict(json.loads(Path(text).read_bytes()))
    if _is_sampled(text):
        split, _, index = text.partition("/")
        return sample(split, int(index))
    raise BadInput(f"'{text}' is none of these: {forms}.")


def _is_sampled(text: str) -> bool:
    """Is it SPLIT/INDEX, and no file?"""
    split, _, index = text.partition("/")
    return split in SPLITS and index.isdecimal() and not Path(text).is_file()

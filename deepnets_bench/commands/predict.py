"""`deepnets-bench predict`: the parameters of a network, from a trained hypernetwork."""

from __future__ import annotations

import importlib
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from torch import Tensor, nn

TORCHVISION = "torchvision:"
_REASON_EXAMPLES = 3


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(predict)


def predict(
    model: Annotated[
        str,
        typer.Argument(
            help="torchvision:NAME; package.module:function that returns a torch.nn.Module; or an "
            "architecture: a JSON file, SPLIT/INDEX, resnet50 or vit."
        ),
    ],
    ghn: Annotated[Path, typer.Option(help="Checkpoint of a hypernetwork, ours or a published one.")],
    out: Annotated[Path, typer.Option(help="File to write: name.safetensors.")],
    image_size: Annotated[
        int | None, typer.Option(min=1, help="Side of the images; 224 for torchvision, else 32.")
    ] = None,
    width: Annotated[int, typer.Option(help="Channels of the first cell, for an architecture.")] = 32,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
) -> None:
    """Predict the parameters of any network, for `module.load_state_dict(file, strict=False)`.

    Torchvision models and architectures get as many classes as the hypernetwork predicts.
    """
    from rich.console import Console

    from deepnets_bench.errors import BadInput
    from deepnets_bench.ghn import modules
    from deepnets_bench.ghn.model import GHN

    if out.suffix != ".safetensors":
        raise BadInput(f"{out} must end in .safetensors.")
    _check_free(out, force)
    hypernetwork = GHN.load(ghn)
    size = image_size or (224 if model.startswith(TORCHVISION) else 32)
    module = build(model, hypernetwork.config.num_classes, size, width)
    start = time.perf_counter()
    params, report = modules.predict(hypernetwork, module, (3, size, size))
    seconds = time.perf_counter() - start
    _write(out, params, {"model": model, "ghn": ghn.name}, force)

    console = Console(highlight=False, soft_wrap=True, markup=False)
    values = sum(tensor.numel() for tensor in params.values())
    console.print(
        f"{model}: {report.num_nodes} nodes, {len(params)} parameters ({values:,} values) predicted in "
        f"{seconds:.2f} s"
    )
    by_reason: dict[str, list[str]] = {}
    for name, reason in report.left.items():
        by_reason.setdefault(reason, []).append(name)
    for reason, names in by_reason.items():
        more = ", ..." if len(names) > _REASON_EXAMPLES else ""
        console.print(f"  left {len(names)}: {reason} ({', '.join(names[:_REASON_EXAMPLES])}{more})")
    for note in report.notes:
        console.print(f"  note: {note}")
    console.print(f"Wrote {out}")


def build(model: str, num_classes: int, image_size: int, width: int) -> nn.Module:
    """The module that MODEL names, without storage where it need not compute with its parameters."""
    import torch

    from deepnets_bench.commands.data import find_architecture

    if model.startswith(TORCHVISION):
        return _torchvision_model(model.removeprefix(TORCHVISION), num_classes)
    if ":" in model and not Path(model).is_file():
        return _call(model)
    architecture = find_architecture(model)
    with torch.device("meta"):
        return architecture.build(width=width, image_size=image_size, num_classes=num_classes)


def _torchvision_model(name: str, num_classes: int) -> nn.Module:
    import torch

    from deepnets_bench.errors import MissingExtra, UnknownName

    try:
        from torchvision import models
    except ImportError as error:
        raise MissingExtra(TORCHVISION + name, "vision") from error
    names = models.list_models(models)
    if name not in names:
        raise UnknownName("torchvision model", name, names)
    try:
        with torch.device("meta"):
            return models.get_model(name, weights=None, num_classes=num_classes)
    except (NotImplementedError, RuntimeError):  # RegNet computes its widths with tensors
        return models.get_model(name, weights=None, num_classes=num_classes)


def _call(path: str) -> nn.Module:
    """The module that the function (or class) `package.module:function` returns."""
    from torch import nn

    from deepnets_bench.errors import BadInput, UnknownName, one_line

    package, _, name = path.partition(":")
    sys.path.insert(0, os.getcwd())  # the user's own files, as with `python -m`
    try:
        source = importlib.import_module(package)
    except Exception as error:
        raise BadInput(
            f"'{package}' cannot be imported ({one_line(error)}); MODEL is torchvision:NAME, "
            "package.module:function or an architecture."
        ) from error
    finally:
        sys.path.remove(os.getcwd())
    function: Any = getattr(source, name, None)
    if not callable(function):
        choices = [key for key, value in vars(source).items() if callable(value) and not key.startswith("_")]
        raise UnknownName("function", name, choices, f"in {package}")
    try:
        module = function()
    except Exception as error:
        raise BadInput(f"{path}() failed: {one_line(error)}.") from error
    if not isinstance(module, nn.Module):
        raise BadInput(f"{path}() returned {type(module).__name__}, not a torch.nn.Module.")
    return module


def _check_free(out: Path, force: bool) -> None:
    from deepnets_bench.errors import BadInput

    if not out.parent.is_dir():
        raise BadInput(f"There is no folder {out.parent}.")
    if out.exists() and not force:
        raise BadInput(f"{out} exists already; give --force to replace it.")


def _write(out: Path, params: dict[str, Tensor], metadata: dict[str, str], force: bool) -> None:
    """Write the file whole or not at all."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    from deepnets_bench.errors import BadInput, one_line
    from deepnets_bench.files import replacing

    tensors = {name: tensor.contiguous() for name, tensor in params.items()}
    try:
        with replacing(out) as temporary:
            save_file(tensors, temporary, metadata)
            _check_free(out, force)  # again: another process may have been faster
    except (OSError, SafetensorError) as error:
        raise BadInput(f"Cannot write {out}: {one_line(error)}.") from error

"""`deepnets-bench predict`: the parameters of a network, from a trained hypernetwork."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deepnets_bench.commands.options import TrustOption

if TYPE_CHECKING:
    from torch import Tensor

    from deepnets_bench.ghn.foreign import Prediction
    from deepnets_bench.harness.images.folders import FolderImages

_REASON_EXAMPLES = 3
_CALIBRATION_IMAGES, _CALIBRATION_BATCH = 1024, 64


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(predict)


def predict(
    model: Annotated[
        str,
        typer.Argument(
            help="torchvision:NAME; ./file.py:function or package.module:function that returns a "
            "torch.nn.Module; or an architecture: a JSON file, SPLIT/INDEX, resnet50 or vit."
        ),
    ],
    ghn: Annotated[Path, typer.Option(help="Checkpoint of a hypernetwork, ours or a published one.")],
    out: Annotated[Path, typer.Option(help="File to write: name.safetensors.")],
    model_option: Annotated[
        list[str] | None, typer.Option(help="name=value for the function or torchvision; repeatable.")
    ] = None,
    classifier: Annotated[
        str, typer.Option(help="predict, or skip: predict all but the classifier, of any number of classes.")
    ] = "predict",
    calibrate: Annotated[
        Path | None,
        typer.Option(
            help="Folder of images (up to 1024 are read) on which to re-estimate the running statistics of "
            "batch norms, written beside the parameters; needs torchvision."
        ),
    ] = None,
    image_size: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Side of the images; 224 for torchvision, else 32.")
    ] = None,
    width: Annotated[int, typer.Option(help="Channels of the first cell, for an architecture.")] = 32,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
    trust: TrustOption = False,
) -> None:
    """Predict the parameters of any network, for `module.load_state_dict(file, strict=False)`.

    Torchvision models and architectures get as many classes as the hypernetwork predicts. Batch norms have
    mean 0 and variance 1 until their statistics are re-estimated, and outputs in eval() are meaningless until
    then: give --calibrate, or call deepnets_bench.recalibrate(module, loader).
    """
    import torch

    from deepnets_bench.errors import BadInput
    from deepnets_bench.ghn import foreign
    from deepnets_bench.ghn.model import GHN
    from deepnets_bench.gnn import parse_options
    from deepnets_bench.uses.models import TORCHVISION, build_model

    if out.suffix != ".safetensors":
        raise BadInput(f"{out} must end in .safetensors.")
    _check_free(out, force)
    foreign.check_classifier(classifier)
    options = parse_options(model_option or ())
    hypernetwork = GHN.load(ghn, trust)
    size = image_size or (224 if model.startswith(TORCHVISION) else 32)
    images = calibration_images(calibrate, size) if calibrate else None
    device = torch.device("cpu" if images else "meta")
    module = build_model(model, hypernetwork.config.num_classes, size, width, options, device)
    start = time.perf_counter()
    tensors, report = foreign.predict(hypernetwork, module, (3, size, size), classifier)
    seconds = time.perf_counter() - start
    statistics = foreign.recalibrated(module, tensors, images.batches(_CALIBRATION_BATCH)) if images else {}
    _write(out, tensors | statistics, {"model": model, "ghn": ghn.name}, force)
    values = sum(tensors[name].numel() for name in report.predicted)
    count = f"{len(report.predicted)} parameters ({values:,} values)"
    _print_report(f"{model}: {report.num_nodes} nodes, {count} predicted in {seconds:.2f} s", report)
    if images:
        norms = len({name.rpartition(".")[0] for name in statistics})
        _print(f"  running statistics of {norms} norm(s) re-estimated on {len(images)} images")
    else:
        for note in foreign.statistics_note(module):
            _print(f"  note: {note}")
    _print(f"Wrote {out}")


def calibration_images(folder: Path, size: int) -> FolderImages:
    """Images of a folder and its subfolders, evenly drawn in the order of their paths, at most 1024."""
    from deepnets_bench.errors import BadInput, MissingExtra

    try:
        from torchvision.datasets.folder import is_image_file

        from deepnets_bench.harness.images.folders import FolderImages
    except ImportError as error:
        raise MissingExtra("--calibrate", "vision") from error
    if not folder.is_dir():
        raise BadInput(f"There is no folder {folder}.")
    paths = sorted(str(path) for path in folder.rglob("*") if is_image_file(path.name) and path.is_file())
    if not paths:
        raise BadInput(f"{folder} holds no images.")
    step = -(-len(paths) // _CALIBRATION_IMAGES)
    return FolderImages([(path, 0) for path in paths[::step]], size)


def _print_report(headline: str, report: Prediction) -> None:
    _print(headline)
    by_reason: dict[str, list[str]] = {}
    for name, reason in report.left.items():
        by_reason.setdefault(reason, []).append(name)
    for reason, names in by_reason.items():
        more = ", ..." if len(names) > _REASON_EXAMPLES else ""
        _print(f"  left {len(names)}: {reason} ({', '.join(names[:_REASON_EXAMPLES])}{more})")
    for note in report.notes:
        _print(f"  note: {note}")


def _print(line: str) -> None:
    from rich.console import Console

    Console(highlight=False, soft_wrap=True, markup=False).print(line)


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
    from deepnets_bench.system.files import replacing

    tensors = {name: tensor.contiguous() for name, tensor in params.items()}
    try:
        with replacing(out) as temporary:
            save_file(tensors, temporary, metadata)
            _check_free(out, force)  # again: another process may have been faster
    except (OSError, SafetensorError) as error:
        raise BadInput(f"Cannot write {out}: {one_line(error)}.") from error

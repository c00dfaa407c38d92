"""Files of hypernetworks: our safetensors with the configuration inside, and the published .pt layouts."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from deepnets_bench.errors import BadInput, CorruptFile, one_line
from deepnets_bench.ghn.config import PUBLISHED_CUTOFF, GHNConfig
from deepnets_bench.system.files import reading, replacing

FORMAT = "deepnets-bench GHN 1"
# Published GHN-3 files keep the embeddings of the first layer's input at the top level.
_INPUT_EMBEDDINGS = ("centrality_embed_in", "centrality_embed_out", "input_dist_embed")

_PUBLISHED_KEYS = ("num_classes", "max_shape", "hypernet", "decoder", "weight_norm", "ve", "layernorm", "hid")


def write(config: GHNConfig, state: Mapping[str, Tensor], path: str | os.PathLike[str]) -> None:
    """Write the weights of a hypernetwork and its configuration; the file appears whole or not at all.

    A path that ends in .pt gets the published layout (state_dict and config under the published keys),
    which has no place for a plug-in GNN, nor for another cutoff of virtual edges than 50: `BadInput`. Raises
    `BadInput` too where the folder is not writable.
    """
    target = Path(path)
    # Copies, as layers may share weights: safetensors holds no tensors that do.
    layout = torch.contiguous_format
    tensors = {name: tensor.detach().cpu().clone(memory_format=layout) for name, tensor in state.items()}
    if target.suffix == ".pt" and config.gnn is not None:
        raise BadInput(f"The published layout cannot hold GNN '{config.gnn}'; save to a .safetensors file.")
    if target.suffix == ".pt" and config.ve and config.virtual_edges not in (1, PUBLISHED_CUTOFF):
        raise BadInput(
            f"The published layout cannot hold a cutoff of virtual edges other than {PUBLISHED_CUTOFF}, such "
            f"as {config.virtual_edges}; save to a .safetensors file."
        )
    if not target.parent.is_dir():
        raise BadInput(f"Cannot write {target}: there is no such folder.")
    try:
        with replacing(target) as temporary:
            if target.suffix == ".pt":
                published = {"state_dict": _published_names(tensors), "config": _published_config(config)}
                torch.save(published, temporary)
            else:
                metadata = {"format": FORMAT, "config": json.dumps(config.to_dict())}
                safetensors.torch.save_file(tensors, temporary, metadata)
    except (OSError, SafetensorError, RuntimeError) as error:  # torch.save raises the last for a full disk
        raise BadInput(f"Cannot write {target}: {one_line(error)}.") from error


def read(path: str | os.PathLike[str]) -> tuple[GHNConfig, dict[str, Tensor]]:
    """Configuration and weights in a file of `write` or in a published checkpoint, on the CPU; runs no code.

    Raises `BadInput` where there is no such file, `CorruptFile` for one that is truncated or of another
    kind.
    """
    source = Path(path)
    try:
        with source.open("rb") as file:
            head = file.read(9)
    except OSError as error:
        raise BadInput(f"Cannot read {source}: {error.strerror}.") from error
    is_safetensors = head[8:] == b"{" or source.suffix == ".safetensors"
    return _read_safetensors(source) if is_safetensors else _read_published(source)


def _read_safetensors(path: Path) -> tuple[GHNConfig, dict[str, Tensor]]:
    with reading(path, "a safetensors file"), safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    if metadata.get("format") != FORMAT:
        raise CorruptFile(f"{path} holds no hypernetwork of this version ({FORMAT}).")
    with reading(path, "a hypernetwork's checkpoint"):
        try:
            return GHNConfig.from_dict(json.loads(metadata["config"])), tensors
        except BadInput as error:
            raise CorruptFile(f"{path}: {error}") from error


def _read_published(path: Path) -> tuple[GHNConfig, dict[str, Tensor]]:
    with reading(path, "a hypernetwork's checkpoint"):
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
        except UnpicklingError as error:  # whose text advises to run the code of the file
            raise CorruptFile(
                f"{path} is no hypernetwork's checkpoint (expected ghn.safetensors or a published .pt)."
            ) from error
    if not isinstance(content, Mapping):
        raise CorruptFile(f"{path} holds a {type(content).__name__}, not a checkpoint with a state_dict.")
    state = content.get("state_dict", content)
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise CorruptFile(f"{path} holds no state_dict of tensors; it has {', '.join(map(str, content))}.")
    with reading(path, "a hypernetwork's checkpoint"):
        tensors = {_own_name(name.removeprefix("module.")): tensor for name, tensor in state.items()}
        settings = content.get("config")
        try:
            return _infer_config(tensors, settings if isinstance(settings, Mapping) else {}), tensors
        except KeyError as error:
            raise CorruptFile(f"{path} is not a hypernetwork: its state_dict lacks {error}.") from error


def _infer_config(tensors: Mapping[str, Tensor], settings: Mapping[str, Any]) -> GHNConfig:
    """The configuration of a published file: what it states, and what only its tensors' shapes tell."""
    known = {name: settings[name] for name in GHNConfig.__dataclass_fields__ if name in settings}
    hid = tensors["embed.weight"].shape[1]
    num_classes = tensors["bias_class.1.weight"].shape[0]
    out = tensors["bias_class.1.weight"].shape[1]
    known |= {"hid": hid, "num_classes": num_classes, "layernorm": "ln.weight" in tensors}
    if "max_shape" not in known:
        window = round((tensors["decoder.fc.0.weight"].shape[0] / (4 * hid)) ** 0.5)
        inp = tensors["decoder.conv.2.weight"].shape[0] // out
        known["max_shape"] = (out, inp, window, window)
    layers = {int(match[1]) for name in tensors if (match := re.match(r"gnn\.(\d+)\.", name))}
    if layers:
        heads = tensors["gnn.0.attn.proj_e.2.bias"].shape[0]
        known |= {"hypernet": "graphormer", "layers": max(layers) + 1, "heads": heads}
    elif "gnn.gru.weight_hh" in tensors:
        known |= {"hypernet": "gatedgnn", "ve": "gnn.mlp_ve.fc.0.weight" in tensors}
    else:
        known["hypernet"] = "mlp"
    config = GHNConfig.from_dict(known)
    # Older files do not say whether predictions are scaled; only GHN-1 leaves out the layer norm.
    return config if "weight_norm" in known else replace(config, weight_norm=config.layernorm)


def check_tensors(
    path: str | os.PathLike[str], expected: Mapping[str, Tensor], found: Mapping[str, Tensor]
) -> None:
    """Raise `CorruptFile` where the weights in a file are not the `expected` ones by name and shape."""
    for problem, names in (
        ("lacks", sorted(set(expected) - set(found))),
        ("has the unknown", sorted(set(found) - set(expected))),
    ):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise CorruptFile(f"{path} {problem} tensors {', '.join(names[:3])}{more}.")
    for name, tensor in expected.items():
        if found[name].shape != tensor.shape:
            raise CorruptFile(
                f"{path}: tensor {name} has shape {list(found[name].shape)}, expected {list(tensor.shape)}."
            )


def _own_name(name: str) -> str:
    return f"gnn.0.{name}" if name.startswith(_INPUT_EMBEDDINGS) else name


def _published_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    prefixes = tuple(f"gnn.0.{name}" for name in _INPUT_EMBEDDINGS)
    return {
        name.removeprefix("gnn.0.") if name.startswith(prefixes) else name: tensor
        for name, tensor in tensors.items()
    }


def _published_config(config: GHNConfig) -> dict[str, Any]:
    """The settings under the keys that the published code reads."""
    settings = {key: value for key, value in config.to_dict().items() if key in _PUBLISHED_KEYS}
    if config.is_graphormer:
        # `pretrained` says that the embeddings of the first layer's input are at the top level.
        settings |= {"hypernet": "gatedgnn", "is_ghn2": False, "pretrained": True}
        settings |= {"layers": config.layers, "heads": config.heads}
    return settings

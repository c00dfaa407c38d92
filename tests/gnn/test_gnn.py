"""The plug-in contract: registry, resolver, adapters and `check`."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import warnings
from importlib.metadata import EntryPoint

import pytest
import torch
from torch import nn
from typer import Typer
from typer.testing import CliRunner

from deepnets_bench import gnn
from deepnets_bench.commands import gnn as command
from deepnets_bench.errors import BadInput, MissingExtra, UnknownName
from deepnets_bench.gnn import (
    GNNSpec,
    adapters,
    parse_options,
    register,
    register_folder,
    registry,
    resolve,
    spec_of,
)
from deepnets_bench.gnn.adapters import adapt, edges_of
from deepnets_bench.gnn.check import check, differ, require
from deepnets_bench.gnn.contract import check_output
from deepnets_bench.gnn.materialise import small_batch
from deepnets_bench.gnn.variants import permute, select, tensors, topological_order


@pytest.fixture(scope="module")
def batch():
    return small_batch()


def problems(target, batch, **options):
    """Failed checks of a class: name -> sentence."""
    results = check(spec_of("mine", target), 8, options=options, batch=batch)
    return {result.name: result.problem for result in results if result.problem}


class Passing(nn.Module):
    """The smallest GNN that keeps the contract; the broken ones below change one thing."""

    def __init__(self, dim):
        super().__init__()
        self.linear = nn.Linear(dim, dim)

    def forward(self, x, batch):
        source, target = batch.edge_index
        return x + torch.zeros_like(x).index_add(0, target, self.linear(x)[source])


# --- names -----------------------------------------------------------------------------------------


def test_miss_lists_choices_and_nearest_name():
    with pytest.raises(UnknownName, match=r"Unknown GNN 'gta'. Did you mean 'gat'\? Choices: .*dgl:gat.*mlp"):
        resolve("gta")


def test_unknown_name_of_a_library_prefix_is_a_miss_not_an_import():
    with pytest.raises(UnknownName, match="Did you mean 'dgl:gat'"):
        resolve("dgl:gta")


def test_duplicate_name_raises():
    resolve("gat")
    with pytest.raises(BadInput, match="Two GNNs are called 'gat'"):
        register(GNNSpec("gat", Passing))


def test_unknown_edges_declaration_raises():
    with pytest.raises(UnknownName, match="Did you mean 'forward'"):
        GNNSpec("mine", Passing, edges="forwards")


def test_class_path():
    spec = resolve("torch_geometric.nn:GraphUNet")
    assert (spec.backend, spec.edges) == ("pyg", "both")
    assert spec.options == {"pool_ratios": 0.5, "sum_res": True, "act": "relu"}


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("no_such_package.x:Y", "'no_such_package.x:Y' cannot be imported"),
        ("torch_geometric.nn:GraphUnet", "Did you mean 'GraphUNet'"),
        ("deepnets_bench.gnn:EDGES", "is a dict, not a GNN class"),
        ("./no_such_file.py:MyGNN", "There is no file no_such_file.py"),
        ("/tmp", "'/tmp' is no Python file; a GNN is a registered name, a file"),
        ("./mine.txt:MyGNN", "'./mine.txt:MyGNN' is no Python file; a GNN is"),
        ("..mine:MyGNN", "'..mine:MyGNN' is no Python file; a GNN is"),
    ],
)
def test_bad_paths_are_one_sentence(name, sentence):
    with pytest.raises(BadInput, match=sentence):
        resolve(name)


def test_a_miss_among_many_classes_guesses_nothing_and_lists_the_first():
    with pytest.raises(UnknownName) as error:
        resolve("torch_geometric.nn:Nope")
    assert "Did you mean" not in str(error.value)
    assert str(error.value).count(", ") < 40
    assert re.search(r" and \d+ more\.$", str(error.value))


FILE = """
from torch import nn
class MyGNN(nn.Module):
    edges = "forward"
    source = "a paper"
    def __init__(self, dim, depth=2):
        super().__init__()
    def forward(self, x, batch):
        return x
"""


def test_file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(FILE)
    spec = resolve(f"{path}:MyGNN")
    assert (spec.name, spec.edges, spec.source, spec.options) == (
        "mine.py:MyGNN",
        "forward",
        "a paper",
        {"depth": 2},
    )
    assert resolve(str(path)).name == "mine.py:MyGNN"  # one class: no need to name it
    with pytest.raises(UnknownName, match="Did you mean 'MyGNN'"):
        resolve(f"{path}:MyGnn")


def test_two_files_called_alike_do_not_meet(tmp_path):
    for folder, edges in (("a", "forward"), ("b", "virtual")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.py").write_text(FILE.replace("forward", edges, 1))
    assert resolve(f"{tmp_path}/a/mine.py:MyGNN").edges == "forward"
    assert resolve(f"{tmp_path}/b/mine.py:MyGNN").edges == "virtual"


def test_file_that_raises_names_the_error(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("1 / 0")
    with pytest.raises(BadInput, match="ZeroDivisionError: division by zero"):
        resolve(f"{path}:MyGNN")
    path.write_text("import dgl.no_such_part")
    with pytest.raises(BadInput):
        resolve(f"{path}:MyGNN")


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("print(no_such_name)", r"NameError: name 'no_such_name' is not defined \(mine.py, line 10\)\.$"),
        ("import no_such_package", r"No module named 'no_such_package' \(mine.py, line 10\)\.$"),
        ("def", r"SyntaxError: invalid syntax \(mine.py, line 10\)\.$"),
    ],
)
def test_a_file_that_fails_says_in_which_line_and_no_forms_of_names(line, sentence, tmp_path):
    (tmp_path / "mine.py").write_text(FILE + line)
    with pytest.raises(BadInput, match=sentence) as error:
        resolve(f"{tmp_path}/mine.py:MyGNN")
    assert "cannot be imported: " in str(error.value)
    assert isinstance(error.value.__cause__, Exception)


def install(monkeypatch, **plugins):
    points = [EntryPoint(name, value, gnn.ENTRY_POINTS) for name, value in plugins.items()]
    monkeypatch.setattr(registry, "entry_points", lambda group: points if group == gnn.ENTRY_POINTS else [])


def test_entry_point(monkeypatch):
    install(monkeypatch, theirs=f"{__name__}:Passing")
    assert resolve("theirs").factory is Passing
    assert "theirs" in [spec.name for spec in gnn.catalogue()[0]]


def test_plugin_of_an_installed_distribution(monkeypatch, tmp_path):
    (tmp_path / "their_package.py").write_text(FILE)
    info = tmp_path / "their_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{gnn.ENTRY_POINTS}]\ntheir-gnn = their_package:MyGNN\n")
    monkeypatch.syspath_prepend(tmp_path)
    spec = resolve("their-gnn")
    assert (spec.name, spec.edges, spec.options) == ("their-gnn", "forward", {"depth": 2})
    assert [r for r in check(spec, 8, options={"depth": 3}) if r.problem] == []
    assert "their-gnn" in [spec.name for spec in gnn.catalogue()[0]]


def test_entry_point_of_a_taken_name_raises(monkeypatch):
    install(monkeypatch, gcn=f"{__name__}:Passing")
    with pytest.raises(BadInput, match="Two GNNs are called 'gcn', one of them installed as"):
        resolve("nothing")


def test_broken_plugins_are_named_and_skipped(monkeypatch, tmp_path):
    monkeypatch.setattr(registry, "REGISTRY", {})
    (tmp_path / "good.py").write_text(FILE)
    (tmp_path / "bad.py").write_text("class:")
    (tmp_path / "two.py").write_text("class A: ...\nclass B: ...")
    (tmp_path / "_helper.py").write_text("class:")
    broken = register_folder([tmp_path], "folder")
    assert set(registry.REGISTRY) == {"good"}
    assert set(broken) == {"bad", "two"}
    assert "2 public classes" in broken["two"]

    monkeypatch.setattr(registry, "_discover", lambda: broken)
    install(monkeypatch, theirs="no_such_package:Class")
    specs, broken = gnn.catalogue()
    assert [spec.name for spec in specs] == ["good"]
    assert "No module named 'no_such_package'" in broken["theirs"]
    with pytest.raises(BadInput, match="GNN 'bad' is broken"):
        resolve("bad")


def test_missing_library_names_the_command(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "dgl" else find(name, *rest)
    )
    spec = resolve("dgl:gat")
    assert spec.missing
    with pytest.raises(MissingExtra, match=r"dgl:gat needs .* pip install 'deepnets-bench\[dgl\]'"):
        spec.build(8)


def test_listing_loads_no_framework():
    code = (
        "import sys; from deepnets_bench.gnn import catalogue; catalogue(); "
        "print({'torch', 'torch_geometric', 'dgl'} & {*sys.modules})"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"


# --- options ---------------------------------------------------------------------------------------


def test_options_are_python_values_or_text():
    assert parse_options(["depth=3", "act=relu", "x=None"]) == {"depth": 3, "act": "relu", "x": None}
    with pytest.raises(BadInput, match="name=value, not 'depth'"):
        parse_options(["depth"])


def test_unknown_option_lists_the_options():
    with pytest.raises(UnknownName, match=r"option 'head' of GNN 'gat'. Did you mean 'heads'\?"):
        resolve("gat").build(8, head=2)


def test_library_model_gets_the_width_and_asks_for_the_rest():
    spec = resolve("torch_geometric.nn:GAT")
    with pytest.raises(BadInput, match="needs a value for num_layers"):
        spec.build(8)
    with pytest.raises(BadInput, match=r"cannot be built with .*heads=3.*"):
        spec.build(8, num_layers=2, heads=3)
    assert spec.build(8, num_layers=2, heads=2).module.in_channels == 8


@pytest.mark.parametrize("name", ["gat", "ghn3", "transformer"])
def test_heads_that_do_not_divide_the_width_are_refused(name):
    heads = resolve(name).options["heads"]
    sentence = rf"dim must be a multiple of heads \({heads}\) of GNN '{name}', not 30\."
    with pytest.raises(BadInput, match=sentence):
        resolve(name).construct(30)
    with pytest.raises(BadInput, match=r"dim must be a multiple of heads \(3\)"):
        resolve(name).construct(32, heads=3)


def test_a_text_where_the_default_is_a_number_is_refused():
    with pytest.raises(BadInput, match=r"^Option layers of GNN 'gat' takes a value such as 4, not 'abc'\.$"):
        resolve("gat").construct(32, layers="abc")


def test_edge_features_of_another_width_are_refused():
    with pytest.raises(BadInput, match=r"edge_dim of GNN 'torch_geometric\.nn:GATConv' must be 3"):
        resolve("torch_geometric.nn:GATConv").build(8, edge_dim=4)


def test_class_without_a_width_is_refused():
    class NoWidth(nn.Module):
        def __init__(self):
            super().__init__()

        def forward(self, x, batch):
            return x

    with pytest.raises(BadInput, match="takes no node width"):
        spec_of("mine", NoWidth).build(8)


# --- adapters --------------------------------------------------------------------------------------


def test_edges_of_a_declaration(batch):
    forward, both, virtual = (edges_of(batch, edges) for edges in ("forward", "both", "virtual"))
    n = batch.edge_index.shape[1]
    assert torch.equal(forward.index, batch.edge_index)
    assert torch.equal(both.index[:, n:], batch.edge_index.flip(0))
    assert both.type.tolist() == [0] * n + [1] * n
    assert both.attr[[0, n]].tolist() == [[1, 0, 1], [0, 1, 1]]
    assert virtual.index.shape[1] == 2 * batch.virtual_edge_index.shape[1]
    assert virtual.weight.min() == 1 / batch.distance.max()
    assert edges_of(batch, "none").index.shape == (2, 0)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("torch_geometric.nn:GAT", {"num_layers": 2}),
        ("torch_geometric.nn:GAT", {"num_layers": 2, "edge_dim": 3}),
        ("torch_geometric.nn:GraphSAGE", {"num_layers": 2, "norm": "LayerNorm"}),
        ("torch_geometric.nn:GraphUNet", {"depth": 2}),
        ("torch_geometric.nn:RGCNConv", {"num_relations": 2}),
        ("dgl.nn:GraphConv", {}),
        ("dgl.nn:GATv2Conv", {"num_heads": 2, "out_feats": 4}),
        ("dgl.nn:GatedGraphConv", {"n_steps": 2, "n_etypes": 2}),
    ],
)
def test_unmodified_library_models_keep_the_contract(name, options, batch):
    if name.startswith("dgl"):
        pytest.importorskip("dgl", reason="DGL is an extra")
    results = check(resolve(name), 8, options=options, batch=batch)
    assert len(results) == 13
    assert [result for result in results if result.problem] == []


class SeesEdges(nn.Module):
    """PyG form that records its arguments."""

    def __init__(self, dim):
        super().__init__()

    def forward(self, x, edge_index, edge_attr, level, edge_weight=None, batch=None):
        self.seen = {"edge_index": edge_index, "edge_attr": edge_attr, "weight": edge_weight}
        self.seen |= {"level": level, "batch": batch}
        return x


@pytest.mark.parametrize("edges", ["forward", "both", "virtual"])
def test_pyg_adapter_feeds_the_declared_edges(edges, batch):
    model = adapt(SeesEdges(8), "mine", edges)
    model(torch.zeros(len(batch.op), 8), batch)
    seen, expected = model.module.seen, edges_of(batch, edges)
    assert torch.equal(seen["edge_index"], expected.index)
    assert torch.equal(seen["edge_attr"], expected.attr)
    assert torch.equal(seen["level"], batch.level)
    assert torch.equal(seen["batch"], batch.batch)
    # Weights say something only of virtual edges, and many layers refuse them.
    assert (seen["weight"] is None) == (edges != "virtual")


def test_forward_that_wants_the_impossible(batch):
    class Wants3D(nn.Module):
        def __init__(self, dim):
            super().__init__()

        def forward(self, x, edge_index, pos):
            return x

    with pytest.raises(BadInput, match="needs 'pos', which a computation graph does not have"):
        spec_of("mine", Wants3D).build(8)
    with pytest.raises(BadInput, match=r"has forward\(input\); it needs forward\(x, batch\)"):
        resolve("torch.nn:Linear").build(8, in_features=8, out_features=8)


def test_dgl_on_an_unsupported_device_runs_on_the_cpu(batch, monkeypatch):
    dgl = pytest.importorskip("dgl", reason="DGL is an extra")

    class WithBuffer(nn.Module):
        def __init__(self, dim):
            super().__init__()
            self.conv, self.norm = dgl.nn.GraphConv(dim, dim), nn.BatchNorm1d(dim)

        def forward(self, g, x):
            return self.norm(self.conv(g, x))

    model = adapt(WithBuffer(8), "mine", "both")
    x = torch.randn(len(batch.op), 8, requires_grad=True)
    expected = model(x, batch)
    (expected**2 * x.detach()).sum().backward()
    gradients = [x.grad, *(p.grad for p in model.parameters())]
    mean = model.module.norm.running_mean.clone()

    model.zero_grad()
    x.grad = None
    model.module.norm.reset_running_stats()
    monkeypatch.setattr(adapters, "_dgl_runs_on", lambda device: False)
    adapters._say_cpu_only.cache_clear()
    with pytest.warns(UserWarning, match="This DGL has no cpu support"):
        out = model(x, batch)
    assert not differ(out, expected)
    assert torch.equal(model.module.norm.running_mean, mean)
    (out**2 * x.detach()).sum().backward()
    for gradient, parameter in zip(gradients, [x, *model.parameters()], strict=True):
        assert torch.allclose(parameter.grad, gradient, atol=1e-5)
    with warnings.catch_warnings():  # said once
        warnings.simplefilter("error")
        model(x, batch)


# --- check -----------------------------------------------------------------------------------------


def test_select_is_the_graph_alone(batch):
    graphs = batch.graphs
    for index, graph in enumerate(graphs):
        alone, expected = select(batch, index), type(batch).from_graphs([graph])
        for name, tensor in tensors(expected).items():
            assert torch.equal(getattr(alone, name), tensor), name


def test_permuted_batch_keeps_the_invariants(batch):
    order = topological_order(batch)
    assert not torch.equal(order, torch.arange(len(order)))
    assert torch.equal(batch.batch[order], batch.batch)
    assert torch.equal(order[batch.ptr[:-1]], batch.ptr[:-1])  # the inputs stay first
    permuted = permute(batch, order)
    for index in (permuted.edge_index, permuted.virtual_edge_index):
        source, target = index
        assert (source < target).all()
        assert (permuted.level[source] < permuted.level[target]).all()
        assert ((target * len(order) + source).diff() > 0).all()
    restored = order[permuted.virtual_edge_index]
    pairs = {(u, v): d for u, v, d in zip(*restored.tolist(), permuted.distance.tolist(), strict=True)}
    index, distance = batch.virtual_edge_index.tolist(), batch.distance.tolist()
    assert pairs == {(u, v): d for u, v, d in zip(*index, distance, strict=True)}


class WrongShape(Passing):
    def forward(self, x, batch):
        return x[:, 1:]


class NotATensor(Passing):
    def forward(self, x, batch):
        return x, x


class Raises(Passing):
    def forward(self, x, batch):
        raise KeyError("level")


class Integers(Passing):
    def forward(self, x, batch):
        return x.long()


class Double(Passing):
    def forward(self, x, batch):
        return x.double()


class Leaves(Passing):
    def forward(self, x, batch):
        raise SystemExit(0)


class OtherDevice(Passing):
    def forward(self, x, batch):
        return x.to("meta")


class Infinite(Passing):
    def forward(self, x, batch):
        return super().forward(x, batch) / (batch.level[:, None] > 0)


class DropoutInEval(Passing):
    def forward(self, x, batch):
        return nn.functional.dropout(super().forward(x, batch), training=True)


class KeepsState(Passing):
    calls = 0

    def forward(self, x, batch):
        self.calls += 1
        return super().forward(x, batch) * self.calls


class UnsavedProjection(Passing):
    def __init__(self, dim):
        super().__init__(dim)
        self.register_buffer("projection", torch.randn(dim, dim), persistent=False)

    def forward(self, x, batch):
        return super().forward(x @ self.projection, batch)


class InPlace(Passing):
    def forward(self, x, batch):
        return super().forward(x, batch) + x.relu_()


class InPlaceEdges(Passing):
    def forward(self, x, batch):
        out = super().forward(x, batch)
        batch.distance.clamp_(max=2)
        return out


class InPlaceInTraining(Passing):
    def forward(self, x, batch):
        out = super().forward(x, batch)
        if self.training:
            batch.level.zero_()
        return out


class TensorLeftBehind(Passing):
    def __init__(self, dim):
        super().__init__(dim)
        self.linear.scale = [torch.ones(dim)]

    def forward(self, x, batch):
        return super().forward(x, batch) * self.linear.scale[0]


class Leaks(Passing):
    def forward(self, x, batch):
        return super().forward(x, batch) - x.mean(0)


class SeesNumbering(Passing):
    def forward(self, x, batch):
        return super().forward(x, batch) * (torch.arange(len(x)) - batch.ptr[batch.batch])[:, None]


class SeesEdgeOrder(Passing):
    def forward(self, x, batch):
        source, target = batch.edge_index
        first = torch.ones(len(target), 1)
        # Only the edge listed last before a change of target counts.
        first[1:] = (target.diff() != 0).float()[:, None]
        return x + torch.zeros_like(x).index_add(0, target, self.linear(x)[source] * first)


class UnusedParameter(Passing):
    def __init__(self, dim):
        super().__init__(dim)
        self.spare = nn.Linear(dim, dim)


class NaNGradient(Passing):
    def forward(self, x, batch):
        return super().forward(x, batch) + (x - x).abs().sqrt()


class ClaimsNoEdges(Passing):
    edges = "none"


class ClaimsForward(Passing):
    edges = "forward"

    def forward(self, x, batch):
        source, target = batch.edge_index
        return x + torch.zeros_like(x).index_add(0, source, self.linear(x)[target])


class HidesVirtualEdges(Passing):
    edges = "both"

    def forward(self, x, batch):
        source, target = batch.virtual_edge_index
        return x + torch.zeros_like(x).index_add(0, target, self.linear(x)[source])


@pytest.mark.parametrize(
    ("broken", "property_", "sentence"),
    [
        (WrongShape, "output shape, type and device", r"shape \[\d+, 7\] where \[N, dim\] = \[\d+, 8\]"),
        (NotATensor, "output shape, type and device", "returns tuple where a tensor"),
        (Raises, "output shape, type and device", "raises KeyError: 'level'"),
        (Integers, "output shape, type and device", "torch.int64 where the node states are torch.float32"),
        (Double, "output shape, type and device", "torch.float64 where the node states are torch.float32"),
        (Leaves, "output shape, type and device", "forward raises SystemExit: 0"),
        (OtherDevice, "output shape, type and device", "on meta where the node states are on cpu"),
        (Infinite, "finite output", "NaN or infinity for 4 nodes"),
        (KeepsState, "deterministic in eval mode", "two calls in eval mode differ"),
        (UnsavedProjection, "saved and loaded", "register what __init__ draws as a buffer"),
        (InPlace, "inputs left unchanged", "changes x in place"),
        (InPlaceEdges, "inputs left unchanged", "changes distance in place"),
        (InPlaceInTraining, "inputs left unchanged", "changes level in place"),
        (TensorLeftBehind, "moves to any device", "linear.scale holds a tensor that stays behind"),
        (Leaks, "batch = single graphs", "graph 0 of the batch gets other states than alone"),
        (SeesNumbering, "node permutation", "renumbering the nodes"),
        (SeesEdgeOrder, "edge order", "listing the edges in another order"),
        (NaNGradient, "finite gradients", "gradient of the node states x is NaN"),
        (ClaimsNoEdges, "edges as declared", "edges = 'none' is declared, but the edges"),
        (ClaimsForward, "edges as declared", "against the dataflow"),
        (HidesVirtualEdges, "edges as declared", "edges = 'both' is declared, but the virtual edges"),
    ],
)
def test_check_finds_each_fault_and_says_it_in_a_sentence(broken, property_, sentence, batch):
    found = problems(broken, batch)
    assert re.search(sentence, found[property_])
    assert "\n" not in found[property_]
    if broken not in (InPlace, SeesEdgeOrder):  # these break other properties on their way
        assert list(found) == [property_]


class Detached(Passing):
    def forward(self, x, batch):
        return super().forward(x, batch).detach()


@pytest.mark.parametrize(
    ("target", "property_", "sentence"),
    [
        (DropoutInEval, "deterministic in eval mode", "draws random numbers in eval mode"),
        (UnusedParameter, "finite gradients", r"parameter spare.weight \(and 1 more\) gets no gradient"),
        (Detached, "finite gradients", "the output has no gradient"),
        (Passing, "edges as declared", "edges is not declared; set edges = 'none', 'forward', 'both' or 'vi"),
        # index_add wants one type; under autocast the linear layer returns another than x has.
        (Passing, "mixed precision", "not with --precision bf16: forward raises RuntimeError"),
    ],
)
def test_check_remarks_on_what_is_permitted(target, property_, sentence, batch):
    results = check(spec_of("mine", target), 8, batch=batch)
    assert [result for result in results if result.problem] == []
    remarks = {result.name: result.remark for result in results if result.remark}
    assert re.search(sentence, remarks[property_])


def test_check_names_the_line_of_the_users_file_and_keeps_the_exception(batch):
    results = check(spec_of("mine", Raises), 8, batch=batch)
    (failed,) = (result for result in results if result.problem)
    assert re.search(r"raises KeyError: 'level' \(test_gnn.py, line \d+\)\.$", failed.problem)
    assert isinstance(failed.error, KeyError)
    with pytest.raises(BadInput) as error:
        require(spec_of("mine", Raises), 8, batch=batch)
    assert isinstance(error.value.__cause__, KeyError)


def test_check_passes_what_keeps_the_contract_and_leaves_the_random_state(batch):
    state = torch.random.get_rng_state()
    assert problems(Passing, batch) == {}
    assert torch.equal(torch.random.get_rng_state(), state)


def test_tensors_that_follow_the_parameters_are_no_fault(batch):
    class Recurrent(Passing):
        def __init__(self, dim):
            super().__init__(dim)
            self.linear = nn.utils.weight_norm(self.linear)
            self.lstm = nn.LSTM(dim, dim)
            self.register_buffer("scale", torch.ones(dim))

        def forward(self, x, batch):
            return super().forward(x, batch) * self.scale + self.lstm(x[None])[0][0]

    assert problems(Recurrent, batch) == {}


def test_require_raises_the_first_problem(batch):
    require(spec_of("mine", Passing), 8, batch=batch)
    with pytest.raises(BadInput, match=r"GNN 'mine' breaks the contract \(batch = single graphs\)"):
        require(spec_of("mine", Leaks), 8, batch=batch)


def test_check_output():
    x = torch.zeros(4, 8)
    assert check_output("mine", x, x) is x
    with pytest.raises(BadInput, match=r"GNN 'mine': forward returns shape \[4, 7\]"):
        check_output("mine", x, x[:, 1:])


# --- commands --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def app():
    app = Typer()
    command.register(app)
    return app


def test_list(app):
    out = CliRunner().invoke(app, ["gnn", "list", "--verbose"], env={"COLUMNS": "200"})
    assert out.exit_code == 0
    for word in ("dgl:gat", "ghn2", "virtual", "layers=4 heads=4", "Veličković et al.", "in both directions"):
        assert word in out.output


def test_list_warns_of_a_broken_plugin(app, monkeypatch):
    install(monkeypatch, theirs="no_such_package:Class")
    out = CliRunner().invoke(app, ["gnn", "list"])
    assert out.exit_code == 0
    assert "Warning: GNN 'theirs' is skipped" in out.output


def test_new_writes_a_gnn_that_passes_and_never_overwrites(app, tmp_path, batch):
    path = tmp_path / "mine.py"
    out = CliRunner().invoke(app, ["gnn", "new", str(path)])
    assert out.exit_code == 0
    text = path.read_text()
    assert f"deepnets-bench run --gnn {path}" in text
    assert [r for r in check(resolve(str(path)), 8, batch=batch) if r.problem or r.remark] == []

    out = CliRunner().invoke(app, ["gnn", "new", str(path)])
    assert isinstance(out.exception, BadInput)
    assert "exists already" in str(out.exception)
    assert path.read_text() == text


def test_new_without_a_folder_or_suffix(app, tmp_path):
    for name, sentence in (("no/mine.py", "cannot be written: No such file"), ("mine", "must end in .py")):
        out = CliRunner().invoke(app, ["gnn", "new", str(tmp_path / name)])
        assert isinstance(out.exception, BadInput)
        assert sentence in str(out.exception)


def test_check_command(app, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(FILE)
    out = CliRunner().invoke(app, ["gnn", "check", f"{path}:MyGNN", "--gnn-option", "depth=3"])
    assert out.exit_code == 0
    assert "ok    node permutation" in out.output

    path.write_text(FILE.replace("return x", "return x * 0 / 0"))
    out = CliRunner().invoke(app, ["gnn", "check", f"{path}:MyGNN"])
    assert "FAIL  finite output: forward returns NaN" in out.output
    assert "breaks the contract in" in str(out.exception)

    path.write_text(FILE.replace("return x", "return x + None"))
    out = CliRunner().invoke(app, ["gnn", "check", f"{path}:MyGNN"])
    assert "(mine.py, line 9)." in out.output
    assert isinstance(out.exception.__cause__, TypeError)  # what --debug shows

    out = CliRunner().invoke(app, ["gnn", "check", "gat", "--device", "gpu"])
    assert "Device 'gpu' is not supported: give auto, cpu, cuda or cuda:N." in str(out.exception)

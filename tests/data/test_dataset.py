"""DeepNets1M, its batches and meta-batches."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import networkx
import numpy as np
import pytest
import torch
import torch_geometric.transforms as T
from torch.utils.data import DataLoader
from torch_geometric.data import Batch, Data, HeteroData
from torch_geometric.loader import DataLoader as PyGLoader

from deepnets_bench import GHN, DeepNets1M, GraphBatch, MetaBatchSampler
from deepnets_bench.architecture import encode
from deepnets_bench.data.widths import PAPER_RULES, width_rule
from deepnets_bench.errors import BadInput, CorruptFile
from deepnets_bench.generators import generate
from deepnets_bench.generators.columns import sampled_columns
from deepnets_bench.generators.recipes import SPLITS
from deepnets_bench.predefined import ResNet50
from tests.data.test_shards import write

N = 40
TENSORS = (
    *("op", "cell", "shape", "level", "edge_index"),
    *("virtual_edge_index", "distance", "batch", "ptr"),
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    generate("train", folder, N, shard_size=15)
    generate(["wide", "predefined"], folder, 10)
    return folder


def equal(one: GraphBatch, other: GraphBatch) -> bool:
    return all(torch.equal(one[key], other[key]) for key in TENSORS)


def sizes(dataset: DeepNets1M, order: list[int]) -> list[tuple[int, int]]:
    items = {i: dataset[i] for i in order}
    return [(items[i].width, items[i].fc_dim) for i in range(len(items))]


def test_an_item_is_the_graph_of_its_architecture(root: Path) -> None:
    dataset = DeepNets1M(root, "train", virtual_edges=7)
    for i in (0, 14, 15, N - 1):
        item, record = dataset[i], dataset.reader[i]
        graph = record.architecture.graph(item.width, fc_dim=item.fc_dim)
        assert equal(item, GraphBatch.from_graphs([graph], virtual_edges=7))
        assert item.graphs[0].param_name == graph.param_name
        assert item.graphs[0].param_shape == graph.param_shape
        assert (item.index, item.num_graphs, item.num_nodes) == (i, 1, graph.num_nodes)


@pytest.mark.parametrize("virtual_edges", [None, 1, 2, 50, 300])
def test_virtual_edges_are_all_pairs_up_to_the_cutoff(root: Path, virtual_edges: int | None) -> None:
    item = DeepNets1M(root, "train", virtual_edges=virtual_edges)[3]
    lengths = dict(networkx.all_pairs_shortest_path_length(item.graphs[0].to_networkx()))
    expected = sorted(
        (target, source, distance)
        for source, row in lengths.items()
        for target, distance in row.items()
        if 1 <= distance <= (virtual_edges or 1)
    )
    source, target = item.virtual_edge_index.tolist()
    assert list(zip(target, source, item.distance.tolist(), strict=True)) == expected


@pytest.mark.parametrize("virtual_edges", [0, -1, 2.5])
def test_virtual_edges_up_to_no_distance_are_refused(root: Path, virtual_edges: int) -> None:
    with pytest.raises(BadInput, match="whole number of at least 1"):
        DeepNets1M(root, "train", virtual_edges=virtual_edges)[0]


def test_evaluation_splits_have_their_stored_width(root: Path) -> None:
    dataset = DeepNets1M(root, "wide")
    for i in range(5):
        assert (dataset[i].width, dataset[i].fc_dim) == (dataset.reader[i].width[0], None)
    imagenet = DeepNets1M(root, "wide", image_size=64 + 32, num_classes=7)
    assert imagenet[0].width == imagenet.reader[0].width[1] < dataset[0].width
    assert imagenet[0].shape[-1].tolist() == [7, 1, 1, 1]
    narrow = DeepNets1M(root, "wide", width=16, fc_dim=24)
    assert (narrow[0].width, narrow[0].fc_dim) == (16, 24)


def test_predefined(root: Path) -> None:
    dataset = DeepNets1M(root, "predefined")
    resnet, vit = dataset
    assert equal(resnet, GraphBatch.from_graphs([ResNet50().graph(64)]))
    assert (vit.width, dataset.reader[1].architecture.is_vit) == (128, True)


def test_training_sizes_follow_the_rules_of_the_paper(root: Path) -> None:
    dataset = DeepNets1M(root, "train")
    widths = set()
    for record in dataset.reader:
        rule = width_rule(encode(record.architecture).tolist(), record.num_params[0], PAPER_RULES)
        for epoch in range(4):
            dataset.set_epoch(epoch)
            width, fc_dim = dataset.sizes(record)
            assert width in rule.widths
            assert fc_dim in (rule.narrow_fc_dims if width <= rule.narrow else rule.fc_dims)
            widths.add(width)
    assert len(widths) > 4
    dataset = DeepNets1M(root, "train", width=16)
    assert {dataset[i].width for i in range(9)} == {16}
    assert len({dataset[i].fc_dim for i in range(9)}) > 1


def test_training_sizes_depend_on_seed_epoch_and_index_alone(root: Path) -> None:
    dataset = DeepNets1M(root, "train", virtual_edges=None)
    forward, backward = list(range(N)), list(range(N))[::-1]
    first = sizes(dataset, forward)
    assert sizes(dataset, backward) == first
    dataset.set_epoch(1)
    second = sizes(dataset, backward)
    assert second != first
    assert sizes(pickle.loads(pickle.dumps(dataset)), forward) == second
    dataset.set_epoch(0)
    assert sizes(dataset, forward) == first
    assert sizes(DeepNets1M(root, "train", virtual_edges=None, seed=1), forward) not in (first, second)


def test_from_graphs_by_hand() -> None:
    graph = ResNet50().graph(16)
    n, edges = graph.num_nodes, graph.num_edges
    batch = GraphBatch.from_graphs([graph, graph, graph], virtual_edges=None)
    assert batch.ptr.tolist() == [0, n, 2 * n, 3 * n]
    assert batch.batch.tolist() == [0] * n + [1] * n + [2] * n
    assert (batch.edge_index[:, 2 * edges :] - 2 * n).tolist() == graph.edge_index.tolist()
    assert torch.equal(batch.virtual_edge_index, batch.edge_index)
    assert batch.distance.tolist() == [1] * (3 * edges)
    source, target = batch.edge_index
    assert (batch.level[source] < batch.level[target]).all()
    assert all(batch[key].dtype == torch.int64 and batch[key].is_contiguous() for key in TENSORS)
    assert batch.num_nodes == 3 * n
    with pytest.raises(BadInput, match="at least one graph"):
        GraphBatch.from_graphs([])


def test_collate_equals_from_graphs(root: Path) -> None:
    items = [DeepNets1M(root, "train")[i] for i in (4, 0, 17)]
    batch = DeepNets1M.collate(items)
    assert equal(batch, GraphBatch.from_graphs([item.graphs[0] for item in items]))
    assert (batch.index, batch.num_graphs) == ([4, 0, 17], 3)
    assert batch.width == [item.width for item in items]
    assert equal(DeepNets1M.collate(items[:1]), items[0])
    keys = set(batch.to_dict())
    assert keys == set(items[0].to_dict())
    assert batch.to("meta").distance.device.type == "meta"


def test_pickles_are_equal_and_hold_one_tensor(root: Path) -> None:
    batch = DeepNets1M.collate([DeepNets1M(root, "train")[i] for i in range(3)])
    batch.score = torch.tensor([0.5, 1.5])
    again = pickle.loads(pickle.dumps(batch))
    assert type(again) is GraphBatch
    assert equal(batch, again)
    assert all(again[key].is_contiguous() for key in TENSORS)
    assert list(again.score) == [0.5, 1.5]
    assert set(again.to_dict()) == set(batch.to_dict())
    assert (again.num_nodes, again.index, again.width) == (batch.num_nodes, batch.index, batch.width)
    assert again.graphs[2].param_name == batch.graphs[2].param_name
    assert len({again[key].untyped_storage().data_ptr() for key in TENSORS}) == 1
    assert pickle.loads(pickle.dumps(GraphBatch())).to_dict() == {}


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_workers_reopen_the_files(root: Path, context: str) -> None:
    dataset = DeepNets1M(root, "train", virtual_edges=10)
    loader = DataLoader(
        dataset, batch_size=6, num_workers=2, collate_fn=DeepNets1M.collate, multiprocessing_context=context
    )
    here = DataLoader(dataset, batch_size=6, collate_fn=DeepNets1M.collate)
    for one, other in zip(loader, here, strict=True):
        assert equal(one, other)
        assert one.graphs[0].param_name == other.graphs[0].param_name
        assert (one.width, one.fc_dim) == (other.width, other.fc_dim)


def test_nothing_is_read_before_it_is_needed(root: Path, tmp_path: Path) -> None:
    generate("train", tmp_path, N, shard_size=15)
    for path in sorted((tmp_path / "train").glob("*.h5"))[1:]:
        path.unlink()
    dataset = DeepNets1M(tmp_path, "train")
    assert len(dataset) == N
    assert dataset[14].index == 14
    with pytest.raises(CorruptFile, match="is missing; generate the split again"):
        dataset[15]


def test_slices_and_node_counts(root: Path) -> None:
    dataset = DeepNets1M(root, "train", virtual_edges=None)
    part = dataset[10:20]
    assert [item.index for item in part] == list(range(10, 20))
    assert part.node_counts().tolist() == [item.num_nodes for item in part]
    assert len(dataset.node_counts()) == N
    with pytest.raises(IndexError):
        dataset[N]


def test_bad_arguments(root: Path) -> None:
    with pytest.raises(
        BadInput, match=r"no finished split 'dense', but .*; deepnets-bench generate --split SPLIT"
    ):
        DeepNets1M(root, "dense")
    with pytest.raises(BadInput, match="width must be even"):
        DeepNets1M(root, "train", width=31)
    with pytest.raises(BadInput, match="image_size must be a multiple"):
        DeepNets1M(root, "train", image_size=30)
    with pytest.raises(BadInput, match="fc_dim must be a positive whole number, not 0"):
        DeepNets1M(root, "train", fc_dim=0)


def test_a_graph_that_does_not_fit_its_architecture_is_refused(tmp_path: Path) -> None:
    columns = dict(sampled_columns(SPLITS["test"], 0, 8, 1))
    columns["op"] = columns["op"].copy()
    bn = np.flatnonzero(columns["op"][: columns["op_offset"][1]] == 11)[0]
    columns["op"][bn] = 12
    columns["width"] = columns["width"].copy()
    columns["width"][1] = 33
    write(tmp_path, columns)
    dataset = DeepNets1M(tmp_path, "test")
    with pytest.raises(CorruptFile, match=r"Graph 0 in .* does not fit its architecture"):
        dataset[0]
    with pytest.raises(CorruptFile, match=r"Graph 1 in .* has the width 33"):
        dataset[1]
    assert dataset[2].index == 2


def test_an_architecture_without_an_output_is_refused(tmp_path: Path) -> None:
    """Every operation `none`: the stored numbers are in range, but no network has this code."""
    columns = dict(sampled_columns(SPLITS["test"], 0, 8, 1))
    code = columns["architecture"] = columns["architecture"].copy()
    end = columns["architecture_offset"][1]
    steps = code[10] + code[11]
    code[:end][14 : 14 + 4 * steps : 2] = 0
    write(tmp_path, columns)
    with pytest.raises(CorruptFile, match="does not fit its architecture"):
        DeepNets1M(tmp_path, "test")[0]


class TestPyG:
    """A `torch_geometric` user's ways: its loader, `Batch`, copies and transforms."""

    PE = T.Compose([T.ToUndirected(), T.AddRandomWalkPE(4)])

    def test_its_loader_makes_the_tensors_of_collate(self, root: Path) -> None:
        dataset = DeepNets1M(root, "wide", virtual_edges=7)
        batches = PyGLoader(dataset, batch_size=4, collate_fn=DeepNets1M.collate)
        expected = DataLoader(dataset, batch_size=4, collate_fn=DeepNets1M.collate)
        ghn = GHN.from_config("ghn2", gnn="gat").eval()
        for batch, other in zip(batches, expected, strict=True):
            assert isinstance(batch, GraphBatch)
            assert equal(batch, other)
            assert (batch.num_graphs, batch.num_nodes) == (other.num_graphs, other.num_nodes)
            assert [a.param_name for a in batch.graphs] == [b.param_name for b in other.graphs]
            assert (batch.index.tolist(), batch.width.tolist()) == (other.index, other.width)
            assert batch.fc_dim == other.fc_dim
        with torch.no_grad():
            for params, others in zip(ghn(batch), ghn(other), strict=True):
                assert all(torch.equal(params[name], others[name]) for name in others)

    @pytest.mark.parametrize("loader", [PyGLoader, DataLoader])
    def test_workers(self, root: Path, loader: Callable[..., DataLoader[Any]]) -> None:
        dataset = DeepNets1M(root, "train", virtual_edges=7, transform=self.PE)
        here, there = (
            loader(dataset, batch_size=8, num_workers=n, collate_fn=DeepNets1M.collate) for n in (0, 2)
        )
        for one, other in zip(here, there, strict=True):
            assert equal(one, other)
            assert torch.equal(one.random_walk_pe, other.random_walk_pe)
            assert one.graphs[1].param_name == other.graphs[1].param_name

    def test_items_and_batches_are_taken_apart_again(self, root: Path) -> None:
        dataset = DeepNets1M(root, "train", virtual_edges=7)
        items = [dataset[i] for i in (4, 0, 17)]
        pyg = Batch.from_data_list(items)
        for batch in (pyg, DeepNets1M.collate(items), pickle.loads(pickle.dumps(pyg))):
            assert batch.num_graphs == 3
            for part, item in zip(batch.to_data_list(), items, strict=True):
                assert type(part) is GraphBatch
                assert all(torch.equal(getattr(part, key), item[key]) for key in TENSORS)
                assert (part.num_nodes, part.num_graphs) == (item.num_nodes, 1)
                assert (int(part.index), int(part.width)) == (item.index, item.width)
                assert part.graphs[0].param_name == item.graphs[0].param_name
            assert equal(DeepNets1M.collate(batch.to_data_list()[:1]), items[0])
            assert torch.equal(batch[2].edge_index, items[2].edge_index)
        with pytest.raises(BadInput, match=r"joined by GraphBatch\.join"):
            Batch.from_data_list([pyg, pyg])
        joined = DeepNets1M.collate([DeepNets1M.collate(items[:2]), items[2]])
        assert equal(joined, DeepNets1M.collate(items))

    def test_copies(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        item = DeepNets1M(root, "train", transform=self.PE)[0]
        monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor.clone())
        copies = [
            *(item.clone(), copy.copy(item), copy.deepcopy(item), pickle.loads(pickle.dumps(item))),
            *(copy.copy(item).to("cpu"), copy.copy(item).pin_memory(), copy.copy(item).contiguous()),
        ]
        for again in copies:
            assert type(again) is GraphBatch
            assert equal(again, item)
            assert torch.equal(again.random_walk_pe, item.random_walk_pe)
            assert (again.index, again.width, again.num_graphs) == (item.index, item.width, 1)
            assert again.graphs[0].param_shape == item.graphs[0].param_shape
        assert copy.copy(item).to("meta").random_walk_pe.device.type == "meta"

    @pytest.mark.parametrize("virtual_edges", [50, None])
    def test_what_transforms_change_and_add_is_in_the_batch(
        self, root: Path, virtual_edges: int | None
    ) -> None:
        dataset = DeepNets1M(root, "train", virtual_edges=virtual_edges, transform=self.PE)
        plain = DeepNets1M(root, "train", virtual_edges=virtual_edges)
        items = [dataset[i] for i in range(5)]
        expected = [self.PE(Data(edge_index=p.edge_index, num_nodes=p.num_nodes)) for p in plain[:5]]
        for batch in (
            DeepNets1M.collate(items),
            next(iter(PyGLoader(dataset, 5))),
            next(iter(DataLoader(dataset, 5, collate_fn=DeepNets1M.collate))),
        ):
            assert batch.num_edges == 2 * sum(plain[i].num_edges for i in range(5))
            shifted = [e.edge_index + start for e, start in zip(expected, batch.ptr, strict=False)]
            assert torch.equal(batch.edge_index, torch.cat(shifted, 1))
            assert torch.equal(batch.random_walk_pe, torch.cat([e.random_walk_pe for e in expected]))
            assert torch.equal(batch.distance, DeepNets1M.collate([plain[i] for i in range(5)]).distance)
            assert torch.equal(batch[3].random_walk_pe, items[3].random_walk_pe)
            assert torch.equal(batch[3].edge_index, items[3].edge_index)
        dataset.transform = None
        assert "random_walk_pe" not in dataset[0]
        dataset.transform = self.PE
        assert "random_walk_pe" in dataset[0:3][2]

    def test_attributes_of_edges_and_graphs(self, root: Path) -> None:
        def label(data: Data) -> Data:
            data.y = torch.tensor([[1.0, 2.0]]) * data.index
            data.edge_attr = torch.full((data.num_edges, 3), float(data.index))
            data.name = f"net {data.index}"
            data.close = data.distance < 3
            return data

        dataset = DeepNets1M(root, "train", transform=label)
        batch = DeepNets1M.collate([dataset[i] for i in (1, 2)])
        assert batch.y.tolist() == [[1, 2], [2, 4]]
        assert batch.name == ["net 1", "net 2"]
        assert batch.edge_attr.shape == (batch.num_edges, 3)
        assert torch.equal(batch.close, batch.distance < 3)
        assert batch[1].y.tolist() == [[2, 4]]
        with pytest.raises(BadInput, match=r"Only some of the graphs have close, edge_attr, name, y;"):
            DeepNets1M.collate([dataset[0], DeepNets1M(root, "train")[1]])

    @pytest.mark.parametrize(
        ("transform", "sentence"),
        [
            (T.VirtualNode(), r"VirtualNode\(\) makes \d+ nodes of \d+; parameters belong to nodes"),
            (lambda data: data.subgraph(torch.arange(3)), "makes 3 nodes of"),
            (lambda data: data.update({"op": data.op.flip(0)}), "changes 'op'; parameters belong to nodes"),
            (lambda data: None, "returns NoneType; a transform of architectures must return"),
            (lambda data: HeteroData(), "returns HeteroData"),
            (T.ToSparseTensor(), r"ToSparseTensor\(.*\) takes edge_index away"),
        ],
    )
    def test_other_nodes_are_refused(
        self, root: Path, transform: Callable[[Data], Data], sentence: str
    ) -> None:
        with pytest.raises(BadInput, match=sentence):
            DeepNets1M(root, "train", transform=transform)[0]

    def test_saved_transforms_are_refused(self, root: Path) -> None:
        for name in ("pre_transform", "pre_filter"):
            with pytest.raises(BadInput, match=f"{name} would change the generated files"):
                DeepNets1M(root, "train", **{name: T.ToUndirected()})


class TestMetaBatchSampler:
    NODES = np.array([100, 200, 300, 400, 500, 600, 700, 800])

    def test_each_epoch_is_a_permutation_in_whole_batches(self) -> None:
        batches = list(islice(MetaBatchSampler(self.NODES, 3, None), 8))
        assert all(len(batch) == 3 for batch in batches)
        epochs = [batches[2 * i] + batches[2 * i + 1] for i in range(4)]  # two of the eight are left over
        assert all(len(set(epoch)) == 6 for epoch in epochs)
        assert len({tuple(epoch) for epoch in epochs}) == 4

    def test_batches_above_the_cap_are_left_out_whole(self) -> None:
        free = list(islice(MetaBatchSampler(self.NODES, 2, None), 400))
        capped = list(islice(MetaBatchSampler(self.NODES, 2, 800), 50))
        within = [batch for batch in free if self.NODES[batch].sum() <= 800]
        assert len(within) < len(free)
        assert capped == within[:50]

    def test_the_order_depends_on_the_seed_alone(self) -> None:
        def first(seed: int) -> list[list[int]]:
            return list(islice(MetaBatchSampler(self.NODES, 2, seed=seed), 20))

        assert first(0) == first(0) != first(1)
        sampler = MetaBatchSampler(self.NODES, 2)
        assert list(islice(sampler, 5)) == list(islice(sampler, 5))

    def test_impossible_requests_are_refused(self) -> None:
        with pytest.raises(BadInput, match="No 3 graphs fit into 500 nodes: the smallest have 600"):
            MetaBatchSampler(self.NODES, 3, 500)
        for size in (0, 9):
            with pytest.raises(BadInput, match=f"meta_batch_size must be from 1 to 8, not {size}"):
                MetaBatchSampler(self.NODES, size)

    def test_in_a_loader(self, root: Path) -> None:
        dataset = DeepNets1M(root, "train", virtual_edges=None)
        sampler = MetaBatchSampler(dataset.node_counts(), 4, max_nodes=900)
        loader = DataLoader(dataset, batch_sampler=sampler, collate_fn=DeepNets1M.collate)
        for batch, chosen in zip(islice(loader, 5), sampler, strict=False):
            assert batch.index == chosen
            assert batch.num_nodes <= 900

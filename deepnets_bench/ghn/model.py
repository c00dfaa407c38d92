"""The graph hypernetwork: reads the graph of an architecture and predicts all its parameters."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

import torch
from torch import Tensor, nn

from deepnets_bench.compiler.primitives import PRIMITIVES
from deepnets_bench.errors import BadInput, CorruptFile, NotFinite
from deepnets_bench.ghn import checkpoint, parameter_plan
from deepnets_bench.ghn.config import GHNConfig, preset
from deepnets_bench.ghn.decoders import TwoLayer, build_decoder
from deepnets_bench.ghn.shapes import ShapeEncoder
from deepnets_bench.gnn import GNNIdentity, GNNLike, identify, is_registered
from deepnets_bench.gnn.adapters import adapt
from deepnets_bench.gnn.contract import check_output
from deepnets_bench.gnn.transform import declared_transform
from deepnets_bench.system.files import reading

if TYPE_CHECKING:
    from deepnets_bench.architecture import Architecture
    from deepnets_bench.data.dataset import GraphBatch
    from deepnets_bench.ghn.foreign import Prediction
    from deepnets_bench.graphs.graph import ComputationGraph

ModuleT = TypeVar("ModuleT", bound=nn.Module)


class GHN(nn.Module):
    """A shape encoder, a graph network, and decoders shared by all parameters of all architectures.

    The graph network is the part a benchmark varies: any `nn.Module` with `forward(x, batch) -> x`.
    Zhang et al. 2019 (GHN-1), Knyazev et al. 2021 (GHN-2), 2023 (GHN-3).
    """

    def __init__(self, config: GHNConfig, gnn: nn.Module | None = None) -> None:
        """Build around `gnn`, or around the graph network that `config` names."""
        super().__init__()
        self.config = config
        dim, out = config.hid, config.max_shape[0]
        self.embed = nn.Embedding(len(PRIMITIVES), dim)
        self.shape_enc = ShapeEncoder(dim, config.num_classes, max(config.max_shape[2:]))
        self.gnn = build_gnn(config) if gnn is None else _with_transform(gnn)
        if config.layernorm:
            self.ln = nn.LayerNorm(dim)
        self.decoder = build_decoder(
            config.decoder, dim, config.max_shape, config.num_classes, central=config.is_graphormer
        )
        self.decoder_1d = TwoLayer(dim, 2 * dim, 2 * out)
        self.bias_class = nn.Sequential(nn.ReLU(), nn.Linear(out, config.num_classes))
        if config.is_graphormer:
            self._start_small()

    @classmethod
    def from_config(
        cls,
        config: str | Mapping[str, Any] | GHNConfig,
        gnn: GNNLike | None = None,
        gnn_options: Mapping[str, Any] | None = None,
        num_classes: int = 10,
    ) -> GHN:
        """A fresh hypernetwork: "ghn1", "ghn2", "mlp", "ghn3-t" (-s, -l, -xl), or a dict of settings.

        `gnn` puts another graph network in place of its own: a baseline's name, `./mine.py:MyGNN`,
        `package.module:Class`, or a class; `gnn_options` are passed to it. `num_classes` applies to names
        only.
        """
        if isinstance(config, str):
            config = preset(config, num_classes)
        elif not isinstance(config, GHNConfig):
            config = GHNConfig.from_dict(config)
        if gnn is None:
            gnn, gnn_options = config.gnn, config.gnn_options
        if gnn is None:
            return cls(config)
        identity = identify(gnn, gnn_options)
        config = config.around(identity)
        return cls(config, build_gnn(config, identity))

    @classmethod
    def load(cls, path: str | PathLike[str], trust: bool = False) -> GHN:
        """Read a file of `save` or a published checkpoint (.pt), to the CPU.

        A file names its GNN, and to build one runs its code: with anything but a registered GNN (a baseline,
        an installed plug-in), the file is refused unless you `trust` it. Where the source of the GNN is not
        the one that was trained, a warning says so. Raises `BadInput` where there is no such file or it is
        not trusted, `CorruptFile` for one that is truncated, of another kind, or whose tensors are not those
        of its configuration.
        """
        config, tensors = checkpoint.read(path)
        if config.gnn is not None and not trust and not is_registered(config.gnn):
            raise BadInput(
                f"{path} names the GNN '{config.gnn}', which is not a registered one: loading the file would "
                "run code of its choice. Where you trust it, say trust=True (--trust)."
            )
        _check_frame(path, config, tensors)
        ghn = cls.from_config(config)
        if config.gnn_digest not in ("", ghn.config.gnn_digest):
            warnings.warn(
                f"GNN '{config.gnn}', or a library it uses, is of another version than the one in {path}.",
                stacklevel=2,
            )
        checkpoint.check_tensors(path, ghn.state_dict(), tensors)
        ghn.load_state_dict(tensors)
        return ghn

    def save(self, path: str | PathLike[str]) -> None:
        """Write safetensors with the configuration inside, or the published layout if `path` ends in .pt."""
        checkpoint.write(self.config, self.state_dict(), path)

    @property
    def virtual_edges(self) -> int:
        """Cutoff of the virtual edges that the graph network reads; 1 stands for none."""
        return self.config.virtual_edges if self.config.ve else 1

    def node_states(self, batch: GraphBatch, check: bool = True) -> Tensor:
        """States of all nodes after the graph network and the layer norm: [N, hid].

        Raises `BadInput` where the graph network returns something else than [N, hid] floats on the device
        of its input, and `NotFinite`, which names the graphs, for values that are NaN or infinite. Without
        `check` that is not looked at, for which the host waits: all states of such a graph are then NaN.
        """
        x = self.embed(batch.op) + self.shape_enc(batch.shape)
        states: Tensor = self.gnn(x, batch)
        name = self.config.gnn or type(self.gnn).__name__
        check_output(name, x, states)
        finite = states.isfinite().all(1)
        if not check:
            failing = torch.zeros(batch.num_graphs, device=x.device).index_add(
                0, batch.batch, (~finite).float()
            )
            states = states.masked_fill(failing.bool()[batch.batch, None], torch.nan)
        elif not finite.all():
            graphs = batch.batch[~finite].unique().tolist()
            nodes = int((~finite).sum())
            raise NotFinite(f"GNN '{name}': forward returns NaN or infinity for {nodes} nodes.", graphs)
        if self.config.layernorm:
            states = self.ln(states)
        return states

    @overload
    def __call__(self, batch: GraphBatch, check: bool = True) -> list[dict[str, Tensor]]: ...

    @overload
    def __call__(self, batch: ModuleT) -> ModuleT: ...

    def __call__(self, batch: Any, check: bool = True) -> Any:
        """`forward`, or the published call `module = ghn(module)`.

        The latter initialises the module in place and returns it, and warns of parameters that were left.
        Raises `BadInput` for anything but a batch of graphs or a module.
        """
        if hasattr(batch, "graphs"):
            return super().__call__(batch, check)
        if not isinstance(batch, nn.Module):
            raise BadInput(
                "A hypernetwork is called with a GraphBatch or one torch.nn.Module, not with "
                f"{type(batch).__name__}; ghn.predict(architecture) takes an Architecture."
            )
        from deepnets_bench.graphs.tracing.trace import warn_of_left

        warn_of_left(self.initialize(batch).left)
        return batch

    def forward(self, batch: GraphBatch, check: bool = True) -> list[dict[str, Tensor]]:
        """Predict the live parameters of every graph: name → tensor, in node order.

        `check` is that of `node_states`; without it, nothing here waits for the device. Always in the
        precision of the decoder's weights, under autocast too. Raises `BadInput` for an unusable output of
        the graph network or a classifier of another size, `NotFinite` as `node_states`.
        """
        plan, states = self._plan_and_states(batch, check)
        with torch.autocast(states.device.type, enabled=False):
            slots, tensors = self._vectors_and_classifiers(plan, states)
            slots += plan.kernel_slots
            tensors += parameter_plan.predict_kernels(plan, states, self.decoder)
        return parameter_plan.assemble(plan, slots, tensors)

    @torch.no_grad()
    def predict(
        self,
        arch: Architecture,
        width: int = 32,
        image_size: int = 32,
        num_classes: int | None = None,
        fc_dim: int | None = None,
    ) -> dict[str, Tensor]:
        """Predict the live parameters of one architecture, without gradients: name → tensor.

        `num_classes` is the hypernetwork's own unless given. For gradients call the hypernetwork on a
        `GraphBatch`.
        """
        from deepnets_bench.data.dataset import GraphBatch

        classes = self.config.num_classes if num_classes is None else num_classes
        graph = arch.graph(width=width, image_size=image_size, num_classes=classes, fc_dim=fc_dim)
        batch = GraphBatch.from_graphs([graph], virtual_edges=self.virtual_edges)
        return self.forward(batch.to(self.embed.weight.device))[0]

    @torch.no_grad()
    def write(self, graph: ComputationGraph, params: Mapping[str, Tensor]) -> None:
        """Predict the live parameters of one graph straight into `params`, without further copies.

        The tensors may have any dtype, layout and device. A norm's bias may be absent from `params`.
        """
        from deepnets_bench.data.dataset import GraphBatch

        batch = GraphBatch.from_graphs([graph], virtual_edges=self.virtual_edges)
        plan, states = self._plan_and_states(batch.to(self.embed.weight.device))
        (names,) = plan.names
        with torch.autocast(states.device.type, enabled=False):
            slots, tensors = self._vectors_and_classifiers(plan, states)
            kernels = [params[names[slot]] for slot in plan.kernel_slots]
            parameter_plan.write_kernels(plan, states, self.decoder, kernels)
        for slot, tensor in zip(slots, tensors, strict=True):
            if names[slot] in params:
                params[names[slot]].copy_(tensor)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Images on which modules are traced: 32×32 pixels, 224×224 for ImageNet's 1000 classes."""
        size = 224 if self.config.num_classes == 1000 else 32
        return 3, size, size

    def initialize(
        self,
        module: nn.Module,
        input_shape: tuple[int, ...] | None = None,
        classifier: Literal["predict", "skip"] = "predict",
    ) -> Prediction:
        """Fill the parameters of any network in place; returns which were predicted and why others not.

        `input_shape` (channels, height, width) is the hypernetwork's own unless given. With
        `classifier="skip"` the classifier keeps its values, whatever its number of classes; bodies and dense
        prediction have none, and are predicted as they are. Parameters keep their dtype, device and
        `requires_grad`; frozen ones are filled too. Weights that parametrizations compute (weight norm) are
        set through these, where they can be inverted.

        Batch norms keep their running statistics, which belong to the old parameters:
        `deepnets_bench.recalibrate` before `module.eval()`. Raises `BadInput` for a module that cannot be
        traced, has no storage (device meta) or another number of classes; it is then as before.
        """
        from deepnets_bench.ghn.foreign import initialize

        return initialize(self, module, input_shape, classifier)

    def _plan_and_states(self, batch: GraphBatch, check: bool = True) -> tuple[parameter_plan.Plan, Tensor]:
        config = self.config
        plan = parameter_plan.make_plan(
            batch.graphs, config.max_shape, config.num_classes, config.weight_norm
        )
        return plan, self.node_states(batch, check).to(self.embed.weight.dtype)

    def _vectors_and_classifiers(
        self, plan: parameter_plan.Plan, x: Tensor
    ) -> tuple[list[int], list[Tensor]]:
        """Slots and tensors of all that the decoder of kernels does not predict."""
        norm = self.config.weight_norm
        slots = [slot for slot, _, _ in plan.vectors]
        tensors = [*parameter_plan.predict_vectors(plan, self._vectors(x, plan.vector_nodes), norm)]
        slots += [slot for _, slot, _ in plan.class_weights]
        tensors += parameter_plan.predict_class_weights(plan, x, self.decoder, norm)
        slots += [slot for _, slot in plan.class_biases]
        biases = self.bias_class(self._vectors(x, [node for node, _ in plan.class_biases])[:, 1])
        tensors += (torch.tanh(0.2 * biases) if norm else biases).unbind(0)
        return slots, tensors

    def _vectors(self, x: Tensor, nodes: list[int]) -> Tensor:
        """Outputs [V, 2, max_shape[0]] of the 1-D decoder for `nodes`: rows of a weight and of a bias."""
        index = torch.tensor(nodes, dtype=torch.long, device=x.device)
        outputs: Tensor = self.decoder_1d(x.index_select(0, index))
        return outputs.unflatten(1, (2, -1))

    @torch.no_grad()
    def _start_small(self) -> None:
        """Initialise as GHN-3: small embeddings, and last layers that start near zero."""
        shrink_embeddings(self.embed, self.config.hid)
        shrink_embeddings(self.shape_enc, self.config.hid)
        for layers in (self.decoder_1d, self.decoder, self.decoder.class_layer_predictor):
            last = [module for module in layers.modules() if isinstance(module, nn.Linear)][-1]
            last.weight /= 5
            last.bias.zero_()


def _check_frame(path: str | PathLike[str], config: GHNConfig, tensors: Mapping[str, Tensor]) -> None:
    """Raise `CorruptFile` unless the configuration is that of the tensors, before memory is taken for it."""
    with reading(path, "a hypernetwork's checkpoint"), torch.device("meta"):
        frame = GHN(config, nn.Identity()).state_dict()
    found = {name: tensor for name, tensor in tensors.items() if not name.startswith("gnn.")}
    checkpoint.check_tensors(path, frame, found)
    if config.layers > len(tensors):
        raise CorruptFile(f"{path} has too few tensors for {config.layers} layers.")


def _with_transform(gnn: nn.Module) -> nn.Module:
    """A graph network that was built elsewhere; one that declares a transform of graphs together with it."""
    if declared_transform(gnn) is None:
        return gnn
    return adapt(gnn, type(gnn).__name__, getattr(gnn, "edges", "undeclared"))


def shrink_embeddings(module: nn.Module, dim: int) -> None:
    """Initialise the embeddings inside a module as GHN-3: a truncated normal of deviation 1/√dim."""
    for part in module.modules():
        if isinstance(part, nn.Embedding):
            nn.init.trunc_normal_(part.weight, std=dim**-0.5)


def build_gnn(config: GHNConfig, gnn: GNNIdentity | None = None) -> nn.Module:
    """The graph network that `config` names, with fresh weights; `gnn` is its plug-in, where that is known.

    Raises what `GNNSpec.build` raises.
    """
    if gnn is None and config.gnn is not None:
        gnn = identify(config.gnn, config.gnn_options)
    module = gnn.build(config.hid) if gnn else _own_gnn(config)
    if config.is_graphormer:
        shrink_embeddings(module, config.hid)
    return module


def _own_gnn(config: GHNConfig) -> nn.Module:
    if config.is_graphormer:
        from deepnets_bench.ghn.graphormer import Graphormer

        return Graphormer(config.hid, config.layers, config.heads)
    from deepnets_bench.ghn.gated.module import GatedGNN, NodeMLP

    if config.hypernet == "mlp":
        return NodeMLP(config.hid)
    return GatedGNN(config.hid, virtual_edges=config.ve)

"""What a network costs: parameters, multiply-adds, nodes and depth of its graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.utils.flop_counter import FlopCounterMode

from deepnets_bench.graphs.graph import ComputationGraph
from deepnets_bench.networks.network import execute, unpack

if TYPE_CHECKING:
    from deepnets_bench.compiler.program import Program


@dataclass(frozen=True)
class Cost:
    """`parameters` of all operations, dead ones included; `multiply_adds` of one image; the longest path."""

    parameters: int
    multiply_adds: int
    nodes: int
    depth: int


def cost_of(program: Program, image_size: int) -> Cost:
    """Counts without values: the network is run on the meta device.

    Multiply-adds are those of convolutions, linear layers and attention, as PyTorch's counter has them.
    """
    graph = ComputationGraph.from_program(program)
    params = {name: torch.empty(shape, device="meta") for name, shape in program.param_shapes.items()}
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        images = torch.empty(2, 3, image_size, image_size, device="meta")  # one has no batch statistics
        execute(unpack(program), images, params, training=False)
    return Cost(
        parameters=program.num_params,
        multiply_adds=counter.get_total_flops() // 4,
        nodes=graph.num_nodes,
        depth=int(graph.level.max()) + 1,
    )

"""What a graph computes and moves at least: counted from the graph itself, on any machine, and independent of it."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import Node
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import _pytree as pytree
from torch.utils.flop_counter import FlopCounterMode

from model_core.graphs import GraphSpec
from model_core.roofline import Work


def count(spec: GraphSpec, program: ExportedProgram) -> tuple[Work, object]:
    """Operations and values moved of one run, and its outputs. Weights in use, inputs and outputs count once; the rest stays on chip."""
    module, inputs = spec.module().eval(), spec.inputs(torch.float32)
    # The counter knows products of matrices, and not every fused attention; so attention runs as products, and is told apart by the graph.
    with torch.inference_mode(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        outputs = module(*inputs)
    attention = sum(
        _attention_flops(node) for node in program.graph.nodes if node.target is torch.ops.aten.scaled_dot_product_attention.default
    )
    used = [node.meta["val"] for node in program.graph.nodes if node.op == "placeholder" and node.users]
    moved = [leaf for leaf in (*used, *pytree.tree_leaves(outputs)) if isinstance(leaf, Tensor)]
    work = Work(
        linear_flops=float(counter.get_total_flops() - attention),
        attention_flops=float(attention),
        values=float(sum(tensor.numel() for tensor in moved)),
    )
    return work, outputs


def _attention_flops(node: Node) -> int:
    """Queries with keys, and weights with values."""
    query, key, value = (argument.meta["val"].shape for argument in node.args[:3] if isinstance(argument, Node))
    return 2 * math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1])  # type: ignore[no-any-return]

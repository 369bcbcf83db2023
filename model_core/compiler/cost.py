"""What a graph computes and moves at least: counted from the graph itself, on any machine, and independent of it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree
from torch.utils.flop_counter import FlopCounterMode

from model_core.graphs import GraphSpec
from model_core.roofline import Work

_ATTENTION = ("attention",)


def count(spec: GraphSpec, program: ExportedProgram) -> tuple[Work, object]:
    """Operations and values moved of one run, and its outputs. Weights in use, inputs and outputs count once; the rest stays on chip."""
    module, inputs = spec.module().eval(), spec.inputs(torch.float32)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        outputs = module(*inputs)
    by_operator = counter.get_flop_counts().get("Global", {})
    attention = sum(flops for operator, flops in by_operator.items() if any(name in str(operator) for name in _ATTENTION))
    used = [node.meta["val"] for node in program.graph.nodes if node.op == "placeholder" and node.users]
    moved = [leaf for leaf in (*used, *pytree.tree_leaves(outputs)) if isinstance(leaf, Tensor)]
    work = Work(
        linear_flops=float(counter.get_total_flops() - attention),
        attention_flops=float(attention),
        values=float(sum(tensor.numel() for tensor in moved)),
    )
    return work, outputs

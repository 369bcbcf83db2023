"""What a graph must be so that a compiler for fixed shapes takes it: exported strictly, nothing in it depends on data.

Accelerators compiled ahead of time have no symbolic sizes, no read-back of a value to the host, and no kernels for some operators
and number types. This finds such places on any machine.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.utils import _pytree as pytree

# Fragments of operator names: a value read back by the host, sizes that depend on values, and what the compilers lack.
FORBIDDEN = (
    "_local_scalar_dense", "nonzero", "masked_select", "unique", "scatter", "index_put", "sort", "topk", "complex", "sym_size",
)  # fmt: skip
FORBIDDEN_TYPES = (torch.float64, torch.complex32, torch.complex64, torch.complex128)


def static_faults(graph: nn.Module, inputs: tuple[object, ...]) -> list[str]:
    """Why `graph` on `inputs` is no graph of static shapes, a sentence each; empty if it is one."""
    try:
        program = torch.export.export(graph, inputs, strict=True)
    except Exception as error:  # noqa: BLE001  the exporter raises errors of many kinds, and each means the same here
        return [f"cannot be exported: {type(error).__name__}: {str(error).strip().splitlines()[0]}"]
    faults = [f"symbol {symbol} has range {limits}" for symbol, limits in program.range_constraints.items()]
    for node in program.graph.nodes:
        if node.op == "call_function" and any(name in str(node.target) for name in FORBIDDEN):
            faults.append(f"{node.name} is {node.target}")
        for value in pytree.tree_leaves(node.meta.get("val")):
            if isinstance(value, torch.SymInt | torch.SymFloat | torch.SymBool):
                faults.append(f"{node.name} is symbolic: {value}")
            if isinstance(value, torch.Tensor):
                if not all(type(size) is int for size in value.shape):
                    faults.append(f"{node.name} has symbolic shape {tuple(value.shape)}")
                if value.dtype in FORBIDDEN_TYPES:
                    faults.append(f"{node.name} is {value.dtype}")
    return faults

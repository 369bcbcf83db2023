"""What a graph must be so that a compiler for fixed shapes takes it: exported strictly, nothing in it depends on data or grows.

Accelerators compiled ahead of time have no symbolic sizes, no read-back of a value to the host, and no kernels for some operators
and number types. This finds such places on any machine, and says which operator on which line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import Node
from torch.utils import _pytree as pytree

from model_core.graphs import GraphSpec

# Fragments of operator names, and why no graph may have them.
FORBIDDEN = {
    "_local_scalar_dense": "reads a value back to the host", ".item": "reads a value back to the host",
    "nonzero": "has a size that depends on values", "masked_select": "has a size that depends on values",
    "unique": "has a size that depends on values", "sym_size": "asks for a size that is not fixed",
    "index_copy": "becomes a scatter: join slices with cat instead", "index_put": "becomes a scatter: join slices with cat instead",
    "index_add": "becomes a scatter: use a product with a mask instead", "scatter": "is a scatter: join slices with cat instead",
    "sort": "is a sort", "topk": "is a sort", "complex": "makes complex numbers: use pairs of real ones", "fft": "makes complex numbers",
}  # fmt: skip
FORBIDDEN_TYPES = (torch.float64, torch.complex32, torch.complex64, torch.complex128)
_LIBRARY = re.compile(r"/(site|dist)-packages/")
_FRAME = re.compile(r'File "([^"]+)", line (\d+)')


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a graph is not fit for a compiler of fixed shapes: the operator, the source line it comes from, and a sentence."""

    operator: str
    where: str
    why: str

    def __str__(self) -> str:
        return f"{self.operator} at {self.where}: {self.why}"


@dataclass(frozen=True, slots=True)
class Exported:
    """`program` is None if the graph cannot be exported at all."""

    program: ExportedProgram | None
    faults: tuple[Fault, ...]


def export(spec: GraphSpec) -> Exported:
    """Trace the graph in its bucket, without running its compiler. Call it before `torchax` is imported, which claims a device type."""
    module, inputs = spec.module(), spec.inputs(torch.float32)
    try:
        program = torch.export.export(module, inputs, strict=True)
    except Exception as error:  # noqa: BLE001  the exporter raises errors of many kinds, and each means the same here
        return Exported(None, (_refused(error),))
    faults = dict.fromkeys((*_node_faults(program), *_grown_buffers(program, module, inputs), *_grown_inputs(program)))
    if not faults:  # a symbol without an operator that made it
        faults = {Fault("symbol", str(s), f"has range {limits}"): None for s, limits in program.range_constraints.items()}
    return Exported(program, tuple(faults))


def source_line(stack: str | None) -> str:
    """The innermost line of a stack that is not a library's; of the library, if there is no other."""
    frames = _FRAME.findall(stack or "")
    own = [frame for frame in frames if not _LIBRARY.search(frame[0])]
    path, line = (own or frames or [("unknown source", "0")])[-1]
    return f"{path}:{line}"


def _refused(error: Exception) -> Fault:
    """The exporter's own words: its first line, and the line of the caller's code that it names."""
    text = str(error)
    user_code = text.partition("from user code:")[2] or text
    context = re.search(r"=\s*(\w+)\(", text)
    return Fault(
        context[1] if context else type(error).__name__, source_line(user_code), f"cannot be exported: {text.strip().splitlines()[0]}"
    )


def _node_faults(program: ExportedProgram) -> Iterator[Fault]:
    for node in program.graph.nodes:
        operator, where = str(node.target), source_line(node.stack_trace)
        if node.op == "call_function":
            yield from (Fault(operator, where, why) for name, why in FORBIDDEN.items() if name in operator)
        for value in pytree.tree_leaves(node.meta.get("val")):
            if isinstance(value, torch.SymInt | torch.SymFloat | torch.SymBool):
                yield Fault(operator, where, "gives a size or number that is not fixed")
            if isinstance(value, Tensor):
                if not all(type(size) is int for size in value.shape):
                    yield Fault(operator, where, f"has symbolic shape {tuple(value.shape)}")
                if value.dtype in FORBIDDEN_TYPES:
                    yield Fault(operator, where, f"makes {value.dtype}, for which accelerators have no kernels")


def _grown_buffers(program: ExportedProgram, module: nn.Module, inputs: tuple[object, ...]) -> Iterator[Fault]:
    """State kept in the network: exporting loses the assignment of a buffer that changes its shape, so look after a call."""
    placeholders = program.graph_signature.inputs_to_buffers
    before = {name: (buffer, tuple(buffer.shape)) for name, buffer in module.named_buffers()}
    with torch.inference_mode():
        module(*inputs)
    for name, now in list(module.named_buffers()):
        old, shape = before[name]
        _restore(module, name, old)
        if tuple(now.shape) == shape:
            continue
        node = next(n for n in program.graph.nodes if placeholders.get(n.name) == name)
        user = next(iter(node.users), node)
        yield Fault(
            str(user.target), source_line(user.stack_trace), f"grows buffer {name} from {shape} to {tuple(now.shape)} with each call"
        )


def _restore(module: nn.Module, name: str, buffer: Tensor) -> None:
    owner, _, leaf = name.rpartition(".")
    setattr(module.get_submodule(owner), leaf, buffer)


def _grown_inputs(program: ExportedProgram) -> Iterator[Fault]:
    """State that goes in and out: an output that is a whole input with more behind it needs a new graph for every call."""
    given = set(program.graph_signature.user_inputs)
    returned = set(program.graph_signature.user_outputs)
    for node in program.graph.nodes:
        if node.target is torch.ops.aten.cat.default and node.name in returned:
            parts: list[Node] = node.args[0]
            yield from (
                Fault(str(node.target), source_line(node.stack_trace), f"returns its input {part.name} grown: a shape for every call")
                for part in parts
                if part.name in given
            )

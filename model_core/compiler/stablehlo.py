"""A graph as StableHLO, by way of JAX on the CPU: the common ground of compilers for fixed shapes, with nothing of an accelerator needed.

A graph that passes lowers to static StableHLO, and that computes what PyTorch computes. It proves neither that an accelerator's own
compiler accepts it, nor that it fits the chip's memory, nor how fast it is.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from model_core.compiler.export import Fault, source_line

_OPERATION = re.compile(r"\b(?:stablehlo|chlo)\.(\w+)")
_BAD_OPERATION = re.compile(r"^(dynamic_\w+|custom_call|scatter|select_and_scatter|sort|fft|top_k|real_dynamic_slice|while)$")
_BAD_PRIMITIVE = re.compile(r"^(scatter.*|sort|top_k|fft|dynamic_\w+|while|scan|approx_top_k)$")
_BAD_TYPE = re.compile(r"tensor<[^>]*(\?[^>]*|complex<\w+>|xf64)>|tensor<f64>")


@dataclass(frozen=True, slots=True)
class Lowered:
    """What came of a graph.

    Attributes:
        sha256: of the StableHLO text; equal for equal graphs, whatever the weights.
        operations: how many of them.
        faults: empty if it is static and plain.
        difference: largest |XLA - eager| of an output, divided by its largest |eager|; None if it was not run.
    """

    sha256: str
    operations: int
    faults: tuple[Fault, ...]
    difference: float | None


def lower(program: ExportedProgram, inputs: tuple[object, ...], expected: object | None) -> Lowered:
    """Lower `program`, and compare with `expected`, the outputs of eager PyTorch on `inputs`, if they are given.

    Raises:
        ImportError: torchax and jax are not installed; they come with requirements-dev.txt.
    """
    with _without_dimname():
        import torchax  # noqa: PLC0415  it claims a device type when it is imported, so not before it is needed
        import torchax.export as tools  # noqa: PLC0415
        from torchax import decompositions  # noqa: PLC0415
    import jax  # noqa: PLC0415

    parts = {**decompositions.DECOMPOSITIONS, torch.ops.aten.native_group_norm.default: _group_norm}
    flat = program.run_decompositions().run_decompositions(parts)
    _, weights = tools._extract_states_from_exported_program(flat)  # noqa: SLF001  its public wrapper hides the graph

    class Named(tools.JaxInterpreter):  # type: ignore[misc]
        """Writes the node's name over what it emits, so that an operation can be traced to its source."""

        def run_node(self, n: torch.fx.Node) -> Any:
            with jax.named_scope(n.name):
                return super().run_node(n)

    def graph(states: list[Any], values: list[Any]) -> Any:
        return Named(flat.graph_module).run(*states, *values, enable_io_processing=False)

    states = torchax.default_env().t2j_copy(weights)
    values = [jax.numpy.asarray(leaf.numpy()) for leaf in pytree.tree_leaves(inputs) if isinstance(leaf, torch.Tensor)]
    try:
        traced = jax.jit(graph).trace(states, values)
        lowered = traced.lower()
    except Exception as error:  # noqa: BLE001  each means that there is no such graph
        return Lowered("", 0, (Fault(type(error).__name__, "unknown source", f"does not lower to StableHLO: {error}"),), None)
    text = lowered.as_text()
    operations = _OPERATION.findall(text)
    faults = list(dict.fromkeys(_primitives(traced.jaxpr, flat)))
    if not faults:
        faults = [
            Fault(f"stablehlo.{name}", "unknown source", "is forbidden") for name in sorted({*operations}) if _BAD_OPERATION.match(name)
        ]
    faults += [Fault("stablehlo", "unknown source", f"has type {match.group()}") for match in [_BAD_TYPE.search(text)] if match]
    apart = None
    if expected is not None and not faults:
        apart = difference(lowered.compile()(states, values), pytree.tree_leaves(expected))
    return Lowered(hashlib.sha256(text.encode()).hexdigest(), len(operations), tuple(faults), apart)


def _group_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, rows: int, channels: int, _: int, groups: int, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """In parts, as compilers take it; torchax would loop over the groups, and torch's own parts have an operator that torchax has not."""
    grouped = x.reshape(rows, groups, -1)
    mean = grouped.mean(-1, keepdim=True)
    apart = grouped - mean
    deviation = torch.rsqrt((apart * apart).mean(-1, keepdim=True) + eps)
    made = (apart * deviation).reshape(x.shape)
    along = (1, channels, *[1] * (x.ndim - 2))
    made = made if weight is None else made * weight.reshape(along)
    made = made if bias is None else made + bias.reshape(along)
    return made, mean.reshape(rows, groups), deviation.reshape(rows, groups)


def _primitives(jaxpr: Any, program: ExportedProgram) -> Iterator[Fault]:
    """Forbidden primitives, with the line of the node that they came from."""
    stacks = {node.name: node for node in program.graph.nodes}
    for equation in _equations(jaxpr.jaxpr):
        if _BAD_PRIMITIVE.match(equation.primitive.name):
            node = next((stacks[part] for part in str(equation.source_info.name_stack).split("/") if part in stacks), None)
            where = source_line(node.stack_trace if node else None)
            yield Fault(f"{node.target if node else 'unknown'} (StableHLO {equation.primitive.name})", where, "is forbidden")


def _equations(jaxpr: Any) -> Iterator[Any]:
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from _equations(inner)


def difference(got: Any, expected: list[Any]) -> float:
    """The largest of all outputs. Whole numbers are rounded values, which may fall on either side: one more or less is no difference."""
    worst = 0.0
    for ours, theirs in zip(pytree.tree_leaves(list(got)), expected, strict=True):
        values = theirs.double().numpy()
        apart = float(np.abs(np.asarray(ours, np.float64) - values).max())
        slack = 0.0 if theirs.is_floating_point() else 1.0
        worst = max(worst, max(0.0, apart - slack) / max(float(np.abs(values).max()), 1e-6))
    return worst


@contextmanager
def _without_dimname() -> Iterator[None]:
    """For torchax 0.0.13, which names overloads that torch 2.13 has dropped: while it is imported, any object stands for them."""
    packet: Any = torch._ops.OpOverloadPacket  # noqa: SLF001
    original = packet.__getattr__

    def lookup(self: Any, key: str) -> Any:
        try:
            return original(self, key)
        except AttributeError:
            if "dimname" in key or "names" in key or "Dimname" in key:
                return object()
            raise

    packet.__getattr__ = lookup
    try:
        yield
    finally:
        packet.__getattr__ = original

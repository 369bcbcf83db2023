"""Rows that do not notice each other: a graph for several sessions gives each the bits that it would give to that session alone.

On CPUs it often does so by itself. But a matrix product may round a row by how many there are, and PyTorch's SiLU, GELU and sigmoid round a
number by its place in memory: whole vectors go through one exponential, what is left over through another. Which shapes are touched
depends on the processor, its instruction set, the libraries and their threads, so nobody predicts it here. The first batch of each shape is
computed both ways and watched. Where the bits differ, or a row's numbers fill no whole vectors, rows of that shape are computed one after
the other from then on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from model_core.graphs import GraphSpec

Call = Callable[..., Any]
Sizes = tuple[torch.Size, ...]

_VECTOR = 64  # numbers that the longest loop over vectors takes at once: two registers of 512 bits, of bfloat16
_GRAIN = 32_768  # numbers that PyTorch leaves to one thread
# Functions with one right result, so that it does not depend on the code that computes it. All others of single numbers are watched.
_EXACT = frozenset({
    "abs", "add", "bitwise_and", "bitwise_not", "bitwise_or", "ceil", "clamp", "clamp_max", "clamp_min", "clone", "copy", "div", "eq",
    "fill", "floor", "ge", "gt", "isfinite", "isnan", "le", "logical_and", "logical_not", "logical_or", "lt", "maximum", "minimum", "mul",
    "ne", "neg", "reciprocal", "relu", "round", "rsub", "sign", "sqrt", "sub", "trunc", "where",
})  # fmt: skip


class RowsApart:
    """A graph as a call; see the module's docstring. Its inputs have B rows, or 1 row for what all rows share.

    Args:
        call: the graph. Of its inputs the first tensor has B rows; all of its outputs have.
    """

    def __init__(self, call: Call) -> None:
        self._call = call
        self._together: dict[Sizes, bool] = {}

    def __call__(self, *inputs: Any) -> Any:
        sizes = tuple(leaf.shape for leaf in pytree.tree_leaves(inputs) if isinstance(leaf, Tensor))
        rows = sizes[0][0]
        if rows == 1 or self._together.get(sizes):
            return self._call(*inputs)
        if sizes in self._together:
            return _joined([self._call(*_row(inputs, row, rows)) for row in range(rows)])
        with _Watch() as alone:
            apart = _joined([self._call(*_row(inputs, row, rows)) for row in range(rows)])
        with _Watch() as beside:
            together = self._call(*inputs)
        self._together[sizes] = _same(apart, together) and all(_whole(size, rows) for _, size in beside.seen - alone.seen)
        return apart


def apart(graphs: Sequence[GraphSpec]) -> Callable[[Call], Call]:
    """Wraps those entry points of `graphs` that several sessions share."""
    shared = {getattr(graph.network, graph.entry) for graph in graphs if graph.shared}
    return lambda call: RowsApart(call) if call in shared else call


class _Watch(TorchDispatchMode):
    """Notes which functions of single numbers ran that are not exact, and on tensors of what size."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: set[tuple[str, torch.Size]] = set()

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """So that a graph which compiles a part of itself still can."""
        return True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        exact = name.rstrip("_") in _EXACT and (kwargs or {}).get("alpha", 1) == 1  # a product and a sum at once is rounded once, or twice
        if torch.Tag.pointwise in func.tags and not exact and isinstance(made, Tensor):
            self.seen.add((name, made.shape))
        return made


def _whole(size: torch.Size, rows: int) -> bool:
    """Whether each row fills whole vectors, wherever it lies and whichever thread it falls to."""
    return size.numel() % (rows * _VECTOR) == 0 and (torch.get_num_threads() == 1 or size.numel() <= _GRAIN)


def _row(inputs: tuple[Any, ...], row: int, rows: int) -> tuple[Any, ...]:
    """Copied, because a matrix product may also round by where in memory its operands begin."""

    def one(leaf: Tensor) -> Tensor:
        return leaf[row : row + 1].clone() if leaf.dim() and leaf.shape[0] == rows else leaf

    picked: tuple[Any, ...] = pytree.tree_map_only(Tensor, one, inputs)
    return picked


def _joined(outputs: Sequence[Any]) -> Any:
    leaves = zip(*(pytree.tree_leaves(output) for output in outputs), strict=True)
    return pytree.tree_unflatten([torch.cat(parts) for parts in leaves], pytree.tree_structure(outputs[0]))


def _same(a: Any, b: Any) -> bool:
    return all(torch.equal(x, y) for x, y in zip(pytree.tree_leaves(a), pytree.tree_leaves(b), strict=True))

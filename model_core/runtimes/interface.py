"""What a stage needs of the device under it, and all it may use. Nothing above this line knows which device it is.

    prepare        settings that must stand before the device is touched
    load           graphs → a program: networks on the device, every graph warm in every bucket
    put, fetch     host ↔ device; what a graph returns stays on the device until it is fetched
    run            → a ticket, at once where the device works by itself
    capabilities   where a program runs, and how

A program that compiles refuses a shape that was not warmed: nothing is ever compiled while somebody waits for a frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch

from model_core.graphs import GraphSpec

Tree = TypeVar("Tree")  # a tensor, or lists, tuples and named tuples of tensors


@dataclass(frozen=True, slots=True)
class Capabilities:
    """Where a program runs, and how.

    Attributes:
        device, dtype: where networks stand and what their weights are.
        compiled: graphs are compiled, each in each bucket, while the program is loaded; other shapes are refused.
        asynchronous: `run` returns before the device is done.
    """

    device: torch.device
    dtype: torch.dtype
    compiled: bool
    asynchronous: bool


class Ticket(Protocol):
    """One run of one graph."""

    @property
    def state(self) -> Any:
        """Outputs on the device, to be given to other graphs; they may still be in the making."""
        ...

    def wait(self) -> None:
        """Until the outputs are made."""
        ...

    def result(self) -> Any:
        """Outputs on the host, once they are made."""
        ...


class Program(Protocol):
    """A stage's graphs, loaded and, where they are compiled, warm. Called from one thread at a time, after loading always from the same."""

    @property
    def capabilities(self) -> Capabilities: ...

    def warm(self) -> None:
        """Run every graph in each of its shapes, unless that has been done, so that no request pays for the first time."""
        ...

    def put(self, value: Tree) -> Tree:
        """Host → device; types are kept."""
        ...

    def fetch(self, value: Tree) -> Tree:
        """Device → host; waits for what is still being made."""
        ...

    def run(self, graph: str, *inputs: Any) -> Ticket:
        """Start the graph of that name on inputs that are on the device.

        Raises:
            ShapeNotServed: the program is compiled, and not for these shapes.
        """
        ...


class Runtime(Protocol):
    def prepare(self) -> None:
        """Once a process, before any other call.

        Raises:
            RuntimeUnavailable: the device or its package is not there, or it is too late for a setting.
        """
        ...

    def load(self, graphs: Sequence[GraphSpec]) -> Program:
        """Move the networks of one stage's graphs to the device, in place, and warm every graph."""
        ...

"""The record that lists a model's graphs: what a runtime compiles and warms, and what `headrace compile` checks.

A model is a handful of graphs, each an entry point of a network, each in a few buckets. A family of models says which with
`GraphSpec`s and with nothing else; whoever walks them need not know the family.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import nn

from model_core.stage import ENHANCER as _ENHANCER
from model_core.stage import Stage

Inputs = tuple[object, ...]  # positional; tensors, or lists, tuples and named tuples of them

TEXT_ENCODER, DENOISER, DECODER = (stage.value for stage in Stage)
ENHANCER = _ENHANCER


@dataclass(frozen=True, slots=True, order=True)
class Bucket:
    """Sizes that fix every shape of a graph; 0 where the graph has no such axis.

    Attributes:
        rows: sessions side by side.
        frames, height, width: of latents; of pixels in the enhance stage.
        tokens: of text.
    """

    rows: int
    frames: int = 0
    height: int = 0
    width: int = 0
    tokens: int = 0

    def __str__(self) -> str:
        return "-".join(f"{f.name}{size}" for f in fields(self) if (size := getattr(self, f.name)))


@dataclass(frozen=True, slots=True)
class GraphSpec:
    """One graph of one stage in one bucket.

    Attributes:
        stage: `text_encoder`, `denoiser`, `decoder` or `enhancer`.
        name: of the graph, unique within the stage.
        bucket: what its shapes follow from; with stage and name, the key.
        network: holds the weights. Graphs that share weights share the object.
        entry: method of `network` that is the graph.
        inputs: given the type of the weights, makes inputs of exactly the shapes and types that are served, on the CPU. Latents, times and
            masks are float32 whatever the weights are; what one graph makes for another is of the weights' type. Values should be
            plausible (finite, of the usual size), because outputs are compared; equal calls give equal values.
        shared: its rows are of several sessions, and how many there are changes from run to run.
    """

    stage: str
    name: str
    bucket: Bucket
    network: nn.Module
    entry: str
    inputs: Callable[[torch.dtype], Inputs]
    shared: bool = False

    @property
    def key(self) -> str:
        return f"{self.stage}/{self.name}/{self.bucket}"

    def module(self) -> nn.Module:
        """The graph as a module with a `forward`, which is what an exporter wants."""
        return Entry(self.network, self.entry)


class Entry(nn.Module):
    """One entry point of a network, as a `forward`."""

    def __init__(self, network: nn.Module, entry: str) -> None:
        super().__init__()
        self.network = network
        self._entry = entry

    def forward(self, *inputs: object) -> object:
        return getattr(self.network, self._entry)(*inputs)

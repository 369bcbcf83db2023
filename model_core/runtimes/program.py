"""What the runtimes share: networks on a device, entry points by name, and the shapes that they are warm in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from model_core.config import RuntimeConfig
from model_core.errors import RuntimeUnavailable, ShapeNotServed
from model_core.graphs import GraphSpec
from model_core.runtimes.interface import Capabilities, Ticket, Tree

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}
Call = Callable[..., Any]
Signature = tuple[tuple[tuple[int, ...], torch.dtype], ...]


def signature(inputs: tuple[Any, ...]) -> Signature:
    """Shapes and types of all tensors in `inputs`: what a compiled graph is good for."""
    return tuple((tuple(leaf.shape), leaf.dtype) for leaf in pytree.tree_leaves(inputs) if isinstance(leaf, Tensor))


def _apart(inputs: Tree) -> Tree:
    """No two of them the same tensor: a compiler takes that for a rule, and what comes to be served does not keep it."""
    apart: Tree = pytree.tree_map_only(Tensor, Tensor.clone, inputs)
    return apart


def _contiguous(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """A compiler takes strides for a part of the shape; a view of another tensor would be compiled for again.

    It counts those of axes of length 1, too, which PyTorch calls contiguous whatever they are.
    """
    plain: tuple[Any, ...] = pytree.tree_map_only(Tensor, lambda t: t.contiguous().view(-1).view(t.shape), inputs)
    return plain


def fix_shapes(graphs: Sequence[GraphSpec]) -> None:
    """Tell PyTorch's compiler that each bucket is a shape of its own, and how many there are. Call before compiling."""
    settings: Any = torch._dynamo.config  # noqa: SLF001  its documented place
    settings.automatic_dynamic_shapes = False
    settings.recompile_limit = max(settings.recompile_limit, 2 * len(graphs))


def _move(network: nn.Module, to: Capabilities) -> None:
    """In place, unless its weights were made there. Networks that keep some of their weights in a wider type go on doing so."""
    floats = [t for t in (*network.parameters(), *network.buffers()) if t.is_floating_point()]
    if all(t.dtype != to.dtype for t in floats):
        network.to(device=to.device, dtype=to.dtype)
    elif any(t.device.type != to.device.type for t in floats):
        network.to(device=to.device)


def arrange(graphs: Sequence[GraphSpec], config: RuntimeConfig) -> None:
    """Store the weights as `config` says, in place: linear layers in 8 bits, convolutions with their channels last."""
    networks = {id(g.network): g.network for g in graphs}.values()
    if config.channels_last:
        for network in networks:
            for parameter in network.parameters():
                if (layout := _CHANNELS_LAST.get(parameter.dim())) is not None:
                    parameter.data = parameter.data.contiguous(memory_format=layout)
    if not config.weights:
        return
    try:
        from torchao import quantization  # noqa: PLC0415  slow to import, and a choice
    except ImportError as error:
        raise RuntimeUnavailable(
            "weights in 8 bits need the package torchao; requirements-dev.txt has the release that is tested"
        ) from error
    kinds = {"int8": quantization.Int8WeightOnlyConfig, "fp8": quantization.Float8WeightOnlyConfig}
    for network in networks:
        quantization.quantize_(network, kinds[config.weights]())


class Done:
    """A ticket of a device that works while it is called."""

    __slots__ = ("state",)

    def __init__(self, state: Any) -> None:
        self.state = state

    def wait(self) -> None: ...

    def result(self) -> Any:
        return pytree.tree_map_only(Tensor, Tensor.cpu, self.state)


class Pending(Done):
    """A ticket of a device that works by itself."""

    __slots__ = ()

    def wait(self) -> None:
        torch.accelerator.synchronize()


class HostProgram:
    """Graphs as plain calls on the CPU, in any shape; whoever runs it holds `torch.inference_mode`."""

    capabilities = Capabilities(torch.device("cpu"), torch.float32, compiled=False, asynchronous=False)

    def __init__(self, graphs: Sequence[GraphSpec], as_served: Callable[[Call], Call] = lambda call: call) -> None:
        self._graphs = graphs
        self._calls: dict[str, Call] = {g.name: as_served(getattr(g.network, g.entry)) for g in graphs}

    def warm(self) -> None:
        """The first batch of a shape costs more than the others: weights are read, kernels chosen, and rows watched (`rows`)."""
        for graph in self._graphs:
            self.run(graph.name, *_apart(graph.inputs(self.capabilities.dtype)))

    def put(self, value: Tree) -> Tree:
        return value

    def fetch(self, value: Tree) -> Tree:
        return value

    def run(self, graph: str, *inputs: Any) -> Done:
        return Done(self._calls[graph](*inputs))


class CompiledProgram:
    """Graphs compiled for their buckets, and for nothing else.

    Args:
        graphs: of one stage; one name may come in several buckets.
        capabilities: of the runtime.
        compile_call: what makes a compiled graph of an entry point; it compiles at the first call with new shapes.
        config: how weights are stored.
    """

    def __init__(
        self, graphs: Sequence[GraphSpec], capabilities: Capabilities, compile_call: Callable[[Call], Call], config: RuntimeConfig
    ) -> None:
        self.capabilities = capabilities
        examples = [(g.name, g.inputs(capabilities.dtype)) for g in graphs]  # while the networks are on the host
        for network in {id(g.network): g.network for g in graphs}.values():
            _move(network.eval(), capabilities)
        arrange(graphs, config)
        entries = {g.name: getattr(g.network, g.entry) for g in graphs}
        self._calls = {name: compile_call(entry) for name, entry in entries.items()}
        self._warm: set[tuple[str, Signature]] = set()
        with torch.inference_mode():
            for name, inputs in examples:
                self._warm_up(name, self.put(_apart(inputs)))

    def warm(self) -> None: ...

    def put(self, value: Tree) -> Tree:
        device = self.capabilities.device
        moved: Tree = pytree.tree_map_only(Tensor, lambda t: t.to(device, non_blocking=True), value)
        return moved

    def fetch(self, value: Tree) -> Tree:
        moved: Tree = pytree.tree_map_only(Tensor, Tensor.cpu, value)
        return moved

    def run(self, graph: str, *inputs: Any) -> Ticket:
        shapes = signature(inputs)
        if (graph, shapes) not in self._warm:
            warm = [list(s) for name, s in self._warm if name == graph]
            raise ShapeNotServed(
                f"graph {graph!r} is compiled for shapes {warm}, not for {list(shapes)}; nothing is compiled while serving"
            )
        with self._refusing():
            return self._start(graph, _contiguous(inputs), shapes)

    def _start(self, graph: str, inputs: tuple[Any, ...], shapes: Signature) -> Ticket:
        outputs = self._calls[graph](*inputs)
        return Pending(outputs) if self.capabilities.asynchronous else Done(outputs)

    def _warm_up(self, graph: str, inputs: tuple[Any, ...]) -> None:
        self._calls[graph](*_contiguous(inputs))
        self._warm.add((graph, signature(inputs)))

    def _refusing(self) -> AbstractContextManager[None]:
        """A second net: shapes alone do not show every reason for which a compiler starts again."""
        if not self.capabilities.compiled:
            return nullcontext()  # not even made: a stance takes hold when it is made, before it is entered
        stance: AbstractContextManager[None] = torch.compiler.set_stance("fail_on_recompile")
        return stance

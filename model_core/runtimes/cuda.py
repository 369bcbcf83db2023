"""NVIDIA GPUs: a stream for each stage, pinned copies, and small graphs recorded once and replayed, not launched bit by bit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from model_core.config import RuntimeConfig
from model_core.errors import RuntimeUnavailable
from model_core.graphs import GraphSpec
from model_core.runtimes.interface import Capabilities, Program, Tree
from model_core.runtimes.program import DTYPES, Call, CompiledProgram, Signature, fix_shapes, signature

# A recording keeps a copy of its inputs. Where they are larger than this, kernels are long and their launches do not show.
_RECORDED_INPUT_BYTES = 256 * 2**20
_WARM_RUNS = 3


class Launched:
    """A ticket of a run on a stream."""

    def __init__(self, state: Any, event: torch.cuda.Event, fetch: Callable[[Any], Any]) -> None:
        self.state = state
        self._event, self._fetch = event, fetch

    def wait(self) -> None:
        self._event.synchronize()

    def result(self) -> Any:
        return self._fetch(self.state)


class CudaRuntime:
    """See the module's docstring. bfloat16 lets attention take its flash kernels."""

    def __init__(self, config: RuntimeConfig) -> None:
        self._config = config

    def prepare(self) -> None:
        """See `Runtime.prepare`; the device must be the one that the configuration names."""
        if not torch.cuda.is_available():
            raise RuntimeUnavailable("runtime cuda: this process sees no NVIDIA GPU; give the replica `num_gpus: 1`")
        name = torch.cuda.get_device_name()
        if self._config.target not in {"", name}:
            raise RuntimeUnavailable(f"runtime cuda: target must be the GPU that is there, {name!r}; it is {self._config.target!r}")

    def load(self, graphs: Sequence[GraphSpec]) -> Program:
        fix_shapes(graphs)
        compiled = self._config.compiled
        capabilities = Capabilities(torch.device("cuda"), DTYPES[self._config.dtype], compiled=compiled, asynchronous=True)
        return CudaProgram(
            graphs,
            capabilities,
            lambda call: torch.compile(call, fullgraph=True, dynamic=False) if compiled else call,
            self._config,
        )


class Recording:
    """One graph in one bucket as a CUDA graph: inputs are copied in, the kernels replayed, outputs copied out."""

    def __init__(self, call: Call, inputs: tuple[Any, ...], stream: torch.cuda.Stream) -> None:
        self._inputs = pytree.tree_map_only(Tensor, torch.clone, inputs)
        self._graph = torch.cuda.CUDAGraph()
        for _ in range(_WARM_RUNS):
            call(*self._inputs)
        with torch.cuda.graph(self._graph, stream=stream):
            self._outputs = call(*self._inputs)

    def __call__(self, *inputs: Any) -> Any:
        """The caller may keep what it gets: the next replay writes elsewhere."""
        for held, new in zip(pytree.tree_leaves(self._inputs), pytree.tree_leaves(inputs), strict=True):
            if isinstance(held, Tensor):
                held.copy_(new, non_blocking=True)
        self._graph.replay()
        return pytree.tree_map_only(Tensor, torch.clone, self._outputs)


class CudaProgram(CompiledProgram):
    """Graphs on a stream of their own, so that stages in one process overlap.

    The stream becomes that of the calling thread, because what a stage does between its graphs must stand in the same line.
    """

    def __init__(
        self, graphs: Sequence[GraphSpec], capabilities: Capabilities, compile_call: Callable[[Call], Call], config: RuntimeConfig
    ) -> None:
        self._stream = torch.cuda.Stream()
        self._recordings: dict[tuple[str, Signature], Recording] = {}
        self._enter()
        super().__init__(graphs, capabilities, compile_call, config)
        self._stream.synchronize()

    def put(self, value: Tree) -> Tree:
        """From pinned memory, so that the host does not wait for the copy."""

        def move(tensor: Tensor) -> Tensor:
            pinned = tensor if tensor.is_cuda else tensor.pin_memory()
            return pinned.to(self.capabilities.device, non_blocking=True)

        self._enter()
        moved: Tree = pytree.tree_map_only(Tensor, move, value)
        return moved

    def fetch(self, value: Tree) -> Tree:
        """Into pinned memory."""

        def move(tensor: Tensor) -> Tensor:
            return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor, non_blocking=True)

        self._enter()
        moved: Tree = pytree.tree_map_only(Tensor, move, value)
        self._stream.synchronize()
        return moved

    def _enter(self) -> None:
        if torch.cuda.current_stream() != self._stream:
            torch.cuda.set_stream(self._stream)

    def _start(self, graph: str, inputs: tuple[Any, ...], shapes: Signature) -> Launched:
        self._enter()
        outputs = self._recordings.get((graph, shapes), self._calls[graph])(*inputs)
        event = torch.cuda.Event()
        event.record()
        return Launched(outputs, event, self.fetch)

    def _warm_up(self, graph: str, inputs: tuple[Any, ...]) -> None:
        super()._warm_up(graph, inputs)
        size = sum(leaf.nbytes for leaf in pytree.tree_leaves(inputs) if isinstance(leaf, Tensor))
        if size <= _RECORDED_INPUT_BYTES:
            self._recordings[graph, signature(inputs)] = Recording(self._calls[graph], inputs, self._stream)

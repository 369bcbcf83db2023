"""The CPU: eager, where a session's bits depend on nobody beside it, or compiled by Inductor."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from model_core.config import RuntimeConfig
from model_core.graphs import GraphSpec
from model_core.runtimes.interface import Capabilities, Program
from model_core.runtimes.program import DTYPES, CompiledProgram, HostProgram, arrange, fix_shapes
from model_core.runtimes.rows import apart


class CpuRuntime:
    """See the module's docstring. An eager program costs a call and nothing else, and takes any shape."""

    def __init__(self, config: RuntimeConfig) -> None:
        self._config = config

    def prepare(self) -> None: ...

    def load(self, graphs: Sequence[GraphSpec]) -> Program:
        # Ranks sum up what each of them has, so they must all take the same way; that one alone goes apart would leave the others waiting.
        eager = apart(graphs if self._config.ranks == 1 else ())
        if not self._config.compiled and self._config.dtype == "float32":
            arrange(graphs, self._config)
            return HostProgram(graphs, eager)
        fix_shapes(graphs)
        compiled = self._config.compiled
        capabilities = Capabilities(torch.device("cpu"), DTYPES[self._config.dtype], compiled=compiled, asynchronous=False)
        return CompiledProgram(
            graphs,
            capabilities,
            lambda call: torch.compile(call, fullgraph=True, dynamic=False) if compiled else eager(call),
            self._config,
        )

"""The CPU: eager, which is bit-stable in any bucket, or compiled by Inductor."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from model_core.config import RuntimeConfig
from model_core.graphs import GraphSpec
from model_core.runtimes.interface import Capabilities, Program
from model_core.runtimes.program import DTYPES, CompiledProgram, HostProgram, arrange, fix_shapes


class CpuRuntime:
    """See the module's docstring. An eager program costs a call and nothing else, and takes any shape."""

    def __init__(self, config: RuntimeConfig) -> None:
        self._config = config

    def prepare(self) -> None: ...

    def load(self, graphs: Sequence[GraphSpec]) -> Program:
        if not self._config.compiled and self._config.dtype == "float32":
            arrange(graphs, self._config)
            return HostProgram(graphs)
        fix_shapes(graphs)
        compiled = self._config.compiled
        capabilities = Capabilities(torch.device("cpu"), DTYPES[self._config.dtype], compiled=compiled, asynchronous=False)
        return CompiledProgram(
            graphs,
            capabilities,
            lambda call: torch.compile(call, fullgraph=True, dynamic=False) if compiled else call,
            self._config,
        )

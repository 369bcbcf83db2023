"""AWS Trainium 2 and 3 through native PyTorch: the device `neuron` and the compiler backend of that name. Not verified on hardware.

What the stack wants, and what stands here because of it: the cache of compiled graphs is named before the device is touched
(`environment`); graphs are whole and of fixed shapes; one options dictionary serves all of them, because the backend writes
into it and a copy would compile again; falling back to eager is off, so an operator without a kernel is an error and not a slow frame.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

import torch

from model_core.config import RuntimeConfig
from model_core.errors import RuntimeUnavailable
from model_core.graphs import GraphSpec
from model_core.runtimes.environment import CORES_VARIABLE, core_count, environment
from model_core.runtimes.interface import Capabilities, Program
from model_core.runtimes.program import DTYPES, CompiledProgram, fix_shapes

PACKAGE = "torch_neuronx"


class NeuronRuntime:
    """See the module's docstring."""

    def __init__(self, config: RuntimeConfig, environ: Mapping[str, str] = os.environ) -> None:
        self._config, self._environ = config, environ
        self._options: dict[str, Any] = {"fallback_execution": False}

    def prepare(self) -> None:
        """See `Runtime.prepare`: the environment must say what it has to already, and name the cores that this process may use."""
        for name, value in environment(self._config).items():
            if self._environ.get(name) != value:
                raise RuntimeUnavailable(f"{name} must be {value!r} before torch is imported; it is {self._environ.get(name)!r}")
        visible = self._environ.get(CORES_VARIABLE)
        if visible is None:
            raise RuntimeUnavailable(f"{CORES_VARIABLE} is not set, which means every core of the machine: give the replica `neuron_cores`")
        if core_count(visible) * self._config.ranks != self._config.cores:
            raise RuntimeUnavailable(
                f"{CORES_VARIABLE} is {visible!r}, which is not the {self._config.cores // self._config.ranks} cores that a rank is to have"
            )
        try:
            import_module(PACKAGE)
        except ImportError as error:
            raise RuntimeUnavailable(f"{PACKAGE} is not installed; see requirements-neuron.txt: {error}") from error

    def load(self, graphs: Sequence[GraphSpec]) -> Program:
        fix_shapes(graphs)
        return CompiledProgram(
            graphs,
            Capabilities(torch.device("neuron"), DTYPES[self._config.dtype], compiled=True, asynchronous=True),
            lambda call: torch.compile(call, backend="neuron", fullgraph=True, dynamic=False, options=self._options),
            self._config,
        )

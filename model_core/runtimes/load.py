"""From a stage's configuration and graphs to a program. Devices are imported when they are asked for."""

from __future__ import annotations

from collections.abc import Sequence

from model_core.config import ModelConfig, RuntimeConfig
from model_core.fingerprint import model_fingerprint
from model_core.graphs import GraphSpec
from model_core.runtimes.interface import Program, Runtime
from model_core.runtimes.manifest import check_warm


def make_runtime(config: RuntimeConfig) -> Runtime:
    """The runtime that `config` names, not prepared yet.

    Raises:
        ValueError: there is none of that name.
    """
    match config.name:
        case "cpu":
            from model_core.runtimes.cpu import CpuRuntime  # noqa: PLC0415

            return CpuRuntime(config)
        case "cuda":
            from model_core.runtimes.cuda import CudaRuntime  # noqa: PLC0415

            return CudaRuntime(config)
        case "neuron":
            from model_core.runtimes.neuron import NeuronRuntime  # noqa: PLC0415

            return NeuronRuntime(config)
    raise ValueError(f"runtime must be cpu, cuda or neuron; got {config.name!r}")


def load_program(config: ModelConfig, graphs: Sequence[GraphSpec]) -> Program:
    """The graphs of one stage on what the model's configuration names for it, warm; blocks for as long as that takes.

    Raises:
        RuntimeUnavailable: that is not there, or `require_warm` is on and not everything has been compiled.
    """
    stage = graphs[0].stage
    runtime_config: RuntimeConfig = getattr(config.execution, stage)
    if runtime_config.require_warm:
        check_warm(stage, runtime_config, model_fingerprint(config), [g.key for g in graphs])
    runtime = make_runtime(runtime_config)
    runtime.prepare()
    return runtime.load(graphs)

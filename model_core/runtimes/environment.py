"""What a runtime needs in the environment of its process. Some of it is read when torch is imported, so nothing here imports torch."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, MutableMapping
from pathlib import Path

from model_core.config import RuntimeConfig
from model_core.errors import RuntimeUnavailable

CORES_VARIABLE = "NEURON_RT_VISIBLE_CORES"
DEVICES_VARIABLES = {"neuron": CORES_VARIABLE, "cuda": "CUDA_VISIBLE_DEVICES"}
_ALL_DEVICES = "HEADRACE_REPLICA_DEVICES"  # what the replica was given, once the variable above shows its own process a share of it
LOGICAL_CORES = 2  # physical cores in a logical one: the default of Trainium 2 and 3, and what graphs are compiled for


def environment(config: RuntimeConfig) -> Mapping[str, str]:
    """Variables that must be set, and to what, before torch is imported."""
    if config.name != "neuron":
        return {"TORCHINDUCTOR_CACHE_DIR": str(Path(config.cache) / "inductor")} if config.compiled and config.cache else {}
    folder = Path(config.cache or "/tmp/headrace-neff")  # noqa: S108  without a shared folder, one for each machine
    return {
        "TORCH_NEURONX_NEFF_CACHE_DIR": str(folder / "neff"),
        "TORCH_NEURONX_DISABLE_FALLBACK_EXECUTION": "1",
        "NEURON_LOGICAL_NC_CONFIG": str(LOGICAL_CORES),
    }


def set_environment(
    stages: Iterable[RuntimeConfig], environ: MutableMapping[str, str], modules: Mapping[str, object] = sys.modules
) -> None:
    """Prepare a process for its stages. Where none runs on Neuron, torch does not load Neuron's package, which would take every core.

    Raises:
        RuntimeUnavailable: torch is imported already, and a value is not what it has to be.
    """
    runtimes = tuple(stages)
    wanted = {name: value for runtime in runtimes for name, value in environment(runtime).items()}
    if wanted and "torch" in modules:
        for name, value in wanted.items():
            if environ.get(name) != value:
                raise RuntimeUnavailable(f"{name} must be {value!r} before torch is imported; it is {environ.get(name)!r}")
    environ.update(wanted)
    for runtime in runtimes:
        environ.update(rank_environment(runtime, 0, environ))
    if all(runtime.name != "neuron" for runtime in runtimes):
        environ.setdefault("TORCH_DEVICE_BACKEND_AUTOLOAD", "0")


def rank_environment(runtime: RuntimeConfig, rank: int, environ: Mapping[str, str]) -> Mapping[str, str]:
    """What shows a rank its own devices, of those that `environ` gives to the replica; nothing where there is one rank, or no device.

    Raises:
        RuntimeUnavailable: the devices are unknown, or do not divide by the ranks.
    """
    variable = DEVICES_VARIABLES.get(runtime.name, "")
    if runtime.ranks == 1 or not variable:
        return {}
    given = environ.get(_ALL_DEVICES) or environ.get(variable)
    if not given:
        raise RuntimeUnavailable(f"{variable} must name the devices of {runtime.ranks} ranks; it is not set")
    devices = [str(core) for core in cores(given)] if runtime.name == "neuron" else given.split(",")
    if len(devices) % runtime.ranks:
        raise RuntimeUnavailable(f"{variable} is {given!r}: {len(devices)} devices do not divide by {runtime.ranks} ranks")
    share = len(devices) // runtime.ranks
    return {_ALL_DEVICES: given, variable: ",".join(devices[rank * share : (rank + 1) * share])}


def core_count(visible: str) -> int:
    """Cores in a list such as `0,1` or `4-7`; see `cores`."""
    return len(cores(visible))


def cores(visible: str) -> list[int]:
    """The cores of a list such as `0,1` or `4-7`.

    Raises:
        RuntimeUnavailable: it is no such list.
    """
    try:
        spans = [part.split("-") for part in visible.split(",")]
        return [core for span in spans for core in range(int(span[0]), int(span[-1]) + 1)]
    except ValueError:
        raise RuntimeUnavailable(f"{CORES_VARIABLE} must be a list of cores such as 0,1 or 4-7; got {visible!r}") from None

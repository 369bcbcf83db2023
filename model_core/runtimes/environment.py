"""What a runtime needs in the environment of its process. Some of it is read when torch is imported, so nothing here imports torch."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, MutableMapping
from pathlib import Path

from model_core.config import RuntimeConfig
from model_core.errors import RuntimeUnavailable

CORES_VARIABLE = "NEURON_RT_VISIBLE_CORES"
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
    if all(runtime.name != "neuron" for runtime in runtimes):
        environ.setdefault("TORCH_DEVICE_BACKEND_AUTOLOAD", "0")


def core_count(visible: str) -> int:
    """Cores in a list such as `0,1` or `4-7`.

    Raises:
        RuntimeUnavailable: it is no such list.
    """
    try:
        spans = [part.split("-") for part in visible.split(",")]
        return sum(int(span[-1]) - int(span[0]) + 1 for span in spans)
    except ValueError:
        raise RuntimeUnavailable(f"{CORES_VARIABLE} must be a list of cores such as 0,1 or 4-7; got {visible!r}") from None

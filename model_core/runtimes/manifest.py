"""The list of compiled graphs that lies beside the compiler's cache: for which model, by which versions, and how long each took.

A replica that requires to be warm starts only if the list names every graph that it will run, for the same model and the same
versions: otherwise a start that should take seconds would compile, for minutes to hours, on every replica.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

from model_core.config import RuntimeConfig
from model_core.errors import RuntimeUnavailable
from model_core.runtimes.environment import LOGICAL_CORES

_PACKAGES = ("torch", "torch-neuronx", "neuronx-cc", "triton")


@dataclass(frozen=True, slots=True)
class CompiledGraph:
    """One graph.

    Attributes:
        key: stage, name and bucket.
        stablehlo_sha256: of its text; empty if it was not lowered.
        compile_s: seconds; None if it has not been compiled.
    """

    key: str
    stablehlo_sha256: str
    compile_s: float | None


@dataclass(frozen=True, slots=True)
class Manifest:
    """See the module's docstring. `fingerprint` is the model's."""

    fingerprint: str
    runtime: str
    versions: dict[str, str]
    graphs: tuple[CompiledGraph, ...]

    def write(self, path: Path) -> None:
        """Whole or not at all: another replica may be reading."""
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_suffix(".tmp")
        scratch.write_text(json.dumps(asdict(self), indent=1) + "\n")
        scratch.replace(path)

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """The inverse of `write`.

        Raises:
            RuntimeUnavailable: there is none, or it is damaged.
        """
        try:
            data = json.loads(path.read_text())
            graphs = tuple(CompiledGraph(g["key"], g["stablehlo_sha256"], g["compile_s"]) for g in data["graphs"])
            return cls(data["fingerprint"], data["runtime"], dict(data["versions"]), graphs)
        except OSError as error:
            raise RuntimeUnavailable(f"no manifest of compiled graphs at {path} ({error.strerror}): run `headrace compile`") from error
        except (ValueError, KeyError, TypeError) as error:
            raise RuntimeUnavailable(f"{path} is no manifest of compiled graphs ({error}): run `headrace compile`") from error


def versions() -> dict[str, str]:
    """Of what takes part in compiling, where it is installed."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def manifest_path(root: Path, stage: str, config: RuntimeConfig, with_versions: dict[str, str]) -> Path:
    """Where the manifest of one stage, runtime, chip and set of versions lies: several may share a folder."""
    chip = "-".join(part.replace(" ", "_") for part in (config.name, config.target, config.dtype) if part)
    if config.name == "neuron":
        chip += f"-lnc{LOGICAL_CORES}"
    return root / chip / ("_".join(f"{name}{version}" for name, version in with_versions.items())) / f"{stage}.json"


def check_warm(stage: str, config: RuntimeConfig, fingerprint: str, keys: Sequence[str]) -> None:
    """Refuse to start cold.

    Raises:
        RuntimeUnavailable: the manifest is missing, was made for another model or runtime, or lacks a graph of `keys`.
    """
    here = versions()
    path = manifest_path(Path(config.cache), stage, config, here)
    manifest = Manifest.read(path)
    for name, found, wanted in (
        ("versions", manifest.versions, here), ("runtime", manifest.runtime, repr(config)), ("model", manifest.fingerprint, fingerprint),
    ):  # fmt: skip
        if found != wanted:
            raise RuntimeUnavailable(f"{path} was written for {name} {found}, this is {wanted}: run `headrace compile`")
    compiled = {graph.key for graph in manifest.graphs if graph.compile_s is not None}
    if missing := [key for key in keys if key not in compiled]:
        raise RuntimeUnavailable(f"{path} lacks {', '.join(missing)}: run `headrace compile`")

"""Arguments of the stages: what a replica of each runs on, and how much it takes on."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from deployments.config.settings import Settings
from model_core.config import EngineConfig, RuntimeConfig

Threads = Annotated[int, Field(ge=1, le=256)]
NEURON_TARGETS = ("trn2", "trn3")


class RuntimeSettings(Settings):
    """What a stage runs on; see `model_core.config.RuntimeConfig`. The replica's resources in `deployments` must fit it."""

    name: Literal["cpu", "cuda", "neuron"] = "cpu"
    dtype: Literal["float32", "bfloat16"] = "float32"
    weights: Literal["", "int8", "fp8"] = ""
    channels_last: bool = False
    compiled: bool = False
    target: str = ""
    cores: Annotated[int, Field(ge=0, le=128)] = 0
    ranks: Annotated[int, Field(ge=1, le=64)] = 1
    cache: str = ""
    require_warm: bool = False
    stuck_seconds: Annotated[float, Field(gt=0, le=86400)] = 60.0

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        neuron = self.name == "neuron"
        rules = (
            (not neuron or self.target in NEURON_TARGETS, "target", f"must be one of: {', '.join(NEURON_TARGETS)}", self.target),
            (not neuron or self.cores >= 1, "cores", "must be the neuron_cores of a replica, 1 or more", self.cores),
            (not neuron or self.cores % self.ranks == 0, "cores", f"must divide by the {self.ranks} ranks", self.cores),
            (self.ranks == 1 or not self.require_warm, "require_warm", "must be false with several ranks, which nothing lists", True),
            (self.ranks == 1 or not self.weights, "weights", "must be empty with several ranks", self.weights),
            (not neuron or not self.channels_last, "channels_last", "must be false with runtime neuron", self.channels_last),
            (neuron or self.cores == 0, "cores", f"must be 0 with runtime {self.name}", self.cores),
            (not neuron or self.compiled, "compiled", "must be true with runtime neuron, which runs nothing else", self.compiled),
            (not neuron or not self.weights, "weights", "must be empty with runtime neuron", self.weights),
            (self.name != "cpu" or not self.target, "target", "must be empty with runtime cpu", self.target),
            (not self.require_warm or bool(self.cache), "cache", "must be a folder where require_warm is on", self.cache),
            (not self.require_warm or self.compiled, "require_warm", "must be false where nothing is compiled", self.require_warm),
        )
        for kept, field, limit, value in rules:
            if not kept:
                raise ValueError(f"{field} {limit}; got {value!r}")
        return self

    def runtime_config(self) -> RuntimeConfig:
        return RuntimeConfig(**self.model_dump())


class EngineSettings(Settings):
    """One denoise replica; see `model_core.config.EngineConfig`."""

    slots: Annotated[int, Field(ge=1, le=4096)] = 16
    batch_buckets: tuple[Annotated[int, Field(ge=1)], ...] = (1, 2, 4, 8)
    max_lead_chunks: Annotated[int, Field(ge=1, le=64)] = 2
    threads: Threads = 1
    runtime: RuntimeSettings = RuntimeSettings()

    @field_validator("batch_buckets")
    @classmethod
    def _ascending(cls, buckets: tuple[int, ...]) -> tuple[int, ...]:
        if not buckets or list(buckets) != sorted(set(buckets)):
            raise ValueError(f"must be a non-empty, strictly ascending list; got {list(buckets)}")
        return buckets

    def engine_config(self) -> EngineConfig:
        return EngineConfig(slots=self.slots, batch_buckets=self.batch_buckets, max_lead_chunks=self.max_lead_chunks, threads=self.threads)


class TextEncoderSettings(Settings):
    """One text replica: torch threads, and prompts it may hold at once."""

    threads: Threads = 1
    max_prompts: Annotated[int, Field(ge=1, le=4096)] = 64
    runtime: RuntimeSettings = RuntimeSettings()


class EnhancerSettings(Settings):
    """One enhance replica, for models that have an enhancer: torch threads, and sessions it may hold at once."""

    threads: Threads = 1
    slots: Annotated[int, Field(ge=1, le=4096)] = 8
    runtime: RuntimeSettings = RuntimeSettings()


class DecoderSettings(Settings):
    """One decode replica: torch threads, and sessions it may hold at once."""

    threads: Threads = 1
    slots: Annotated[int, Field(ge=1, le=4096)] = 16
    runtime: RuntimeSettings = RuntimeSettings()

"""The model's own stages, but that a forward takes a set time in each batch, as on an accelerator of its own.

The engine, its batches and its profile are the real ones; the rest of the time is slept. So replicas add capacity that the machine has not.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from model_core.buckets import bucket_for
from model_core.config import EngineConfig, ModelConfig
from model_core.families.interface import Leg, Sampler
from model_core.families.registry import family
from model_core.local import build_decoder, build_text_encoder
from model_core.stages.denoiser import LocalDenoiser

BASE_S, ROW_S = 0.055, 0.02

__all__ = ["BASE_S", "ROW_S", "build_decoder", "build_denoiser", "build_text_encoder"]


class TimedSampler:
    """`inner`, no faster than `BASE_S` and `ROW_S` for each row of the batch."""

    def __init__(self, inner: Sampler, buckets: tuple[int, ...]) -> None:
        self._buckets = buckets
        self.violations, self.blank, self.open, self.start = inner.violations, inner.blank, inner.open, inner.start
        self.warm, self.group, self.latents = inner.warm, inner.group, inner.latents
        self._inner = inner

    def step(self, legs: Sequence[Leg]) -> None:
        started = time.perf_counter()
        self._inner.step(legs)
        self._sleep(started, len(legs))

    def commit(self, legs: Sequence[Leg]) -> None:
        started = time.perf_counter()
        self._inner.commit(legs)
        self._sleep(started, len(legs))

    def _sleep(self, started: float, rows: int) -> None:
        due = started + BASE_S + ROW_S * bucket_for(rows, self._buckets)
        time.sleep(max(0.0, due - time.perf_counter()))


def build_denoiser(config: ModelConfig, engine: EngineConfig) -> LocalDenoiser:
    return LocalDenoiser(TimedSampler(family(config.family).parts.sampler(config, engine), engine.batch_buckets), config, engine)

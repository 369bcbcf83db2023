"""The model's own stages, in which sessions of some callers go wrong. The fault comes with the caller, and must end with that caller.

A prompt that begins with one of these words is poisoned; every other is served as ever.

    notanumber  every chunk that is made for the session is not finite
    unopenable  the denoise stage raises where it opens the session
    unsteppable the denoise stage raises in each forward that the session takes part in
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from model_core.config import EngineConfig, ModelConfig
from model_core.errors import FieldViolation
from model_core.families.interface import Sampler
from model_core.local import build_decoder, build_sampler, build_text_encoder
from model_core.stages.denoiser import LocalDenoiser
from model_core.types import Latents, SessionContext, TextEmbedding

NAN, OPEN, STEP = WORDS = ("notanumber", "unopenable", "unsteppable")

__all__ = ["WORDS", "build_decoder", "build_denoiser", "build_text_encoder"]


@dataclass(slots=True)
class _Leg:
    inner: Any
    prompt: str


class PoisonedSampler:
    """`inner`, which raises for poisoned sessions."""

    def __init__(self, inner: Sampler) -> None:
        self._inner = inner

    def warm(self) -> None:
        self._inner.warm()

    def violations(self, context: SessionContext) -> tuple[FieldViolation, ...]:
        return self._inner.violations(context)

    def blank(self) -> TextEmbedding:
        return self._inner.blank()

    def open(self, context: SessionContext) -> _Leg:
        prompt = context.embedding.prompt
        if prompt.startswith(OPEN):
            raise RuntimeError("a poisoned session is opened")
        return _Leg(self._inner.open(context), prompt)

    def start(self, leg: _Leg, chunk: int) -> None:
        self._inner.start(leg.inner, chunk)

    def group(self, leg: _Leg) -> Hashable:
        return self._inner.group(leg.inner)

    def step(self, legs: Sequence[_Leg]) -> None:
        if any(leg.prompt.startswith(STEP) for leg in legs):
            raise RuntimeError("a poisoned session takes part in a forward")
        self._inner.step([leg.inner for leg in legs])

    def latents(self, leg: _Leg) -> Latents:
        latents = self._inner.latents(leg.inner)
        return np.full_like(latents, np.nan) if leg.prompt.startswith(NAN) else latents

    def commit(self, legs: Sequence[_Leg]) -> None:
        self._inner.commit([leg.inner for leg in legs])


def build_denoiser(config: ModelConfig, engine: EngineConfig) -> LocalDenoiser:
    return LocalDenoiser(PoisonedSampler(build_sampler(config, engine)), config, engine)

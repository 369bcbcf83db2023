"""The model's own stages, and in them sessions that go wrong: a fault that one caller brings along, and that must end with that caller.

A prompt that begins with one of these words is poisoned; every other is served as ever.

    notanumber  the text stage's features are not finite, and so is every chunk that is made of them
    unopenable  the denoise stage raises where it opens the session
    unsteppable the denoise stage raises in each forward that the session takes part in
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_core.config import EngineConfig, ModelConfig
from model_core.errors import FieldViolation
from model_core.families.interface import Embedder, Sampler
from model_core.families.registry import family
from model_core.local import build_decoder, build_sampler
from model_core.stages.denoiser import LocalDenoiser
from model_core.stages.text_encoder import LocalTextEncoder
from model_core.types import Latents, SessionContext, TextEmbedding

NAN, OPEN, STEP = WORDS = ("notanumber", "unopenable", "unsteppable")

__all__ = ["WORDS", "build_decoder", "build_denoiser", "build_text_encoder"]


class PoisonedEmbedder:
    """`inner`, whose features are not finite for poisoned prompts."""

    def __init__(self, inner: Embedder) -> None:
        self._inner = inner

    def embed(self, prompts: Sequence[str]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        features, mask = self._inner.embed(prompts)
        poisoned = [prompt.startswith(NAN) for prompt in prompts]
        if any(poisoned):
            features = features.copy()
            features[poisoned] = np.nan
        return features, mask


@dataclass(slots=True)
class _Leg:
    inner: Any
    poisoned: bool


class PoisonedSampler:
    """`inner`, which raises for poisoned sessions."""

    def __init__(self, inner: Sampler) -> None:
        self._inner = inner

    def violations(self, context: SessionContext) -> tuple[FieldViolation, ...]:
        return self._inner.violations(context)

    def blank(self) -> TextEmbedding:
        return self._inner.blank()

    def open(self, context: SessionContext) -> _Leg:
        if context.embedding.prompt.startswith(OPEN):
            raise RuntimeError("a poisoned session is opened")
        return _Leg(self._inner.open(context), context.embedding.prompt.startswith(STEP))

    def start(self, leg: _Leg, chunk: int) -> None:
        self._inner.start(leg.inner, chunk)

    def group(self, leg: _Leg) -> Hashable:
        return self._inner.group(leg.inner)

    def step(self, legs: Sequence[_Leg]) -> None:
        if any(leg.poisoned for leg in legs):
            raise RuntimeError("a poisoned session takes part in a forward")
        self._inner.step([leg.inner for leg in legs])

    def latents(self, leg: _Leg) -> Latents:
        return self._inner.latents(leg.inner)

    def commit(self, legs: Sequence[_Leg]) -> None:
        self._inner.commit([leg.inner for leg in legs])


def build_text_encoder(config: ModelConfig) -> LocalTextEncoder:
    made = family(config.family)
    return LocalTextEncoder(PoisonedEmbedder(made.embedder(config)), made.conditioner(config) if config.media else None)


def build_denoiser(config: ModelConfig, engine: EngineConfig) -> LocalDenoiser:
    return LocalDenoiser(PoisonedSampler(build_sampler(config, engine)), config, engine)

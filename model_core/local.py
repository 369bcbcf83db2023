"""The stages with the real model in them, and the whole pipeline in this process.

from model_core.local import load_pipeline
pipeline = load_pipeline()
frames = pipeline.generate("a large red circle moving left on a black background", seconds=2)  # uint8 [N, H, W, 3]
"""

from __future__ import annotations

import asyncio
import secrets
from contextlib import aclosing

import numpy as np
import torch
from numpy.typing import NDArray

from model_core.config import EngineConfig, ModelConfig
from model_core.families.interface import Sampler
from model_core.families.registry import family
from model_core.graphs import GraphSpec
from model_core.pipeline import SessionRequest, VideoPipeline
from model_core.presets import model_config
from model_core.stages.decoder import LocalDecoder
from model_core.stages.denoiser import LocalDenoiser
from model_core.stages.interface import Denoiser
from model_core.stages.text_encoder import LocalTextEncoder
from model_core.types import FrameChunk


def build_text_encoder(config: ModelConfig) -> LocalTextEncoder:
    made = family(config.family)
    conditioner = made.conditioner(config) if config.media else None
    size = config.height, config.width
    return LocalTextEncoder(made.embedder(config), conditioner, stuck_s=config.execution.text_encoder.stuck_seconds, size=size)


def build_denoiser(config: ModelConfig, engine: EngineConfig) -> LocalDenoiser:
    return LocalDenoiser(build_sampler(config, engine), config, engine)


def build_sampler(config: ModelConfig, engine: EngineConfig) -> Sampler:
    """In this process, or shared by the ranks that the configuration asks for."""
    if config.execution.denoiser.ranks > 1:
        from model_core.families.parallel import ParallelSampler  # noqa: PLC0415  few need it, and what it stands on

        return ParallelSampler(config, engine)
    return family(config.family).sampler(config, engine)


def build_decoder(config: ModelConfig, denoiser: Denoiser) -> LocalDecoder:
    return LocalDecoder(family(config.family).painter(config), config, denoiser)


def build_graphs(config: ModelConfig, engine: EngineConfig) -> list[GraphSpec]:
    """Every graph that the stages above run, with its weights."""
    return family(config.family).graphs(config, engine)


class LocalPipeline:
    """The pipeline over local stages, and a blocking call for the simplest use."""

    def __init__(self, config: ModelConfig, engine: EngineConfig) -> None:
        torch.set_num_threads(engine.threads)
        self.config = config
        self.encoder = build_text_encoder(config)
        self.denoiser = build_denoiser(config, engine)
        self.decoder = build_decoder(config, self.denoiser)
        self.pipeline = VideoPipeline(config, self.encoder, self.decoder)

    def generate(self, prompt: str, seconds: float = 2.0, seed: int = 0, steps: int | None = None) -> NDArray[np.uint8]:
        """Frames `[N, H, W, 3]` for one prompt; blocks until they are made. Not for use inside a running event loop."""
        return asyncio.run(self._generate(prompt, seconds, seed, steps))

    async def aclose(self) -> None:
        """End the stages' threads."""
        for stage in (self.decoder, self.denoiser, self.encoder):
            await stage.aclose()

    async def _generate(self, prompt: str, seconds: float, seed: int, steps: int | None) -> NDArray[np.uint8]:
        frames = max(1, round(seconds * self.config.fps))
        request = SessionRequest(secrets.token_hex(8), prompt, seed, steps or self.config.num_steps, frames)
        session = await self.pipeline.open(request)
        async with aclosing(session.events()) as events:
            return np.concatenate([event.pixels() async for event in events if isinstance(event, FrameChunk)])


def load_pipeline(model: str = "", engine: EngineConfig | None = None) -> LocalPipeline:
    """The preset `model` (empty: the default) with its weights, ready to draw. Sets this process's torch threads to `engine.threads`.

    Raises:
        InvalidRequest: there is no such preset.
        WeightsError: weights are missing or not the ones pinned.
    """
    return LocalPipeline(model_config(model), engine or EngineConfig())

"""The stages with the real model in them, and the whole pipeline in this process.

from model_core.local import load_pipeline
pipeline = load_pipeline()
frames = pipeline.generate("a large red circle moving left on a black background", seconds=2)  # uint8 [N, H, W, 3]
"""

from __future__ import annotations

import asyncio
import math
import secrets
from contextlib import aclosing

import numpy as np
import torch
from numpy.typing import NDArray

from model_core.config import EngineConfig, MillraceConfig, ModelConfig
from model_core.enhancement import AS_RENDERED, Enhancement
from model_core.errors import FieldViolation, InvalidRequest
from model_core.families.interface import Sampler
from model_core.families.registry import FAMILIES, family
from model_core.graphs import GraphSpec
from model_core.named import model_named
from model_core.nn.graphs import enhancer_graphs
from model_core.pipeline import SessionRequest, VideoPipeline
from model_core.runtimes.load import load_program
from model_core.stages.decoder import LocalDecoder
from model_core.stages.denoiser import LocalDenoiser
from model_core.stages.enhancer import LocalEnhancer
from model_core.stages.interface import Decoder, Denoiser
from model_core.stages.sources import LocalSources
from model_core.stages.text_encoder import LocalTextEncoder
from model_core.types import FrameChunk
from model_core.weights import load_enhancer

_SECONDS = 2.0  # of a video whose length is not said


def build_text_encoder(config: ModelConfig, folders: tuple[str, ...] = FAMILIES) -> LocalTextEncoder:
    made = family(config.family, folders).parts
    conditioner = made.conditioner(config) if config.media else None
    video_encoder = made.video_encoder(config) if config.restyles else None
    size, stuck_s = (config.height, config.width), config.execution.text_encoder.stuck_seconds
    return LocalTextEncoder(made.embedder(config), conditioner, stuck_s=stuck_s, size=size, video_encoder=video_encoder)


def build_denoiser(config: ModelConfig, engine: EngineConfig, folders: tuple[str, ...] = FAMILIES) -> LocalDenoiser:
    return LocalDenoiser(build_sampler(config, engine, folders), config, engine)


def build_sampler(config: ModelConfig, engine: EngineConfig, folders: tuple[str, ...] = FAMILIES) -> Sampler:
    """In this process, or shared by the ranks that the configuration asks for."""
    if config.execution.denoiser.ranks > 1:
        from model_core.families.parallel import ParallelSampler  # noqa: PLC0415  few need it, and what it stands on

        return ParallelSampler(config, engine)
    return family(config.family, folders).parts.sampler(config, engine)


def build_decoder(config: ModelConfig, denoiser: Denoiser, folders: tuple[str, ...] = FAMILIES) -> LocalDecoder:
    return LocalDecoder(family(config.family, folders).parts.painter(config), config, denoiser)


def build_enhancer(config: ModelConfig, decoder: Decoder) -> LocalEnhancer:
    """Raises InvalidRequest: the model has no enhancer."""
    if not config.enhancer:
        raise InvalidRequest((FieldViolation("enhance", f"must be unset: model {config.name} has no enhancer"),))
    return LocalEnhancer(load_program(config, _enhancer_graphs(config)), config, decoder)


def _enhancer_graphs(config: ModelConfig) -> list[GraphSpec]:
    """None for a model without an enhancer."""
    return enhancer_graphs(load_enhancer(config), config) if isinstance(config, MillraceConfig) and config.enhancer else []


def build_graphs(config: ModelConfig, engine: EngineConfig, folders: tuple[str, ...] = FAMILIES) -> list[GraphSpec]:
    """Every graph that the stages above run, with its weights."""
    return [*family(config.family, folders).parts.graphs(config, engine), *_enhancer_graphs(config)]


class LocalPipeline:
    """The pipeline over local stages, and a blocking call for the simplest use."""

    def __init__(self, config: ModelConfig, engine: EngineConfig, folders: tuple[str, ...] = FAMILIES) -> None:
        """`folders` are those of the families that there are."""
        torch.set_num_threads(engine.threads)
        self.config = config
        self.encoder = build_text_encoder(config, folders)
        self.denoiser = build_denoiser(config, engine, folders)
        self.decoder = build_decoder(config, self.denoiser, folders)
        self.enhancer = build_enhancer(config, self.decoder) if config.enhancer else None
        sources = LocalSources()
        self.denoiser.dial_with(sources.dial)
        self.pipeline = VideoPipeline(config, self.encoder, self.decoder, sources=sources, enhancer=self.enhancer)

    def generate(
        self,
        prompt: str,
        seconds: float | None = None,
        seed: int = 0,
        steps: int | None = None,
        guidance: float | None = None,
        negative_prompt: str | None = None,
        enhance: Enhancement | None = None,
    ) -> NDArray[np.uint8]:
        """Frames `[N, H, W, 3]` for one prompt; blocks until they are made. Not for use inside a running event loop.

        None means the model's own; of `seconds` it means 2, or as much as the model makes if that is less.

        Raises:
            InvalidRequest: the model makes no clip of that length, takes no such steps or guidance, reads no prompt of that length, or has
                no enhancer.
        """
        enhance = enhance or AS_RENDERED
        if seconds is not None and not 0 < seconds < math.inf:  # nor is it NaN
            raise InvalidRequest((FieldViolation("seconds", f"must be a number above 0; got {seconds:g}"),))
        frames, longest = max(1, round((seconds or _SECONDS) * self.config.fps)), self.config.grid.max_frames
        if longest is not None and frames > longest:
            if seconds is not None:
                told = f"must be at most {longest / self.config.fps:g}, a clip of model {self.config.name}; got {seconds:g}"
                raise InvalidRequest((FieldViolation("seconds", told),))
            frames = longest
        request = SessionRequest(
            secrets.token_hex(8), prompt, seed, steps or self.config.num_steps, frames * enhance.frames, guidance=guidance,
            negative_prompt=negative_prompt, enhance=enhance,
        )  # fmt: skip
        return asyncio.run(self._generate(request))

    async def aclose(self) -> None:
        """End the stages' threads."""
        for stage in (self.enhancer, self.decoder, self.denoiser, self.encoder):
            if stage is not None:
                await stage.aclose()

    async def _generate(self, request: SessionRequest) -> NDArray[np.uint8]:
        session = await self.pipeline.open(request)
        async with aclosing(session.events()) as events:
            return np.concatenate([event.pixels() async for event in events if isinstance(event, FrameChunk)])


def load_pipeline(
    model: str = "", engine: EngineConfig | None = None, *, height: int = 0, width: int = 0, frames: int = 0
) -> LocalPipeline:
    """A model with its weights, ready to draw: the preset called `model` (empty: the default), or the checkpoint in that folder.

    Of a checkpoint, size and length may be said; zeros leave them to its family. Sets this process's torch threads to `engine.threads`.

    Raises:
        InvalidRequest: there is no such preset or folder.
        WeightsError: weights are missing or not the ones pinned, or make no video of that size or length.
    """
    return LocalPipeline(model_named(model, height=height, width=width, frames=frames), engine or EngineConfig())

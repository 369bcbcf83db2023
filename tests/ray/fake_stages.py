"""What `model_core.local` offers, around fakes, for replicas to import.

Files in the folder that the environment names tell them what to do.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

from model_core.config import EngineConfig, ModelConfig
from model_core.errors import EngineDead
from model_core.stages.interface import Decoder as AnyDecoder
from model_core.stages.interface import Denoiser
from model_core.statistics import DecoderStatistics, DenoiserStatistics, EnhancerStatistics, TextEncoderStatistics
from model_core.types import FrameChunk, LatentChunk, SessionContext
from tests.fakes import FakeDecoder, FakeDenoiser, FakeEncoder, FakeEnhancer

FOLDER_VARIABLE = "HEADRACE_TEST_FOLDER"
HOLD_ENCODER = "hold-encoder"  # while it exists, no text encoder comes up
KILL_ENGINE = "kill-engine"  # the engine that finds it removes it and dies
HOLD_ENGINE = "hold-engine"  # while it exists, no session gets further than some chunks
HELD_AT = 30  # chunks
CHUNK_S = 0.02


def flag(name: str) -> Path:
    """Without a folder in the environment no flag is ever there."""
    return Path(os.environ.get(FOLDER_VARIABLE, "/nonexistent")) / name


class Encoder(FakeEncoder):
    def statistics(self) -> TextEncoderStatistics:
        return TextEncoderStatistics(hits=0, joined=0, misses=self.calls, cached=0, in_flight=0, service_s=0.0)

    def check_health(self) -> None: ...

    async def aclose(self) -> None: ...


class Decoder:
    """A fake decoder that reports as a real one."""

    def __init__(self, config: ModelConfig, denoiser: Denoiser) -> None:
        self._decoder = FakeDecoder(config, denoiser)

    def statistics(self) -> DecoderStatistics:
        inner = self._decoder.statistics()
        return DecoderStatistics(sessions=inner.open, chunks=inner.chunks, busy_s=0.0)

    async def stream(self, context: SessionContext) -> AsyncGenerator[FrameChunk, None]:
        async with aclosing(self._decoder.stream(context)) as chunks:
            async for chunk in chunks:
                yield chunk

    def check_health(self) -> None: ...

    async def aclose(self) -> None: ...


class Enhancer:
    """A fake enhancer that reports as a real one."""

    def __init__(self, config: ModelConfig, decoder: AnyDecoder) -> None:
        self._enhancer = FakeEnhancer(config, decoder)

    def statistics(self) -> EnhancerStatistics:
        return EnhancerStatistics(sessions=self._enhancer.open, chunks=self._enhancer.chunks, busy_s=0.0)

    async def stream(self, context: SessionContext) -> AsyncGenerator[FrameChunk, None]:
        async with aclosing(self._enhancer.stream(context)) as chunks:
            async for chunk in chunks:
                yield chunk

    def check_health(self) -> None: ...

    async def aclose(self) -> None: ...


class Engine:
    """A fake denoiser whose engine can die, and stays dead."""

    def __init__(self, config: ModelConfig, engine: EngineConfig) -> None:
        self._denoiser = FakeDenoiser(config, delay_s=CHUNK_S)
        self._slots = engine.slots
        self._dead = False

    def statistics(self) -> DenoiserStatistics:
        inner = self._denoiser.statistics()
        held = min(self._slots, inner.open)  # as the engine would say; all of them are served
        return DenoiserStatistics(
            sessions=held, waiting=inner.open - held, free_slots=self._slots - held, undelivered=0, steps=0, rows=0, chunks=inner.chunks,
            busy_s=0.0, expected_s=0.0,
        )  # fmt: skip

    async def stream(self, context: SessionContext) -> AsyncGenerator[LatentChunk, None]:
        async with aclosing(self._denoiser.stream(context)) as chunks:
            async for chunk in chunks:
                while chunk.index >= HELD_AT and flag(HOLD_ENGINE).exists():  # noqa: ASYNC110 - another process removes it
                    await asyncio.sleep(CHUNK_S)
                if flag(KILL_ENGINE).exists():
                    flag(KILL_ENGINE).unlink()
                    self._dead = True
                self.check_health()
                yield chunk

    def check_health(self) -> None:
        if self._dead:
            raise EngineDead("the engine was told to die")

    async def aclose(self) -> None: ...


def build_text_encoder(config: ModelConfig) -> Encoder:
    while flag(HOLD_ENCODER).exists():
        time.sleep(0.05)
    return Encoder()


def build_denoiser(config: ModelConfig, engine: EngineConfig) -> Engine:
    return Engine(config, engine)


def build_decoder(config: ModelConfig, denoiser: Denoiser) -> Decoder:
    return Decoder(config, denoiser)


def build_enhancer(config: ModelConfig, decoder: AnyDecoder) -> Enhancer:
    return Enhancer(config, decoder)

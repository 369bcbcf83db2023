"""The decode stage in this process: latents in, pictures out, on a device thread of its own.

Each session is decoded alone, in one fixed shape, so its pixels depend on nothing but its latents. Its causal memory is rebuilt from the
suffix of the context, which is how a session moves to another decoder; where a leg of it has just ended, it is still there.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from model_core.config import ModelConfig
from model_core.families.interface import Memory, Painter
from model_core.probe import Probe
from model_core.stages.coding import coded
from model_core.stages.device import DeviceThread
from model_core.stages.failures import blamed
from model_core.stages.interface import Denoiser
from model_core.stages.memories import Key, Memories, all_finite
from model_core.stages.watchdog import Watchdog
from model_core.statistics import DecoderStatistics
from model_core.types import FrameChunk, LatentChunk, Latents, Numerics, SessionContext, StageTiming, received

_REMEMBERED_BYTES = 64 * 2**20


class LocalDecoder:
    """A `Decoder` over an upstream `Denoiser`. The thread decodes chunk k while the denoiser makes k+1; nothing is buffered here."""

    def __init__(
        self,
        painter: Painter,
        config: ModelConfig,
        upstream: Denoiser,
        clock: Callable[[], float] = time.perf_counter,
        watchdog: Watchdog | None = None,
    ) -> None:
        """Draw once what nobody asked for; blocks until that is done."""
        self._painter, self._config, self._upstream, self._clock = painter, config, upstream, clock
        watchdog = watchdog or Watchdog("decode stage", config.execution.decoder.stuck_seconds, clock)
        self._sessions = self._chunks = 0
        self._busy_s = 0.0
        self._memories = Memories(config.decoder_chunks, _REMEMBERED_BYTES)
        self._probe = Probe(self._known_picture)
        with watchdog.working():
            self._probe.learn()
        self.numerics = self._probe.numerics
        self._device = DeviceThread("decode stage", watchdog, "decoder")

    async def stream(self, context: SessionContext) -> AsyncGenerator[FrameChunk, None]:
        """See `Decoder.stream`.

        Raises:
            StageUnavailable: this stage is closed, broken or stuck, or the one upstream died.
            ChunkFailed, SessionBroken: see `model_core.stages.failures`.
        """
        units = 2 + min(len(context.suffix), self._config.decoder_chunks)
        rebuilding = self._device.submit(self._rebuild, context, units=units)  # while the denoiser makes the first chunk
        self._sessions += 1
        try:
            async with aclosing(self._upstream.stream(context)) as latents:
                memory: Memory = None
                key: Key = ()
                before = b""
                asked_at = time.time()
                async for item in latents:
                    arrived = self._clock()
                    chunk = received(item, asked_at, time.time())
                    if memory is None:
                        memory, key, before = await self._device.finished(rebuilding)
                    work = self._device.submit(self._work, context, chunk, memory, key, arrived)
                    frames, memory, key = await self._device.finished(work)
                    yield replace(frames, before=before) if before else frames
                    before = b""
                    asked_at = time.time()
        finally:
            rebuilding.cancel()
            self._sessions -= 1

    def statistics(self) -> DecoderStatistics:
        return DecoderStatistics(self._sessions, self._chunks, self._busy_s)

    def check_health(self) -> None:
        """Raise if this stage must be replaced.

        Raises:
            StageUnavailable: it is closed, its device is broken, or its thread is stuck.
        """
        self._device.check_health()

    async def aclose(self) -> None:
        """Refuse new sessions, finish the chunks under way, end the thread. Safe to call twice."""
        await self._device.aclose()

    # -- device thread --------------------------------------------------------------------------------------------------------

    def _rebuild(self, context: SessionContext) -> tuple[Memory, Key, bytes]:
        with blamed(self._probe, context, context.next_chunk):
            return self._rebuilt(context.suffix, context.enhance.frames > 1)

    def _rebuilt(self, suffix: tuple[Latents, ...], with_frame: bool) -> tuple[Memory, Key, bytes]:
        """What is remembered after `suffix`, and the last frame of it where that is asked for, and there is one.

        The last frame depends on one chunk more than what is remembered after it, and is not kept.
        """
        key, frame = self._memories.key(suffix), b""
        memory = None if with_frame else self._memories.get(key)
        if memory is None:
            memory = self._fresh()
            for latents in suffix[max(0, len(suffix) - self._config.decoder_chunks - with_frame) :]:
                pixels, memory = self._decode(latents, memory)
                frame = pixels[-1].tobytes() if with_frame else b""
        return memory, key, frame

    def _work(
        self, context: SessionContext, chunk: LatentChunk, memory: Memory, key: Key, arrived: float
    ) -> tuple[FrameChunk, Memory, Key]:
        with blamed(self._probe, context, chunk.index):
            return self._worked(context, chunk, memory, key, arrived)

    def _worked(
        self, context: SessionContext, chunk: LatentChunk, memory: Memory, key: Key, arrived: float
    ) -> tuple[FrameChunk, Memory, Key]:
        started = self._clock()
        pixels, memory = self._decode(chunk.latents, memory)
        if not all_finite(memory):
            raise FloatingPointError("what the decoder remembers is not finite")
        key = self._memories.next_key(key, chunk.latents)
        memory = self._memories.put(key, memory)
        first_frame = self._config.grid.first_frame(chunk.index)
        if context.num_frames is not None:
            pixels = pixels[: context.num_frames - first_frame]
        data = coded(context.codec, pixels, first_frame, self._config.fps)
        seconds = self._clock() - started
        self._chunks += 1
        self._busy_s += seconds
        timing = StageTiming("decoder", started - arrived, seconds, seconds, left_at=time.time())
        frames = FrameChunk(
            index=chunk.index, first_frame=first_frame, num_frames=len(pixels), height=pixels.shape[1], width=pixels.shape[2],
            codec=context.codec, data=data, latents=chunk.latents, timings=(*chunk.timings, timing),
            numerics=Numerics(chunk.numerics, self.numerics, context.embedding.numerics),
        )  # fmt: skip
        return frames, memory, key

    def _decode(self, latents: Latents, memory: Memory) -> tuple[NDArray[np.uint8], Memory]:
        """One chunk `[C, F, H, W]` to pixels uint8 `[N, H, W, 3]`."""
        with torch.inference_mode():
            return self._painter.paint(latents, memory)

    def _known_picture(self) -> NDArray[np.float32]:
        """Of latents that are noise, so that every number that comes out depends on how many are rounded."""
        noise = np.random.default_rng(0).standard_normal(self._config.latent_shape(0), np.float32)
        pixels, _ = self._decode(noise, self._fresh())
        return pixels.astype(np.float32)

    def _fresh(self) -> Memory:
        with torch.inference_mode():
            return self._painter.fresh()

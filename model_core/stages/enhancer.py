"""The enhance stage in this process: decoded frames in, more and larger ones out, on a device thread of its own.

It is a `Decoder` over a `Decoder`, for sessions that ask for it. All that it remembers of a session is the last frame that was decoded.
A leg that begins later is given that frame by the decode stage, which has it from the log: so another enhancer goes on with equal frames.
Each session's chunk is enhanced alone, in one fixed shape, so its frames depend on nothing but its decoded frames.
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
from model_core.enhancement import SIZES, Enhancement
from model_core.errors import StageUnavailable
from model_core.probe import Probe
from model_core.runtimes.interface import Program
from model_core.stages.coding import coded
from model_core.stages.device import DeviceThread
from model_core.stages.failures import blamed
from model_core.stages.interface import Decoder
from model_core.stages.watchdog import Watchdog
from model_core.statistics import EnhancerStatistics
from model_core.types import Codec, FrameChunk, SessionContext, StageTiming, received

Pixels = NDArray[np.uint8]


class LocalEnhancer:
    """The graphs of `program` behind an upstream `Decoder`; see `model_core.nn.graphs.enhancer_graphs`."""

    def __init__(
        self,
        program: Program,
        config: ModelConfig,
        upstream: Decoder,
        clock: Callable[[], float] = time.perf_counter,
        watchdog: Watchdog | None = None,
    ) -> None:
        """Enhance once what nobody asked for; blocks until that is done."""
        self._program, self._config, self._upstream, self._clock = program, config, upstream, clock
        watchdog = watchdog or Watchdog("enhance stage", config.execution.enhancer.stuck_seconds, clock)
        self._sessions = self._chunks = 0
        self._busy_s = 0.0
        self._probe = Probe(self._known_frames)
        with watchdog.working():
            self._probe.learn()
        self.numerics = self._probe.numerics
        self._device = DeviceThread("enhance stage", watchdog, "enhancer")

    async def stream(self, context: SessionContext) -> AsyncGenerator[FrameChunk, None]:
        """See `Decoder.stream`. Frames are counted, and as large, as `context.enhance` says.

        Raises:
            StageUnavailable: this stage is closed, broken or stuck, or one upstream died.
            ChunkFailed, SessionBroken: see `model_core.stages.failures`.
        """
        self._device.check_health()
        self._sessions += 1
        try:
            async with aclosing(self._upstream.stream(replace(context, codec=Codec.RAW_RGB))) as decoded:
                before: Pixels | None = None
                asked_at = time.time()
                async for item in decoded:
                    arrived = self._clock()
                    chunk = received(item, asked_at, time.time())
                    enhanced, before = await self._device.finished(self._device.submit(self._work, context, chunk, before, arrived))
                    yield enhanced
                    asked_at = time.time()
        finally:
            self._sessions -= 1

    def statistics(self) -> EnhancerStatistics:
        return EnhancerStatistics(self._sessions, self._chunks, self._busy_s)

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

    def _work(self, context: SessionContext, chunk: FrameChunk, before: Pixels | None, arrived: float) -> tuple[FrameChunk, Pixels]:
        with blamed(self._probe, context, chunk.index):
            return self._worked(context, chunk, before, arrived)

    def _worked(self, context: SessionContext, chunk: FrameChunk, before: Pixels | None, arrived: float) -> tuple[FrameChunk, Pixels]:
        started, enhance = self._clock(), context.enhance
        pixels = chunk.pixels()
        enhanced = self.enhanced(enhance, pixels, self._before(enhance, chunk, pixels) if before is None else before)
        first_frame, fps = chunk.first_frame * enhance.frames, self._config.shown(enhance).fps
        data = coded(context.codec, enhanced, first_frame, fps)
        seconds = self._clock() - started
        self._chunks += 1
        self._busy_s += seconds
        timing = StageTiming("enhancer", started - arrived, seconds, seconds, left_at=time.time())
        made = replace(
            chunk, first_frame=first_frame, num_frames=len(enhanced), height=enhanced.shape[1], width=enhanced.shape[2],
            codec=context.codec, data=data, timings=(*chunk.timings, timing), numerics=replace(chunk.numerics, enhancer=self.numerics),
            before=b"",
        )  # fmt: skip
        return made, pixels[-1:].copy()

    @staticmethod
    def _before(enhance: Enhancement, chunk: FrameChunk, pixels: Pixels) -> Pixels:
        """The frame before the leg's first chunk, `[1, H, W, 3]`. The session's first frame has none, and stands for it."""
        if chunk.index == 0 or enhance.frames == 1:
            return pixels[:1]
        if len(chunk.before) != pixels[0].nbytes:
            told = f"the frame before chunk {chunk.index} must have {pixels[0].nbytes} bytes; the decode stage gave {len(chunk.before)}"
            raise StageUnavailable(told)
        return np.frombuffer(chunk.before, np.uint8).reshape(pixels[:1].shape)

    def enhanced(self, enhance: Enhancement, pixels: Pixels, before: Pixels) -> Pixels:
        """Frames `[N, H, W, 3]`, at most as many as a chunk has, and the one before them, → `[FN, SH, SW, 3]`."""
        count, most = len(pixels), self._config.frames_per_chunk
        program = self._program
        with torch.inference_mode():
            # The last chunk may be cut; graphs have one shape.
            frames = program.put(torch.tensor(np.concatenate((pixels, np.repeat(pixels[-1:], most - count, 0)))))
            last = program.put(torch.tensor(before))
            if enhance.frames > 1:
                frames = program.run("double", last, frames).state
            if enhance.frames == 4:  # its last frame is the last one that was decoded, so `before` is what is remembered here, too
                early, late = frames.split(most)
                frames = torch.cat((program.run("double", last, early).state, program.run("double", early[-1:], late).state))
            if enhance.size > 1:
                frames = torch.cat([program.run(f"enlarge_{enhance.size}", part).state for part in frames.split(most)])
            made: Pixels = program.fetch(frames)[: count * enhance.frames].numpy()
        return made

    def _known_frames(self) -> NDArray[np.float32]:
        """Of noise, through every graph, so that every number that comes out depends on how many are rounded."""
        shape = (self._config.frames_per_chunk, self._config.height, self._config.width, 3)
        noise = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        made = [self.enhanced(Enhancement(frames=2, size=size), noise, noise[-1:]) for size in SIZES]
        return np.concatenate([frames.ravel() for frames in made]).astype(np.float32)

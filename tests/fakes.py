"""Stages without a model, time without waiting. They obey the protocols, so that nothing has to be patched.

A fake chunk depends on the seed, its index, the prompt and the suffix it was made with, as a real one does: a session
that is continued from the wrong place gets other pixels.
"""

from __future__ import annotations

import asyncio
import hashlib
import heapq
import math
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, replace

import numpy as np

from model_core.config import ModelConfig
from model_core.engine.session import given_chunks
from model_core.errors import StageUnavailable
from model_core.media import Frames, fmp4_fragment, jpeg
from model_core.pipeline import VideoPipeline
from model_core.presets import millrace_64
from model_core.reopen import ReopenPolicy
from model_core.stages.interface import Decoder, Denoiser
from model_core.stages.sources import Dial, LocalSources, no_sources
from model_core.types import (
    Codec,
    Conditioning,
    Footage,
    FrameChunk,
    LatentChunk,
    Latents,
    Numerics,
    SessionContext,
    SourceFootage,
    StageTiming,
    TextEmbedding,
)

DENOISE_TIMING = StageTiming("denoiser", queue_s=0.002, service_s=0.030, device_s=0.015)
DECODE_TIMING = StageTiming("decoder", queue_s=0.001, service_s=0.010, device_s=0.008)
ENHANCE_TIMING = StageTiming("enhancer", queue_s=0.001, service_s=0.010, device_s=0.004)


@dataclass(frozen=True, slots=True)
class StreamStatistics:
    """`open` streams now, streams `opened` and `chunks` made ever."""

    open: int
    opened: int
    chunks: int


class ManualClock:
    """Time that stands still until a test moves it."""

    def __init__(self) -> None:
        self._now = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._slept = 0

    def now(self) -> float:
        return self._now

    async def sleep(self, seconds: float) -> None:
        self._slept += 1
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._now + seconds, self._slept, future))
        await future

    @property
    def sleepers(self) -> int:
        return sum(not future.done() for _, _, future in self._sleepers)

    def wakes_in(self, seconds: float) -> bool:
        """Whether somebody sleeps who is due in exactly so long. Wait for it before time moves, or he may begin to sleep only then."""
        return any(not future.done() and math.isclose(due, self._now + seconds) for due, _, future in self._sleepers)

    async def advance(self, seconds: float) -> None:
        """Move on by `seconds`, waking who is due, in order, and let what follows from it run."""
        target = self._now + seconds
        await _let_run()
        while self._sleepers and self._sleepers[0][0] <= target:
            due, _, future = heapq.heappop(self._sleepers)
            self._now = max(self._now, due)
            if not future.done():
                future.set_result(None)
            await _let_run()
        self._now = target
        await _let_run()


async def _let_run() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def eventually(condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
    """Wait until `condition` holds; the timeout only bounds a failing test."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - what is watched has no event
            await asyncio.sleep(0.01)


class FakeEncoder:
    """`unavailable` makes that many calls fail first. A word is a token."""

    def __init__(self, unavailable: int = 0) -> None:
        self.unavailable = unavailable
        self.calls = 0

    async def encode(self, prompt: str, numerics: str = "") -> TextEmbedding:
        self.calls += 1
        if self.unavailable > 0:
            self.unavailable -= 1
            raise StageUnavailable("text encoder: told to fail")
        digest = np.frombuffer(hashlib.sha256(prompt.encode()).digest(), np.uint8)
        return TextEmbedding(
            prompt, (digest / np.float32(255)).reshape(1, 32).astype(np.float32), np.ones(1, np.bool_), count=len(prompt.split())
        )

    async def condition(self, footage: Footage) -> Conditioning:
        return Conditioning(guides={"mean": np.array([footage.frames.mean()], np.float32)})

    async def encode_source(self, footage: SourceFootage, numerics: str = "") -> Latents:
        """Of the embedded model's shape, and other ones for other frames."""
        digest = hashlib.sha256(f"{footage.chunk} ".encode() + footage.frames.tobytes()).digest()
        return np.random.default_rng(int.from_bytes(digest)).standard_normal(millrace_64().latent_shape(footage.chunk), np.float32)


class FakeDenoiser:
    """Latents out of a hash.

    Args:
        config: shapes.
        delay_s: real seconds a chunk takes.
        fail_after: for each entry in turn, the leg raises StageUnavailable after that many chunks; later legs are sound.
        gate: each chunk takes one permit, so that a test decides when chunks come.
        error: raised in the first leg in place of its first chunk.
    """

    def __init__(
        self,
        config: ModelConfig,
        *,
        delay_s: float = 0.0,
        fail_after: tuple[int, ...] = (),
        gate: asyncio.Semaphore | None = None,
        error: BaseException | None = None,
    ) -> None:
        self._config = config
        self._delay_s = delay_s
        self._fail_after = list(fail_after)
        self._gate = gate
        self._error = error
        self._dial: Dial = no_sources
        self._open = 0
        self._opened = 0
        self._chunks = 0
        self.contexts: list[SessionContext] = []

    def statistics(self) -> StreamStatistics:
        return StreamStatistics(self._open, self._opened, self._chunks)

    async def stream(self, context: SessionContext) -> AsyncGenerator[LatentChunk, None]:
        self._open += 1
        self._opened += 1
        self.contexts.append(context)
        left = self._fail_after.pop(0) if self._fail_after else None
        suffix = list(context.suffix)
        index = context.next_chunk
        async with AsyncExitStack() as stack:
            stack.callback(self._closed)
            for chunk, after in given_chunks(context, self._config):
                yield chunk
                index, suffix = after.next_chunk, list(after.suffix)
            source = None if context.restyle is None else await stack.enter_async_context(self._dial(context.restyle.source))
            if self._error is not None:
                error, self._error = self._error, None
                raise error
            while (end := context.end_chunk(self._config.grid)) is None or index < end:
                if left == 0:
                    raise StageUnavailable("denoiser: told to fail")
                left = None if left is None else left - 1
                if self._gate is not None:
                    await self._gate.acquire()
                await asyncio.sleep(self._delay_s)
                given = None if source is None else await source.latents(index)
                if source is not None and given is None:
                    return
                latents = self._latents(context, index, suffix, given)
                suffix = [*suffix, latents][-self._config.context_chunks :]
                self._chunks += 1
                yield LatentChunk(index, latents, (DENOISE_TIMING,))
                index += 1

    def dial_with(self, dial: Dial) -> None:
        """See `DialsSources`."""
        self._dial = dial

    def _closed(self) -> None:
        self._open -= 1

    def _latents(self, context: SessionContext, index: int, suffix: list[Latents], source: Latents | None) -> Latents:
        key = hashlib.sha256(f"{context.seed} {index} {context.num_steps} ".encode() + context.embedding.tokens.tobytes()).digest()
        if (away := context.guidance.away) is not None:
            key = hashlib.sha256(key + f"{context.guidance.scale} ".encode() + away.tokens.tobytes()).digest()
        if context.keys:
            key = hashlib.sha256(key + repr(context.keys).encode()).digest()
        for given in () if context.given is None else context.given.arrays():
            key = hashlib.sha256(key + given.tobytes()).digest()
        if source is not None and context.restyle is not None:
            key = hashlib.sha256(key + f"{context.restyle.strength} ".encode() + source.tobytes()).digest()
        for latents in suffix:
            key = hashlib.sha256(key + latents.tobytes()).digest()
        rng = np.random.default_rng(int.from_bytes(key))
        return rng.standard_normal(self._config.latent_shape(index), dtype=np.float32)


class FakeDecoder:
    """Blocky pixels from the latents of an upstream denoiser, in any codec."""

    def __init__(self, config: ModelConfig, denoiser: Denoiser) -> None:
        self._config = config
        self._denoiser = denoiser
        self._open = 0
        self._opened = 0
        self._chunks = 0

    def statistics(self) -> StreamStatistics:
        return StreamStatistics(self._open, self._opened, self._chunks)

    async def stream(self, context: SessionContext) -> AsyncGenerator[FrameChunk, None]:
        self._open += 1
        self._opened += 1
        try:
            async with aclosing(self._denoiser.stream(context)) as latents:
                before = self._before(context)
                async for chunk in latents:
                    self._chunks += 1
                    yield replace(self._decode(chunk, context), before=before)
                    before = b""
        finally:
            self._open -= 1

    def _before(self, context: SessionContext) -> bytes:
        """As a decoder says it to an enhancer."""
        if context.enhance.frames == 1 or not context.suffix:
            return b""
        last = LatentChunk(context.next_chunk - 1, context.suffix[-1])
        return self._decode(last, replace(context, codec=Codec.RAW_RGB)).data[-1]

    def _decode(self, chunk: LatentChunk, context: SessionContext) -> FrameChunk:
        config = self._config
        first, frames = config.grid.first_frame(chunk.index), config.grid.frames(chunk.index)
        count = frames if context.num_frames is None else min(frames, context.num_frames - first)
        planes = np.clip(chunk.latents[:3] * 40 + 128, 0, 255).astype(np.uint8)  # [3, F, h, w]
        scale = config.height // config.latent_size[1]
        pixels = planes.transpose(1, 2, 3, 0).repeat(config.grid.factor, 0).repeat(scale, 1).repeat(scale, 2)[:count]
        data = _encode(pixels, context.codec, first, config.fps)
        return FrameChunk(
            index=chunk.index, first_frame=first, num_frames=count, height=config.height, width=config.width,
            codec=context.codec, data=data, latents=chunk.latents, timings=(*chunk.timings, DECODE_TIMING),
            numerics=Numerics(chunk.numerics, "", context.embedding.numerics),
        )  # fmt: skip


class FakeEnhancer:
    """Repeats pixels, and puts means between frames. It needs the frame before as a real one does."""

    def __init__(self, config: ModelConfig, decoder: Decoder) -> None:
        self._config, self._decoder = config, decoder
        self.open = self.opened = self.chunks = 0

    async def stream(self, context: SessionContext) -> AsyncGenerator[FrameChunk, None]:
        self.open += 1
        self.opened += 1
        before: Frames | None = None
        try:
            async with aclosing(self._decoder.stream(replace(context, codec=Codec.RAW_RGB))) as chunks:
                async for chunk in chunks:
                    if before is None and chunk.index and context.enhance.frames > 1:
                        before = np.frombuffer(chunk.before, np.uint8).reshape(1, chunk.height, chunk.width, 3)
                    pixels = chunk.pixels()
                    self.chunks += 1
                    yield self._enhance(chunk, pixels, pixels[:1] if before is None else before, context)
                    before = pixels[-1:]
        finally:
            self.open -= 1

    def _enhance(self, chunk: FrameChunk, pixels: Frames, before: Frames, context: SessionContext) -> FrameChunk:
        more, size = context.enhance.frames, context.enhance.size
        for _ in range(more.bit_length() - 1):
            earlier = np.concatenate((before, pixels[:-1]))
            between = ((earlier.astype(np.uint16) + pixels) // 2).astype(np.uint8)
            pixels = np.stack((between, pixels), 1).reshape(-1, *pixels.shape[1:])
        pixels = pixels.repeat(size, 1).repeat(size, 2)
        first, fps = chunk.first_frame * more, self._config.shown(context.enhance).fps
        return replace(
            chunk, first_frame=first, num_frames=len(pixels), height=pixels.shape[1], width=pixels.shape[2], codec=context.codec,
            data=_encode(pixels, context.codec, first, fps), timings=(*chunk.timings, ENHANCE_TIMING), before=b"",
        )  # fmt: skip


def _encode(pixels: Frames, codec: Codec, first_frame: int, fps: int) -> tuple[bytes, ...]:
    match codec:
        case Codec.RAW_RGB:
            return tuple(frame.tobytes() for frame in pixels)
        case Codec.JPEG:
            return tuple(jpeg(frame, 80) for frame in pixels)
        case Codec.FMP4_H264:
            return (fmp4_fragment(pixels, first_frame, fps),)


class FakeStages:
    """A whole pipeline of fakes, with what tests look at."""

    def __init__(
        self,
        denoiser: FakeDenoiser | None = None,
        encoder: FakeEncoder | None = None,
        attempts: int = 3,
        keep_chunks: int = 0,
        config: ModelConfig | None = None,
        *,
        enhances: bool = False,
    ) -> None:
        self.config = config or millrace_64()
        self.encoder = encoder or FakeEncoder()
        self.denoiser = denoiser or FakeDenoiser(self.config)
        self.decoder = FakeDecoder(self.config, self.denoiser)
        self.enhancer = FakeEnhancer(self.config, self.decoder) if enhances else None
        sources = LocalSources()
        self.denoiser.dial_with(sources.dial)
        policy = ReopenPolicy(attempts=attempts, backoff_s=0.0)
        self.pipeline = VideoPipeline(self.config, self.encoder, self.decoder, policy, keep_chunks, sources, self.enhancer)

    @property
    def open_streams(self) -> int:
        return self.denoiser.statistics().open + self.decoder.statistics().open

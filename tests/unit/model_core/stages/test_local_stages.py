"""The decode stage and the whole local pipeline, with the model that is shipped."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from model_core import media
from model_core.config import EngineConfig
from model_core.diffusion.flow_match import chunk_noise
from model_core.errors import EngineDead, StageUnavailable
from model_core.families.interface import Memory, Painter
from model_core.families.millrace.parts import MillracePainter
from model_core.local import build_decoder, load_pipeline
from model_core.pipeline import SessionRequest
from model_core.presets import millrace_64
from model_core.stages.decoder import LocalDecoder
from model_core.types import Codec, FrameChunk, LatentChunk, Latents, SessionContext, StageTiming
from model_core.weights import load_vae
from tests.fakes import FakeDenoiser, eventually
from tests.models import random_context, resumed
from tests.rounding import assert_same_picture

CONFIG = millrace_64()
FRAMES = CONFIG.frames_per_chunk
SHAPE = (CONFIG.dit.latent_channels, CONFIG.dit.latent_frames, CONFIG.dit.latent_height, CONFIG.dit.latent_width)
LOG: list[Latents] = [chunk_noise(7, index, SHAPE).numpy() for index in range(6)]
PROMPT = "a large red circle moving left on a black background"
TIMEOUT_S = 200.0  # only bounds a failing test


class Replay:
    """A denoiser that plays `log`, then raises `error` if there is one."""

    def __init__(self, log: Sequence[Latents], error: Exception | None = None) -> None:
        self._log, self._error = log, error
        self.open = 0

    async def stream(self, context: SessionContext) -> AsyncGenerator[LatentChunk, None]:
        self.open += 1
        try:
            for index, latents in enumerate(self._log[context.next_chunk : context.end_chunk(CONFIG.grid)], context.next_chunk):
                await asyncio.sleep(0)
                yield LatentChunk(index, latents, (StageTiming("denoiser", 1.0, 2.0, 3.0),))
            if self._error is not None:
                raise self._error
        finally:
            self.open -= 1


MakeDecoder = Callable[[Replay], LocalDecoder]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
async def make_decoder() -> AsyncIterator[MakeDecoder]:
    """Makes decoders; after the test nothing of them is left, here or upstream."""
    made: list[tuple[LocalDecoder, Replay]] = []
    before = set(threading.enumerate())  # of tests that keep their stages

    def build(upstream: Replay) -> LocalDecoder:
        made.append((build_decoder(CONFIG, upstream), upstream))
        return made[-1][0]

    yield build
    for decoder, upstream in made:
        await decoder.aclose()
        await decoder.aclose()
        assert decoder.statistics().sessions == upstream.open == 0
    assert not any(thread.name.startswith("decoder") for thread in {*threading.enumerate()} - before)


def context(chunks: int | None = len(LOG), codec: Codec = Codec.RAW_RGB) -> SessionContext:
    return replace(random_context("a session", CONFIG, chunks), codec=codec)


async def frames(decoder: LocalDecoder, context: SessionContext) -> list[FrameChunk]:
    async with asyncio.timeout(TIMEOUT_S), aclosing(decoder.stream(context)) as stream:
        return [chunk async for chunk in stream]


def pixels(chunks: Sequence[FrameChunk]) -> NDArray[np.uint8]:
    return np.concatenate([chunk.pixels() for chunk in chunks])


async def test_chunk_by_chunk_is_the_same_as_the_clip_at_once(make_decoder: MakeDecoder) -> None:
    """But for rounding: convolutions over more frames add in another order."""
    vae = load_vae(CONFIG)
    with torch.inference_mode():
        clip = torch.cat([torch.tensor(latents)[None] for latents in LOG], 2)
        whole, _ = vae.decode(clip, vae.new_memory(vae.decoder, 1, CONFIG.height, CONFIG.width))
    chunks = await frames(make_decoder(Replay(LOG)), context())
    expected = (whole[0].clamp(0, 1) * 255).round().permute(0, 2, 3, 1).numpy()
    widest = 2 * CONFIG.vae.decoder_width  # what a memory block sees of two frames
    assert_same_picture(pixels(chunks), expected, terms=9 * widest, sums=sum(isinstance(m, nn.Conv2d) for m in vae.decoder.modules()))
    assert pixels(chunks).std() > 10  # there is something to see


async def test_a_chunk_says_what_it_is(make_decoder: MakeDecoder) -> None:
    decoder = make_decoder(Replay(LOG))
    chunks = await frames(decoder, context(3))
    placed = [(chunk.index, chunk.first_frame, chunk.num_frames, chunk.height, chunk.width) for chunk in chunks]
    assert placed == [(i, i * FRAMES, FRAMES, 64, 64) for i in range(3)]
    for chunk, latents in zip(chunks, LOG, strict=False):
        np.testing.assert_array_equal(chunk.latents, latents)
        assert [timing.stage for timing in chunk.timings] == ["denoiser", "decoder"]
        assert chunk.timings[1].service_s > 0
    assert decoder.statistics().chunks == 3


@pytest.mark.parametrize("boundary", range(1, len(LOG)))
async def test_another_decoder_goes_on_from_the_suffix(make_decoder: MakeDecoder, boundary: int) -> None:
    undisturbed = await frames(make_decoder(Replay(LOG)), context())
    moved = await frames(make_decoder(Replay(LOG)), resumed(context(), LOG[:boundary], CONFIG.dit.window))
    np.testing.assert_array_equal(pixels(moved), pixels(undisturbed[boundary:]))


async def test_the_suffix_matters(make_decoder: MakeDecoder) -> None:
    """Guards the test above: a decoder without memory would pass it."""
    decoder = make_decoder(Replay(LOG))
    undisturbed = await frames(decoder, context())
    forgetful = await frames(decoder, replace(context(), next_chunk=3))
    assert not np.array_equal(pixels(forgetful[:1]), pixels(undisturbed[3:4]))


class Counted:
    """A painter, and how many chunks it has painted."""

    def __init__(self, painter: Painter) -> None:
        self._painter = painter
        self.chunks = 0

    def fresh(self) -> Memory:
        return self._painter.fresh()

    def paint(self, latents: Latents, memory: Memory) -> tuple[NDArray[np.uint8], Memory]:
        self.chunks += 1
        return self._painter.paint(latents, memory)


@pytest.mark.parametrize("boundary", range(1, len(LOG)))
async def test_a_leg_that_goes_on_where_one_has_ended_rebuilds_nothing_and_shows_the_same(boundary: int) -> None:
    painter = Counted(MillracePainter(load_vae(CONFIG), CONFIG))
    decoder = LocalDecoder(painter, CONFIG, Replay(LOG))
    undisturbed = await frames(decoder, context())
    before = painter.chunks
    again = await frames(decoder, resumed(context(), LOG[:boundary], CONFIG.dit.window))
    assert painter.chunks - before == len(LOG) - boundary
    np.testing.assert_array_equal(pixels(again), pixels(undisturbed[boundary:]))
    other = [*LOG[: boundary - 1], -LOG[boundary - 1]]  # a past that nobody has seen is made anew
    await frames(decoder, resumed(context(), other, CONFIG.dit.window))
    assert painter.chunks - before == 2 * (len(LOG) - boundary) + min(boundary, CONFIG.decoder_chunks)
    await decoder.aclose()


async def test_two_sessions_at_once_keep_their_memories_apart(make_decoder: MakeDecoder) -> None:
    decoder = make_decoder(Replay(LOG))
    alone = await frames(decoder, context())
    both = await asyncio.gather(frames(decoder, context()), frames(decoder, resumed(context(), LOG[:2], CONFIG.dit.window)))
    np.testing.assert_array_equal(pixels(both[0]), pixels(alone))
    np.testing.assert_array_equal(pixels(both[1]), pixels(alone[2:]))


@pytest.mark.parametrize("num_frames", [1, FRAMES - 1, FRAMES, FRAMES + 1, 2 * FRAMES])
async def test_the_last_chunk_is_cut_to_the_length(make_decoder: MakeDecoder, num_frames: int) -> None:
    decoder = make_decoder(Replay(LOG))
    chunks = await frames(decoder, replace(context(), num_frames=num_frames))
    assert sum(chunk.num_frames for chunk in chunks) == num_frames
    assert len(chunks) == -(-num_frames // FRAMES)
    np.testing.assert_array_equal(pixels(chunks), pixels(await frames(decoder, context()))[:num_frames])
    assert chunks[-1].latents.shape == SHAPE  # the log keeps whole chunks


@pytest.mark.parametrize("codec", [Codec.JPEG, Codec.FMP4_H264])
async def test_codecs_code_the_same_pixels(make_decoder: MakeDecoder, codec: Codec) -> None:
    decoder = make_decoder(Replay(LOG))
    raw = await frames(decoder, replace(context(2), num_frames=FRAMES + 3))
    coded = await frames(decoder, replace(context(2), num_frames=FRAMES + 3, codec=codec))
    for plain, chunk in zip(raw, coded, strict=True):
        assert (chunk.codec, chunk.index, chunk.first_frame, chunk.num_frames) == (codec, plain.index, plain.first_frame, plain.num_frames)
        if codec is Codec.JPEG:
            assert chunk.data == tuple(media.jpeg(frame, 90) for frame in plain.pixels())
        else:
            assert chunk.data == (media.fmp4_fragment(plain.pixels(), plain.first_frame, CONFIG.fps),)


async def test_a_failure_upstream_reaches_the_reader_after_what_was_made(make_decoder: MakeDecoder) -> None:
    decoder = make_decoder(Replay(LOG[:2], EngineDead("the denoise engine crashed")))
    stream = decoder.stream(context())
    assert [(await anext(stream)).index for _ in range(2)] == [0, 1]
    with pytest.raises(EngineDead, match="crashed"):
        await anext(stream)
    assert decoder.statistics().sessions == 0


async def test_cancelling_closes_upstream(make_decoder: MakeDecoder) -> None:
    endless = FakeDenoiser(CONFIG)
    decoder = LocalDecoder(MillracePainter(load_vae(CONFIG), CONFIG), CONFIG, endless)
    readers = [asyncio.create_task(frames(decoder, context(None))) for _ in range(5)]
    for reader in readers:
        await eventually(lambda: decoder.statistics().chunks > 3)
        reader.cancel()
    await asyncio.gather(*readers, return_exceptions=True)
    assert endless.statistics().open == decoder.statistics().sessions == 0
    await decoder.aclose()


async def test_closing_the_stage_while_it_streams(make_decoder: MakeDecoder) -> None:
    decoder = make_decoder(Replay(LOG))
    decoder.check_health()
    async with aclosing(decoder.stream(context())) as stream:
        await anext(stream)
        await decoder.aclose()
        with pytest.raises(StageUnavailable, match="the decode stage is closed"):
            await anext(stream)
    with pytest.raises(StageUnavailable, match="the decode stage is closed"):
        decoder.check_health()
    with pytest.raises(StageUnavailable, match="the decode stage is closed"):
        await frames(decoder, context())


# -- the whole pipeline -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def generated() -> NDArray[np.uint8]:
    """What a user writes first: three lines, the default model, nothing else running."""
    pipeline = load_pipeline()
    made = pipeline.generate(PROMPT, seconds=1, seed=3)
    asyncio.run(pipeline.aclose())
    return made


def test_text_in_frames_out(generated: NDArray[np.uint8]) -> None:
    assert generated.shape == (24, 64, 64, 3)
    assert generated.dtype == np.uint8
    red = (generated[..., 0] > 150) & (generated[..., 1:].max(-1) < 100)
    assert red.mean() > 0.02
    assert (generated.max(-1) < 60).mean() > 0.5


def test_other_prompts_seeds_and_steps_give_other_frames(generated: NDArray[np.uint8]) -> None:
    pipeline = load_pipeline()
    for other in (
        pipeline.generate("a small blue square", seconds=0.3, seed=3),
        pipeline.generate(PROMPT, seconds=0.3, seed=4),
        pipeline.generate(PROMPT, seconds=0.3, seed=3, steps=2),
    ):
        assert len(other) == 7
        assert not np.array_equal(other, generated[:7])
    np.testing.assert_array_equal(pipeline.generate(PROMPT, seconds=0.3, seed=3), generated[:7])
    asyncio.run(pipeline.aclose())


@pytest.mark.parametrize(("others", "buckets"), [(0, (1,)), (0, (8,)), (7, (1,)), (7, (1, 2, 4, 8)), (7, (8,))])
def test_frames_depend_on_neither_company_nor_buckets(generated: NDArray[np.uint8], others: int, buckets: tuple[int, ...]) -> None:
    before = set(threading.enumerate())  # of tests that keep their stages
    pipeline = load_pipeline(engine=EngineConfig(batch_buckets=buckets))

    async def run(request: SessionRequest) -> str:
        session = await pipeline.pipeline.open(request)
        async with aclosing(session.events()) as events:
            return media.frames_sha256([event.pixels() async for event in events if isinstance(event, FrameChunk)])

    async def run_all() -> str:
        requests = [SessionRequest("watched", PROMPT, 3, CONFIG.num_steps, 24)]
        requests += [SessionRequest(f"other {i}", f"a green square, number {i}", i, 1 + i, 12 + i) for i in range(others)]
        async with asyncio.timeout(TIMEOUT_S):
            return (await asyncio.gather(*(run(request) for request in requests)))[0]

    assert asyncio.run(run_all()) == media.frames_sha256([generated])
    asyncio.run(pipeline.aclose())
    assert not {thread.name for thread in {*threading.enumerate()} - before} & {"denoiser", "decoder", "text-encoder"}

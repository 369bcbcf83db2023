"""The enhance stage, with the weights that are shipped, behind the decode stage."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from model_core.config import EngineConfig
from model_core.enhancement import Enhancement
from model_core.errors import InvalidRequest, StageUnavailable
from model_core.local import LocalPipeline, build_decoder, build_enhancer
from model_core.pipeline import SessionRequest, VideoPipeline
from model_core.presets import millrace_64
from model_core.session import Session
from model_core.session_log import SessionRecord
from model_core.stages.decoder import LocalDecoder
from model_core.stages.enhancer import LocalEnhancer
from model_core.types import Codec, FrameChunk, LatentChunk, Latents, SessionContext
from tests.fakes import FakeStages
from tests.models import random_context, resumed

CONFIG = millrace_64()
FRAMES = CONFIG.frames_per_chunk
LOG: list[Latents] = [np.random.default_rng(index).standard_normal(CONFIG.latent_shape(index), np.float32) for index in range(6)]
PROMPT = "a large red circle moving left on a black background"
BOTH = Enhancement(frames=2, size=2)


class Replay:
    """A denoiser that plays the log."""

    async def stream(self, context: SessionContext) -> AsyncGenerator[LatentChunk, None]:
        for index, latents in enumerate(LOG[context.next_chunk : context.end_chunk(CONFIG.grid)], context.next_chunk):
            await asyncio.sleep(0)
            yield LatentChunk(index, latents)


class WithoutTheFrameBefore:
    """A decoder that does not say which frame came before."""

    def __init__(self, decoder: LocalDecoder) -> None:
        self._decoder = decoder

    async def stream(self, context: SessionContext) -> AsyncGenerator[FrameChunk, None]:
        async with aclosing(self._decoder.stream(context)) as chunks:
            async for chunk in chunks:
                yield replace(chunk, before=b"")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
async def decoder() -> AsyncIterator[LocalDecoder]:
    made = build_decoder(CONFIG, Replay())
    yield made
    await made.aclose()


@pytest.fixture
async def enhancer(decoder: LocalDecoder) -> AsyncIterator[LocalEnhancer]:
    made = build_enhancer(CONFIG, decoder)
    yield made
    await made.aclose()


def asked(enhance: Enhancement, chunks: int = 6) -> SessionContext:
    return replace(random_context("one", CONFIG, chunks=chunks), num_frames=chunks * FRAMES, enhance=enhance)


async def played(stage: LocalEnhancer | LocalDecoder, context: SessionContext) -> list[FrameChunk]:
    async with aclosing(stage.stream(context)) as chunks:
        return [chunk async for chunk in chunks]


def pixels(chunks: list[FrameChunk]) -> NDArray[np.uint8]:
    return np.concatenate([chunk.pixels() for chunk in chunks])


async def test_every_second_frame_is_the_decoded_one_and_chunks_say_what_they_are(enhancer: LocalEnhancer, decoder: LocalDecoder) -> None:
    plain = pixels(await played(decoder, asked(Enhancement())))
    chunks = await played(enhancer, asked(Enhancement(frames=2)))
    assert [(chunk.first_frame, chunk.num_frames) for chunk in chunks] == [(2 * FRAMES * index, 2 * FRAMES) for index in range(6)]
    shown = pixels(chunks)
    assert np.array_equal(shown[1::2], plain)
    between = shown[2::2].astype(float)
    far = np.abs(plain[1:].astype(float) - plain[:-1]).mean()
    assert 0 < np.abs(between - plain[1:]).mean() < far, "the frames between lie between"
    assert 0 < np.abs(between - plain[:-1]).mean() < far
    assert chunks[0].timings[-1].stage == "enhancer"
    assert chunks[0].numerics.enhancer == enhancer.numerics != ""


@pytest.mark.parametrize("size", [2, 4])
async def test_larger_frames_show_the_same(enhancer: LocalEnhancer, decoder: LocalDecoder, size: int) -> None:
    plain = pixels(await played(decoder, asked(Enhancement(), 2))).astype(float)
    chunks = await played(enhancer, asked(Enhancement(size=size), 2))
    assert (chunks[0].height, chunks[0].width) == (64 * size, 64 * size)
    shown = pixels(chunks).astype(float)
    small = shown.reshape(len(shown), 64, size, 64, size, 3).mean((2, 4))
    assert np.abs(small - plain).mean() < 0.25 * np.abs(plain - plain.mean()).mean()


@pytest.mark.parametrize("boundary", [1, 2, 3, 4, 5])
async def test_another_enhancer_goes_on_from_the_suffix_with_equal_frames(
    enhancer: LocalEnhancer, decoder: LocalDecoder, boundary: int
) -> None:
    whole = await played(enhancer, asked(BOTH))
    other_decoder = build_decoder(CONFIG, Replay())
    other = build_enhancer(CONFIG, other_decoder)
    try:
        later = await played(other, resumed(asked(BOTH), LOG[:boundary], CONFIG.context_chunks))
    finally:
        await other.aclose()
        await other_decoder.aclose()
    assert [chunk.data for chunk in later] == [chunk.data for chunk in whole[boundary:]]


async def test_alone_and_beside_others_a_session_has_equal_bits(enhancer: LocalEnhancer) -> None:
    alone = await played(enhancer, asked(BOTH))
    others = [asked(Enhancement(size=4)), asked(Enhancement(frames=2)), asked(BOTH, 3)]
    together = await asyncio.gather(played(enhancer, asked(BOTH)), *(played(enhancer, other) for other in others))
    assert [chunk.data for chunk in together[0]] == [chunk.data for chunk in alone]
    assert enhancer.statistics().chunks == 6 * 4 + 3
    assert enhancer.statistics().sessions == 0


async def test_the_last_chunk_is_cut_and_its_frames_are_those_of_a_whole_one(enhancer: LocalEnhancer) -> None:
    whole = await played(enhancer, asked(BOTH, 2))
    cut = await played(enhancer, replace(asked(BOTH, 2), num_frames=FRAMES + 3))
    assert cut[-1].num_frames == 6
    assert cut[-1].data == whole[-1].data[:6]


async def test_a_leg_that_is_not_told_the_frame_before_is_refused(decoder: LocalDecoder) -> None:
    blind = build_enhancer(CONFIG, WithoutTheFrameBefore(decoder))
    try:
        assert len(await played(blind, asked(BOTH))) == 6, "a session's first leg needs none"
        with pytest.raises(StageUnavailable, match="the frame before chunk 2 must have 12288 bytes; the decode stage gave 0"):
            await played(blind, resumed(asked(BOTH), LOG[:2], CONFIG.context_chunks))
    finally:
        await blind.aclose()


def test_a_model_without_an_enhancer_is_named(decoder: LocalDecoder) -> None:
    without = replace(CONFIG, weights=replace(CONFIG.weights, enhancer_sha256=""))
    with pytest.raises(InvalidRequest, match="model millrace-64 has no enhancer"):
        build_enhancer(without, decoder)


# -- sessions -----------------------------------------------------------------------------------------------------------------


@pytest.fixture
async def local() -> AsyncIterator[LocalPipeline]:
    made = LocalPipeline(CONFIG, EngineConfig())
    yield made
    await made.aclose()


async def frames_of(session: Session, stop_after: int | None = None) -> tuple[list[bytes], list[int]]:
    """Raw frames, and the first of each chunk."""
    data: list[bytes] = []
    firsts = []
    async with aclosing(session.events()) as events:
        async for event in events:
            if isinstance(event, FrameChunk):
                data += event.data
                firsts.append(event.first_frame)
            if stop_after is not None and len(firsts) >= stop_after:
                break
    return data, firsts


def request(**changes: object) -> SessionRequest:
    plain = SessionRequest("one", PROMPT, 7, 2, 2 * 5 * FRAMES, codec=Codec.RAW_RGB, enhance=BOTH)
    return replace(plain, **changes)  # type: ignore[arg-type] # of the fields' types


async def test_a_session_counts_frames_as_they_are_shown_and_goes_on_from_its_record_with_equal_frames(local: LocalPipeline) -> None:
    pipeline = VideoPipeline(CONFIG, local.encoder, local.decoder, keep_chunks=1, enhancer=local.enhancer)
    whole, firsts = await frames_of(await pipeline.open(request()))
    assert firsts == [0, 16, 32, 48, 64]
    assert (len(whole), len(whole[0])) == (80, 128 * 128 * 3)
    session = await pipeline.open(request())
    await frames_of(session, stop_after=4)
    record = SessionRecord.from_bytes(session.record().to_bytes())
    assert record.enhance == BOTH
    assert pipeline.continues(record)
    for next_frame in (64, 67):
        rest, _ = await frames_of(await pipeline.restore(record, next_frame))
        assert rest == whole[next_frame:], f"from frame {next_frame}"


async def test_a_record_of_another_enhancer_is_not_gone_on_with(local: LocalPipeline) -> None:
    session = await local.pipeline.open(request(num_frames=32))
    await frames_of(session)
    record = session.record()
    assert not local.pipeline.continues(replace(record, enhancer="another"))
    assert not VideoPipeline(CONFIG, local.encoder, local.decoder).continues(record)
    with pytest.raises(ValueError, match="restores"):
        await local.pipeline.restore(replace(record, enhancer="another"), 16)


async def test_where_nothing_enhances_a_session_is_refused_by_name() -> None:
    with pytest.raises(InvalidRequest, match=r"enhance.*nothing here enhances frames of model millrace-64; got frames 2, size 2"):
        await FakeStages().pipeline.open(request())


def test_a_record_without_enhancement_is_written_as_before() -> None:
    record = SessionRecord("m", "f", "s", 1, 2, None, Codec.JPEG, 0, (LOG[0],), (), ((0, 2),))
    assert record.to_bytes()[:4] == b"HRL2"
    assert replace(record, enhance=BOTH).to_bytes()[:4] == b"HRL4"

"""A session that restyles a source: whatever ends a leg, the frames go on as if nothing had happened. Over fakes."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import numpy as np
import pytest
from numpy.typing import NDArray

from model_core.config import ModelConfig
from model_core.errors import InvalidRequest
from model_core.pipeline import MadeAgain, PromptApplied, Session, SessionEvent, SessionRequest, VideoPipeline
from model_core.presets import millrace_64
from model_core.session_log import SessionRecord
from model_core.source import SourceFeed
from model_core.types import FrameChunk
from tests.fakes import FakeDenoiser, FakeStages
from tests.pictures import moving

CONFIG = millrace_64()
CHUNK = CONFIG.frames_per_chunk
FRAMES = 5 * CHUNK + 3


def request(strength: float | None = 0.5, frames: int | None = None) -> SessionRequest:
    return SessionRequest("s", "a blue circle", seed=7, num_steps=4, num_frames=frames, strength=strength)


async def give(source: SourceFeed, frames: NDArray[np.uint8], first: int = 0) -> None:
    """All of `frames` from `first` on, as fast as they are taken."""
    at = first
    while at < len(frames):
        room = await source.room()
        assert source.offer(at, frames[at : at + room]) == ()
        at += min(room, len(frames) - at)
    source.finish()


async def play(session: Session, frames: NDArray[np.uint8], first: int = 0) -> list[SessionEvent]:
    assert session.source is not None
    giving = asyncio.create_task(give(session.source, frames, first))
    async with aclosing(session.events()) as events:
        played = [event async for event in events]
    await giving
    return played


def pixels(events: list[SessionEvent]) -> bytes:
    return b"".join(b"".join(event.data) for event in events if isinstance(event, FrameChunk))


async def undisturbed(frames: int = FRAMES) -> bytes:
    return pixels(await play(await FakeStages().pipeline.open(request()), moving(frames)))


@pytest.mark.parametrize("frames", [1, CHUNK, FRAMES])
async def test_the_session_is_as_long_as_its_source(frames: int) -> None:
    stages = FakeStages()

    events = await play(await stages.pipeline.open(request()), moving(frames))

    assert len(pixels(events)) == frames * CONFIG.height * CONFIG.width * 3
    assert stages.open_streams == 0


async def test_a_session_with_a_length_ends_before_its_source() -> None:
    session = await FakeStages().pipeline.open(request(frames=12))
    assert session.source is not None
    session.source.offer(0, moving(24))

    async with aclosing(session.events()) as events:
        played = [event async for event in events]

    assert len(pixels(played)) == 12 * CONFIG.height * CONFIG.width * 3


@pytest.mark.parametrize("fail_after", [(0,), (1,), (3,), (5,), (1, 0, 2)])
async def test_after_a_dead_stage_nothing_has_to_be_sent_again(fail_after: tuple[int, ...]) -> None:
    stages = FakeStages(FakeDenoiser(CONFIG, fail_after=fail_after))

    assert pixels(await play(await stages.pipeline.open(request()), moving(FRAMES))) == await undisturbed()


async def test_a_pause_loses_nothing() -> None:
    session = await FakeStages().pipeline.open(request())
    assert session.source is not None
    giving = asyncio.create_task(give(session.source, moving(FRAMES)))
    played: list[SessionEvent] = []

    async with aclosing(session.events()) as events:
        async for event in events:
            played.append(event)
            if isinstance(event, FrameChunk) and event.index == 1:
                session.pause()
                session.resume()
    await giving

    assert pixels(played) == await undisturbed()


async def test_frames_depend_on_the_source_and_on_the_strength() -> None:
    of = {strength: pixels(await play(await FakeStages().pipeline.open(request(strength)), moving(FRAMES))) for strength in (0.5, 0.75)}
    brighter = np.minimum(moving(FRAMES), 254) + 1

    assert of[0.5] != of[0.75]
    assert pixels(await play(await FakeStages().pipeline.open(request()), brighter)) != of[0.5]


async def test_a_new_prompt_may_go_back_to_chunks_that_were_made() -> None:
    stages = FakeStages(keep_chunks=4)
    session = await stages.pipeline.open(request())
    assert session.source is not None
    giving = asyncio.create_task(give(session.source, moving(FRAMES)))
    played: list[SessionEvent] = []

    async with aclosing(session.events()) as events:
        async for event in events:
            played.append(event)
            if isinstance(event, FrameChunk) and event.index == 3 and not any(isinstance(e, PromptApplied) for e in played):
                await session.set_prompt("a green circle", replace_from=CHUNK)
    await giving

    changed = next(event for event in played if isinstance(event, PromptApplied))
    assert (changed.first_frame, changed.superseded) == (CHUNK, 3 * CHUNK)
    assert [event.index for event in played if isinstance(event, FrameChunk)] == [0, 1, 2, 3, 1, 2, 3, 4, 5]


async def records(pipeline: VideoPipeline) -> list[SessionRecord]:
    """After each chunk, as another process would read them."""
    session = await pipeline.open(request())
    assert session.source is not None
    giving = asyncio.create_task(give(session.source, moving(FRAMES)))
    async with aclosing(session.events()) as events:
        found = [SessionRecord.from_bytes(session.record().to_bytes()) async for event in events if isinstance(event, FrameChunk)]
    await giving
    return found


async def test_a_session_goes_on_elsewhere_when_the_source_is_sent_again() -> None:
    """Also from a record that lags behind what its viewer has seen, and in the middle of a chunk."""
    stages, whole = FakeStages(keep_chunks=2), await undisturbed()
    for number, record in enumerate(await records(stages.pipeline)):
        for ahead in (0, 5, CHUNK):
            next_frame = min(FRAMES, (number + 1) * CHUNK) if ahead == 0 else min(FRAMES, (number + 1) * CHUNK + ahead)
            session = await FakeStages(keep_chunks=2).pipeline.restore(record, next_frame)
            assert session.source is not None
            first = session.source.first_frame
            assert first == max(0, min(record.next_chunk, next_frame // CHUNK) - 1) * CHUNK

            played = await play(session, moving(FRAMES), first)

            assert pixels(played) == whole[next_frame * CONFIG.height * CONFIG.width * 3 :]


async def test_chunks_that_are_made_again_for_nobody_are_said_because_they_leave_room_for_the_source() -> None:
    record = (await records(FakeStages(keep_chunks=4).pipeline))[0]
    session = await FakeStages(keep_chunks=4).pipeline.restore(record, 3 * CHUNK + 2)
    assert session.source is not None

    played = await play(session, moving(FRAMES), session.source.first_frame)

    assert [event.chunk for event in played if isinstance(event, MadeAgain)] == [1, 2]
    assert [event.index for event in played if isinstance(event, FrameChunk)] == [3, 4, 5]


async def test_a_record_of_a_restyled_session_is_none_to_an_earlier_version() -> None:
    restyled = (await records(FakeStages().pipeline))[0]

    assert restyled.strength == 0.5
    assert restyled.to_bytes()[:4] == b"HRL3"
    plain = (await FakeStages().pipeline.open(request(None))).record()
    assert (plain.strength, plain.to_bytes()[:4]) == (None, b"HRL2")


async def test_a_pipeline_without_a_place_for_sources_refuses_one() -> None:
    stages = FakeStages()
    bare: ModelConfig = stages.config

    with pytest.raises(InvalidRequest, match=r"strength: must be unset: model millrace-64 restyles no video here; got 0\.5"):
        await VideoPipeline(bare, stages.encoder, stages.decoder).open(request())

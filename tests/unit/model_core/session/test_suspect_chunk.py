"""A chunk that could not be made is tried once more, elsewhere; if it cannot be made there either, its session ends."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from model_core.errors import ChunkFailed, SessionBroken, StageUnavailable
from model_core.pipeline import Session, SessionRequest, VideoPipeline
from model_core.presets import millrace_64
from model_core.reopen import ReopenPolicy
from model_core.types import FrameChunk, SessionContext
from tests.fakes import FakeStages, eventually

CONFIG = millrace_64()


def request(chunks: int = 6) -> SessionRequest:
    return SessionRequest("s1", "a red circle", seed=7, num_steps=4, num_frames=chunks * CONFIG.frames_per_chunk)


async def frames(session: Session) -> list[bytes]:
    async with aclosing(session.events()) as events:
        return [b"".join(event.data) async for event in events if isinstance(event, FrameChunk)]


async def test_a_chunk_that_was_not_finite_is_named_to_the_next_replica_and_ends_the_session_if_it_says_the_same() -> None:
    stages = FakeStages()
    named: list[int | None] = []

    class Poisoned:
        def __init__(self, *errors: Exception) -> None:
            self.errors = list(errors)

        async def stream(self, context: SessionContext) -> AsyncGenerator[FrameChunk, None]:
            named.append(context.suspect_chunk)
            async with aclosing(stages.decoder.stream(context)) as chunks:
                async for chunk in chunks:
                    if chunk.index == 2 and self.errors:
                        raise self.errors.pop(0)
                    yield chunk

    flaky = VideoPipeline(CONFIG, stages.encoder, Poisoned(ChunkFailed("the device", 2)))
    assert await frames(await flaky.open(request())) == await frames(await stages.pipeline.open(request()))
    assert named == [None, 2]

    broken = VideoPipeline(CONFIG, stages.encoder, Poisoned(ChunkFailed("once", 2), SessionBroken("twice")))
    with pytest.raises(SessionBroken):
        await frames(await broken.open(request()))
    assert named == [None, 2, None, 2]
    assert stages.open_streams == 0


@pytest.mark.parametrize("change", ["prompt", "steps"])
@pytest.mark.parametrize("when", ["while it is made", "when it has failed"])
async def test_a_chunk_with_other_contents_is_no_longer_suspect(change: str, when: str) -> None:
    stages = FakeStages()
    named: list[int | None] = []

    async def other_contents() -> None:
        if change == "prompt":
            await session.set_prompt("a blue square")
        else:
            session.set_steps(session.steps - 1)

    class Poisoned:
        async def stream(self, context: SessionContext) -> AsyncGenerator[FrameChunk, None]:
            named.append(context.suspect_chunk)
            if len(named) == 1:
                raise StageUnavailable("away; the next retry is not immediate")
            if len(named) == 2:
                if when == "while it is made":
                    await other_contents()
                raise ChunkFailed("not finite", 0)
            async with aclosing(stages.decoder.stream(context)) as chunks:
                async for chunk in chunks:
                    yield chunk

    hours = ReopenPolicy(attempts=3, backoff_s=3600.0, max_backoff_s=3600.0)  # which a change cuts short
    session = await VideoPipeline(CONFIG, stages.encoder, Poisoned(), hours).open(request(2))
    playing = asyncio.create_task(frames(session))
    await eventually(lambda: len(named) >= 2)
    if when == "when it has failed":
        await other_contents()
    assert len(await playing) == 2
    assert named == [None, None, None]

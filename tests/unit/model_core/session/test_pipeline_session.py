"""One session as a sequence of legs: whatever ends a leg, the frames go on as if nothing had happened."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from model_core.errors import StageUnavailable
from model_core.pipeline import Paused, PromptApplied, Resumed, Session, SessionEvent, SessionRequest, VideoPipeline
from model_core.presets import millrace_64
from model_core.reopen import ReopenPolicy
from model_core.types import FrameChunk, LatentChunk, SessionContext
from tests.fakes import FakeDenoiser, FakeEncoder, FakeStages, eventually

CONFIG = millrace_64()


def request(chunks: float | None = 6, prompt: str = "a red circle") -> SessionRequest:
    frames = None if chunks is None else round(chunks * CONFIG.frames_per_chunk)
    return SessionRequest("s1", prompt, seed=7, num_steps=4, num_frames=frames)


async def play(session: Session) -> list[SessionEvent]:
    async with aclosing(session.events()) as events:
        return [event async for event in events]


def pixels(events: list[SessionEvent]) -> list[bytes]:
    return [b"".join(event.data) for event in events if isinstance(event, FrameChunk)]


async def undisturbed(chunks: float = 6) -> list[bytes]:
    return pixels(await play(await FakeStages().pipeline.open(request(chunks))))


async def test_a_session_gives_all_frames_in_one_leg_and_cuts_the_last_chunk() -> None:
    stages = FakeStages()

    events = await play(await stages.pipeline.open(request(5.5)))

    chunks = [event for event in events if isinstance(event, FrameChunk)]
    assert [c.index for c in chunks] == list(range(6))
    assert [c.num_frames for c in chunks] == [8, 8, 8, 8, 8, 4]
    assert [c.first_frame for c in chunks] == [0, 8, 16, 24, 32, 40]
    assert stages.denoiser.statistics().opened == 1
    assert stages.open_streams == 0


@pytest.mark.parametrize("fail_after", [(0,), (1,), (3,), (5,), (1, 0, 2), (6,)])
async def test_after_a_dead_stage_the_chunks_are_those_of_an_undisturbed_run(fail_after: tuple[int, ...]) -> None:
    stages = FakeStages(FakeDenoiser(CONFIG, fail_after=fail_after))

    events = await play(await stages.pipeline.open(request()))

    assert pixels(events) == await undisturbed()
    assert stages.open_streams == 0


async def test_a_new_leg_is_opened_with_the_last_window_of_chunks_and_no_more() -> None:
    stages = FakeStages(FakeDenoiser(CONFIG, fail_after=(5,)))

    events = await play(await stages.pipeline.open(request()))

    again = stages.denoiser.contexts[1]
    made = [event.latents for event in events if isinstance(event, FrameChunk)]
    assert again.next_chunk == 5
    assert [latents.tobytes() for latents in again.suffix] == [latents.tobytes() for latents in made[5 - CONFIG.context_chunks : 5]]


async def test_a_stage_that_stays_away_ends_the_session_after_the_policy_s_attempts() -> None:
    stages = FakeStages(FakeDenoiser(CONFIG, fail_after=(2, 0, 0, 0)), attempts=3)
    session = await stages.pipeline.open(request())

    async with aclosing(session.events()) as events:
        assert len(pixels([await anext(events), await anext(events)])) == 2
        with pytest.raises(StageUnavailable):
            await anext(events)

    assert stages.denoiser.statistics().opened == 3
    assert stages.open_streams == 0


async def test_a_leg_that_ends_too_early_is_a_failure_not_a_busy_loop() -> None:
    class Silent:
        opened = 0

        async def stream(self, context: SessionContext) -> AsyncGenerator[FrameChunk, None]:
            self.opened += 1
            if self.opened < 0:
                yield await FakeStages().decoder.stream(context).__anext__()

    decoder = Silent()
    session = await VideoPipeline(CONFIG, FakeEncoder(), decoder, ReopenPolicy(attempts=4, backoff_s=0.0)).open(request())

    with pytest.raises(StageUnavailable, match="before chunk 0"):
        await play(session)
    assert decoder.opened == 4


async def test_a_stream_cancelled_from_within_is_a_dead_stage_not_a_cancelled_session() -> None:
    stages = FakeStages(FakeDenoiser(CONFIG, error=asyncio.CancelledError()))

    assert pixels(await play(await stages.pipeline.open(request()))) == await undisturbed()


async def test_an_unexpected_error_is_not_retried() -> None:
    stages = FakeStages(FakeDenoiser(CONFIG, error=ValueError("boom")))

    with pytest.raises(ValueError, match="boom"):
        await play(await stages.pipeline.open(request()))
    assert stages.denoiser.statistics().opened == 1


async def test_a_new_prompt_takes_effect_at_the_acknowledged_frame() -> None:
    stages = FakeStages()
    session = await stages.pipeline.open(request())

    got: list[SessionEvent] = []
    async with aclosing(session.events()) as events:
        async for event in events:
            got.append(event)
            if isinstance(event, FrameChunk) and event.index == 2:
                await session.set_prompt("a blue square", request_id=5)

    assert got[3] == PromptApplied("a blue square", first_frame=24, request_id=5, change=1)
    assert pixels(got)[:3] == (await undisturbed())[:3]
    assert pixels(got)[3:] != (await undisturbed())[3:]
    assert [c.embedding.prompt for c in stages.denoiser.contexts] == ["a red circle", "a blue square"]


async def test_a_new_prompt_interrupts_the_chunk_being_made() -> None:
    gate = asyncio.Semaphore(1)
    stages = FakeStages(FakeDenoiser(CONFIG, gate=gate))
    session = await stages.pipeline.open(request(3))
    async with aclosing(session.events()) as events:
        assert isinstance(await anext(events), FrameChunk)
        waiting = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0.01)

        await session.set_prompt("a blue square", request_id=1)

        # No permit was given: the acknowledgement does not wait for a chunk of the old prompt.
        assert await waiting == PromptApplied("a blue square", first_frame=8, request_id=1, change=1)
        gate.release()
        chunk = await anext(events)
    assert isinstance(chunk, FrameChunk)
    assert chunk.index == 1
    assert stages.open_streams == 0


async def test_a_session_is_opened_and_restored_though_the_encoder_dies_meanwhile() -> None:
    encoder = FakeEncoder(unavailable=2)
    stages = FakeStages(encoder=encoder, attempts=3, keep_chunks=4)
    record = (await stages.pipeline.open(request())).record()
    encoder.unavailable = 2

    restored = await stages.pipeline.restore(record, 0)

    assert pixels(await play(restored)) == await undisturbed()
    encoder.unavailable = 3
    with pytest.raises(StageUnavailable):
        await stages.pipeline.open(request())


async def test_a_prompt_change_waits_out_a_dead_encoder() -> None:
    encoder = FakeEncoder()
    stages = FakeStages(encoder=encoder, attempts=3)
    session = await stages.pipeline.open(request())
    encoder.unavailable = 2

    await session.set_prompt("a blue square")

    assert encoder.calls == 4
    encoder.unavailable = 3
    with pytest.raises(StageUnavailable):
        await session.set_prompt("a green square")
    assert session.context().embedding.prompt == "a blue square"


async def test_pause_frees_the_leg_and_resume_continues_the_same_frames() -> None:
    stages = FakeStages()
    session = await stages.pipeline.open(request())

    got: list[SessionEvent] = []
    async with aclosing(session.events()) as events:
        async for event in events:
            got.append(event)
            if isinstance(event, FrameChunk) and event.index == 1:
                session.pause()
            if isinstance(event, Paused):
                assert stages.open_streams == 0
                session.resume()

    assert [event for event in got if not isinstance(event, FrameChunk)] == [Paused(16), Resumed(16)]
    assert pixels(got) == await undisturbed()


async def test_every_control_is_answered_once_and_in_order() -> None:
    session = await FakeStages().pipeline.open(request(2))
    session.pause()
    session.pause()
    session.resume()
    await session.set_prompt("one", 1)
    await session.set_prompt("two", 2)

    events = await play(session)

    assert events[:5] == [Paused(0), Paused(0), Resumed(0), PromptApplied("one", 0, 1, 1), PromptApplied("two", 0, 2, 2)]
    assert len(pixels(events)) == 2


async def test_a_paused_session_waits_and_a_stop_ends_it() -> None:
    stages = FakeStages()
    session = await stages.pipeline.open(request(None))
    session.pause()
    playing = asyncio.create_task(play(session))
    await asyncio.sleep(0.02)
    assert not playing.done()

    session.stop()

    assert await playing == [Paused(0)]
    assert stages.denoiser.statistics().opened == 0


async def test_stop_interrupts_the_chunk_being_made_and_an_endless_session_ends() -> None:
    stages = FakeStages(FakeDenoiser(CONFIG, gate=asyncio.Semaphore(2)))
    session = await stages.pipeline.open(request(None))
    playing = asyncio.create_task(play(session))
    await eventually(lambda: stages.denoiser.statistics().chunks == 2)

    session.stop()

    assert len(pixels(await playing)) == 2
    assert stages.open_streams == 0


async def test_pace_is_asked_before_each_chunk_and_a_control_does_not_wait_for_it() -> None:
    asked: list[int] = []
    hold = asyncio.Event()

    class Held:
        async def wait(self, frame: int) -> None:
            asked.append(frame)
            if frame == 16:
                await hold.wait()

        def due_s(self, frame: int) -> float | None:
            return None

        def may_begin(self) -> bool:
            return True

        async def begin(self) -> None:
            pass

        def may_replace(self) -> bool:
            return True

        def replaced(self, frame: int, end: int) -> None:
            pass

    session = await FakeStages().pipeline.open(request(4))
    async with aclosing(session.events(Held())) as events:
        await anext(events)
        await anext(events)
        waiting = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0.01)
        await session.set_prompt("a blue square", 3)
        assert await waiting == PromptApplied("a blue square", 16, 3, 1)
        hold.set()
        rest = [event async for event in events]

    assert [event.index for event in rest if isinstance(event, FrameChunk)] == [2, 3]
    assert asked == [0, 8, 16, 16, 24]


class Slow(FakeDenoiser):
    """A chunk takes as long as a viewer takes to change its prompt a few times."""

    async def stream(self, context: SessionContext) -> AsyncGenerator[LatentChunk, None]:
        async with aclosing(super().stream(context)) as chunks:
            while True:
                for _ in range(40):
                    await asyncio.sleep(0)
                if (chunk := await anext(chunks, None)) is None:
                    return
                yield chunk


@pytest.mark.parametrize("control", ["prompt", "steps", "resume"])
async def test_controls_that_come_faster_than_a_leg_makes_a_chunk_do_not_keep_frames_from_coming(control: str) -> None:
    """Each leg makes one; what came meanwhile is in force after it, is answered in order, and costs one leg however much it was."""
    stages = FakeStages(Slow(CONFIG))
    session = await stages.pipeline.open(request(6))
    given = 0

    async def steer() -> None:
        nonlocal given
        while True:
            given += 1
            match control:
                case "prompt":
                    await session.set_prompt(f"prompt {given}", given)
                case "steps":
                    session.set_steps(1 + given % 3)
                case _:
                    session.resume()
            for _ in range(7):
                await asyncio.sleep(0)

    steering = asyncio.create_task(steer())
    async with asyncio.timeout(20):
        events = await play(session)
    steering.cancel()
    chunks = [event for event in events if isinstance(event, FrameChunk)]
    assert [chunk.index for chunk in chunks] == list(range(6))
    assert given > 2 * stages.denoiser.statistics().opened
    assert stages.denoiser.statistics().opened <= 6 + 1  # the last one may be begun again once
    acks = [event for event in events if isinstance(event, PromptApplied)]
    assert [ack.request_id for ack in acks] == list(range(1, len(acks) + 1))
    assert [ack.first_frame for ack in acks] == sorted(ack.first_frame for ack in acks)


async def test_a_prompt_for_the_last_chunk_is_in_force_for_it() -> None:
    stages = FakeStages(FakeDenoiser(CONFIG, gate=asyncio.Semaphore(1)))
    session = await stages.pipeline.open(request(2))
    async with aclosing(session.events()) as events:
        await anext(events)
        waiting = asyncio.ensure_future(anext(events))
        await eventually(lambda: stages.denoiser.statistics().opened == 1 and not waiting.done())
        await session.set_prompt("a blue square", 3)
        assert await waiting == PromptApplied("a blue square", CONFIG.frames_per_chunk, 3, 1)


@pytest.mark.parametrize("turns", range(12))
async def test_a_cancellation_is_never_lost_and_leaves_no_stream(turns: int) -> None:
    """Cancel after each possible number of event-loop turns: in the pull, in the clean-up after it, between chunks."""
    stages = FakeStages()
    session = await stages.pipeline.open(request(None))
    playing = asyncio.create_task(play(session))
    for _ in range(30 + turns):
        await asyncio.sleep(0)

    playing.cancel()

    async with asyncio.timeout(10):
        with pytest.raises(asyncio.CancelledError):
            await playing
    assert stages.open_streams == 0


async def test_closing_the_events_while_a_chunk_is_being_made_frees_everything() -> None:
    stages = FakeStages(FakeDenoiser(CONFIG, gate=asyncio.Semaphore(1)))
    session = await stages.pipeline.open(request())
    events = session.events()
    await anext(events)
    waiting = asyncio.ensure_future(anext(events))
    await asyncio.sleep(0.01)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await events.aclose()

    assert stages.open_streams == 0
    assert len(asyncio.all_tasks()) == 1


async def test_two_sessions_share_nothing() -> None:
    stages = FakeStages()
    one, two = await stages.pipeline.open(request()), await stages.pipeline.open(request())

    both = await asyncio.gather(play(one), play(two))

    assert pixels(both[0]) == pixels(both[1]) == await undisturbed()

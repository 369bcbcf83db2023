"""Sessions that restyle a source, with a fake caller in place of a door: what he may send, when, and for how long he is waited for."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, aclosing
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from autoscaling.admission.decide import Ask
from autoscaling.capacity.profile import Capacity, CapacityProfile, DenoiseReplica
from model_core.errors import InvalidRequest
from model_core.pipeline import SessionRequest
from model_core.session_log import SessionRecord
from model_core.source import AHEAD_CHUNKS, Dropped
from model_core.tasks import cancel_and_wait
from model_core.types import Codec, FrameChunk
from service.call import Call, ReaderStalled
from service.checks import Limits
from service.controls import Control, EndSource, GiveSource, Pause, Resume, Stop
from service.events import Ended, EndReason, Event, Frames, Paused, QualityChanged, Resumed, SourceDropped, SourceTaken, Started
from service.intake import resume_point
from service.orders import Doorway, Mode, Order, ResumeRequest, VideoRequest
from tests.core import Core, core
from tests.fakes import FakeStages, ManualClock, eventually
from tests.pictures import moving
from tests.stand_ins.decoding_process import JPEG, PNG
from tests.unit.model_core.test_upload_decoders import STAND_IN

CONFIG = FakeStages().config
CHUNK = CONFIG.frames_per_chunk
KEEP = 6
LIVE = Doorway(Mode.LIVE)
RESTYLED = VideoRequest(prompt="a blue circle", codec=Codec.RAW_RGB, max_lead_seconds=30.0, strength=0.5)
TIMEOUT_S = 200.0  # only bounds a failing test


def pictures(first: int, frames: int) -> tuple[bytes, ...]:
    return tuple(frame.tobytes() for frame in moving(frames)[first:])


class Camera:
    """A caller with a source of `frames`. He sends what `Started` and `SourceTaken` leave room for, and ends the source if it `ends`."""

    def __init__(self, frames: int, *, ends: bool = True) -> None:
        self.events: list[Event] = []
        self.controls: asyncio.Queue[Control] = asyncio.Queue()
        self._frames, self._ends = frames, ends
        self._next = self._until = 0

    async def send(self, event: Event) -> None:
        self.events.append(event)
        match event:
            case Started(source=SourceTaken() as source):
                self._next, self._until = source.next_frame, source.until_frame
            case SourceTaken():
                self._until = event.until_frame
            case _:
                return
        if (until := min(self._until, self._frames)) > self._next:
            self.controls.put_nowait(GiveSource(self._next, Codec.RAW_RGB, pictures(self._next, until)))
            self._next = until
            if self._ends and until == self._frames:
                self.controls.put_nowait(EndSource())

    async def next(self) -> Control | None:
        return await self.controls.get()

    def shown(self) -> list[FrameChunk]:
        return [event.chunk for event in self.events if isinstance(event, Frames)]

    def has_shown(self, chunks: int) -> bool:
        return len(self.shown()) == chunks


async def served(core: Core, order: Order, camera: Camera) -> Ended:
    async with asyncio.timeout(TIMEOUT_S):
        await core.runner.run(order, camera.send, Call(), camera.next)
    ended = camera.events[-1]
    assert isinstance(ended, Ended)
    return ended


async def record_of(stages: FakeStages, chunks: int) -> SessionRecord:
    """Of a restyled session of which so many chunks were made."""
    session = await stages.pipeline.open(SessionRequest("s", "a blue circle", 7, 4, None, strength=0.5))
    assert session.source is not None
    session.source.offer(0, moving(chunks * CHUNK))
    async with aclosing(session.events()) as events:
        async for event in events:
            if isinstance(event, FrameChunk) and event.index == chunks - 1:
                break
    return session.record()


async def test_a_restyled_session_keeps_its_steps_where_others_are_lowered_and_is_not_counted_as_lowered() -> None:
    buckets = tuple(range(1, 17))
    profile = CapacityProfile(buckets, tuple(0.01 * b for b in buckets), tuple(1e-9 * b for b in buckets))
    six = Capacity((DenoiseReplica(16, profile),), budget_s=0.2401, ceiling=16)  # of 4 steps; 8 of 3
    camera = Camera(3 * CHUNK, ends=False)
    async with core(tiers=(3, 2), capacity=six) as service, AsyncExitStack() as stack:
        session = asyncio.create_task(served(service, service.intake.order(RESTYLED, LIVE), camera))
        await eventually(lambda: bool(camera.shown()))
        others = [stack.enter_context(service.desk.enter(Ask("", steps=4, paced=True))) for _ in range(6)]
        statistics = service.desk.statistics()
        assert (statistics.live, statistics.level) == (7, 1)
        assert statistics.degraded == sum(other.steps == 3 for other in others) > 0
        camera.controls.put_nowait(EndSource())
        await session
    assert not [event for event in camera.events if isinstance(event, QualityChanged)]


@pytest.mark.parametrize("lag", [0, AHEAD_CHUNKS - 1, AHEAD_CHUNKS, KEEP])
async def test_a_session_goes_on_from_a_record_that_lags(lag: int) -> None:
    seen, frames = (2 + lag) * CHUNK, (5 + lag) * CHUNK
    stages, camera = FakeStages(keep_chunks=KEEP), Camera(frames)
    record = await record_of(stages, 2)
    async with core(stages) as service:
        order = service.intake.go_on(service.intake.order(RESTYLED, LIVE), record, seen)

        ended = await served(service, order, camera)

    assert ended.reason is EndReason.COMPLETED
    assert (camera.shown()[0].first_frame, sum(chunk.num_frames for chunk in camera.shown())) == (seen, frames - seen)


async def test_uploads_that_take_long_to_decode_hold_up_no_source(tmp_path: Path) -> None:
    started = [tmp_path / name for name in "abc"]
    async with core(max_sessions=8, decoding=STAND_IN) as service:
        images = [VideoRequest(prompt="a", seconds=1.0, footage=("image", PNG + f"sleep {name}".encode())) for name in started]
        orders = [service.intake.order(image, Doorway(Mode.STREAM)) for image in images]
        uploads = [asyncio.create_task(service.runner.run(order, Camera(0).send, Call())) for order in orders]
        await eventually(lambda: started[0].exists() and started[1].exists())  # there are no more processes for uploads
        camera = Camera(0)
        session = asyncio.create_task(served(service, service.intake.order(RESTYLED, LIVE), camera))
        await eventually(lambda: bool(camera.events))
        camera.controls.put_nowait(GiveSource(0, Codec.JPEG, (JPEG + b"frames",) * CHUNK))
        camera.controls.put_nowait(EndSource())

        assert (await session).reason is EndReason.COMPLETED
        await cancel_and_wait(*uploads)
    assert sum(chunk.num_frames for chunk in camera.shown()) == CHUNK


async def test_controls_do_not_wait_for_the_decoder_of_pictures(tmp_path: Path) -> None:
    started, camera = tmp_path / "started", Camera(0)
    async with core(decoding=STAND_IN) as service:
        running = asyncio.create_task(served(service, service.intake.order(RESTYLED, LIVE), camera))
        await eventually(lambda: bool(camera.events))
        camera.controls.put_nowait(GiveSource(0, Codec.JPEG, (JPEG + f"sleep {started}".encode(),)))  # which takes for ever
        await eventually(started.exists)
        for first in range(1, CHUNK):
            camera.controls.put_nowait(GiveSource(first, Codec.JPEG, (JPEG + b"frames",)))
        camera.controls.put_nowait(GiveSource(1, Codec.JPEG, (JPEG + b"frames",)))  # they wait, and are not lacking
        camera.controls.put_nowait(Pause())
        await eventually(lambda: any(isinstance(event, Paused) for event in camera.events))
        assert [event for event in camera.events if isinstance(event, SourceDropped)] == [SourceDropped(Dropped(1, 1, "late"), CHUNK)]
        camera.controls.put_nowait(Stop())

        assert (await running).reason is EndReason.STOPPED


async def test_no_more_pictures_wait_for_a_decoder_than_two_messages_may_hold(tmp_path: Path) -> None:
    started, camera, large = tmp_path / "started", Camera(0), JPEG + b"frames " + bytes(600)
    async with core(decoding=STAND_IN, limits=Limits(max_source_bytes=1000)) as service:
        running = asyncio.create_task(served(service, service.intake.order(RESTYLED, LIVE), camera))
        await eventually(lambda: bool(camera.events))
        camera.controls.put_nowait(GiveSource(0, Codec.JPEG, (JPEG + f"sleep {'/' * 600}{started}".encode(),)))
        for first in range(1, 5):
            camera.controls.put_nowait(GiveSource(first, Codec.JPEG, (large,)))
        await eventually(lambda: camera.controls.qsize() == 1)  # the first three wait, and one more is held
        await cancel_and_wait(running)


async def test_only_live_goes_on_with_a_restyled_session() -> None:
    stages = FakeStages(keep_chunks=KEEP)
    record, asked = await record_of(stages, 2), ResumeRequest(token="t", next_frame=CHUNK)  # noqa: S106 - no secret
    told = r"^resume\.token: must be of a session that restyles no video, or be resumed by Live; got one that does$"
    for length in (None, 5 * CHUNK):
        with pytest.raises(InvalidRequest, match=told):
            resume_point(replace(record, num_frames=length), stages.pipeline, asked, Doorway(Mode.STREAM, "resume."))

    assert resume_point(record, stages.pipeline, asked, LIVE).next_frame == CHUNK


async def test_frames_that_come_before_the_session_has_a_slot_are_dropped_and_counted() -> None:
    async with core(max_sessions=1) as service:
        first, camera = Camera(2 * CHUNK, ends=False), Camera(2 * CHUNK)
        running = asyncio.create_task(served(service, service.intake.order(RESTYLED, LIVE), first))
        await eventually(lambda: bool(first.shown()))
        waiting = asyncio.create_task(served(service, service.intake.order(RESTYLED, LIVE), camera))
        camera.controls.put_nowait(GiveSource(0, Codec.RAW_RGB, pictures(0, 5)))
        await eventually(lambda: SourceDropped(Dropped(0, 5, "full"), 0) in camera.events)
        await cancel_and_wait(running)

        ended = await waiting

    assert ended.reason is EndReason.COMPLETED
    assert (ended.usage.frames, ended.usage.source_frames, ended.usage.source_dropped) == (2 * CHUNK, 2 * CHUNK, 5)


async def test_a_source_that_stays_away_ends_its_session_but_not_in_a_pause() -> None:
    clock, camera = ManualClock(), Camera(CHUNK + 3, ends=False)
    async with core(clock=clock, limits=Limits(stall_timeout_seconds=60.0)) as service:
        running = asyncio.create_task(served(service, service.intake.order(RESTYLED, LIVE), camera))
        await eventually(lambda: bool(camera.shown()))
        await clock.advance(58.0)
        camera.controls.put_nowait(Pause())
        await eventually(lambda: any(isinstance(event, Paused) for event in camera.events))
        await clock.advance(600.0)
        camera.controls.put_nowait(Resume())
        await eventually(lambda: any(isinstance(event, Resumed) for event in camera.events))
        assert not running.done()
        await clock.advance(10.0)

        with pytest.raises(ReaderStalled, match=r"^source_frames: frames before 16 must come within 60 s of play; got those before 11$"):
            await running
        assert service.desk.statistics().live == 0


async def test_a_slow_source_is_waited_for_as_long_as_its_chunks_come() -> None:
    clock, camera = ManualClock(), Camera(CHUNK, ends=False)
    async with core(clock=clock, limits=Limits(stall_timeout_seconds=60.0)) as service:
        running = asyncio.create_task(served(service, service.intake.order(RESTYLED, LIVE), camera))
        for chunk in range(1, 4):
            await eventually(partial(camera.has_shown, chunk))
            await clock.advance(50.0)
            camera.controls.put_nowait(GiveSource(chunk * CHUNK, Codec.RAW_RGB, pictures(chunk * CHUNK, (chunk + 1) * CHUNK)))
        await eventually(partial(camera.has_shown, 4))
        camera.controls.put_nowait(EndSource())

        assert (await running).reason is EndReason.COMPLETED

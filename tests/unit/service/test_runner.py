"""Sessions with a fake caller in place of a door: plain orders in, plain events out."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from model_core.errors import InvalidRequest, StageUnavailable
from service.call import Call, FileTooLarge, ReaderStalled, taken_within
from service.checks import Problems
from service.controls import ChangePrompt, Control, Pause, Resume, Stop
from service.events import (
    Ended,
    EndReason,
    Event,
    Frames,
    Paused,
    PromptApplied,
    PromptRefused,
    QueuePosition,
    Resumed,
    Started,
    Usage,
)
from service.orders import Doorway, Mode, Order, ResumeRequest, VideoRequest
from tests.core import Core, core
from tests.fakes import FakeStages, eventually

STREAM, LIVE, FILE = Doorway(Mode.STREAM), Doorway(Mode.LIVE), Doorway(Mode.FILE)
A_SECOND = VideoRequest(prompt="a red circle", seconds=1.0)
TIMEOUT_S = 200.0  # only bounds a failing test


class Viewer:
    """Takes events. `then` answers one kind of them with controls, once for each entry."""

    def __init__(self, *then: tuple[type, Control]) -> None:
        self.events: list[Event] = []
        self._then = list(then)
        self._controls: asyncio.Queue[Control] = asyncio.Queue()

    async def send(self, event: Event) -> None:
        self.events.append(event)
        if self._then and isinstance(event, self._then[0][0]):
            self._controls.put_nowait(self._then.pop(0)[1])

    async def controls(self) -> Control | None:
        return await self._controls.get()

    def of(self, kind: type) -> list[Event]:
        return [event for event in self.events if isinstance(event, kind)]


async def played(core: Core, order: Order, viewer: Viewer) -> Call:
    call = Call()
    controls = viewer.controls if order.doorway.mode is Mode.LIVE else None
    async with asyncio.timeout(TIMEOUT_S):
        await core.runner.run(order, viewer.send, call, controls)
    return call


async def test_a_stream_is_started_frames_and_an_end_with_its_usage() -> None:
    async with core() as served:
        viewer = Viewer()
        call = await played(served, served.intake.order(A_SECOND, STREAM), viewer)
    started, *frames, ended = viewer.events
    assert isinstance(started, Started)
    assert (started.session_id, started.seed, started.degraded) == ("id-1", 5, False)
    assert all(isinstance(event, Frames) for event in frames)
    assert isinstance(ended, Ended)
    assert (ended.reason, ended.usage.frames, call.outcome) == (EndReason.COMPLETED, started.fps, "completed")
    assert ended.usage.video_s == 1.0


async def test_a_live_session_is_steered_by_plain_controls() -> None:
    viewer = Viewer(
        (Frames, ChangePrompt("a blue square", 3)), (PromptApplied, ChangePrompt("", 4)), (PromptRefused, Pause()),
        (Paused, Resume()), (Resumed, Stop()),
    )  # fmt: skip
    async with core() as served:
        order = served.intake.order(VideoRequest(prompt="a red circle", max_lead_seconds=30.0), LIVE)
        call = await played(served, order, viewer)
    assert [event.prompt for event in viewer.events if isinstance(event, PromptApplied)] == ["a blue square"]
    assert [type(event) for event in viewer.events if not isinstance(event, Frames | Usage)] == [
        Started, PromptApplied, PromptRefused, Paused, Resumed, Ended,
    ]  # fmt: skip
    assert call.outcome == "stopped"


async def test_one_who_waits_is_told_its_place() -> None:
    async with core(max_sessions=1) as served:
        first, second = Viewer(), Viewer()
        running = asyncio.create_task(played(served, served.intake.order(VideoRequest(prompt="x"), LIVE), first))
        await eventually(lambda: bool(first.events))
        waiting = asyncio.create_task(played(served, served.intake.order(A_SECOND, STREAM), second))
        await eventually(lambda: bool(second.events))
        assert second.events == [QueuePosition(1)]
        running.cancel()
        assert (await waiting).outcome == "completed"


def pictures(viewer: Viewer) -> list[bytes]:
    return [bytes(item) for event in viewer.events if isinstance(event, Frames) for item in event.chunk.data]


async def resumed(core: Core, request: ResumeRequest) -> Order:
    """The order, once the last write of the record is done, which happens beside the stream."""
    async with asyncio.timeout(TIMEOUT_S):
        while True:
            with suppress(InvalidRequest):
                return await core.intake.resume(request, STREAM, "")
            await asyncio.sleep(0.001)


async def test_a_session_goes_on_where_its_connection_broke() -> None:
    async with core(FakeStages(keep_chunks=4)) as served:
        whole, broken, rest = Viewer(), Viewer(), Viewer()
        request = VideoRequest(prompt="a red circle", seconds=2.0, seed=7)
        await played(served, served.intake.order(request, STREAM), whole)

        async def breaking(event: Event) -> None:
            if len(broken.of(Frames)) == 3:
                raise ConnectionError
            await broken.send(event)

        with pytest.raises(ConnectionError):
            await served.runner.run(served.intake.order(request, STREAM), breaking, Call())
        (started,) = broken.of(Started)
        assert isinstance(started, Started)
        seen = sum(event.chunk.num_frames for event in broken.events if isinstance(event, Frames))
        await played(served, await resumed(served, ResumeRequest(token=started.resume_token, next_frame=seen)), rest)
    assert pictures(whole) == pictures(broken) + pictures(rest)


async def test_a_file_is_made_whole_or_refused() -> None:
    async with core() as served:
        file = await served.runner.make_file(served.intake.order(A_SECOND, FILE), Call(), max_bytes=1_000_000)
        assert file.mp4[4:8] == b"ftyp"
        assert file.ended.usage.frames == file.started.fps
        with pytest.raises(FileTooLarge):
            await served.runner.make_file(served.intake.order(A_SECOND, FILE), Call(), max_bytes=100)
        assert served.runner.open_sessions == 0


async def test_draining_refuses_and_hands_over() -> None:
    async with core() as served:
        viewer = Viewer()
        running = asyncio.create_task(played(served, served.intake.order(VideoRequest(prompt="x"), LIVE), viewer))
        await eventually(lambda: bool(viewer.of(Frames)))
        served.runner.drain()
        with pytest.raises(StageUnavailable):
            await played(served, served.intake.order(A_SECOND, STREAM), Viewer())
        served.runner.hand_over()
        assert (await running).outcome == "draining"
        ended = viewer.events[-1]
        assert isinstance(ended, Ended)
        assert ended.reason is EndReason.DRAINING


async def test_a_reader_that_takes_nothing_loses_its_slot() -> None:
    async def stalled(event: Event) -> None:
        await taken_within(0.01, asyncio.Event().wait())

    async with core() as served:
        with pytest.raises(ReaderStalled, match=r"nothing was read for 0.01 s"):
            await served.runner.run(served.intake.order(A_SECOND, STREAM), stalled, Call())
        assert served.desk.statistics().live == 0


async def test_errors_name_fields_as_the_door_does() -> None:
    doorway = Doorway(Mode.STREAM, "input.", {"prompt": "text", "max_lead_seconds": "buffer"})
    problems = Problems()
    problems.add("voice", "must be unset")
    async with core() as served:
        with pytest.raises(InvalidRequest) as caught:
            served.intake.order(VideoRequest(prompt="", seconds=-1, max_lead_seconds=-1), doorway, problems)
    assert [violation.field for violation in caught.value.violations] == ["voice", "buffer", "text", "input.seconds"]

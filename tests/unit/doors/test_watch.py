"""`Watch` as a client sees it: who sees what, and whom that does not disturb."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import grpc
import grpc.aio
import pytest

from headrace.cli.decoding import Decoder
from headrace.client import BadRequest, Busy, ClientError, LiveSession, Reconnect, Unavailable, WatchEvent
from headrace.v1 import video_pb2 as pb
from service.checks import Limits
from service.ledger.interface import AuditEntry
from service.watching.hub import WatchLimits
from tests.fakes import FakeDenoiser, FakeStages, eventually
from tests.served import Served, raw_call, read_all, serving

PROMPT = "a red circle"
CONFIG = FakeStages().config


@dataclass
class Noted:
    entries: list[AuditEntry] = field(default_factory=list)

    def note(self, entry: AuditEntry) -> None:
        self.entries.append(entry)


@dataclass
class Viewer:
    events: list[WatchEvent] = field(default_factory=list)
    task: asyncio.Task[None] | None = None

    @property
    def frames(self) -> list[pb.Frames]:
        return [event for event in self.events if isinstance(event, pb.Frames)]

    @property
    def done(self) -> bool:
        return self.task is not None and self.task.done()


def gated() -> tuple[asyncio.Semaphore, FakeStages]:
    gate = asyncio.Semaphore(0)
    return gate, FakeStages(FakeDenoiser(CONFIG, gate=gate))


@asynccontextmanager
async def viewing(served: Served, token: str, reconnect: Reconnect | None = None) -> AsyncGenerator[Viewer, None]:
    viewer = Viewer()

    async def view() -> None:
        async with aclosing(served.client.watch(token, reconnect=reconnect)) as events:
            async for event in events:
                viewer.events.append(event)

    viewer.task = asyncio.create_task(view())
    await eventually(lambda: bool(viewer.events) or viewer.done)
    try:
        yield viewer
    finally:
        viewer.task.cancel()
        await asyncio.gather(viewer.task, return_exceptions=True)


@asynccontextmanager
async def watch_call(served: Served, request: pb.WatchRequest) -> AsyncGenerator[Any, None]:
    """A Watch with nothing around it, for a caller that reads when a test says so."""
    async with grpc.aio.insecure_channel(served.address) as channel:
        yield channel.unary_stream("/headrace.v1.VideoService/Watch", pb.WatchRequest.SerializeToString, pb.WatchResponse.FromString)(
            request
        )


class Owner:
    """Reads a session's own events in a task, so that it plays."""

    def __init__(self, session: LiveSession) -> None:
        self.session = session
        self.events: list[object] = []
        self.task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for event in self.session:
            self.events.append(event)

    async def started(self) -> pb.Started:
        await eventually(lambda: any(isinstance(event, pb.Started) for event in self.events))
        return next(event for event in self.events if isinstance(event, pb.Started))

    @property
    def chunks(self) -> int:
        return sum(isinstance(event, pb.Frames) for event in self.events)


@asynccontextmanager
async def owning(served: Served, codec: pb.Codec = pb.CODEC_RAW_RGB, seconds: float = 0.0) -> AsyncGenerator[Owner, None]:
    async with served.client.live(PROMPT, seconds=seconds, codec=codec, max_lead_s=30.0) as session:
        owner = Owner(session)
        try:
            yield owner
        finally:
            owner.task.cancel()
            await asyncio.gather(owner.task, return_exceptions=True)


async def test_a_viewer_sees_the_newest_chunk_at_once_and_then_what_the_session_s_own_viewer_sees() -> None:
    gate, stages = gated()
    async with serving(stages) as served, owning(served, seconds=2.0) as owner:
        started = await owner.started()
        for _ in range(3):
            gate.release()
        await eventually(lambda: owner.chunks == 3)
        async with viewing(served, started.watch_token) as viewer:
            await eventually(lambda: len(viewer.frames) == 1)
            first = viewer.events[0]
            assert isinstance(first, pb.Started)
            assert (first.resume_token, first.watch_token, first.next_frame) == ("", started.watch_token, 16)
            assert (first.session_id, first.seed, first.codec) == (started.session_id, started.seed, pb.CODEC_RAW_RGB)
            await owner.session.set_prompt("a blue square")
            for _ in range(20):
                gate.release()
            await eventually(lambda: viewer.done)
            own = [event for event in owner.events if isinstance(event, pb.Frames)]
            assert [(f.first_frame, list(f.data)) for f in viewer.frames] == [(f.first_frame, list(f.data)) for f in own[2:]]
            assert [ack.prompt for ack in viewer.events if isinstance(ack, pb.PromptAck)] == ["a blue square"]
            ended = viewer.events[-1]
            assert isinstance(ended, pb.Ended)
            assert (ended.reason, ended.usage.frames_sent, ended.usage.denoise_seconds) == (pb.END_REASON_COMPLETED, 48, 0.0)
        assert served.metric("watched_seconds_total", model=CONFIG.name, door="grpc") == pytest.approx(4 * 8 / 24)
        await served.nothing_left()
        await eventually(lambda: served.metric("calls_total", rpc="Watch", outcome="completed") == 1)
        assert served.metric("watchers") == 0


async def test_a_fragment_that_a_viewer_begins_with_plays_by_itself() -> None:
    gate, stages = gated()
    async with serving(stages) as served, owning(served, pb.CODEC_FMP4_H264) as owner:
        started = await owner.started()
        for _ in range(2):
            gate.release()
        await eventually(lambda: owner.chunks == 2)
        async with viewing(served, started.watch_token) as viewer:
            await eventually(lambda: len(viewer.frames) == 1)
            assert isinstance(viewer.events[0], pb.Started)
            pixels = Decoder(viewer.events[0]).pixels(viewer.frames[0])
            assert pixels is not None
            assert pixels.shape == (8, 64, 64, 3)


async def test_pauses_are_shown_and_whoever_comes_meanwhile_sees_the_picture() -> None:
    gate, stages = gated()
    async with serving(stages) as served, owning(served) as owner:
        token = (await owner.started()).watch_token
        gate.release()
        await eventually(lambda: owner.chunks == 1)
        await owner.session.pause()
        await eventually(lambda: any(isinstance(event, pb.Paused) for event in owner.events))
        async with viewing(served, token) as viewer:
            await eventually(lambda: len(viewer.events) == 3)
            assert [type(event) for event in viewer.events] == [pb.Started, pb.Frames, pb.Paused]
            await owner.session.resume()
            gate.release()
            await eventually(lambda: len(viewer.frames) == 2)
            assert pb.Resumed in [type(event) for event in viewer.events]
            await owner.session.stop()
            await eventually(lambda: viewer.done)
            assert isinstance(viewer.events[-1], pb.Ended)
            assert viewer.events[-1].reason == pb.END_REASON_STOPPED


async def test_a_viewer_that_reads_nothing_delays_neither_the_session_nor_others_and_is_told_what_it_missed() -> None:
    gate, stages = gated()
    async with serving(stages) as served, owning(served) as owner:
        token = (await owner.started()).watch_token
        gate.release()
        async with watch_call(served, pb.WatchRequest(token=token)) as slow:
            assert (await slow.read()).WhichOneof("event") == "started"
            async with viewing(served, token) as viewer:
                for count in range(2, 60):  # of 98 kB each, more than what gRPC and the kernel hold
                    gate.release()
                    await eventually(partial(lambda n: owner.chunks == n and len(viewer.frames) >= n - 1, count))
            assert not any(isinstance(event, pb.Skipped) for event in viewer.events)
            await owner.session.stop()
            await eventually(owner.task.done)
            seen = await read_all(slow)
        skipped = [response.skipped.frames for response in seen if response.WhichOneof("event") == "skipped"]
        assert skipped
        frames = [response.frames.frame_count for response in seen if response.WhichOneof("event") == "frames"]
        assert sum(frames) + sum(skipped) == owner.chunks * 8
        assert served.metric("watch_skipped_frames_total", model=CONFIG.name) == sum(skipped)
        assert seen[-1].ended.reason == pb.END_REASON_STOPPED


async def test_a_viewer_that_takes_nothing_for_too_long_is_ended() -> None:
    gate, stages = gated()
    async with serving(stages, limits=Limits(stall_timeout_seconds=0.3)) as served, owning(served) as owner:
        token = (await owner.started()).watch_token
        async with watch_call(served, pb.WatchRequest(token=token)) as slow:
            await slow.read()

            def stalled() -> bool:
                gate.release()  # a chunk now and then: of many at once most would be skipped, and what is left may fit into buffers
                return served.metric("calls_total", rpc="Watch", outcome="stalled") == 1

            await eventually(stalled)
        assert not owner.task.done()


async def test_a_viewer_who_leaves_is_forgotten_and_so_are_all_when_the_session_is_lost() -> None:
    gate, stages = gated()
    async with serving(stages, watching=WatchLimits(linger_s=0.0)) as served:
        async with owning(served) as owner:
            token = (await owner.started()).watch_token
            gate.release()
            async with viewing(served, token):
                assert served.metric("watchers") == 1
            await eventually(lambda: served.metric("watchers") == 0)
            async with viewing(served, token) as viewer:
                owner.task.cancel()
                await owner.session.__aexit__(None, None, None)
                await eventually(lambda: viewer.done)
                assert viewer.task is not None
                error = viewer.task.exception()
        assert isinstance(error, ClientError)
        assert (error.code, "did not come back" in str(error)) == (grpc.StatusCode.NOT_FOUND, True)
        await served.nothing_left()


async def test_viewers_stay_when_the_session_is_resumed() -> None:
    gate, stages = gated()
    async with serving(stages) as served, owning(served) as owner:
        started = await owner.started()
        gate.release()
        await eventually(lambda: owner.chunks == 1)
        async with viewing(served, started.watch_token) as viewer:
            await owner.session.__aexit__(None, None, None)
            await eventually(lambda: served.service.open_sessions == 0)
            call: Any = served.client._live()  # noqa: SLF001 - a resume by hand
            await call.write(pb.LiveRequest(start=pb.LiveStart(resume=pb.SessionResume(token=started.resume_token, next_frame=8))))
            again = (await call.read()).started
            assert (again.watch_token, again.next_frame) == (started.watch_token, 8)
            gate.release()
            await eventually(lambda: len(viewer.frames) == 2)
            assert [frames.first_frame for frames in viewer.frames] == [0, 8]
            assert sum(isinstance(event, pb.Started) for event in viewer.events) == 1
            call.cancel()


async def test_the_token_to_watch_steers_nothing() -> None:
    async with serving() as served, owning(served) as owner:
        token = (await owner.started()).watch_token
        request = pb.StreamRequest(resume=pb.SessionResume(token=token))
        error = await raw_call(served, "Stream", request.SerializeToString())
        assert isinstance(error, grpc.aio.AioRpcError)
        assert error.code() is grpc.StatusCode.NOT_FOUND
        assert not owner.task.done()


@pytest.mark.parametrize(("token", "kind"), [("", BadRequest), ("x" * 300, BadRequest), ("x" * 43, ClientError), ("ü", ClientError)])
async def test_a_token_of_nobody_is_refused(token: str, kind: type[ClientError]) -> None:
    async with serving() as served:
        with pytest.raises(kind) as caught:
            async for _ in served.client.watch(token):
                pass
        if kind is ClientError:
            assert caught.value.code is grpc.StatusCode.NOT_FOUND
        assert token not in str(caught.value) or len(token) < 2


async def test_a_message_size_that_is_none_names_its_field() -> None:
    async with serving() as served:
        error = await raw_call(served, "Watch", pb.WatchRequest(max_message_bytes=5).SerializeToString())
    assert isinstance(error, grpc.aio.AioRpcError)
    assert "max_message_bytes: must be at least 65536" in (error.details() or "")
    assert "token: must be a Started.watch_token; got 0 characters" in (error.details() or "")


async def test_chunks_are_cut_to_what_each_viewer_takes() -> None:
    gate, stages = gated()
    async with serving(stages) as served, owning(served) as owner:
        token = (await owner.started()).watch_token
        gate.release()
        await eventually(lambda: owner.chunks == 1)
        async with (
            watch_call(served, pb.WatchRequest(token=token, max_message_bytes=64 * 1024)) as small,
            watch_call(served, pb.WatchRequest(token=token)) as large,
        ):
            for call in (small, large):
                await call.read()
            parts = [(await small.read()).frames for _ in range(2)]
            whole = (await large.read()).frames
        assert [part.first_frame for part in parts] == [0, parts[0].frame_count]
        assert [data for part in parts for data in part.data] == list(whole.data)


async def test_no_more_watch_than_the_limits_say() -> None:
    async with serving(watching=WatchLimits(session=1)) as served, owning(served) as owner:
        token = (await owner.started()).watch_token
        async with viewing(served, token):
            with pytest.raises(Busy, match="at most 1 may watch one session") as caught:
                async for _ in served.client.watch(token):
                    pass
            assert caught.value.retry_after_s is not None


async def test_a_server_that_shows_sessions_to_nobody_gives_no_token_and_says_so() -> None:
    async with serving(watching=WatchLimits(all=0)) as served, owning(served) as owner:
        assert (await owner.started()).watch_token == ""
        with pytest.raises(ClientError, match="to nobody but their own viewers") as caught:
            async for _ in served.client.watch("x" * 43):
                pass
        assert caught.value.code is grpc.StatusCode.UNIMPLEMENTED


async def test_a_server_that_shuts_down_sends_its_viewers_on() -> None:
    async with serving() as served, owning(served) as owner:
        token = (await owner.started()).watch_token
        async with viewing(served, token) as viewer:
            served.service.drain()
            with pytest.raises(Unavailable, match="shutting down"):
                async for _ in served.client.watch(token):
                    pass
            served.service.hand_over()
            await eventually(lambda: viewer.done)
            assert isinstance(viewer.events[-1], pb.Ended)
            assert viewer.events[-1].reason == pb.END_REASON_SERVER_DRAINING


async def test_the_audit_log_says_who_watched_what_and_never_the_token() -> None:
    audit = Noted()
    gate, stages = gated()
    async with serving(stages, audit=audit) as served, owning(served) as owner:
        started = await owner.started()
        gate.release()
        await eventually(lambda: owner.chunks == 1)
        async with viewing(served, started.watch_token) as viewer:
            await eventually(lambda: len(viewer.frames) == 1)
            await owner.session.stop()
            await eventually(lambda: viewer.done)
        await eventually(lambda: any(entry.operation == "watch" for entry in audit.entries))
        (entry,) = (entry for entry in audit.entries if entry.operation == "watch")
        assert (entry.operation, entry.resource) == ("watch", started.session_id)
        assert entry.detail == {"door": "grpc", "ended": "stopped", "frames": 8, "skipped_frames": 0}
        assert started.watch_token not in repr(entry)

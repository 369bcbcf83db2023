"""A session goes on at another front door with its very next frame; who had it before ends, and the store is never in the way."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import grpc
import grpc.aio
import pytest

from headrace.v1 import video_pb2 as pb
from model_core.pipeline import SessionRequest
from model_core.session_log import SessionRecord
from model_core.types import FrameChunk
from service.records.keeper import KeeperPolicy
from tests.fakes import FakeDenoiser, FakeStages, ManualClock, eventually
from tests.served import KEEPING, Served, details_of, live_call, read_all, serving, stream_call
from tests.stores import FakeStore

CONFIG = FakeStages().config
PER_CHUNK = CONFIG.frames_per_chunk
KEEP = 6
CHUNKS = 10
SECONDS = CHUNKS * PER_CHUNK / CONFIG.fps
RESUME = pb.SessionResume(token="t")  # noqa: S106 - no secret
PROMPT, OTHER = "a red circle", "a blue square"
SLOW_S = 0.05  # a chunk: a session is not over when its viewer leaves in the middle


def door(store: FakeStore, *, chunk_s: float = 0.0, gate: asyncio.Semaphore | None = None, **more: Any) -> Any:
    stages = FakeStages(FakeDenoiser(CONFIG, delay_s=chunk_s, gate=gate), keep_chunks=KEEP)
    return serving(stages, store=store, **more)


def spec(seconds: float = SECONDS) -> pb.VideoSpec:
    return pb.VideoSpec(prompt=PROMPT, seconds=seconds, seed=3)


def frames(events: Sequence[Any]) -> list[bytes]:
    return [bytes(data) for event in events for data in event.frames.data]


async def whole(codec: pb.Codec = pb.CODEC_RAW_RGB) -> list[bytes]:
    async with door(FakeStore()) as served, grpc.aio.insecure_channel(served.address) as channel:
        return frames(await read_all(stream_call(channel, pb.StreamRequest(spec=spec(), codec=codec))))


@asynccontextmanager
async def cut(served: Served, chunks: int, codec: pb.Codec = pb.CODEC_RAW_RGB) -> AsyncGenerator[tuple[str, list[bytes]], None]:
    """A Stream that was broken off after so many chunks had arrived: its token and frames."""
    async with grpc.aio.insecure_channel(served.address) as channel:
        call = stream_call(channel, pb.StreamRequest(spec=spec(), codec=codec))
        started = (await call.read()).started
        got = frames([await call.read() for _ in range(chunks)])
        call.cancel()
    await served.nothing_left()
    yield started.resume_token, got


def resume(token: str, next_frame: int = 0, **more: Any) -> pb.StreamRequest:
    return pb.StreamRequest(resume=pb.SessionResume(token=token, next_frame=next_frame, **more))


async def resumed(served: Served, token: str, next_frame: int, **more: Any) -> list[Any]:
    async with grpc.aio.insecure_channel(served.address) as channel:
        return await read_all(stream_call(channel, resume(token, next_frame, **more)))


async def refused(served: Served, request: pb.StreamRequest) -> grpc.aio.AioRpcError:
    async with grpc.aio.insecure_channel(served.address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await read_all(stream_call(channel, request))
    return caught.value


@pytest.mark.parametrize("codec", [pb.CODEC_RAW_RGB, pb.CODEC_JPEG])
@pytest.mark.parametrize("extra", [0, 3])
async def test_a_stream_goes_on_at_another_front_door_with_the_very_next_frame(codec: pb.Codec, extra: int) -> None:
    store = FakeStore()
    async with door(store, chunk_s=SLOW_S) as one, door(store) as two, cut(one, 4, codec) as (token, got):
        next_frame = len(got) - extra  # the viewer may have lost a few of the last chunk
        events = await resumed(two, token, next_frame)

        assert events[0].started.resume_token == token
        assert events[0].started.seed == 3
        assert events[1].frames.first_frame == next_frame
        assert got[:next_frame] + frames(events) == await whole(codec)
        assert events[-1].ended.reason == pb.END_REASON_COMPLETED
        assert events[-1].ended.usage.frames_sent == CHUNKS * PER_CHUNK
        assert two.metric("resume_seconds_count") == 1
        assert two.metric("ttff_seconds_count") == 0
        await two.nothing_left()


async def test_fragments_go_on_with_the_one_that_holds_the_frame() -> None:
    store = FakeStore()
    async with door(store, chunk_s=SLOW_S) as one, door(store) as two, cut(one, 3, pb.CODEC_FMP4_H264) as (token, got):
        events = await resumed(two, token, 3 * PER_CHUNK)
        assert got + frames(events) == await whole(pb.CODEC_FMP4_H264)
        assert events[0].started.codec_header
        again = await resumed(two, token, CHUNKS * PER_CHUNK - 1)
        assert again[1].frames.first_frame == (CHUNKS - 1) * PER_CHUNK


async def test_a_record_that_lags_behind_the_viewer_is_caught_up_with() -> None:
    """The store takes the first write, of the session that has made nothing, and then stands still."""
    store = FakeStore()
    async with door(store, chunk_s=SLOW_S) as one, door(store) as two:
        store.gate = asyncio.Event()
        store.gate.set()
        async with grpc.aio.insecure_channel(one.address) as channel:
            call = stream_call(channel, pb.StreamRequest(spec=spec(), codec=pb.CODEC_RAW_RGB))
            token = (await call.read()).started.resume_token
            await eventually(lambda: len(store.puts) >= 1)
            store.gate.clear()
            got = frames([await call.read() for _ in range(KEEP)])
            call.cancel()
        old = SessionRecord.from_bytes(store.puts[-1])
        assert old.next_chunk < KEEP
        store.gate = None
        store.down = True
        await one.nothing_left()
        store.down = False
        assert got + frames(await resumed(two, token, len(got))) == await whole()


async def test_a_session_that_was_seen_to_its_end_only_ends() -> None:
    store = FakeStore()
    async with door(store) as one, door(store) as two, grpc.aio.insecure_channel(one.address) as channel:
        events = await read_all(stream_call(channel, pb.StreamRequest(spec=spec(), codec=pb.CODEC_RAW_RGB)))
        token = events[0].started.resume_token
        await eventually(lambda: SessionRecord.from_bytes(store.puts[-1]).next_chunk == CHUNKS)
        again = await resumed(two, token, CHUNKS * PER_CHUNK)
        assert [event.WhichOneof("event") for event in again] == ["started", "ended"]
        assert again[-1].ended.reason == pb.END_REASON_COMPLETED


async def test_an_acknowledged_prompt_stays_in_force_even_if_the_record_is_too_old_to_know() -> None:
    store = FakeStore()
    async with door(store, chunk_s=SLOW_S) as one, door(store) as two, grpc.aio.insecure_channel(one.address) as channel:
        call = live_call(channel)
        await call.write(pb.LiveRequest(start=pb.LiveStart(spec=spec(), codec=pb.CODEC_RAW_RGB, max_lead_seconds=30)))
        token = (await call.read()).started.resume_token
        await eventually(lambda: len(store.puts) >= 1)
        got = frames([await call.read() for _ in range(2)])
        store.down = True
        await call.write(pb.LiveRequest(prompt=pb.PromptChange(prompt=OTHER, request_id=4)))
        ack = None
        while ack is None:
            event = await call.read()
            got += frames([event])
            ack = event.prompt_ack if event.HasField("prompt_ack") else None
        got += frames([await call.read()])
        call.cancel()
        await one.nothing_left()
        store.down = False
        told = list(await resumed_live(two, token, len(got), [ack]))
        # The same timeline in one undisturbed run.
        session = await FakeStages().pipeline.open(SessionRequest("s", PROMPT, 3, CONFIG.num_steps, CHUNKS * PER_CHUNK))
        expected: list[bytes] = []
        async for made in session.events():
            if isinstance(made, FrameChunk):
                expected += made.data
                if made.first_frame + PER_CHUNK == ack.first_frame:
                    await session.set_prompt(OTHER)
        assert got + frames(told) == expected


async def resumed_live(served: Served, token: str, next_frame: int, acknowledged: Sequence[pb.PromptAck] = ()) -> list[Any]:
    async with grpc.aio.insecure_channel(served.address) as channel:
        call = live_call(channel)
        point = pb.SessionResume(token=token, next_frame=next_frame, acknowledged=acknowledged)
        await call.write(pb.LiveRequest(start=pb.LiveStart(resume=point, max_lead_seconds=30)))
        return await read_all(call)


@pytest.mark.parametrize("old_reads", [True, False])
async def test_a_resume_fences_the_connection_that_still_serves(old_reads: bool) -> None:
    """Both with a reader and with one that has stopped reading, whose write is blocked."""
    store = FakeStore()
    async with door(store, chunk_s=0.001) as one, door(store, chunk_s=0.001) as two:  # noqa: SIM117 - one line is too long
        async with grpc.aio.insecure_channel(one.address) as channel, grpc.aio.insecure_channel(two.address) as other:
            old = stream_call(channel, pb.StreamRequest(spec=spec(3600), codec=pb.CODEC_RAW_RGB))
            token = (await old.read()).started.resume_token
            await old.read()
            reading = asyncio.create_task(read_all(old)) if old_reads else None
            await eventually(lambda: len(store.puts) >= 2)
            first = SessionRecord.from_bytes(store.puts[-1]).next_chunk * PER_CHUNK

            new = stream_call(other, resume(token, first))
            assert (await new.read()).started.resume_token == token
            assert (await new.read()).frames.first_frame == first

            with pytest.raises(grpc.aio.AioRpcError) as ended:
                await (reading or read_all(old))
            assert ended.value.code() is grpc.StatusCode.ABORTED
            assert ended.value.details() == "the session was resumed on another connection"
            await one.nothing_left()
            await eventually(lambda: one.metric("calls_total", rpc="Stream", outcome="moved") == 1)
            assert (await new.read()).frames.first_frame == first + PER_CHUNK  # the holder goes on
            new.cancel()
            await two.nothing_left()


async def test_of_many_that_resume_at_once_one_goes_on() -> None:
    store = FakeStore()
    async with door(store, chunk_s=SLOW_S) as one, door(store, chunk_s=SLOW_S, max_sessions=8) as two, cut(one, 2) as (token, _):
        results = await asyncio.gather(*(resumed(two, token, 16) for _ in range(5)), return_exceptions=True)
        errors = [result for result in results if isinstance(result, grpc.aio.AioRpcError)]
        assert len(errors) == 4
        assert {error.code() for error in errors} == {grpc.StatusCode.ABORTED}
        await two.nothing_left()


async def test_unknown_expired_and_stopped_sessions_are_not_found() -> None:
    store = FakeStore()
    short = KeeperPolicy(ttl_s=0.2, write_every_s=0.02, timeout_s=0.5)
    async with door(store, chunk_s=SLOW_S, keeping=short) as served:
        unknown = await refused(served, resume("guessed"))
        assert unknown.code() is grpc.StatusCode.NOT_FOUND
        assert "unknown, has expired, or its session was stopped" in str(unknown.details())
        async with cut(served, 2) as (token, _):
            await asyncio.sleep(0.5)
            expired = await refused(served, resume(token, 16))
            assert expired.code() is grpc.StatusCode.NOT_FOUND
        async with served.client.live(PROMPT) as session:
            async for event in session:
                if isinstance(event, pb.Started):
                    token = event.resume_token
                    await session.stop()
        await eventually(lambda: served.service.open_sessions == 0)
        stopped = await refused(served, resume(token))
        assert stopped.code() is grpc.StatusCode.NOT_FOUND


async def test_a_paused_session_does_not_expire_while_its_connection_lives() -> None:
    store = FakeStore(clock := ManualClock())  # which moves on only after the keeper has been there, however slow the machine
    short = KeeperPolicy(ttl_s=0.3, write_every_s=0.02, timeout_s=0.5)
    async with door(store, keeping=short) as served, served.client.live(PROMPT) as session:
        token = ""
        async for event in session:
            if isinstance(event, pb.Started):
                token = event.resume_token
                await session.pause()
            if isinstance(event, pb.Paused):
                break
        for _ in range(4):
            calls = store.calls
            await clock.advance(short.ttl_s * 0.7)
            await eventually(partial(store.called, calls + 2))
            assert await store.get(token) is not None


@pytest.mark.parametrize(
    ("request_", "field", "sentence"),
    [
        (pb.StreamRequest(spec=spec(), resume=RESUME), "spec", "must be unset with resume; got one"),
        (pb.StreamRequest(codec=pb.CODEC_JPEG, resume=RESUME), "codec", "must be unset with resume; got one"),
        (pb.StreamRequest(resume=pb.SessionResume()), "resume.token", "must be a Started.resume_token; got 0 characters"),
        (resume("t" * 257), "resume.token", "must be a Started.resume_token; got 257 characters"),
        (
            pb.StreamRequest(max_lead_seconds=31, resume=RESUME),
            "max_lead_seconds",
            "must be a number from 0 to 30; got 31",
        ),
        (
            resume("t", acknowledged=[pb.PromptAck(prompt="a")] * 33),
            "resume.acknowledged",
            "must be at most 32; got 33",
        ),
    ],
)
async def test_a_resume_that_breaks_limits_is_named(request_: pb.StreamRequest, field: str, sentence: str) -> None:
    async with door(FakeStore()) as served:
        error = await refused(served, request_)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert [(v.field, v.description) for v in details_of(error)[0].field_violations] == [(field, sentence)]


async def test_a_frame_out_of_reach_is_refused_and_takes_the_session_from_nobody() -> None:
    store = FakeStore()
    made, length = 12, 14  # chunks: more than the log holds
    gate = asyncio.Semaphore(made)
    async with door(store, gate=gate) as served, grpc.aio.insecure_channel(served.address) as channel:
        call = stream_call(channel, pb.StreamRequest(spec=spec(length * PER_CHUNK / CONFIG.fps), codec=pb.CODEC_RAW_RGB))
        token = (await call.read()).started.resume_token
        for _ in range(made):
            await call.read()
        await eventually(lambda: SessionRecord.from_bytes(store.puts[-1]).next_chunk == made)
        first, last = (made - KEEP) * PER_CHUNK, length * PER_CHUNK
        for next_frame in (first - 1, last + 1):
            error = await refused(served, resume(token, next_frame))
            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert error.details() == f"resume.next_frame: must be from {first} to {last}; got {next_frame}"
        bad = pb.SessionResume(
            token=token,
            next_frame=first,
            acknowledged=[pb.PromptAck(prompt=OTHER, first_frame=9)],
            quality_changes=[pb.QualityChange(steps=99)],
        )
        error = await refused(served, pb.StreamRequest(resume=bad))
        assert [v.field for v in details_of(error)[0].field_violations] == [
            "resume.acknowledged.first_frame",
            "resume.quality_changes.steps",
        ]
        gate.release()
        gate.release()
        assert [event.WhichOneof("event") for event in await read_all(call)] == ["frames", "frames", "ended"]


async def test_only_live_goes_on_with_a_session_without_end() -> None:
    store = FakeStore()
    async with door(store, chunk_s=SLOW_S) as served, grpc.aio.insecure_channel(served.address) as channel:
        call = live_call(channel)
        await call.write(pb.LiveRequest(start=pb.LiveStart(spec=spec(0), codec=pb.CODEC_RAW_RGB)))
        token = (await call.read()).started.resume_token
        await eventually(lambda: len(store.puts) >= 1)
        error = await refused(served, resume(token))
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "must be of a session with an end, or be resumed by Live" in str(error.details())
        call.cancel()


@pytest.mark.parametrize("change", [{"model": "other"}, {"fingerprint": "0" * 64}, {"guidance": 2.0}])  # the model has none
async def test_a_session_of_another_model_is_refused(change: dict[str, str]) -> None:
    store = FakeStore()
    async with door(store, chunk_s=SLOW_S) as served, cut(served, 2) as (_, got):
        record = replace(SessionRecord.from_bytes(store.puts[-1]), **change)  # type: ignore[arg-type]
        await store.put("other", "x", record.to_bytes(), 60)
        error = await refused(served, resume("other", len(got)))
        assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert "this server serves millrace-64" in str(error.details())


async def test_a_record_that_cannot_be_read_is_not_found() -> None:
    store = FakeStore()
    await store.put("t", "x", b"garbage", 60)
    async with door(store) as served:
        assert (await refused(served, resume("t"))).code() is grpc.StatusCode.NOT_FOUND
        assert served.metric("session_store_errors_total", operation="read") == 1


async def test_a_store_that_is_down_ends_no_stream_and_is_complained_of_once(caplog: pytest.LogCaptureFixture) -> None:
    store = FakeStore()
    store.down = True
    with caplog.at_level(logging.WARNING, "service.records.keeper"):
        async with door(store, chunk_s=SLOW_S) as served, grpc.aio.insecure_channel(served.address) as channel:
            events = await read_all(stream_call(channel, pb.StreamRequest(spec=spec(), codec=pb.CODEC_RAW_RGB)))
            assert frames(events) == await whole()
            assert served.metric("session_store_errors_total", operation="write") > 1
            error = await refused(served, resume("t"))
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            assert error.details() == "sessions cannot be looked up just now: the session store does not answer; try again in 2 s"
    assert len([record for record in caplog.records if record.name == "service.records.keeper"]) == 1


async def test_a_store_that_comes_back_is_written_to_again() -> None:
    store = FakeStore()
    store.down = True
    async with door(store, chunk_s=SLOW_S) as one, door(store) as two, grpc.aio.insecure_channel(one.address) as channel:
        call = stream_call(channel, pb.StreamRequest(spec=spec(), codec=pb.CODEC_RAW_RGB))
        token = (await call.read()).started.resume_token
        got = frames([await call.read() for _ in range(3)])
        store.down = False
        await eventually(lambda: len(store.puts) >= 1)
        call.cancel()
        await one.nothing_left()
        assert got + frames(await resumed(two, token, len(got))) == await whole()


async def test_a_store_that_never_answers_delays_nothing_and_has_one_write_at_a_time() -> None:
    store = FakeStore()
    store.gate = asyncio.Event()
    slow = KeeperPolicy(ttl_s=60, write_every_s=0.001, timeout_s=30)
    async with door(store, keeping=slow) as served, grpc.aio.insecure_channel(served.address) as channel:
        events = await read_all(stream_call(channel, pb.StreamRequest(spec=spec(), codec=pb.CODEC_RAW_RGB)))
        assert frames(events) == await whole()
        assert store.most_under_way == 1
        assert store.calls == 1
        store.gate.set()
        # The newest state is written, and what lay between is not.
        await eventually(lambda: len(store.puts) == 2)
        assert SessionRecord.from_bytes(store.puts[-1]).next_chunk == CHUNKS


async def test_no_writer_outlives_its_session() -> None:
    store = FakeStore()
    async with door(store, chunk_s=SLOW_S) as served:
        before = len(asyncio.all_tasks())
        for _ in range(3):
            async with cut(served, 1):
                pass
        await eventually(lambda: len(asyncio.all_tasks()) <= before)
        assert KEEPING.write_every_s < 1

"""Video in, live, over gRPC: frames are taken, restyled and given back; what cannot be taken is named; a break loses no frame."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest

from headrace.client import BadRequest, LiveSession, LiveSource, Reconnect
from headrace.v1 import video_pb2 as pb
from model_core.media import jpeg
from model_core.source import AHEAD_CHUNKS
from service.checks import Limits
from tests.fakes import FakeDenoiser, FakeStages, eventually
from tests.pictures import moving
from tests.served import Served, live_call, read_all, serving
from tests.stores import FakeStore

CONFIG = FakeStages().config
CHUNK = CONFIG.frames_per_chunk
FRAMES = 12 * CHUNK + 5
PROMPT = "a blue circle"
AHEAD = AHEAD_CHUNKS * CHUNK


def raw(frames: int = FRAMES) -> list[bytes]:
    return [frame.tobytes() for frame in moving(frames)]


async def played(frames: Sequence[bytes], pause_s: float = 0.0) -> AsyncGenerator[bytes, None]:
    for frame in frames:
        await asyncio.sleep(pause_s)
        yield frame


def source(frames: Sequence[bytes] | None = None, strength: float = 0.5, **more: Any) -> LiveSource:
    return LiveSource(played(raw() if frames is None else frames), strength, **{"codec": pb.CODEC_RAW_RGB, **more})


async def restyled(served: Served, given: LiveSource, **more: Any) -> list[Any]:
    async with served.client.live(PROMPT, seed=1, source=given, **more) as session:
        return [event async for event in session]


def shown(events: Sequence[Any]) -> list[bytes]:
    return [bytes(data) for event in events if isinstance(event, pb.Frames) for data in event.data]


async def shown_of(session: LiveSession) -> list[bytes]:
    return shown([event async for event in session])


async def test_a_source_comes_back_restyled_and_the_session_ends_with_it() -> None:
    async with serving() as served:
        events = await restyled(served, source())
        again = await restyled(served, source())
        stronger = await restyled(served, source(strength=0.75))
        await served.nothing_left()

    assert len(shown(events)) == FRAMES
    assert shown(again) == shown(events)
    assert shown(stronger) != shown(events)
    started, ended = events[0], events[-1]
    assert (started.source.next_frame, started.source.until_frame) == (0, AHEAD)
    assert ended.reason == pb.END_REASON_COMPLETED
    assert (ended.usage.source_frames, ended.usage.source_dropped) == (FRAMES, 0)
    taken = [event for event in events if isinstance(event, pb.SourceTaken)]
    assert len(taken) == 13
    assert taken[0].until_frame == AHEAD + CHUNK


async def test_pictures_of_any_size_are_scaled() -> None:
    frames = [jpeg(frame, 90) for frame in moving(10, 48, 96)]
    async with serving() as served:
        events = await restyled(served, source(frames, codec=pb.CODEC_JPEG))

    assert len(shown(events)) == 10


@asynccontextmanager
async def started(served: Served, strength: float = 0.5, **more: Any) -> AsyncGenerator[Any, None]:
    """A Live that has begun."""
    async with grpc.aio.insecure_channel(served.address) as channel:
        call = live_call(channel)
        spec = pb.VideoSpec(prompt=PROMPT, strength=strength, **more)
        await call.write(pb.LiveRequest(start=pb.LiveStart(spec=spec, codec=pb.CODEC_RAW_RGB)))
        assert (await call.read()).HasField("started")
        yield call
        call.cancel()


def given(first: int, data: list[bytes], codec: Any = pb.CODEC_RAW_RGB) -> pb.LiveRequest:
    return pb.LiveRequest(source_frames=pb.SourceFrames(first_frame=first, codec=codec, data=data))


async def dropped(call: Any) -> tuple[int, int, int, int]:
    while not (event := await call.read()).HasField("source_dropped"):
        pass
    told = event.source_dropped
    return told.first_frame, told.frames, told.reason, told.next_frame


async def test_what_is_not_taken_is_named() -> None:
    frames, stages = raw(), FakeStages(FakeDenoiser(CONFIG, gate=asyncio.Semaphore(0)))
    async with serving(stages) as served, started(served) as call:
        await call.write(given(0, frames[:10]))
        await call.write(given(20, frames[20:22]))
        assert await dropped(call) == (20, 2, pb.SOURCE_DROP_REASON_GAP, 10)
        await call.write(given(8, frames[8:12]))
        assert await dropped(call) == (8, 2, pb.SOURCE_DROP_REASON_LATE, 12)
        await call.write(given(12, frames[12:40]))
        assert await dropped(call) == (32, 8, pb.SOURCE_DROP_REASON_FULL, 32)
        await call.write(pb.LiveRequest(source_end=pb.SourceEnd()))
        await call.write(given(32, frames[32:33]))
        assert await dropped(call) == (32, 1, pb.SOURCE_DROP_REASON_ENDED, 32)


@pytest.mark.parametrize(
    ("message", "told"),
    [
        (given(0, [b"1234"]), "source_frames.data[0]: must be 12288 bytes, a raw frame of 64x64; got 4"),
        (given(0, [b"1234"], pb.CODEC_JPEG), "source_frames.data[0]: must be a JPEG picture; got 4 bytes that begin with b'1234'"),
        (given(0, [b""], pb.CODEC_FMP4_H264), "source_frames.codec: must be CODEC_RAW_RGB (1) or CODEC_JPEG (2); got 3"),
        (given(0, [bytes(12288)] * 9), "source_frames.data: must be at most 100000 bytes in one message; got 110592"),
    ],
)
async def test_frames_that_are_none_end_the_session_with_their_field(message: pb.LiveRequest, told: str) -> None:
    async with serving(limits=Limits(max_source_bytes=100_000)) as served, started(served) as call:
        await call.write(message)
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await read_all(call)

    assert (failed.value.code(), failed.value.details()) == (grpc.StatusCode.INVALID_ARGUMENT, told)


@pytest.mark.parametrize("strength", [0.0, -1.0, 1.5, float("nan")])
async def test_a_strength_out_of_range_is_refused(strength: float) -> None:
    async with serving() as served:
        with pytest.raises(BadRequest, match=r"start.spec.strength: must be above 0 and at most 1; got"):
            await restyled(served, source(strength=strength))


async def test_a_strength_belongs_to_live_alone() -> None:
    async with serving() as served, grpc.aio.insecure_channel(served.address) as channel:
        method = channel.unary_unary(
            "/headrace.v1.VideoService/Generate", pb.GenerateRequest.SerializeToString, pb.GenerateResponse.FromString
        )
        with pytest.raises(grpc.aio.AioRpcError, match=r"spec\.strength: must be unset but in Live"):
            await method(pb.GenerateRequest(spec=pb.VideoSpec(prompt=PROMPT, seconds=1, strength=0.5)))


async def test_frames_without_a_strength_are_refused() -> None:
    async with serving() as served, grpc.aio.insecure_channel(served.address) as channel:
        call = live_call(channel)
        await call.write(pb.LiveRequest(start=pb.LiveStart(spec=pb.VideoSpec(prompt=PROMPT))))
        await call.write(given(0, [b"1"]))
        with pytest.raises(grpc.aio.AioRpcError, match="source_frames: must come only where the session's strength is set"):
            await read_all(call)


async def test_a_camera_that_is_faster_than_the_server_drops_frames_and_counts_them() -> None:
    gate, camera = asyncio.Semaphore(0), source(raw(100), drops=True)
    async with serving(FakeStages(FakeDenoiser(CONFIG, gate=gate))) as served, served.client.live(PROMPT, source=camera) as session:
        events = asyncio.ensure_future(shown_of(session))
        await eventually(lambda: session.source_dropped > 0)
        for _ in range(20):
            gate.release()
        frames = await events

    assert len(frames) + session.source_dropped == 100


async def test_the_source_is_sent_again_to_another_server_after_a_kill_and_frames_are_equal() -> None:
    """The first server is gone in the middle; client, source and session go on at the second."""
    store = FakeStore()

    def door(port: int = 0) -> Any:
        return serving(FakeStages(FakeDenoiser(CONFIG, delay_s=0.01), keep_chunks=6), store=store, port=port)

    async with door() as whole:
        undisturbed = shown(await restyled(whole, source()))
    async with asyncio.timeout(60), door() as one, AsyncExitStack() as later:
        port, events = int(one.address.rsplit(":", 1)[1]), list[Any]()
        async with one.client.live(PROMPT, seed=1, source=source(), reconnect=Reconnect(20.0)) as session:
            async for event in session:
                events.append(event)
                if isinstance(event, pb.Frames) and event.chunk_index == 4:
                    await later.enter_async_context(door(port))
                    await one.server.drain(grace_s=0)

    assert shown(events) == undisturbed

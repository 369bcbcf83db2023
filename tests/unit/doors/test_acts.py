"""A world over gRPC: keys go in while frames come out, a resume repeats them, and whoever watches sees what was held."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import cast

import grpc.aio
import pytest

from headrace.client import ClientError
from headrace.live import LiveEvent
from headrace.v1 import video_pb2 as pb
from model_core.presets import millrace_64_world
from tests.fakes import FakeDenoiser, FakeStages
from tests.served import live_call, read_all, serving, stream_call

CONFIG = millrace_64_world()
PER_CHUNK = CONFIG.frames_per_chunk
PROMPT = "a red circle"


def world(gate: asyncio.Semaphore | None = None, fail_after: tuple[int, ...] = ()) -> FakeStages:
    return FakeStages(FakeDenoiser(CONFIG, gate=gate, fail_after=fail_after), keep_chunks=4, config=CONFIG)


async def until(events: AsyncIterator[LiveEvent], kind: type) -> list[LiveEvent]:
    """Events up to the first of that kind, usage left out."""
    seen = list[LiveEvent]()
    async with asyncio.timeout(20):
        while True:
            event = await anext(events)
            if not isinstance(event, pb.UsageTick):
                seen.append(event)
            if isinstance(event, kind):
                return seen


async def played(fail_after: tuple[int, ...] = (), chunks: int = 6) -> list[pb.Frames]:
    """A session whose keys change before chunk 2, and again before chunk 4. Chunks are made one at a time."""
    gate, held = asyncio.Semaphore(0), {2: ("up",), 4: ("right",)}
    made: list[pb.Frames] = []
    async with (
        serving(world(gate, fail_after)) as served,
        served.client.live(PROMPT, seconds=chunks * PER_CHUNK / CONFIG.fps, max_lead_s=30) as session,
    ):
        events = aiter(session)
        for chunk in range(chunks):
            if chunk in held:
                await session.act(held[chunk])
                await until(events, pb.PromptAck)
            gate.release()
            made.append(cast("pb.Frames", (await until(events, pb.Frames))[-1]))
        await until(events, pb.Ended)
        await served.nothing_left()
    return made


async def test_the_models_list_says_which_keys_there_are() -> None:
    async with serving(world()) as served:
        (model,) = await served.client.list_models()
        assert list(model.keys) == ["up", "down", "left", "right"]
    async with serving() as served:
        (model,) = await served.client.list_models()
        assert not model.keys


async def test_keys_take_effect_at_the_next_chunk_and_each_chunk_says_what_was_held() -> None:
    gate = asyncio.Semaphore(1)
    async with serving(world(gate)) as served, served.client.live(PROMPT, max_lead_s=30.0) as session:
        events = aiter(session)
        await until(events, pb.Frames)
        number = await session.act(("left", "up"))
        gate.release()
        gate.release()
        ack = (await until(events, pb.PromptAck))[-1]
        assert isinstance(ack, pb.PromptAck)
        assert (ack.prompt, list(ack.keys), ack.request_id) == (PROMPT, ["up", "left"], number)
        frames = (await until(events, pb.Frames))[-1]
        assert isinstance(frames, pb.Frames)
        assert (frames.first_frame, list(frames.keys)) == (ack.first_frame, ["up", "left"])
        await session.stop()
        await until(events, pb.Ended)
        await served.nothing_left()


async def test_a_replica_that_dies_changes_no_frame_of_a_world() -> None:
    whole = await played()
    assert [tuple(frames.keys) for frames in whole] == [(), (), ("up",), ("up",), ("right",), ("right",)]
    for fail_after in ((0, 0), (1, 0), (9, 0, 1), (9, 1, 0), (9, 9, 0), (9, 9, 1, 0)):
        killed = await played(fail_after)
        assert [(list(frames.data), frames.keys) for frames in killed] == [(list(frames.data), frames.keys) for frames in whole]


async def test_a_session_that_is_resumed_goes_on_under_the_keys_that_were_held() -> None:
    gate = asyncio.Semaphore(1)
    async with serving(world(gate)) as served:
        async with served.client.live(PROMPT, max_lead_s=30.0) as session:
            events = aiter(session)
            started, *_ = [event for event in await until(events, pb.Frames) if isinstance(event, pb.Started)]
            await session.act(("down",))
            ack = cast("pb.PromptAck", (await until(events, pb.PromptAck))[-1])
            gate.release()
            frames = cast("pb.Frames", (await until(events, pb.Frames))[-1])
            assert list(frames.keys) == ["down"]
        await served.nothing_left()
        resume = pb.SessionResume(token=started.resume_token, next_frame=frames.first_frame + frames.frame_count, acknowledged=[ack])
        gate.release()
        async with grpc.aio.insecure_channel(served.address) as channel:
            call = live_call(channel)
            await call.write(pb.LiveRequest(start=pb.LiveStart(resume=resume, max_lead_seconds=30)))
            while not (response := await call.read()).HasField("frames"):
                pass
            assert (response.frames.chunk_index, list(response.frames.keys)) == (frames.chunk_index + 1, ["down"])
            call.cancel()
        await served.nothing_left()


async def test_whoever_watches_is_told_what_is_held() -> None:
    gate = asyncio.Semaphore(1)
    async with serving(world(gate)) as served, served.client.live(PROMPT, max_lead_s=30.0) as session:
        events = aiter(session)
        started = (await until(events, pb.Started))[-1]
        assert isinstance(started, pb.Started)
        async with aclosing(served.client.watch(started.watch_token)) as watched:
            await anext(watched)
            await session.act(("down",))
            gate.release()
            gate.release()
            async with asyncio.timeout(20):
                async for event in watched:
                    if isinstance(event, pb.PromptAck):
                        assert list(event.keys) == ["down"]
                        break
        await session.stop()
        await until(events, pb.Ended)


async def test_keys_can_be_held_from_the_first_chunk_on() -> None:
    async with serving(world()) as served:
        spec = pb.VideoSpec(prompt=PROMPT, seconds=1.0, keys=["right"])
        async with grpc.aio.insecure_channel(served.address) as channel:
            answers = await read_all(stream_call(channel, pb.StreamRequest(spec=spec)))
        assert {tuple(answer.frames.keys) for answer in answers if answer.HasField("frames")} == {("right",)}


async def test_a_model_without_actions_refuses_them_by_name() -> None:
    async with serving() as served:
        async with served.client.live(PROMPT, max_lead_s=30.0) as session:
            events = aiter(session)
            await until(events, pb.Started)
            await session.act(("up",))
            with pytest.raises(ClientError, match=r"act\.keys: must come only to a model that takes actions") as refused:
                await until(events, pb.Ended)
        assert refused.value.code is grpc.StatusCode.INVALID_ARGUMENT
        await served.nothing_left()
        await served.still_serves()


async def test_an_unknown_key_is_named_with_those_that_there_are() -> None:
    async with serving(world()) as served:
        spec = pb.VideoSpec(prompt=PROMPT, seconds=1.0, keys=["jump"])
        async with grpc.aio.insecure_channel(served.address) as channel:
            with pytest.raises(grpc.aio.AioRpcError, match=r"spec\.keys: must be among: up, down, left, right; got 'jump'"):
                await read_all(stream_call(channel, pb.StreamRequest(spec=spec)))

"""However a call ends, nothing of it is left: no slot, no place in line, no stream, no task."""

import asyncio
import random
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import grpc
import grpc.aio
import pytest

from headrace.client import Busy, ClientError, HeadraceClient, LiveEvent, LiveSession
from headrace.v1 import video_pb2 as pb
from service.checks import Limits
from tests.fakes import FakeDenoiser, FakeEncoder, FakeStages, eventually
from tests.served import Served, live_call, read_all, serving, stream_call

CONFIG = FakeStages().config
PROMPT = "a red circle"


def gated(permits: int) -> FakeStages:
    return FakeStages(FakeDenoiser(CONFIG, gate=asyncio.Semaphore(permits)))


def long_stream(channel: grpc.aio.Channel) -> Any:
    spec = pb.VideoSpec(prompt=PROMPT, seconds=3600)
    return stream_call(channel, pb.StreamRequest(spec=spec, codec=pb.CODEC_RAW_RGB))


def start(seconds: float = 0.0) -> pb.LiveRequest:
    """With as much lead as there may be: what holds these sessions back is the reader."""
    spec = pb.VideoSpec(prompt=PROMPT, seconds=seconds)
    return pb.LiveRequest(start=pb.LiveStart(spec=spec, codec=pb.CODEC_RAW_RGB, max_lead_seconds=30))


async def until_production_stops(stages: FakeStages) -> int:
    """Chunks made when no more were made for half a second, in which those who make them had their turns, however busy the machine."""
    made, turns = 0, 0
    while made == 0 or turns < 50:
        await asyncio.sleep(0.01)
        turns = turns + 1 if made == stages.denoiser.statistics().chunks else 0
        made = stages.denoiser.statistics().chunks
    return made


async def hold(served: Served, method: str) -> AsyncIterator[object]:
    """Make a call that goes on for long, and yield its events."""
    match method:
        case "Generate":
            await served.client.generate(PROMPT, seconds=60)
        case "Stream":
            async for event in served.client.stream(PROMPT, seconds=3600):
                yield event
        case _:
            async with served.client.live(PROMPT) as session:
                async for live_event in session:
                    yield live_event


async def run(served: Served, method: str) -> None:
    async for _ in hold(served, method):
        pass


@pytest.mark.parametrize("method", ["Generate", "Stream", "Live"])
async def test_a_cancelled_call_frees_everything(method: str) -> None:
    async with serving(gated(3)) as served:
        call = asyncio.create_task(run(served, method))
        await eventually(lambda: served.stages.denoiser.statistics().chunks == 3)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

        await served.nothing_left()
        await eventually(lambda: served.metric("calls_total", rpc=method, outcome="cancelled") == 1)


@pytest.mark.parametrize("method", ["Generate", "Stream"])
async def test_a_deadline_ends_the_call_on_both_sides(method: str) -> None:
    async with serving(gated(2)) as served:
        call: Coroutine[Any, Any, object]
        if method == "Generate":
            call = served.client.generate(PROMPT, seconds=60, timeout_s=0.3)
        else:
            call = _all(served.client.stream(PROMPT, seconds=60, timeout_s=0.3))
        with pytest.raises(ClientError) as error:
            await call

        assert error.value.code is grpc.StatusCode.DEADLINE_EXCEEDED
        await served.nothing_left()


async def test_a_client_that_vanishes_frees_everything() -> None:
    async with serving(gated(4)) as served:
        channel = grpc.aio.insecure_channel(served.address)
        calls = [long_stream(channel), live_call(channel)]
        await calls[1].write(start())
        await eventually(lambda: served.desk.statistics().live == 2 and served.stages.denoiser.statistics().chunks == 4)

        await channel.close(grace=None)

        await served.nothing_left()


async def test_a_client_that_reads_nothing_stops_production() -> None:
    async with serving() as served, grpc.aio.insecure_channel(served.address) as channel:
        call = long_stream(channel)  # 10,800 chunks of 96 KiB
        await call.read()
        made = await until_production_stops(served.stages)
        # What gRPC's flow control lets through is bounded, whatever its windows grow to, and it does not go on.
        assert made < 200
        await asyncio.sleep(0.5)
        assert served.stages.denoiser.statistics().chunks == made
        call.cancel()
        await served.nothing_left()
        await eventually(lambda: served.metric("calls_total", rpc="Stream", outcome="cancelled") == 1)


async def test_a_reader_that_stalls_for_too_long_loses_its_slot() -> None:
    async with serving(limits=Limits(stall_timeout_seconds=0.3)) as served, grpc.aio.insecure_channel(served.address) as channel:
        calls = [long_stream(channel), live_call(channel)]
        await calls[1].write(start())
        await eventually(lambda: served.stages.denoiser.statistics().chunks > 0)

        await served.nothing_left()
        assert served.metric("calls_total", rpc="Stream", outcome="stalled") == 1
        await served.still_serves()

        with pytest.raises(grpc.aio.AioRpcError) as error:
            await read_all(calls[0])
        assert error.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert error.value.details() == "nothing was read for 0.3 s"


async def test_controls_of_a_client_that_reads_nothing_are_bounded() -> None:
    encoder = FakeEncoder()
    async with serving(FakeStages(encoder=encoder), limits=Limits(max_unanswered_controls=8)) as served:  # noqa: SIM117 - one line is too long
        async with grpc.aio.insecure_channel(served.address) as channel:
            call = live_call(channel)
            await call.write(start())
            await until_production_stops(served.stages)
            writing = asyncio.create_task(_flood(call))
            await eventually(lambda: encoder.calls == 1 + 8)
            await asyncio.sleep(0.3)
            assert encoder.calls == 1 + 8
            writing.cancel()
            call.cancel()
            await served.nothing_left()


async def _flood(call: Any) -> None:
    for number in range(1000):
        await call.write(pb.LiveRequest(prompt=pb.PromptChange(prompt=f"prompt {number}")))


async def test_half_close_lets_a_session_with_an_end_play_to_it() -> None:
    async with serving() as served, grpc.aio.insecure_channel(served.address) as channel:
        call = live_call(channel)
        await call.write(start(seconds=2))
        await call.done_writing()

        events = await read_all(call)

        assert sum(event.frames.frame_count for event in events) == 48
        assert events[-1].ended.reason == pb.END_REASON_COMPLETED


async def test_half_close_lets_a_session_without_end_play_until_its_call_is_cancelled() -> None:
    async with serving() as served, grpc.aio.insecure_channel(served.address) as channel:
        call = live_call(channel)
        await call.write(start())
        await call.done_writing()
        frames = 0
        while frames < 96:
            frames += (await call.read()).frames.frame_count
        call.cancel()
        await served.nothing_left()


async def test_half_close_lets_it_play_no_longer_than_a_stream_may_last() -> None:
    async with serving(limits=Limits(max_stream_seconds=0.2)) as served, grpc.aio.insecure_channel(served.address) as channel:
        call = live_call(channel)
        await call.write(start())
        await call.done_writing()
        events = await read_all(call)
        assert sum(event.frames.frame_count for event in events) > 0
        assert events[-1].ended.reason == pb.END_REASON_STOPPED
        await served.nothing_left()


async def test_half_close_ends_a_session_that_nobody_can_resume() -> None:
    async with serving(gated(2)) as served, grpc.aio.insecure_channel(served.address) as channel:
        call = live_call(channel)
        await call.write(start(seconds=60))
        await call.write(pb.LiveRequest(pause=pb.Pause()))
        await call.done_writing()

        events = await read_all(call)

        assert events[-1].ended.reason == pb.END_REASON_STOPPED
        await served.nothing_left()


async def test_who_waits_is_told_the_position_and_served_in_order() -> None:
    async with serving(max_sessions=1) as served:
        first = served.client.live(PROMPT)
        second, third = served.client.live("second", seconds=0.5), served.client.live("third", seconds=0.5)
        seen: dict[str, list[LiveEvent]] = {"second": [], "third": []}

        async def follow(name: str, session: LiveSession) -> None:
            async for event in session:
                seen[name].append(event)

        async with first, second:
            await eventually(lambda: served.desk.statistics().live == 1)
            await eventually(lambda: served.desk.statistics().waiting == 1)
            async with third:
                followers = [asyncio.create_task(follow("second", second)), asyncio.create_task(follow("third", third))]
                await eventually(lambda: len(seen["third"]) == 1)
                await first.stop()
                await asyncio.gather(*followers)

        assert seen["second"][0] == pb.QueuePosition(position=1)
        assert seen["third"][:2] == [pb.QueuePosition(position=2), pb.QueuePosition(position=1)]
        for events in seen.values():
            assert [type(event).__name__ for event in events if not isinstance(event, pb.QueuePosition)] == [
                "Started", "Frames", "Frames", "Ended",
            ]  # fmt: skip
        await served.nothing_left()


async def test_beyond_the_line_calls_are_refused_at_once_with_a_retry_delay() -> None:
    async with serving(gated(0), max_sessions=1, max_waiting=1) as served:
        holding = [asyncio.create_task(run(served, "Live"))]
        await eventually(lambda: served.desk.statistics().live == 1)
        holding += [asyncio.create_task(run(served, "Live"))]
        await eventually(lambda: served.desk.statistics().waiting == 1)

        for method in ("Generate", "Stream", "Live"):
            with pytest.raises(Busy) as refused:
                await run(served, method)
            assert refused.value.retry_after_s == pytest.approx(45, rel=0.1)  # one session, taken to last 30 s, and the jitter of the tests
            assert str(refused.value).endswith(f"; try again in {refused.value.retry_after_s:g} s")
        for call in holding:
            call.cancel()
        await asyncio.gather(*holding, return_exceptions=True)
        await served.nothing_left()


async def test_controls_work_in_line() -> None:
    async with serving(gated(1), max_sessions=1) as served:
        holding = asyncio.create_task(run(served, "Stream"))
        await eventually(lambda: served.desk.statistics().live == 1)
        async with served.client.live(PROMPT) as session:
            await session.stop()
            events = [event async for event in session]
            assert [type(event).__name__ for event in events][-1] == "Ended"
            assert isinstance(events[-1], pb.Ended)
            assert events[-1].reason == pb.END_REASON_STOPPED
        async with served.client.live(PROMPT) as session:
            await session.set_prompt("")
            async for event in session:
                if isinstance(event, pb.PromptRefused):
                    await session.stop()
            assert isinstance(event, pb.Ended)
        assert served.desk.statistics().waiting == 0
        holding.cancel()
        await asyncio.gather(holding, return_exceptions=True)


async def _all(events: AsyncIterator[object]) -> list[object]:
    return [event async for event in events]


async def test_cancels_at_random_moments_leave_nothing() -> None:
    rng = random.Random(11)
    async with serving(FakeStages(FakeDenoiser(CONFIG, delay_s=0.001)), max_sessions=4, max_waiting=100) as served:
        tasks_before = len(asyncio.all_tasks())

        async def once() -> None:
            task = asyncio.create_task(run(served, rng.choice(("Generate", "Stream", "Live"))))
            await asyncio.sleep(rng.uniform(0, 0.06))
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        for _ in range(8):
            await asyncio.gather(*(once() for _ in range(8)))

        await served.nothing_left()
        await eventually(lambda: len(asyncio.all_tasks()) <= tasks_before)
        assert all(served.metric("calls_total", rpc=rpc, outcome="internal") == 0 for rpc in ("Generate", "Stream", "Live"))
        await served.still_serves()


async def test_two_clients_do_not_disturb_each_other() -> None:
    async with serving() as served, HeadraceClient(served.address) as other:
        one = asyncio.create_task(_all(served.client.stream(PROMPT, seconds=3)))
        two = other.stream(PROMPT, seconds=3)
        await anext(two)
        await two.aclose()

        assert len(await one) == 11
        await served.nothing_left()

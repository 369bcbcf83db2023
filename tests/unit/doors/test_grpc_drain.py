"""A front door that is told to stop: who plays on, for how long, and what the others are told."""

import asyncio
import logging
from typing import Any

import grpc
import grpc.aio
import pytest

from headrace.client import ClientError, Unavailable
from headrace.v1 import video_pb2 as pb
from model_core.types import TextEmbedding
from tests.fakes import FakeDenoiser, FakeEncoder, FakeStages, eventually
from tests.served import Served, live_call, read_all, serving, stream_call

CONFIG = FakeStages().config
PROMPT = "a red circle"
GRACE_S = 20


def gated(gate: asyncio.Semaphore) -> FakeStages:
    return FakeStages(FakeDenoiser(CONFIG, gate=gate))


def streamed(channel: grpc.aio.Channel, seconds: float) -> Any:
    return stream_call(channel, pb.StreamRequest(spec=pb.VideoSpec(prompt=PROMPT, seconds=seconds), codec=pb.CODEC_RAW_RGB))


async def test_sessions_play_on_while_it_drains_and_end_with_their_last_frame() -> None:
    gate = asyncio.Semaphore(1)
    async with serving(gated(gate)) as served, grpc.aio.insecure_channel(served.address) as channel:
        call = streamed(channel, 1.0)
        assert (await call.read()).HasField("started")
        first = await call.read()
        draining = asyncio.create_task(served.server.drain(grace_s=GRACE_S))
        for _ in range(20):
            await asyncio.sleep(0)  # it does not wait for anything before it refuses
        with pytest.raises(Unavailable):
            await served.client.generate(PROMPT, seconds=0.5)
        for _ in range(10):
            gate.release()
        events = [first, *await read_all(call)]
        assert sum(event.frames.frame_count for event in events) == 24
        assert events[-1].ended.reason == pb.END_REASON_COMPLETED
        await draining
        await served.nothing_left()


async def test_who_waits_or_pauses_is_told_at_once_and_a_generate_that_runs_is_finished() -> None:
    gate = asyncio.Semaphore(1)
    async with serving(gated(gate), max_sessions=2) as served, grpc.aio.insecure_channel(served.address) as channel:
        paused = live_call(channel)
        await paused.write(pb.LiveRequest(start=pb.LiveStart(spec=pb.VideoSpec(prompt=PROMPT))))
        await paused.write(pb.LiveRequest(pause=pb.Pause()))
        event = await paused.read()
        while not event.HasField("paused"):
            event = await paused.read()
        generated = asyncio.create_task(served.client.generate(PROMPT, seconds=0.5))
        await eventually(lambda: served.desk.statistics().live == 2)
        waiting = asyncio.create_task(served.client.generate(PROMPT, seconds=0.5))
        assert (await streamed(channel, 1.0).read()).HasField("queue_position")
        await eventually(lambda: served.desk.statistics().waiting == 2)

        draining = asyncio.create_task(served.server.drain(grace_s=GRACE_S))

        assert (await read_all(paused))[-1].ended.reason == pb.END_REASON_SERVER_DRAINING
        with pytest.raises(Unavailable) as refused:
            await waiting
        assert refused.value.retry_after_s == 2
        assert str(refused.value) == "the server is shutting down; another one will answer; try again in 2 s"
        assert not draining.done()
        for _ in range(4):
            gate.release()
        assert (await generated).ended.usage.frames_sent == 12
        await draining
        await served.nothing_left()


@pytest.mark.parametrize("chunks", [0, 1])
async def test_when_time_is_up_streams_end_in_order_and_a_generate_is_told_to_try_again(
    chunks: int, caplog: pytest.LogCaptureFixture
) -> None:
    gate = asyncio.Semaphore(2 * chunks)
    async with serving(gated(gate)) as served, grpc.aio.insecure_channel(served.address) as channel:
        call = streamed(channel, 3600)
        assert (await call.read()).HasField("started")
        generated = asyncio.create_task(served.client.generate(PROMPT, seconds=0.5))
        await eventually(lambda: served.stages.denoiser.statistics().open == 2 and served.stages.denoiser.statistics().chunks == 2 * chunks)

        with caplog.at_level(logging.ERROR):
            await drained(served, 0.5)

        assert (await read_all(call))[-1].ended.reason == pb.END_REASON_SERVER_DRAINING
        with pytest.raises(Unavailable, match="the server is shutting down") as refused:
            await generated
        assert refused.value.retry_after_s
        assert not caplog.records
        await served.nothing_left()


async def drained(served: Served, grace_s: float) -> None:
    async with asyncio.timeout(20):
        await served.server.drain(grace_s=grace_s)


class SlowEncoder(FakeEncoder):
    """Answers when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.may_answer = asyncio.Event()

    async def encode(self, prompt: str, numerics: str = "") -> TextEmbedding:
        embedding = await super().encode(prompt, numerics)
        await self.may_answer.wait()
        return embedding


async def test_a_generate_that_had_a_slot_when_the_drain_began_is_made() -> None:
    """Its prompt is being embedded; nothing of it has been made."""
    encoder = SlowEncoder()
    async with serving(FakeStages(encoder=encoder)) as served:
        call = asyncio.create_task(served.client.generate(PROMPT, seconds=0.5))
        await eventually(lambda: encoder.calls == 1)
        draining = asyncio.create_task(served.server.drain(grace_s=GRACE_S))
        for _ in range(20):
            await asyncio.sleep(0)
        encoder.may_answer.set()
        assert (await call).ended.usage.frames_sent == 12
        await draining
        await served.nothing_left()


async def test_when_time_is_up_a_call_whose_prompt_is_not_embedded_yet_is_told_to_try_again() -> None:
    encoder = SlowEncoder()
    async with serving(FakeStages(encoder=encoder)) as served:
        call = asyncio.create_task(served.client.generate(PROMPT, seconds=0.5))
        await eventually(lambda: encoder.calls == 1)
        await drained(served, 1.0)
        with pytest.raises(Unavailable, match="the server is shutting down") as refused:
            await call
        assert refused.value.retry_after_s
        await served.nothing_left()


async def test_drain_is_bounded_by_its_grace() -> None:
    async with serving(gated(asyncio.Semaphore(0))) as served:
        stuck = asyncio.create_task(served.client.generate(PROMPT, seconds=60))
        await eventually(lambda: served.desk.statistics().live == 1)
        async with asyncio.timeout(20):
            # Twice at once, as two signals would.
            await asyncio.gather(served.server.drain(grace_s=0.2), served.server.drain(grace_s=0))
        with pytest.raises(ClientError):
            await stuck
        await served.nothing_left()

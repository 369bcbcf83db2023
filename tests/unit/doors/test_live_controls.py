"""Controls of a Live while the text encoder is away: what needs none overtakes what does."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator

import grpc.aio
import pytest

from headrace.live import LiveEvent
from headrace.v1 import video_pb2 as pb
from model_core.types import TextEmbedding
from service.checks import Limits
from tests.fakes import FakeEncoder, FakeStages
from tests.served import live_call, read_all, serving

TIMEOUT_S = 200.0  # only bounds a failing test


class Away(FakeEncoder):
    """There for the first prompt; the next ones wait until it is `back`."""

    def __init__(self) -> None:
        super().__init__()
        self.back = asyncio.Event()
        self.asked: list[str] = []

    async def encode(self, prompt: str, numerics: str = "") -> TextEmbedding:
        self.asked.append(prompt)
        if len(self.asked) > 1:
            await self.back.wait()
        return await super().encode(prompt, numerics)


async def until(events: AsyncIterator[LiveEvent], kind: type) -> list[object]:
    """Events up to the first of that kind; frames are left out."""
    seen = list[object]()
    async with asyncio.timeout(TIMEOUT_S):
        while True:
            event = await anext(events)
            if not isinstance(event, pb.Frames | pb.UsageTick):
                seen.append(event)
            if isinstance(event, kind):
                return seen


async def test_pause_resume_and_stop_overtake_a_prompt_that_waits_for_the_text_encoder() -> None:
    encoder = Away()
    async with serving(FakeStages(encoder=encoder)) as served, served.client.live("a red circle", max_lead_s=30.0) as session:
        events = aiter(session)
        await until(events, pb.Frames)
        await session.set_prompt("a blue square")
        await session.pause()
        await until(events, pb.Paused)
        await session.resume()
        seen = await until(events, pb.Resumed)
        assert not any(isinstance(event, pb.PromptAck | pb.PromptRefused) for event in seen)
        encoder.back.set()
        assert [event.prompt for event in await until(events, pb.PromptAck) if isinstance(event, pb.PromptAck)] == ["a blue square"]
        encoder.back.clear()
        await session.set_prompt("a green star")
        await session.stop()
        (*_, ended) = await until(events, pb.Ended)
        assert isinstance(ended, pb.Ended)
        assert ended.reason == pb.END_REASON_STOPPED
        await served.nothing_left()


async def test_prompts_beyond_what_may_wait_refuse_the_oldest_and_hold_up_no_stop() -> None:
    encoder = Away()
    limits = Limits(max_unanswered_controls=3)
    async with (
        serving(FakeStages(encoder=encoder), limits=limits) as served,
        served.client.live("a red circle", max_lead_s=30.0) as session,
    ):
        events = aiter(session)
        await until(events, pb.Frames)
        for number in range(1, 8):
            await session.set_prompt(f"prompt {number}")
        await session.pause()
        seen = await until(events, pb.Paused)
        refused = [event for event in seen if isinstance(event, pb.PromptRefused)]
        assert [event.request_id for event in refused] == [2, 3, 4, 5, 6]
        assert refused[0].message == "more controls came than may wait; this prompt was the oldest that waited for the text encoder"
        encoder.back.set()
        acks = [event for event in await until(events, pb.PromptAck) if isinstance(event, pb.PromptAck)]
        acks += [event for event in await until(events, pb.PromptAck) if isinstance(event, pb.PromptAck)]
        assert [ack.request_id for ack in acks] == [1, 7]
        await session.stop()
        await until(events, pb.Ended)
        await served.nothing_left()


@pytest.mark.filterwarnings("always::RuntimeWarning")
async def test_a_live_that_ends_as_it_starts_leaves_no_helper_unstarted(recwarn: pytest.WarningsRecorder) -> None:
    for _ in range(3):
        async with serving() as served, grpc.aio.insecure_channel(served.address) as channel:
            call = live_call(channel)
            await call.write(pb.LiveRequest(start=pb.LiveStart(spec=pb.VideoSpec(prompt="a red circle"))))
            await call.write(pb.LiveRequest(stop=pb.Stop()))
            assert (await read_all(call))[-1].HasField("ended")
            await served.nothing_left()
    gc.collect()
    assert [str(told.message) for told in recwarn if "never awaited" in str(told.message)] == []

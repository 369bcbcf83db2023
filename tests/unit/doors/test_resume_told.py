"""What a caller says it was told before it resumes is checked like any other field: it may be forged, and it joins the log."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import grpc.aio
import pytest

from headrace.v1 import video_pb2 as pb
from model_core.session_log import SessionRecord
from tests.fakes import FakeDenoiser, FakeStages, eventually
from tests.served import Served, details_of, live_call, serving
from tests.stores import FakeStore

CONFIG = FakeStages().config
PER_CHUNK = CONFIG.frames_per_chunk
KEEP = 6
MADE = 12  # chunks: more than the log holds
FIRST = (MADE - KEEP) * PER_CHUNK  # the first frame that can be made anew
LONGEST = CONFIG.max_prompt_tokens
PROMPT, OTHER = "a red circle", "a blue square"


@asynccontextmanager
async def left() -> AsyncGenerator[tuple[Served, str], None]:
    """A Live that made `MADE` chunks and lost its connection: the server, and the session's token."""
    store = FakeStore()
    gate = asyncio.Semaphore(MADE)
    async with serving(FakeStages(FakeDenoiser(CONFIG, gate=gate), keep_chunks=KEEP), store=store) as served:
        async with grpc.aio.insecure_channel(served.address) as channel:
            call = live_call(channel)
            spec = pb.VideoSpec(prompt=PROMPT, seconds=60, seed=3)
            await call.write(pb.LiveRequest(start=pb.LiveStart(spec=spec, codec=pb.CODEC_RAW_RGB, max_lead_seconds=30)))
            token = (await call.read()).started.resume_token
            for _ in range(MADE):
                await call.read()
            await eventually(lambda: SessionRecord.from_bytes(store.puts[-1]).next_chunk == MADE)
            call.cancel()
        await served.nothing_left()
        for _ in range(MADE):
            gate.release()
        yield served, token


async def resuming(channel: grpc.aio.Channel, token: str, next_frame: int, ack: pb.PromptAck) -> Any:
    call = live_call(channel)
    resume = pb.SessionResume(token=token, next_frame=next_frame, acknowledged=[ack])
    await call.write(pb.LiveRequest(start=pb.LiveStart(resume=resume, max_lead_seconds=30)))
    return call


@pytest.mark.parametrize(
    ("ack", "field", "sentence"),
    [
        (
            pb.PromptAck(prompt=OTHER, first_frame=FIRST - PER_CHUNK, change=1),
            "start.resume.acknowledged.first_frame",
            f"must be at least {FIRST} where the change is newer than the record's; got {FIRST - PER_CHUNK}",
        ),
        (
            pb.PromptAck(prompt=OTHER, first_frame=FIRST, change=2**64 - 1),
            "start.resume.acknowledged.change",
            f"must be at most 4294967295; got {2**64 - 1}",
        ),
        (
            pb.PromptAck(prompt="word " * (LONGEST + 1), first_frame=FIRST, change=1),
            "start.resume.acknowledged.prompt",
            f"must be at most {LONGEST} tokens, with those that model {CONFIG.name} adds; got {LONGEST + 1}",
        ),
    ],
)
async def test_an_acknowledgement_that_no_server_can_have_given_is_refused(ack: pb.PromptAck, field: str, sentence: str) -> None:
    """A session would go on without the chunks that its next one is made from; or its next change could not be counted."""
    async with left() as (served, token), grpc.aio.insecure_channel(served.address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await (await resuming(channel, token, FIRST, ack)).read()
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert [(v.field, v.description) for v in details_of(caught.value)[0].field_violations] == [(field, sentence)]
        await served.nothing_left()


async def test_the_largest_change_that_may_be_told_can_be_followed_by_another() -> None:
    async with left() as (served, token), grpc.aio.insecure_channel(served.address) as channel:
        call = await resuming(channel, token, FIRST, pb.PromptAck(prompt=OTHER, first_frame=FIRST, change=2**32 - 1))
        await call.write(pb.LiveRequest(prompt=pb.PromptChange(prompt=PROMPT)))
        while not (event := await call.read()).HasField("prompt_ack"):
            pass
        assert event.prompt_ack.change == 2**32
        call.cancel()

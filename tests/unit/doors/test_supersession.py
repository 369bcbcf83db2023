"""A prompt that supersedes frames that were sent: acknowledged before they come again, and told again when that got lost."""

from __future__ import annotations

from typing import Any

import grpc.aio

from headrace.v1 import video_pb2 as pb
from model_core.session_log import SessionRecord
from tests.fakes import FakeDenoiser, FakeStages, eventually
from tests.served import live_call, read_all, serving
from tests.stores import FakeStore

CONFIG = FakeStages().config
PER_CHUNK = CONFIG.frames_per_chunk
CHUNKS = 10


def door(store: FakeStore) -> Any:
    return serving(FakeStages(FakeDenoiser(CONFIG, delay_s=0.1), keep_chunks=6), store=store)


def frames(events: list[Any]) -> list[bytes]:
    return [bytes(data) for event in events for data in event.frames.data]


async def resumed(address: str, token: str, next_frame: int) -> list[Any]:
    async with grpc.aio.insecure_channel(address) as channel:
        call = live_call(channel)
        await call.write(pb.LiveRequest(start=pb.LiveStart(resume=pb.SessionResume(token=token, next_frame=next_frame))))
        return await read_all(call)


async def test_a_prompt_supersedes_what_was_sent_and_an_acknowledgement_that_got_lost_is_given_again() -> None:
    store = FakeStore()
    async with door(store) as one, door(store) as two, grpc.aio.insecure_channel(one.address) as channel:
        spec = pb.VideoSpec(prompt="a red circle", seconds=CHUNKS * PER_CHUNK / CONFIG.fps, seed=3)
        call = live_call(channel)
        await call.write(pb.LiveRequest(start=pb.LiveStart(spec=spec, codec=pb.CODEC_RAW_RGB, max_lead_seconds=30)))
        token = (await call.read()).started.resume_token
        got = frames([await call.read() for _ in range(4)])
        change = pb.PromptChange(prompt="a blue square", request_id=4, replace_from=PER_CHUNK + 1)
        await call.write(pb.LiveRequest(prompt=change))
        ack = None
        while ack is None:
            event = await call.read()
            got += frames([event])
            ack = event.prompt_ack if event.HasField("prompt_ack") else None
        assert (ack.first_frame, ack.request_id, ack.change) == (2 * PER_CHUNK, 4, 1)
        again = await call.read()
        assert again.frames.first_frame == ack.first_frame
        await eventually(lambda: SessionRecord.from_bytes(store.puts[-1]).timeline[-1].change == 1)
        call.cancel()
        await one.nothing_left()
        unheard = await resumed(two.address, token, len(got))
        (told,) = [event.prompt_ack for event in unheard if event.HasField("prompt_ack")]
        assert told == ack
        assert unheard[-1].ended.usage.frames_sent == CHUNKS * PER_CHUNK
        rest = frames(unheard)
        assert len(rest) == (CHUNKS - 2) * PER_CHUNK
        assert rest[:PER_CHUNK] == list(again.frames.data)
        assert rest[0] != got[ack.first_frame]

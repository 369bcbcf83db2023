"""Enhanced sessions over gRPC: what is told of them is what comes, they go on with equal frames, and who cannot is named."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc.aio
import pytest

from headrace.client import BadRequest, Reconnect
from headrace.v1 import video_pb2 as pb
from tests.fakes import FakeDenoiser, FakeStages
from tests.served import Served, read_all, serving, stream_call

CONFIG = FakeStages().config
CHUNK = CONFIG.frames_per_chunk
BOTH = pb.Enhance(frames=2, size=2)
PROMPT = "a blue circle"


def stages(**more: Any) -> FakeStages:
    return FakeStages(enhances=True, **more)


async def events(served: Served, enhance: pb.Enhance | None = BOTH, **more: Any) -> list[Any]:
    stream = served.client.stream(PROMPT, seconds=2.0, seed=1, enhance=enhance, **more)
    return [event async for event in stream]


def shown(found: list[Any]) -> list[bytes]:
    return [bytes(data) for event in found if isinstance(event, pb.Frames) for data in event.data]


async def test_the_first_event_says_the_rate_and_size_of_what_comes_and_usage_what_was_rendered() -> None:
    async with serving(stages()) as served:
        found = await events(served)
        plain = await events(served, None)
        await served.nothing_left()
    started, ended = found[0], found[-1]
    assert (started.fps, started.width, started.height, started.frames_per_chunk) == (48, 128, 128, 2 * CHUNK)
    frames = shown(found)
    assert (len(frames), len(frames[0])) == (96, 128 * 128 * 3)
    assert [event.first_frame for event in found if isinstance(event, pb.Frames)] == list(range(0, 96, 2 * CHUNK))
    usage = ended.usage
    assert (usage.frames_sent, usage.video_seconds, usage.frames_rendered) == (96, 2.0, 48)
    assert (usage.pixels, usage.pixels_enhanced) == (48 * 64 * 64, 96 * 128 * 128)
    assert usage.enhance_seconds == pytest.approx(6 * 0.004)
    assert "enhancer" in [timing.stage for timing in found[1].timings]
    assert (plain[0].fps, plain[0].width, plain[-1].usage.pixels_enhanced, plain[-1].usage.frames_rendered) == (24, 64, 0, 0)


async def test_without_an_enhancer_it_is_refused_by_name_before_anything_is_made() -> None:
    async with serving() as served:
        with pytest.raises(BadRequest) as refused:
            await events(served)
        assert [violation.field for violation in refused.value.violations] == ["spec.enhance"]
        assert "nothing here enhances frames of model millrace-64; got frames 2, size 2" in str(refused.value)
        assert not (await served.client.list_models())[0].enhances
        await served.still_serves()


@pytest.mark.parametrize(("enhance", "field"), [(pb.Enhance(frames=3), "spec.enhance.frames"), (pb.Enhance(size=3), "spec.enhance.size")])
async def test_other_numbers_are_named_with_those_that_there_are(enhance: pb.Enhance, field: str) -> None:
    async with serving(stages()) as served:
        assert (await served.client.list_models())[0].enhances
        with pytest.raises(BadRequest) as refused:
            await events(served, enhance)
    (violation,) = refused.value.violations
    assert violation.field == field
    assert "must be one of 1, 2" in violation.description


async def test_a_stage_that_dies_is_made_up_for_with_equal_frames() -> None:
    async with serving(stages()) as served:
        whole = shown(await events(served))
    async with serving(stages(denoiser=FakeDenoiser(CONFIG, fail_after=(2, 1)))) as served:
        assert shown(await events(served)) == whole
        assert served.stages.enhancer is not None
        assert served.stages.enhancer.opened == 3


@pytest.mark.parametrize("next_frame", [0, 5, 2 * CHUNK, 3 * CHUNK + 1])
async def test_a_connection_that_breaks_goes_on_at_any_frame_with_equal_frames(next_frame: int) -> None:
    gate = asyncio.Semaphore(6 + 5)
    sources = stages(denoiser=FakeDenoiser(CONFIG, gate=gate), keep_chunks=8)
    async with serving(sources) as served, grpc.aio.insecure_channel(served.address) as channel:
        whole = shown(await events(served))
        call = stream_call(channel, _request())
        token = ""
        while not (message := await call.read()).frames.data or message.frames.first_frame < 4 * CHUNK:
            token = token or message.started.resume_token
        call.cancel()
        await served.nothing_left()
        for _ in range(16):
            gate.release()
        resumed = pb.StreamRequest(resume=pb.SessionResume(token=token, next_frame=next_frame))
        again = await read_all(stream_call(channel, resumed))
    started = again[0].started
    assert (started.fps, started.width) == (48, 128)
    rest = [bytes(data) for message in again if message.HasField("frames") for data in message.frames.data]
    assert rest == whole[next_frame:]


def _request() -> pb.StreamRequest:
    return pb.StreamRequest(spec=pb.VideoSpec(prompt=PROMPT, seconds=2.0, seed=1, enhance=BOTH), codec=pb.CODEC_RAW_RGB)


async def test_a_prompt_in_a_live_names_frames_as_they_are_shown() -> None:
    async with (
        serving(stages(keep_chunks=8)) as served,
        served.client.live(PROMPT, seed=1, seconds=4.0, enhance=BOTH, codec=pb.CODEC_RAW_RGB, reconnect=Reconnect()) as session,
    ):
        frames = 0
        acknowledged = None
        async for event in session:
            if isinstance(event, pb.Frames):
                assert event.first_frame == frames
                if frames == 0:
                    await session.set_prompt("a green square")
                frames += event.frame_count
            if isinstance(event, pb.PromptAck):
                acknowledged = event.first_frame
        assert frames == 4 * 48
        assert acknowledged is not None
        assert acknowledged % (2 * CHUNK) == 0

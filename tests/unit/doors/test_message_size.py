"""No message is larger than its caller takes, and a client that is told nothing of sizes gets every chunk."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest

from doors.wire.message_size import DEFAULT_BYTES, MIN_BYTES, check_file, media_bytes, parts
from headrace.reconnect import Arrived
from headrace.v1 import video_pb2 as pb
from model_core.config import ModelConfig
from model_core.errors import InvalidRequest
from model_core.media import FileBound, Mp4Writer
from tests.fakes import FakeDenoiser, FakeStages
from tests.served import details_of, live_call, raw_call, read_all, serving, stream_call

CONFIG = FakeStages().config
PER_CHUNK = CONFIG.frames_per_chunk
TIMING = pb.StageTiming(stage="decoder", service_seconds=1.0)


def sized(size: int) -> ModelConfig:
    """The model with frames of `size` x `size`."""
    return replace(CONFIG, height=size, width=size)


def chunk(codec: pb.Codec, sizes: list[int], count: int | None = None) -> pb.Frames:
    data = [bytes([index % 256]) * size for index, size in enumerate(sizes)]
    return pb.Frames(chunk_index=3, first_frame=36, frame_count=count or len(sizes), codec=codec, data=data, timings=[TIMING])


def test_what_fits_is_left_as_it_is() -> None:
    whole = chunk(pb.CODEC_RAW_RGB, [1000] * 12)

    assert list(parts(whole, MIN_BYTES)) == [whole]


@pytest.mark.parametrize("sizes", [[20_000] * 12, [61_431], [61_432] * 2, [50_000, 1, 50_000, 10_000, 60_000], [1] * 30_000])
def test_frames_are_put_together_as_many_as_fit(sizes: list[int]) -> None:
    whole = chunk(pb.CODEC_JPEG, sizes)
    cut = list(parts(whole, MIN_BYTES))

    assert [item for part in cut for item in part.data] == list(whole.data)
    assert all(pb.StreamResponse(frames=part).ByteSize() <= MIN_BYTES for part in cut)
    assert [(part.chunk_index, part.codec) for part in cut] == [(3, pb.CODEC_JPEG)] * len(cut)
    assert [part.first_frame for part in cut] == [36 + sum(len(p.data) for p in cut[:i]) for i in range(len(cut))]
    assert [part.frame_count for part in cut] == [len(part.data) for part in cut]
    assert [len(part.timings) for part in cut] == [1] + [0] * (len(cut) - 1)


def test_a_fragment_comes_in_pieces_and_counts_with_its_last() -> None:
    whole = chunk(pb.CODEC_FMP4_H264, [200_001], count=12)
    cut = list(parts(whole, MIN_BYTES))

    assert len(cut) > 1
    assert b"".join(item for part in cut for item in part.data) == whole.data[0]
    assert all(pb.LiveResponse(frames=part).ByteSize() <= MIN_BYTES for part in cut)
    assert [part.frame_count for part in cut] == [0] * (len(cut) - 1) + [12]
    assert {part.first_frame for part in cut} == {36}


def test_a_client_that_lost_a_fragment_half_way_asks_for_it_again() -> None:
    arrived = Arrived()
    arrived.news(pb.Started(resume_token="t"))  # noqa: S106 - no secret
    cut = list(parts(chunk(pb.CODEC_FMP4_H264, [200_001], count=12), MIN_BYTES))
    for part in cut[:-1]:
        arrived.news(part)
    assert arrived.resume().next_frame == 36
    arrived.news(cut[-1])
    assert arrived.resume().next_frame == 48


def test_a_frame_that_fits_into_no_message_is_named() -> None:
    with pytest.raises(InvalidRequest, match=r"start.max_message_bytes: must be at least \d+ for frame 37 as CODEC_JPEG; got 65536"):
        list(parts(chunk(pb.CODEC_JPEG, [10, 100_000]), MIN_BYTES, "start."))


def test_a_file_that_fits_into_no_message_is_refused_with_a_way_out() -> None:
    check_file(media_bytes(MIN_BYTES), MIN_BYTES)
    with pytest.raises(InvalidRequest, match=r"max_message_bytes: .* Stream with CODEC_FMP4_H264; got 65536"):
        check_file(media_bytes(MIN_BYTES) + 1, MIN_BYTES)


@pytest.mark.parametrize("kind", ["noise", "still"])
def test_a_file_is_coded_to_fit(tmp_path: Path, kind: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (24, 64, 64, 3), np.uint8)
    frames = noise if kind == "noise" else np.zeros_like(noise)
    sizes = []
    for bound in (None, FileBound(16_384, len(frames))):
        path = tmp_path / f"{bound is None}.mp4"
        writer = Mp4Writer(path, 24, bound)
        writer.write(frames)
        writer.close()
        sizes.append(path.stat().st_size)

    assert sizes[1] <= 16_384
    assert (sizes[0] > 16_384) == (kind == "noise")


def test_a_file_that_cannot_be_too_large_is_coded_as_ever() -> None:
    assert FileBound(DEFAULT_BYTES, 48).options(64, 64, 24) == {}


async def test_a_stock_client_gets_raw_chunks_that_are_larger_than_it_takes() -> None:
    """448 x 448 x 3 bytes x 8 frames are 4.8 MB; gRPC's own limit is 4.2 MB."""
    stages = FakeStages(config=sized(448))
    async with serving(stages) as served, grpc.aio.insecure_channel(served.address) as channel:
        request = pb.StreamRequest(spec=pb.VideoSpec(prompt="a red circle", seconds=0.5), codec=pb.CODEC_RAW_RGB)
        messages = await read_all(stream_call(channel, request))
        frames = [m.frames for m in messages if m.HasField("frames")]

        assert len(frames) > 2
        assert [f.first_frame for f in frames] == [sum(g.frame_count for g in frames[:i]) for i in range(len(frames))]
        assert {len(item) for f in frames for item in f.data} == {448 * 448 * 3}
        assert max(m.ByteSize() for m in messages) <= DEFAULT_BYTES
        assert messages[-1].ended.usage.frames_sent == sum(f.frame_count for f in frames) == 12

        request.max_message_bytes = 5_000_000
        async with grpc.aio.insecure_channel(served.address, options=[("grpc.max_receive_message_length", 5_000_000)]) as wide:
            whole = [m.frames for m in await read_all(stream_call(wide, request)) if m.HasField("frames")]
        assert [f.frame_count for f in whole] == [PER_CHUNK, 12 - PER_CHUNK]
        assert [i for f in whole for i in f.data] == [i for f in frames for i in f.data]
        await served.nothing_left()


async def test_a_session_that_broke_within_a_chunk_goes_on_with_the_very_next_frame() -> None:
    stages = FakeStages(FakeDenoiser(sized(160)), keep_chunks=6, config=sized(160))
    spec = pb.VideoSpec(prompt="a red circle", seconds=1.0, seed=3)
    request = pb.StreamRequest(spec=spec, codec=pb.CODEC_RAW_RGB, max_message_bytes=200_000)
    async with serving(stages) as served:
        async with grpc.aio.insecure_channel(served.address) as channel:
            call = stream_call(channel, request)
            token = (await call.read()).started.resume_token
            got = (await call.read()).frames
            call.cancel()
        await served.nothing_left()
        assert 0 < got.frame_count < PER_CHUNK

        async with grpc.aio.insecure_channel(served.address) as channel:
            resume = pb.SessionResume(token=token, next_frame=got.frame_count)
            rest = [m.frames for m in await read_all(stream_call(channel, pb.StreamRequest(resume=resume))) if m.HasField("frames")]
            again = await read_all(stream_call(channel, request))
    whole = [bytes(item) for m in again for item in m.frames.data]
    assert rest[0].first_frame == got.frame_count
    assert [*got.data, *(item for f in rest for item in f.data)] == whole


@pytest.mark.parametrize("method", ["Stream", "Live"])
async def test_a_raw_frame_that_no_message_holds_is_refused_before_any_work(method: str) -> None:
    stages = FakeStages(config=sized(352))
    async with serving(stages) as served:
        limit = 300_000
        spec = pb.VideoSpec(prompt="a red circle", seconds=1.0)
        if method == "Stream":
            data = pb.StreamRequest(spec=spec, codec=pb.CODEC_RAW_RGB, max_message_bytes=limit).SerializeToString()
        else:
            start = pb.LiveStart(spec=spec, codec=pb.CODEC_RAW_RGB, max_message_bytes=limit)
            data = pb.LiveRequest(start=start).SerializeToString()
        error: Any = await raw_call(served, method, data)

        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        ((violation,),) = [bad.field_violations for bad in details_of(error)]
        assert violation.field == ("max_message_bytes" if method == "Stream" else "start.max_message_bytes")
        assert all(part in violation.description for part in ("352x352", "375816", "CODEC_FMP4_H264", "got 300000"))
        assert stages.encoder.calls == 0
        await served.nothing_left()


async def test_a_resume_on_a_connection_that_takes_too_little_is_refused_and_takes_nothing() -> None:
    stages = FakeStages(FakeDenoiser(sized(352), gate=(gate := asyncio.Semaphore(1))), keep_chunks=6, config=sized(352))
    async with serving(stages) as served, grpc.aio.insecure_channel(served.address) as channel:
        spec = pb.VideoSpec(prompt="a red circle", seconds=1.0)
        call = stream_call(channel, pb.StreamRequest(spec=spec, codec=pb.CODEC_RAW_RGB))
        token = (await call.read()).started.resume_token
        await call.read()
        resume = pb.StreamRequest(resume=pb.SessionResume(token=token), max_message_bytes=300_000)
        error: Any = await raw_call(served, "Stream", resume.SerializeToString())

        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert [v.field for bad in details_of(error) for v in bad.field_violations] == ["max_message_bytes"]
        gate.release()
        gate.release()
        assert (await read_all(call))[-1].HasField("ended")  # its holder kept it


@pytest.mark.parametrize("method", ["Generate", "Stream", "Live"])
async def test_a_limit_that_nothing_fits_into_is_named(method: str) -> None:
    spec = pb.VideoSpec(prompt="a red circle", seconds=1.0)
    request: Any = {
        "Generate": pb.GenerateRequest(spec=spec, max_message_bytes=100),
        "Stream": pb.StreamRequest(spec=spec, max_message_bytes=100),
        "Live": pb.LiveRequest(start=pb.LiveStart(spec=spec, max_message_bytes=100)),
    }[method]
    async with serving() as served:
        error: Any = await raw_call(served, method, request.SerializeToString())
        assert [v.description for bad in details_of(error) for v in bad.field_violations] == [
            "must be at least 65536, or 0 for 4194304; got 100"
        ]


async def test_generate_answers_within_what_its_caller_takes() -> None:
    async with serving() as served, grpc.aio.insecure_channel(served.address) as channel:
        generate: Any = channel.unary_unary(
            "/headrace.v1.VideoService/Generate", pb.GenerateRequest.SerializeToString, pb.GenerateResponse.FromString
        )
        spec = pb.VideoSpec(prompt="a red circle", seconds=30.0)
        roomy, tight = (
            await generate(pb.GenerateRequest(spec=spec)),
            await generate(pb.GenerateRequest(spec=spec, max_message_bytes=MIN_BYTES)),
        )

        assert roomy.ByteSize() > MIN_BYTES >= tight.ByteSize()
        assert tight.ended.usage.frames_sent == 720


async def test_live_controls_hold_when_chunks_come_in_parts() -> None:
    stages = FakeStages(FakeDenoiser(sized(160), gate=(gate := asyncio.Semaphore(2))), config=sized(160))
    async with serving(stages) as served, grpc.aio.insecure_channel(served.address) as channel:
        call = live_call(channel)
        start = pb.LiveStart(
            spec=pb.VideoSpec(prompt="a red circle", seconds=3.0), codec=pb.CODEC_RAW_RGB, max_lead_seconds=30, max_message_bytes=200_000
        )
        await call.write(pb.LiveRequest(start=start))
        assert (await call.read()).HasField("started")
        await call.write(pb.LiveRequest(prompt=pb.PromptChange(prompt="a blue square", request_id=7)))
        for _ in range(40):
            gate.release()
        messages = await read_all(call)

        (at,) = [index for index, m in enumerate(messages) if m.HasField("prompt_ack")]
        before, after = ([m.frames for m in part if m.HasField("frames")] for part in (messages[:at], messages[at:]))
        first = messages[at].prompt_ack.first_frame
        assert first % PER_CHUNK == 0
        assert sum(f.frame_count for f in before) == first == after[0].first_frame
        assert messages[-1].ended.usage.frames_sent == 72

"""The RPCs, as a client sees them, over the real server and fake stages."""

import asyncio
import io
from contextlib import aclosing

import av
import pytest

from headrace.client import LiveEvent, StreamEvent
from headrace.v1 import video_pb2 as pb
from model_core.pipeline import SessionRequest
from model_core.types import Codec, FrameChunk
from tests.fakes import FakeDenoiser, FakeEncoder, FakeStages, ManualClock, eventually
from tests.served import SEED, serving

PROMPT = "a red circle"


async def expected_frames(frames: int, prompt: str = PROMPT, seed: int = SEED) -> list[bytes]:
    session = await FakeStages().pipeline.open(SessionRequest("x", prompt, seed, 4, frames, Codec.RAW_RGB))
    async with aclosing(session.events()) as events:
        return [data async for chunk in events if isinstance(chunk, FrameChunk) for data in chunk.data]


def frames_in(events: list[StreamEvent] | list[LiveEvent]) -> list[bytes]:
    return [data for event in events if isinstance(event, pb.Frames) for data in event.data]


def video_of(mp4: bytes) -> list[av.VideoFrame]:
    with av.open(io.BytesIO(mp4), "r") as container:
        return list(container.decode(video=0))


async def test_stream_gives_started_then_the_pipeline_s_frames_then_ended() -> None:
    async with serving() as served:
        events = [event async for event in served.client.stream(PROMPT, seconds=1.5)]

        assert isinstance(events[0], pb.Started)
        assert len(events[0].resume_token) >= 22  # 128 random bits
        assert len(events[0].watch_token) >= 22
        assert events[0].watch_token != events[0].resume_token
        events[0].resume_token = events[0].watch_token = ""
        assert events[0] == pb.Started(
            session_id="id-1",
            model="millrace-64",
            seed=SEED,
            width=64,
            height=64,
            fps=24,
            frames_per_chunk=8,
            steps=4,
            codec=pb.CODEC_RAW_RGB,
        )
        frames = [event for event in events if isinstance(event, pb.Frames)]
        assert [(f.chunk_index, f.first_frame, f.frame_count) for f in frames] == [(0, 0, 8), (1, 8, 8), (2, 16, 8), (3, 24, 8), (4, 32, 4)]
        assert frames_in(events) == await expected_frames(36)
        assert [t.stage for t in frames[0].timings] == ["text_encoder", "denoiser", "decoder"]
        assert [t.stage for t in frames[1].timings] == ["denoiser", "decoder"]
        ended = events[-1]
        assert isinstance(ended, pb.Ended)
        assert ended.reason == pb.END_REASON_COMPLETED
        assert (ended.usage.frames_sent, ended.usage.video_seconds) == (36, 1.5)
        assert ended.usage.denoise_seconds == pytest.approx(5 * 0.015)
        assert ended.usage.decode_seconds == pytest.approx(5 * 0.008)
        await served.nothing_left()


async def test_an_explicit_seed_is_kept_and_gives_other_frames() -> None:
    async with serving() as served:
        events = [event async for event in served.client.stream(PROMPT, seconds=0.5, seed=99)]

        assert frames_in(events) == await expected_frames(12, seed=99)
        assert isinstance(events[0], pb.Started)
        assert events[0].seed == 99


async def test_unspecified_codec_is_jpeg_and_told_as_such() -> None:
    async with serving() as served:
        events = [event async for event in served.client.stream(PROMPT, seconds=0.5, codec=pb.CODEC_UNSPECIFIED)]

        assert isinstance(events[0], pb.Started)
        assert events[0].codec == pb.CODEC_JPEG
        assert all(data.startswith(b"\xff\xd8") for data in frames_in(events))
        assert len(frames_in(events)) == 12


async def test_fragments_follow_the_header_in_started_and_play() -> None:
    async with serving() as served:
        events = [event async for event in served.client.stream(PROMPT, seconds=1, codec=pb.CODEC_FMP4_H264)]

        assert isinstance(events[0], pb.Started)
        assert len(video_of(events[0].codec_header + b"".join(frames_in(events)))) == 24


async def test_generate_gives_a_finished_mp4() -> None:
    async with serving() as served:
        response = await served.client.generate(PROMPT, seconds=1.25)

        video = video_of(response.mp4)
        assert (len(video), video[0].width, video[0].height) == (30, 64, 64)
        assert (response.started.seed, response.started.codec) == (SEED, pb.CODEC_RAW_RGB)
        assert response.ended.usage.frames_sent == 30
        assert response.ended.usage.denoise_seconds == pytest.approx(4 * 0.015)
        await served.nothing_left()


async def test_list_models_tells_the_limits() -> None:
    async with serving() as served:
        (model,) = await served.client.list_models()

        assert (model.name, model.default_model, model.fps, model.frames_per_chunk) == ("millrace-64", True, 24, 8)
        assert [(size.width, size.height) for size in model.sizes] == [(64, 64)]
        assert (model.max_prompt_bytes, model.max_generate_seconds, model.max_stream_seconds) == (4096, 60, 3600)
        assert list(model.codecs) == [pb.CODEC_RAW_RGB, pb.CODEC_JPEG, pb.CODEC_FMP4_H264]


async def test_live_switches_the_prompt_at_the_acknowledged_frame() -> None:
    async with serving() as served, served.client.live(PROMPT, seconds=2) as session:
        events: list[LiveEvent] = []
        async for event in session:
            events.append(event)
            if isinstance(event, pb.Frames) and event.chunk_index == 1:
                request_id = await session.set_prompt("a blue square")

        (ack,) = [event for event in events if isinstance(event, pb.PromptAck)]
        assert (ack.prompt, ack.request_id) == ("a blue square", request_id)
        after = [event for event in events[events.index(ack) :] if isinstance(event, pb.Frames)]
        assert after[0].first_frame == ack.first_frame
        old = await expected_frames(48)
        assert frames_in(events)[: ack.first_frame] == old[: ack.first_frame]
        assert all(new != was for new, was in zip(frames_in(events)[ack.first_frame :], old[ack.first_frame :], strict=True))
        assert isinstance(events[-1], pb.Ended)
        assert events[-1].reason == pb.END_REASON_COMPLETED
        await eventually(lambda: served.metric("prompt_switch_seconds_count") == 1)


async def test_live_pause_frees_the_stages_and_resume_continues_the_same_frames() -> None:
    async with serving() as served, served.client.live(PROMPT, seconds=2) as session:
        events: list[LiveEvent] = []
        async for event in session:
            events.append(event)
            if isinstance(event, pb.Frames) and event.chunk_index == 1:
                await session.pause()
            if isinstance(event, pb.Paused):
                await eventually(lambda: served.stages.open_streams == 0)
                await session.resume()

        kinds = [type(event).__name__ for event in events]
        assert kinds.index("Paused") + 1 == kinds.index("Resumed")
        assert frames_in(events) == await expected_frames(48)


async def test_live_runs_until_stopped() -> None:
    async with serving() as served, served.client.live(PROMPT) as session:
        last: LiveEvent | None = None
        async for event in session:
            last = event
            if isinstance(event, pb.Frames) and event.chunk_index == 3:
                await session.stop()

        assert isinstance(last, pb.Ended)
        assert last.reason == pb.END_REASON_STOPPED
        assert last.usage.frames_sent >= 32
        await served.nothing_left()
        assert served.metric("calls_total", rpc="Live", outcome="stopped") == 1


async def test_live_is_paced_on_the_media_timeline() -> None:
    clock = ManualClock()
    async with serving(clock=clock) as served, served.client.live(PROMPT, seconds=10, max_lead_s=0.5) as session:
        chunks: list[int] = []

        async def read() -> None:
            async for event in session:
                if isinstance(event, pb.Frames):
                    chunks.append(event.chunk_index)  # noqa: PERF401 - looked at while it runs

        reading = asyncio.create_task(read())
        # With half a second of lead, chunk k (one third of a second each) may leave at k/3 - 1/2.
        for now_s, leave in ((0.0, 2), (0.1, 2), (0.2, 3), (0.6, 4), (1.0, 5)):
            await clock.advance(now_s - clock.now())
            await eventually(lambda leave=leave: len(chunks) >= leave)  # type: ignore[misc]
            await eventually(lambda: clock.sleepers == 2)  # the pacer and the usage ticks: nothing more is coming
            assert len(chunks) == leave
        await session.stop()
        await reading


async def test_a_control_does_not_wait_for_pacing() -> None:
    clock = ManualClock()
    async with serving(clock=clock) as served, served.client.live(PROMPT, max_lead_s=0.5) as session:
        seen: list[str] = []
        async for event in session:
            seen.append(type(event).__name__)
            if isinstance(event, pb.Frames) and event.chunk_index == 1:
                await session.set_prompt("a blue square")
            if isinstance(event, pb.PromptAck):
                await session.stop()

        assert seen[-2:] == ["PromptAck", "Ended"]


async def test_live_tells_its_usage_each_second_but_not_while_paused() -> None:
    clock = ManualClock()
    async with serving(clock=clock) as served, served.client.live(PROMPT, max_lead_s=1 / 3) as session:
        usage: list[pb.UsageTick] = []
        kinds: list[str] = []

        async def read() -> None:
            async for event in session:
                kinds.append(type(event).__name__)
                if isinstance(event, pb.UsageTick):
                    usage.append(event)

        reading = asyncio.create_task(read())
        await eventually(lambda: kinds.count("Frames") == 2)
        for ticks in (1, 2):
            await eventually(lambda: clock.wakes_in(1.0))  # the client may have the last tick before its writer sleeps again
            await clock.advance(1.0)
            await eventually(lambda ticks=ticks: len(usage) == ticks)  # type: ignore[misc]
        await session.pause()
        await eventually(lambda: "Paused" in kinds)
        await clock.advance(5.0)
        await session.resume()
        await eventually(lambda: "Resumed" in kinds)
        assert len(usage) == 2
        await eventually(lambda: clock.wakes_in(1.0))
        await clock.advance(1.0)
        await eventually(lambda: len(usage) == 3)
        await session.stop()
        await reading

        assert [u.frames_sent for u in usage] == sorted(u.frames_sent for u in usage)
        assert usage[0].frames_sent >= 16
        assert usage[0].video_seconds == usage[0].frames_sent / 24


async def test_every_control_is_answered_in_order() -> None:
    async with serving(FakeStages(FakeDenoiser(FakeStages().config, gate=asyncio.Semaphore(1)))) as served:
        async with served.client.live(PROMPT) as session:
            seen: list[str] = []
            async for event in session:
                seen.append(type(event).__name__)
                if isinstance(event, pb.Frames):
                    await session.pause()
                    await session.set_prompt("one")
                    await session.pause()
                    await session.resume()
                if isinstance(event, pb.Resumed):
                    await session.stop()

        assert seen == ["Started", "Frames", "Paused", "PromptAck", "Paused", "Resumed", "Ended"]


async def test_a_dead_stage_is_not_seen_by_the_client() -> None:
    stages = FakeStages()
    stages = FakeStages(FakeDenoiser(stages.config, fail_after=(2, 0, 1)))
    async with serving(stages) as served:
        events = [event async for event in served.client.stream(PROMPT, seconds=2)]

        assert frames_in(events) == await expected_frames(48)


async def test_a_prompt_change_survives_a_dead_encoder() -> None:
    encoder = FakeEncoder()
    async with serving(FakeStages(encoder=encoder)) as served, served.client.live(PROMPT) as session:
        acks = 0
        async for event in session:
            if isinstance(event, pb.Frames) and event.chunk_index == 0:
                encoder.unavailable = 2
                await session.set_prompt("a blue square")
            if isinstance(event, pb.PromptAck):
                acks += 1
                await session.stop()

        assert acks == 1


async def test_metrics_tell_first_frames_chunks_stages_and_outcomes() -> None:
    async with serving() as served:
        await served.still_serves()
        _ = [event async for event in served.client.stream(PROMPT, seconds=1, max_lead_s=5)]
        await served.nothing_left()

        assert served.metric("ttff_seconds_count") == 2
        assert served.metric("ttff_seconds_bucket", le="1.0") == 2
        assert served.metric("chunk_latency_seconds_count") == 4
        assert served.metric("chunk_latency_seconds_sum") == pytest.approx(4 * 0.043)
        assert served.metric("chunk_lateness_seconds_bucket", le="0.0") <= served.metric("chunk_lateness_seconds_count") == 3
        assert served.metric("stage_service_seconds_sum", stage="denoiser") == pytest.approx(4 * 0.030)
        assert served.metric("stage_queue_seconds_sum", stage="decoder") == pytest.approx(4 * 0.001)
        assert served.metric("stage_service_seconds_count", stage="text_encoder") == 2
        assert served.metric("frames_total", codec="raw") == 26
        assert served.metric("calls_total", rpc="Stream", outcome="completed") == 2

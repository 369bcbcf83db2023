"""Whatever a caller sends, it is told which field is wrong, and the server goes on serving."""

import logging
import math
from dataclasses import replace
from typing import Any

import grpc
import grpc.aio
import pytest
from google.rpc import error_details_pb2

from doors.grpc.server import UNREAD_BYTES
from headrace.v1 import video_pb2 as pb
from service.checks import Limits
from tests.fakes import FakeDenoiser, FakeEncoder, FakeStages
from tests.served import details_of, live_call, raw_call, read_all, serving, stream_call

CONFIG = FakeStages().config
GOOD: dict[str, Any] = {"prompt": "a red circle", "seconds": 1.0}

BAD = [
    ("prompt", ""),
    ("prompt", "x" * 100_000),
    ("prompt", "\x1b[31mred"),
    ("model", "unknown"),
    ("seconds", 1e9),
    ("seconds", -1.0),
    ("seconds", math.nan),
    ("width", 65),
    ("height", 2**32 - 1),
    ("steps", 1000),
]


def wrapped(method: str, spec: pb.VideoSpec) -> tuple[bytes, str]:
    match method:
        case "Generate":
            return pb.GenerateRequest(spec=spec).SerializeToString(), "spec."
        case "Stream":
            return pb.StreamRequest(spec=spec).SerializeToString(), "spec."
        case _:
            return pb.LiveRequest(start=pb.LiveStart(spec=spec)).SerializeToString(), "start.spec."


def fields_of(error: grpc.aio.AioRpcError | bytes) -> list[str]:
    assert isinstance(error, grpc.aio.AioRpcError)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT, error
    (bad,) = details_of(error)
    assert isinstance(bad, error_details_pb2.BadRequest)
    assert all(v.description for v in bad.field_violations)
    return [v.field for v in bad.field_violations]


@pytest.mark.parametrize("method", ["Generate", "Stream", "Live"])
async def test_every_bad_field_is_named_and_then_the_server_still_serves(method: str) -> None:
    async with serving() as served:
        for field, value in BAD:
            data, path = wrapped(method, pb.VideoSpec(**{**GOOD, field: value}))
            assert fields_of(await raw_call(served, method, data)) == [path + field]
        if method != "Live":
            data, path = wrapped(method, pb.VideoSpec(prompt="a red circle", seconds=0))
            assert fields_of(await raw_call(served, method, data)) == [path + "seconds"]
        await served.still_serves()
        await served.nothing_left()
        assert served.metric("calls_total", rpc=method, outcome="invalid") == len(BAD) + (method != "Live")


async def test_unknown_codec_and_too_large_a_lead() -> None:
    async with serving() as served:
        spec = pb.VideoSpec(**GOOD)
        stream = pb.StreamRequest(spec=spec, codec=99, max_lead_seconds=31)  # type: ignore[arg-type]
        live = pb.LiveRequest(start=pb.LiveStart(spec=spec, codec=99, max_lead_seconds=-1))  # type: ignore[arg-type]

        assert fields_of(await raw_call(served, "Stream", stream.SerializeToString())) == ["codec", "max_lead_seconds"]
        assert fields_of(await raw_call(served, "Live", live.SerializeToString())) == ["start.codec", "start.max_lead_seconds"]
        await served.still_serves()


@pytest.mark.parametrize(("method", "name"), [("Generate", "GenerateRequest"), ("Stream", "StreamRequest"), ("Live", "LiveRequest")])
async def test_truncated_and_garbage_messages_and_broken_utf8(method: str, name: str) -> None:
    async with serving() as served:
        whole, path = wrapped(method, pb.VideoSpec(**GOOD))

        assert fields_of(await raw_call(served, method, whole[:-3])) == [name]
        assert fields_of(await raw_call(served, method, b"\xff" * 40)) == [name]
        assert fields_of(await raw_call(served, method, whole.replace(b"red", b"\xff\xfe\xfd"))) == [path + "prompt"]
        await served.still_serves()
        await served.nothing_left()


async def test_list_models_with_garbage() -> None:
    async with serving() as served:
        assert fields_of(await raw_call(served, "ListModels", b"\xff\xff")) == ["ListModelsRequest"]
        assert await served.client.list_models()


async def test_several_violations_arrive_together() -> None:
    async with serving() as served:
        data, _ = wrapped("Generate", pb.VideoSpec(prompt="\u00e9" * 5000, seconds=-1, width=1, height=2, steps=99))

        assert fields_of(await raw_call(served, "Generate", data)) == [
            "spec.prompt",
            "spec.seconds",
            "spec.width",
            "spec.height",
            "spec.steps",
        ]


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (pb.LiveRequest(start=pb.LiveStart(spec=pb.VideoSpec(**GOOD))), "start"),
        (pb.LiveRequest(), "action"),
    ],
)
async def test_a_bad_message_in_mid_session_ends_it_and_is_named(message: pb.LiveRequest, field: str) -> None:
    async with serving() as served, grpc.aio.insecure_channel(served.address) as channel:
        call = live_call(channel)
        await call.write(pb.LiveRequest(start=pb.LiveStart(spec=pb.VideoSpec(prompt="a red circle"))))
        assert (await call.read()).WhichOneof("event") == "started"
        await call.write(message)

        with pytest.raises(grpc.aio.AioRpcError) as error:
            await read_all(call)
        assert fields_of(error.value) == [field]
        await served.still_serves()
        await served.nothing_left()


@pytest.mark.parametrize(
    ("prompt", "told"), [(" ", "white space"), ("x" * 4097, "at most 4096 bytes of UTF-8; got 4097"), ("\x1b", "control")]
)
async def test_a_bad_prompt_in_mid_session_is_refused_and_the_session_plays_on(prompt: str, told: str) -> None:
    async with serving() as served, served.client.live("a red circle", seconds=2.0) as session:
        bad, good = await session.set_prompt(prompt), await session.set_prompt("a blue square")
        events = [event async for event in session]

        (refused,) = [e for e in events if isinstance(e, pb.PromptRefused)]
        (ack,) = [e for e in events if isinstance(e, pb.PromptAck)]
        assert (refused.request_id, [v.field for v in refused.violations]) == (bad, ["prompt.prompt"])
        assert told in refused.message
        assert (ack.request_id, ack.prompt) == (good, "a blue square")
        assert sum(e.frame_count for e in events if isinstance(e, pb.Frames)) == 2 * CONFIG.fps
        await served.nothing_left()


@pytest.mark.parametrize("more", [0, 1])
async def test_what_is_larger_than_any_control_ends_a_live_unparsed(more: int) -> None:
    """It is no message at all, which nobody finds out."""
    most = Limits().max_control_bytes
    async with serving() as served, grpc.aio.insecure_channel(served.address) as plain:
        channel: Any = plain
        call = channel.stream_stream("/headrace.v1.VideoService/Live")()
        await call.write(pb.LiveRequest(start=pb.LiveStart(spec=pb.VideoSpec(prompt="a red circle"))).SerializeToString())
        await call.read()
        await call.write(b"\xff" * (most + more))
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await read_all(call)
        assert fields_of(error.value) == ["LiveRequest"]
        told = f"must be at most {most} bytes, because it holds no image and no video; got {most + more}"
        assert (told in str(error.value)) == (more > 0)
        await served.nothing_left()


async def test_a_request_that_can_hold_no_upload_is_no_larger_than_a_control() -> None:
    async with serving() as served:
        error = await raw_call(served, "ListModels", b"\xff" * (Limits().max_control_bytes + 1))
        assert fields_of(error) == ["ListModelsRequest"]
        assert "because it holds no image and no video" in str(error)


@pytest.mark.parametrize("most", [1, 4096, 1024 * 1024])
def test_the_largest_prompt_is_a_control_and_one_twice_as_large_is_still_told_of_its_length(most: int) -> None:
    limits, number = Limits(max_prompt_bytes=most), 2**64 - 1
    for prompt in ("x" * most, "x" * 2 * most):
        change = pb.LiveRequest(prompt=pb.PromptChange(prompt=prompt, request_id=number, replace_from=number))
        assert len(change.SerializeToString()) <= limits.max_control_bytes


async def test_refused_prompts_do_not_use_up_the_controls_that_may_wait() -> None:
    async with serving(limits=Limits(max_unanswered_controls=2)) as served, served.client.live("a red circle", seconds=2.0) as session:
        for _ in range(5):
            await session.set_prompt(" ")
        await session.set_prompt("a blue square")
        kinds = [type(event) async for event in session]

        assert (kinds.count(pb.PromptRefused), kinds.count(pb.PromptAck)) == (5, 1)


async def test_a_live_that_does_not_begin_with_start() -> None:
    async with serving() as served:
        assert fields_of(await raw_call(served, "Live", pb.LiveRequest(pause=pb.Pause()).SerializeToString())) == ["start"]


async def test_a_live_that_is_closed_or_silent_before_start_does_not_hang() -> None:
    async with serving(limits=Limits(start_timeout_seconds=0.05)) as served, grpc.aio.insecure_channel(served.address) as channel:
        silent, closed = live_call(channel), live_call(channel)
        await closed.done_writing()

        for call, told in ((silent, "within 0.05 s"), (closed, "closed without any")):
            with pytest.raises(grpc.aio.AioRpcError, match=told) as error:
                await read_all(call)
            assert fields_of(error.value) == ["start"]


async def test_a_request_that_grpc_leaves_unread_is_refused_without_a_delay_and_the_server_serves_on() -> None:
    async with serving() as served:
        error = await raw_call(served, "Generate", b"\x00" * (UNREAD_BYTES + 1))

        assert isinstance(error, grpc.aio.AioRpcError)
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert details_of(error) == []
        await served.still_serves()


@pytest.mark.parametrize("method", ["Generate", "Stream", "Live"])
async def test_a_stage_that_stays_away_is_unavailable_with_a_retry_delay(method: str) -> None:
    async with serving(FakeStages(FakeDenoiser(CONFIG, fail_after=(0, 0, 0)), attempts=3)) as served:
        error = await raw_call(served, method, wrapped(method, pb.VideoSpec(**GOOD))[0])

        assert isinstance(error, grpc.aio.AioRpcError)
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        (retry,) = details_of(error)
        assert retry.retry_delay.ToNanoseconds() > 0
        await served.nothing_left()
        await served.still_serves()


@pytest.mark.parametrize("method", ["Generate", "Stream", "Live"])
async def test_a_call_that_comes_while_the_encoder_is_away_waits_until_it_is_back(method: str) -> None:
    encoder = FakeEncoder(unavailable=2)
    async with serving(FakeStages(encoder=encoder, attempts=3)) as served:
        assert isinstance(await raw_call(served, method, wrapped(method, pb.VideoSpec(**GOOD))[0]), bytes)

        assert encoder.calls == 3
        await served.nothing_left()


@pytest.mark.parametrize("method", ["Generate", "Stream", "Live"])
async def test_an_encoder_that_stays_away_is_unavailable_with_a_retry_delay(method: str) -> None:
    async with serving(FakeStages(encoder=FakeEncoder(unavailable=3), attempts=3)) as served:
        error = await raw_call(served, method, wrapped(method, pb.VideoSpec(**GOOD))[0])

        assert isinstance(error, grpc.aio.AioRpcError)
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        (retry,) = details_of(error)
        assert retry.retry_delay.ToNanoseconds() > 0
        await served.nothing_left()
        await served.still_serves()


@pytest.mark.parametrize("method", ["Generate", "Stream", "Live"])
async def test_an_unexpected_error_gives_an_id_to_the_caller_and_the_rest_to_the_log(method: str, caplog: pytest.LogCaptureFixture) -> None:
    async with serving(FakeStages(FakeDenoiser(CONFIG, error=ValueError("secret detail")))) as served:
        with caplog.at_level(logging.ERROR):
            error = await raw_call(served, method, wrapped(method, pb.VideoSpec(**GOOD))[0])

        assert isinstance(error, grpc.aio.AioRpcError)
        assert error.code() is grpc.StatusCode.INTERNAL
        (info,) = details_of(error)
        assert error.details() == f"internal error; request id {info.request_id}"
        assert "secret" not in repr(error)
        assert info.request_id in caplog.text
        assert "secret detail" in caplog.text
        await served.nothing_left()
        await served.still_serves()


async def test_a_prompt_that_cannot_be_embedded_is_refused_and_can_be_sent_again() -> None:
    encoder = FakeEncoder()
    async with serving(FakeStages(encoder=encoder, attempts=2)) as served, served.client.live("a red circle") as session:
        acknowledged: list[str] = []
        async for event in session:
            match event:
                case pb.Started():
                    encoder.unavailable = 2
                    await session.set_prompt("a blue square")
                case pb.PromptRefused():
                    assert not event.violations
                    assert event.message
                    await session.set_prompt("a blue square")
                case pb.PromptAck():
                    acknowledged.append(event.prompt)
                    await session.stop()
        assert acknowledged == ["a blue square"]
        await served.nothing_left()


@pytest.mark.parametrize("steps", [1, CONFIG.max_steps + 1])
async def test_steps_that_a_resume_tells_of_are_bounded_as_those_of_a_request(steps: int) -> None:
    """Of a solver that gives NaN for fewer than 2."""
    stages = FakeStages(config=replace(CONFIG, min_steps=2), keep_chunks=6)
    async with serving(stages) as served, grpc.aio.insecure_channel(served.address) as channel:
        call = stream_call(channel, pb.StreamRequest(spec=pb.VideoSpec(**GOOD)))
        token = (await call.read()).started.resume_token
        await call.read()
        call.cancel()
        await served.nothing_left()
        told = pb.SessionResume(token=token, next_frame=CONFIG.frames_per_chunk, quality_changes=[pb.QualityChange(steps=steps)])
        error = await raw_call(served, "Stream", pb.StreamRequest(resume=told).SerializeToString())
    assert fields_of(error) == ["resume.quality_changes.steps"]
    assert f"must be from 2 to {CONFIG.max_steps}; got {steps}" in str(error)

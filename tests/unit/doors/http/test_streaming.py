"""A session as the body of an answer: in order, refused or broken off as its caller can tell, and over when nobody reads it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import MutableMapping
from typing import Any

import pytest

from doors.http.streaming import Encode, streamed
from model_core.errors import CapacityExceeded, InvalidRequest, StageUnavailable
from model_core.tasks import cancel_and_wait
from model_core.types import Codec
from service.call import Call, ReaderStalled
from service.events import Ended, Event, Frames, Started
from service.orders import Doorway, Mode, VideoRequest
from tests.core import Core, core
from tests.fakes import eventually

Message = MutableMapping[str, Any]


def encode(event: Event) -> bytes:
    match event:
        case Started():
            return b"started "
        case Frames(chunk=chunk):
            return f"frames {chunk.first_frame} ".encode()
        case Ended():
            return b"ended"
    return b""


def broken(event: Event) -> bytes:
    if isinstance(event, Frames):
        raise StageUnavailable("the decoder is away")
    return encode(event)


class Wire:
    """What an edge gives an answer. While `taking` is not set, nothing is taken; `error` is raised when something is."""

    def __init__(self, error: Exception | None = None) -> None:
        self.sent: list[Message] = []
        self.taking = asyncio.Event()
        self.taking.set()
        self.error = error

    async def receive(self) -> Message:
        raise AssertionError("an answer has no business with the request")

    async def send(self, message: Message) -> None:
        await self.taking.wait()
        if self.error is not None:
            raise self.error
        self.sent.append(message)

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)


async def answered(made: Core, wire: Wire, call: Call, encode: Encode = encode, codec: Codec = Codec.FMP4_H264, **more: Any) -> None:
    seconds = more.pop("seconds", 1.0)
    order = made.intake.order(VideoRequest(prompt="a red circle", seconds=seconds, codec=codec), Doorway(Mode.STREAM))
    response = streamed(made.runner, order, call, encode, "video/mp4", **more)
    await response({"type": "http"}, wire.receive, wire.send)


async def nothing_left(made: Core) -> None:
    await eventually(lambda: made.runner.open_sessions == 0 and made.stages.open_streams == 0)


async def test_events_come_in_order_and_the_body_ends() -> None:
    async with core() as made:
        wire, call = Wire(), Call()
        await answered(made, wire, call, headers={"x-more": "1"})
        starts = range(0, 24, made.stages.config.frames_per_chunk)
        assert wire.body == b"started " + b"".join(f"frames {frame} ".encode() for frame in starts) + b"ended"
        start, *parts, last = wire.sent
        headers = dict(start["headers"])
        assert start["status"] == 200
        assert (headers[b"content-type"], headers[b"cache-control"], headers[b"x-more"]) == (b"video/mp4", b"no-store", b"1")
        assert b"content-length" not in headers
        assert all(part["more_body"] for part in parts)
        assert not last["more_body"]
        assert call.outcome == "completed"
        await nothing_left(made)


@pytest.mark.parametrize("error", [CapacityExceeded("full", 1.0), StageUnavailable("away"), InvalidRequest(())])
async def test_what_goes_wrong_before_the_first_byte_is_left_to_the_edge(error: Exception) -> None:
    class Runner:
        async def run(self, *_: object) -> None:
            raise error

    runner: Any = Runner()
    async with core() as made:
        wire = Wire()
        order = made.intake.order(VideoRequest(prompt="a red circle", seconds=1.0), Doorway(Mode.STREAM))
        response = streamed(runner, order, Call(), encode, "video/mp4", failed=lambda _: b"failed")
        with pytest.raises(type(error)) as caught:
            await response({"type": "http"}, wire.receive, wire.send)
    assert caught.value is error
    assert wire.sent == []


async def test_an_error_after_the_first_byte_is_encoded_or_breaks_the_answer_off() -> None:
    async with core() as made:
        wire, call = Wire(), Call()
        await answered(made, wire, call, broken, failed=lambda error: f"failed: {error}".encode())
        assert wire.body == b"started failed: the decoder is away"
        assert not wire.sent[-1]["more_body"]
        assert call.outcome == "unavailable"

        wire = Wire()
        with pytest.raises(StageUnavailable, match="the decoder is away"):
            await answered(made, wire, Call(), broken)
        assert wire.body == b"started "
        assert wire.sent[-1]["more_body"]
        await nothing_left(made)


async def test_a_defect_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    def defect(event: Event) -> bytes:
        if isinstance(event, Frames):
            raise ZeroDivisionError
        return encode(event)

    async with core() as made:
        call = Call(door="toy")
        await answered(made, Wire(), call, defect, failed=lambda _: b"failed")
    assert call.outcome == "internal"
    assert [record.getMessage() for record in caplog.records if record.exc_info] == ["a stream of toy failed"]


async def test_nothing_is_said_to_a_caller_that_takes_nothing() -> None:
    def failed(error: Exception) -> bytes:
        raise AssertionError(error)

    async with core() as made:
        with pytest.raises(ReaderStalled):
            await answered(made, Wire(ReaderStalled("nothing was read for 60 s")), Call(), failed=failed)
        await nothing_left(made)


async def test_the_session_runs_no_further_than_the_caller_takes_and_ends_with_the_call() -> None:
    async with core() as made:
        wire = Wire()
        wire.taking.clear()
        answer = asyncio.create_task(answered(made, wire, Call(), seconds=60.0))
        await eventually(lambda: made.runner.open_sessions > 0)
        await asyncio.sleep(0.02)
        assert not wire.sent
        assert made.stages.open_streams == 0
        await cancel_and_wait(answer)
        await nothing_left(made)


async def test_large_frames_are_encoded_in_a_thread() -> None:
    threads: set[bool] = set()

    def where(event: Event) -> bytes:
        if isinstance(event, Frames):
            threads.add(threading.current_thread() is threading.main_thread())
        return encode(event)

    async with core() as made:
        await answered(made, Wire(), Call(), where, Codec.RAW_RGB)
    chunk_bytes = 64 * 64 * 3 * made.stages.config.frames_per_chunk
    assert threads == {chunk_bytes <= 64 * 1024}

"""A session as the body of an answer: in order, at the caller's pace, and over when the caller leaves."""

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
SECONDS = 1.0


def encode(event: Event) -> bytes:
    match event:
        case Started():
            return b"started "
        case Frames(chunk=chunk):
            return f"frames {chunk.first_frame} ".encode()
        case Ended():
            return b"ended"
    return b""


class Wire:
    """An ASGI connection. `gone` ends it; while `slow` is set, nothing is taken."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.gone = asyncio.Event()
        self.taking = asyncio.Event()
        self.taking.set()

    async def receive(self) -> Message:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        await self.taking.wait()
        self.sent.append(message)

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)


async def answered(made: Core, wire: Wire, call: Call, *, seconds: float = SECONDS, stall_s: float = 60.0, **more: Any) -> None:
    request = VideoRequest(prompt="a red circle", seconds=seconds, codec=Codec.FMP4_H264)
    order = made.intake.order(request, Doorway(Mode.STREAM))
    encoding: Encode = more.pop("encode", encode)
    response = await streamed(made.runner, order, call, encoding, "video/mp4", stall_s=stall_s, **more)
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
async def test_what_goes_wrong_before_the_first_byte_is_raised(error: Exception) -> None:
    class Runner:
        async def run(self, *_: object) -> None:
            raise error

    runner: Any = Runner()
    async with core() as made:
        order = made.intake.order(VideoRequest(prompt="a red circle", seconds=1.0), Doorway(Mode.STREAM))
        with pytest.raises(type(error)) as caught:
            await streamed(runner, order, Call(), encode, "video/mp4", stall_s=60.0)
    assert caught.value is error


async def test_an_error_after_the_first_byte_is_encoded_or_breaks_the_answer_off() -> None:
    def broken(event: Event) -> bytes:
        if isinstance(event, Frames):
            raise StageUnavailable("the decoder is away")
        return encode(event)

    async with core() as made:
        wire, call = Wire(), Call()
        await answered(made, wire, call, encode=broken, failed=lambda error: f"failed: {error}".encode())
        assert wire.body == b"started failed: the decoder is away"
        assert not wire.sent[-1]["more_body"]
        assert call.outcome == "unavailable"

        wire = Wire()
        with pytest.raises(StageUnavailable, match="the decoder is away"):
            await answered(made, wire, Call(), encode=broken)
        assert wire.body == b"started "
        assert wire.sent[-1]["more_body"]
        await nothing_left(made)


async def test_a_caller_that_leaves_ends_the_session() -> None:
    async with core() as made:
        wire, call = Wire(), Call()
        wire.taking.clear()
        answer = asyncio.create_task(answered(made, wire, call, seconds=60.0))
        await eventually(lambda: made.runner.open_sessions > 0)
        wire.gone.set()
        await asyncio.wait_for(answer, 20.0)
        assert call.outcome == "cancelled"
        await nothing_left(made)


async def test_a_caller_that_takes_nothing_is_cut_off() -> None:
    async with core() as made:
        wire = Wire()
        wire.taking.clear()
        with pytest.raises(ReaderStalled):
            await answered(made, wire, Call(), stall_s=0.05)
        await nothing_left(made)


async def test_the_session_runs_no_further_than_the_caller_takes() -> None:
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
        order = made.intake.order(VideoRequest(prompt="a red circle", seconds=SECONDS, codec=Codec.RAW_RGB), Doorway(Mode.STREAM))
        wire = Wire()
        response = await streamed(made.runner, order, Call(), where, "video/x-raw", stall_s=60.0)
        await response({"type": "http"}, wire.receive, wire.send)
    chunk_bytes = 64 * 64 * 3 * made.stages.config.frames_per_chunk
    assert threads == {chunk_bytes <= 64 * 1024}

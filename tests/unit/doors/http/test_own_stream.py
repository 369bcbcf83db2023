"""`POST /v1/stream` over a real socket: what comes, in which form, and what becomes of callers who go away or read slowly."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from dataclasses import replace
from typing import Any

import av
import httpx
import pytest

from doors.http.own.formats import CODECS
from doors.http.own.schemas import FrameCodec
from model_core.errors import CapacityExceeded
from service.checks import Limits
from tests.fakes import FakeDenoiser, FakeStages, eventually
from tests.http_served import OPTIONS, SEED, HttpServed, http_serving

PROMPT = "a red circle"
CONFIG = FakeStages().config
FPS = CONFIG.fps


def gated(gate: asyncio.Semaphore) -> FakeStages:
    return FakeStages(FakeDenoiser(CONFIG, gate=gate))


def decoded(data: bytes) -> int:
    """Frames in an MP4."""
    with av.open(io.BytesIO(data), "r") as container:
        return len(list(container.decode(video=0)))


async def until_broken(answer: httpx.Response) -> bytes:
    """What comes before the connection breaks off."""
    seen = b""
    try:
        async for part in answer.aiter_raw():
            seen += part
    except httpx.RemoteProtocolError:
        return seen
    raise AssertionError("the answer was whole")


def events(text: str) -> list[tuple[str, dict[str, Any]]]:
    """Names and fields of server-sent events."""
    found = []
    for block in text.strip().split("\n\n"):
        name, data = block.split("\n")
        found.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


async def test_an_mp4_plays_and_says_what_made_it() -> None:
    async with http_serving() as served:
        answer = await served.client.post("/v1/stream", json={"prompt": PROMPT, "seconds": 1.0})
        assert (answer.status_code, answer.headers["content-type"]) == (200, "video/mp4")
        assert decoded(answer.content) == FPS
        assert answer.headers["x-headrace-model"] == CONFIG.name
        assert answer.headers["x-headrace-seed"] == str(SEED)
        assert served.metric("calls_total", rpc="own.stream", outcome="completed") == 1
        await served.nothing_left()


async def test_the_mp4_comes_chunk_by_chunk() -> None:
    gate = asyncio.Semaphore(1)
    async with (
        http_serving(gated(gate)) as served,
        served.client.stream("POST", "/v1/stream", json={"prompt": PROMPT, "seconds": 10.0}) as answer,
    ):
        parts = answer.aiter_raw()
        first = await anext(parts)
        assert first[4:8] == b"ftyp"
        seen = first
        while b"moof" not in seen:
            seen += await anext(parts)
        assert served.stages.denoiser.statistics().chunks == 1


@pytest.mark.parametrize(
    ("query", "headers", "body", "kind"),
    [
        ("", {}, {}, "video/mp4"),
        ("?format=mjpeg", {"accept": "text/event-stream"}, {"format": "sse"}, "multipart/x-mixed-replace; boundary=frame"),
        ("", {"accept": "text/event-stream"}, {"format": "mjpeg"}, "multipart/x-mixed-replace; boundary=frame"),
        ("", {"accept": "application/json, text/event-stream;q=0.5"}, {}, "text/event-stream; charset=utf-8"),
        ("", {"accept": "multipart/x-mixed-replace"}, {}, "multipart/x-mixed-replace; boundary=frame"),
    ],
)
async def test_the_query_then_the_body_then_accept_say_the_form(
    query: str, headers: dict[str, str], body: dict[str, str], kind: str
) -> None:
    async with http_serving() as served:
        answer = await served.client.post(f"/v1/stream{query}", json={"prompt": PROMPT, "seconds": 0.1, **body}, headers=headers)
        assert answer.headers["content-type"] == kind
        assert answer.status_code == 200


async def test_jpegs_replace_each_other_no_faster_than_they_play() -> None:
    async with http_serving() as served:
        began = asyncio.get_running_loop().time()
        answer = await served.client.post("/v1/stream?format=mjpeg", json={"prompt": PROMPT, "seconds": 0.5})
        took_s = asyncio.get_running_loop().time() - began
    parts = answer.content.split(b"--frame")
    assert parts[-1] == b"--\r\n"
    frames = [part.partition(b"\r\n\r\n")[2] for part in parts[1:-1]]
    assert len(frames) == FPS // 2
    assert all(frame.startswith(b"\xff\xd8") and frame.endswith(b"\xff\xd9\r\n") for frame in frames)
    assert took_s >= (len(frames) - 1) / FPS


@pytest.mark.parametrize("codec", ["jpeg", "fmp4", "raw"])
async def test_events_have_every_frame_in_base64(codec: FrameCodec) -> None:
    async with http_serving() as served:
        answer = await served.client.post("/v1/stream?format=sse", json={"prompt": PROMPT, "seconds": 0.5, "codec": codec})
    found = events(answer.text)
    names = [name for name, _ in found]
    assert (names[0], names[-1], set(names)) == ("started", "ended", {"started", "frames", "ended"})
    started, ended = found[0][1], found[-1][1]
    assert (started["model"], started["seed"], started["codec"]) == (CONFIG.name, SEED, CODECS[codec].value)
    frames = [fields for name, fields in found if name == "frames"]
    assert sum(fields["frame_count"] for fields in frames) == FPS // 2
    if codec == "raw":
        assert len(base64.b64decode(frames[0]["data"][0])) == 3 * CONFIG.width * CONFIG.height
    assert (ended["reason"], ended["usage"]["frames"]) == ("completed", FPS // 2)


async def test_equal_seeds_make_equal_bytes_through_json_and_through_forms() -> None:
    fields = {"prompt": PROMPT, "seconds": 0.5, "seed": 7, "steps": 3}
    async with http_serving() as served:
        as_json = await served.client.post("/v1/stream", json=fields)
        as_form = await served.client.post("/v1/stream", data={name: str(value) for name, value in fields.items()})
        parts = [(name, (None, str(value))) for name, value in fields.items()]
        as_parts = await served.client.post("/v1/stream", files=parts)
        as_curl = await served.client.post(
            "/v1/stream", content=json.dumps(fields), headers={"content-type": "application/x-www-form-urlencoded"}
        )
    assert as_json.status_code == 200
    assert as_json.content == as_form.content == as_parts.content == as_curl.content


BAD: list[tuple[dict[str, Any], list[tuple[str, str]]]] = [
    ({}, [("prompt", "is required; got none")]),
    ({"prompt": " ", "seconds": 0}, [("seconds", "must be a number from more than 0 to 3600; got 0"), ("prompt", "must hold at least")]),
    ({"prompt": 5}, [("prompt", "must be a valid string; got 5")]),
    ({"prompt": PROMPT, "seed": -1}, [("seed", "must be greater than or equal to 0; got -1")]),
    ({"prompt": PROMPT, "seed": True}, [("seed", "must be a valid integer; got True")]),
    ({"prompt": PROMPT, "colour": "red"}, [("colour", "is no field of this request; got 'red'")]),
    ({"prompt": PROMPT, "width": 63}, [("width", f"must be {CONFIG.width} for model {CONFIG.name}; got 63")]),
    ({"prompt": PROMPT, "model": "nope"}, [("model", f"must be one of {CONFIG.name}; got 'nope'")]),
    ({"prompt": PROMPT, "format": "gif"}, [("format", "must be 'mp4', 'mjpeg' or 'sse'; got 'gif'")]),
    ({"prompt": PROMPT, "max_lead_seconds": 31}, [("max_lead_seconds", "must be a number from 0 to 30; got 31")]),
    ({"prompt": PROMPT, "image": "http://example.com/a.png"}, [("image", "must be a data URI or base64: this server fetches nothing")]),
    ({"prompt": PROMPT, "image": "%%%"}, [("image", "must be base64; got '%%%'")]),
    (
        {"prompt": PROMPT, "image": "aGFsbG8="},
        [("image", "must be one of PNG, JPEG, WEBP; got 5 bytes that begin with b'hallo'")],
    ),
]


@pytest.mark.parametrize(("body", "wanted"), BAD, ids=[str(body)[:40] for body, _ in BAD])
async def test_everything_wrong_is_named_with_its_limit_and_value(body: dict[str, Any], wanted: list[tuple[str, str]]) -> None:
    async with http_serving() as served:
        answer = await served.client.post("/v1/stream", json=body)
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (400, "invalid")
        found = {each["field"]: each["description"] for each in error["violations"]}
        assert set(found) == {field for field, _ in wanted}
        for field, sentence in wanted:
            assert found[field].startswith(sentence)
        assert error["request_id"] == answer.headers["x-request-id"]
        await served.nothing_left()


async def test_a_format_in_the_query_that_is_none_is_refused() -> None:
    async with http_serving() as served:
        answer = await served.client.post("/v1/stream?format=gif", json={"prompt": PROMPT})
        assert answer.json()["error"]["violations"] == [{"field": "format", "description": "must be one of mp4, mjpeg, sse; got 'gif'"}]


async def test_a_caller_who_goes_away_frees_its_slot() -> None:
    gate = asyncio.Semaphore(1)
    async with http_serving(gated(gate), max_sessions=1) as served:
        async with served.client.stream("POST", "/v1/stream", json={"prompt": PROMPT, "seconds": 60}) as answer:
            await anext(_open := answer.aiter_raw())
            assert served.desk.statistics().live == 1
        await served.nothing_left()
        await eventually(lambda: served.metric("calls_total", rpc="own.stream", outcome="cancelled") == 1)


async def test_a_caller_who_goes_away_in_line_leaves_the_line() -> None:
    gate = asyncio.Semaphore(1)
    async with http_serving(gated(gate), max_sessions=1) as served:
        async with served.client.stream("POST", "/v1/stream", json={"prompt": PROMPT, "seconds": 60}) as first:
            await anext(_open := first.aiter_raw())
            waiting = asyncio.create_task(served.client.post("/v1/stream", json={"prompt": PROMPT}))
            await eventually(lambda: served.desk.statistics().waiting == 1)
            waiting.cancel()
            await eventually(lambda: served.desk.statistics().waiting == 0)
        await served.nothing_left()


async def test_places_in_line_are_told_by_events() -> None:
    gate = asyncio.Semaphore(1)
    async with http_serving(gated(gate), max_sessions=1) as served:
        async with served.client.stream("POST", "/v1/stream", json={"prompt": PROMPT, "seconds": 60}) as first:
            await anext(_open := first.aiter_raw())
            async with served.client.stream("POST", "/v1/stream?format=sse", json={"prompt": PROMPT}) as second:
                assert events((await anext(second.aiter_raw())).decode()) == [("queue_position", {"position": 1})]
        await served.nothing_left()


async def test_a_full_server_says_when_to_come_back() -> None:
    gate = asyncio.Semaphore(1)
    async with http_serving(gated(gate), max_sessions=1, max_waiting=0) as served:
        async with served.client.stream("POST", "/v1/stream", json={"prompt": PROMPT, "seconds": 60}) as first:
            await anext(_open := first.aiter_raw())
            refused = await served.client.post("/v1/stream", json={"prompt": PROMPT})
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "busy")
        assert int(refused.headers["retry-after"]) >= 1
        assert int(refused.headers["retry-after-ms"]) >= 1
        assert served.metric("calls_total", rpc="own.stream", outcome="refused") == 1


async def test_a_fault_before_the_first_byte_is_an_error_and_a_later_one_breaks_off() -> None:
    fault = CapacityExceeded("told to be full", retry_after_s=3.0)
    body = {"prompt": PROMPT, "seconds": 60}
    async with http_serving(FakeStages(FakeDenoiser(CONFIG, error=fault))) as served:
        with pytest.raises(httpx.RemoteProtocolError):  # the head went out when the session started
            await served.client.post("/v1/stream", json=body)
        await served.nothing_left()
        await served.still_serves()
    async with (
        http_serving(FakeStages(FakeDenoiser(CONFIG, error=fault))) as served,
        served.client.stream("POST", "/v1/stream?format=sse", json=body) as answer,
    ):
        text = (await until_broken(answer)).decode()
        name, fields = events(text)[-1]
        assert (name, fields["error"]["code"], fields["error"]["message"]) == ("error", "busy", "told to be full")


async def test_a_defect_tells_the_caller_an_id_and_the_log_the_rest(caplog: pytest.LogCaptureFixture) -> None:
    stages = FakeStages(FakeDenoiser(CONFIG, error=ValueError("a defect")))
    async with http_serving(stages) as served, served.client.stream("POST", "/v1/stream?format=sse", json={"prompt": PROMPT}) as answer:
        text = (await until_broken(answer)).decode()
        _, fields = events(text)[-1]
        request_id = answer.headers["x-request-id"]
        assert fields["error"]["message"] == f"internal error; request id {request_id}"
        assert [record for record in caplog.records if request_id in record.getMessage() and "a defect" in record.getMessage()]


async def stalled(served: HttpServed) -> asyncio.StreamWriter:
    """A caller that asks for a long video and reads nothing of it."""
    body = json.dumps({"prompt": PROMPT, "seconds": 3600, "codec": "raw", "format": "sse"}).encode()
    _, writer = await asyncio.open_connection("127.0.0.1", served.port, limit=1024)
    writer.write(b"POST /v1/stream HTTP/1.1\r\nhost: h\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
    await writer.drain()
    return writer


async def test_a_reader_that_takes_nothing_slows_its_own_session_and_is_ended() -> None:
    options = replace(OPTIONS, stall_s=0.5, linger_s=0.1)
    async with http_serving(options=options, limits=Limits(stall_timeout_seconds=0.5)) as served:
        writer = await stalled(served)
        await eventually(lambda: served.desk.statistics().live == 1)
        await served.still_serves()
        await eventually(lambda: served.metric("calls_total", rpc="own.stream", outcome="stalled") == 1)
        writer.transport.abort()
        await served.nothing_left()


@pytest.mark.parametrize(("kind", "ended"), [("sse", True), ("mp4", False)])
async def test_when_time_is_up_events_say_so_and_a_video_breaks_off(kind: str, ended: bool) -> None:
    gate = asyncio.Semaphore(1)
    async with http_serving(gated(gate)) as served:
        async with served.client.stream("POST", f"/v1/stream?format={kind}", json={"prompt": PROMPT, "seconds": 60}) as answer:
            parts = answer.aiter_raw()
            seen = await anext(parts)
            draining = asyncio.create_task(served.doors.drain(grace_s=1.5))
            if ended:
                async for part in parts:
                    seen += part
                assert events(seen.decode())[-1][1]["reason"] == "draining"
            else:
                with pytest.raises(httpx.RemoteProtocolError):
                    await anext(part async for part in parts if not part)
            async with asyncio.timeout(20):
                await draining
        await served.nothing_left()


async def test_a_session_that_is_nearly_done_is_finished_in_a_drain() -> None:
    gate = asyncio.Semaphore(1)
    async with (
        http_serving(gated(gate)) as served,
        served.client.stream("POST", "/v1/stream", json={"prompt": PROMPT, "seconds": 1.0}) as answer,
    ):
        parts = answer.aiter_raw()
        seen = await anext(parts)
        draining = asyncio.create_task(served.doors.drain(grace_s=20))
        for _ in range(10):
            gate.release()
        async for part in parts:
            seen += part
        assert decoded(seen) == FPS
        async with asyncio.timeout(20):
            await draining

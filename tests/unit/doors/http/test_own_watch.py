"""`GET /v1/watch/{token}` over a real socket: what comes, in which form, and who notices it."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Any

import av
import httpx
import pytest

from tests.fakes import FakeDenoiser, FakeStages, eventually
from tests.http_served import HttpServed, http_serving
from tests.live_socket import live

PROMPT = "a red circle"
CONFIG = FakeStages().config
CHUNK = CONFIG.frames_per_chunk


class Owner:
    """A stream of events that plays, in a task."""

    def __init__(self, served: HttpServed, codec: str, seconds: float) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.task = asyncio.create_task(self._read(served, {"prompt": PROMPT, "seconds": seconds, "codec": codec, "max_lead_seconds": 30}))

    async def _read(self, served: HttpServed, body: dict[str, Any]) -> None:
        async with served.client.stream("POST", "/v1/stream?format=sse", json=body) as answer:
            name = ""
            async for line in answer.aiter_lines():
                if line.startswith("event: "):
                    name = line.removeprefix("event: ")
                elif line.startswith("data: "):
                    self.events.append((name, json.loads(line.removeprefix("data: "))))

    def chunks(self) -> int:
        return sum(name == "frames" for name, _ in self.events)

    async def token(self) -> str:
        await eventually(lambda: bool(self.events))
        name, started = self.events[0]
        assert name == "started"
        return str(started["watch_token"])


@asynccontextmanager
async def playing(codec: str, *, seconds: float = 2.0, made: int = 2) -> AsyncGenerator[tuple[HttpServed, Owner, asyncio.Semaphore]]:
    """A session of which so many chunks are made. Each further one takes a permit."""
    gate = asyncio.Semaphore(made)
    async with http_serving(FakeStages(FakeDenoiser(CONFIG, gate=gate))) as served:
        owner = Owner(served, codec, seconds)
        await eventually(lambda: owner.chunks() == made)
        try:
            yield served, owner, gate
        finally:
            owner.task.cancel()
            await asyncio.gather(owner.task, return_exceptions=True)


def decoded(data: bytes) -> int:
    with av.open(io.BytesIO(data), "r") as container:
        return len(list(container.decode(video=0)))


def events(text: str) -> list[tuple[str, dict[str, Any]]]:
    found = []
    for block in text.strip().split("\n\n"):
        name, data = block.split("\n")
        found.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


async def whole(served: HttpServed, path: str, gate: asyncio.Semaphore, **more: Any) -> httpx.Response:
    """What comes, when the rest of the session is made once somebody watches."""
    asking = asyncio.create_task(served.client.get(path, **more))
    await eventually(lambda: served.hub.watchers == 1 or asking.done())
    for _ in range(20):
        gate.release()
    return await asking


async def test_an_mp4_begins_at_the_newest_chunk_and_says_at_which_frame() -> None:
    async with playing("fmp4") as (served, owner, gate):
        answer = await whole(served, f"/v1/watch/{await owner.token()}", gate)
        assert (answer.status_code, answer.headers["content-type"]) == (200, "video/mp4")
        assert decoded(answer.content) == 2 * CONFIG.fps - CHUNK
        assert answer.headers["x-headrace-next-frame"] == str(CHUNK)
        assert answer.headers["x-headrace-session"] == owner.events[0][1]["session_id"]
        await owner.task
        assert served.metric("calls_total", rpc="own.watch", outcome="completed") == 1
        await served.nothing_left()


async def test_events_are_those_of_the_session_less_what_is_its_own() -> None:
    async with playing("fmp4") as (served, owner, gate):
        token = await owner.token()
        answer = await whole(served, f"/v1/watch/{token}?format=sse", gate)
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        await owner.task
    found = events(answer.text)
    assert [name for name, _ in found] == ["started", *["frames"] * 5, "ended"]
    started, ended = found[0][1], found[-1][1]
    assert (started["resume_token"], started["watch_token"], started["next_frame"]) == ("", token, CHUNK)
    own = [fields["data"] for name, fields in owner.events if name == "frames"]
    assert [fields["data"] for name, fields in found if name == "frames"] == own[1:]
    assert (ended["reason"], ended["usage"]["frames"], ended["usage"]["denoise_seconds"]) == ("completed", 48, 0)


async def test_jpegs_replace_each_other() -> None:
    async with playing("jpeg", seconds=1.0) as (served, owner, gate):
        answer = await whole(served, f"/v1/watch/{await owner.token()}", gate)
        assert answer.headers["content-type"] == "multipart/x-mixed-replace; boundary=frame"
    frames = [part.partition(b"\r\n\r\n")[2] for part in answer.content.split(b"--frame")[1:-1]]
    own = [base64.b64decode(data) for name, fields in owner.events if name == "frames" for data in fields["data"]]
    assert [frame.removesuffix(b"\r\n") for frame in frames] == own[CHUNK:]


@pytest.mark.parametrize(
    ("codec", "query", "accept", "kind"),
    [
        ("fmp4", "", "", "video/mp4"),
        ("fmp4", "", "text/event-stream", "text/event-stream; charset=utf-8"),
        ("fmp4", "?format=mp4", "text/event-stream", "video/mp4"),
        ("jpeg", "", "video/mp4", "multipart/x-mixed-replace; boundary=frame"),
        ("raw", "", "video/mp4", "text/event-stream; charset=utf-8"),
    ],
)
async def test_what_comes_is_what_was_asked_for_as_far_as_the_codec_allows(codec: str, query: str, accept: str, kind: str) -> None:
    async with playing(codec) as (served, owner, _):
        path, headers = f"/v1/watch/{await owner.token()}{query}", {"accept": accept} if accept else {}
        async with served.client.stream("GET", path, headers=headers) as answer:
            assert (answer.status_code, answer.headers["content-type"]) == (200, kind)


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("?format=mp4", "must be one of mjpeg, sse for a session whose frames are jpeg; got mp4"),
        ("?format=avi", "must be one of mp4, mjpeg, sse; got 'avi'"),
    ],
)
async def test_a_form_that_cannot_be_is_refused(query: str, said: str) -> None:
    async with playing("jpeg") as (served, owner, _):
        answer = await served.client.get(f"/v1/watch/{await owner.token()}{query}")
        assert answer.status_code == 400
        assert answer.json()["error"]["violations"] == [{"field": "format", "description": said}]
        await eventually(lambda: served.hub.watchers == 0)


async def test_a_token_of_nobody_is_not_found() -> None:
    async with http_serving() as served:
        for token in ("x", "x" * 43):
            answer = await served.client.get(f"/v1/watch/{token}")
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
            assert token not in answer.text or len(token) == 1


async def test_the_token_is_in_no_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with playing("fmp4") as (served, owner, gate):
        token = await owner.token()
        await whole(served, f"/v1/watch/{token}", gate)
        await served.client.post(f"/v1/watch/{token}")
        await served.client.get(f"/v1/watch/{token}/x")
        await owner.task
    ours = [record.getMessage() for record in caplog.records if not record.name.startswith(("httpx", "httpcore"))]
    assert any("own.watch" in line for line in ours)
    assert [line for line in ours if token in line] == []


async def test_a_viewer_who_leaves_is_forgotten_though_nothing_is_sent() -> None:
    async with playing("fmp4") as (served, owner, _):
        async with served.client.stream("GET", f"/v1/watch/{await owner.token()}") as answer:
            await anext(answer.aiter_raw())
            assert served.hub.watchers == 1
        await eventually(lambda: served.hub.watchers == 0)
        assert not owner.task.done()


async def test_an_mp4_that_breaks_off_with_its_server_is_not_taken_for_the_whole() -> None:
    async with playing("fmp4") as (served, owner, _):
        token = await owner.token()
        seen = asyncio.Event()

        async def read(query: str) -> bytes:
            data = b""
            async with served.client.stream("GET", f"/v1/watch/{token}{query}") as answer:
                async for part in answer.aiter_raw():
                    data += part
                    seen.set()
            return data

        video, told = asyncio.create_task(read("")), asyncio.create_task(read("?format=sse"))
        await seen.wait()
        await eventually(lambda: served.hub.watchers == 2)
        served.runner.drain()
        served.runner.hand_over()
        with pytest.raises(httpx.RemoteProtocolError):
            await video
        name, ended = events((await told).decode())[-1]
        assert (name, ended["reason"]) == ("ended", "draining")


async def test_a_session_that_is_lost_is_told_as_an_error() -> None:
    async with playing("fmp4") as (served, owner, _):
        token = await owner.token()
        text = ""
        with suppress(httpx.RemoteProtocolError):  # no part is taken for the whole
            async with served.client.stream("GET", f"/v1/watch/{token}?format=sse") as answer:
                async for part in answer.aiter_text():
                    text += part
                    served.hub._shown[token].show.end(LookupError("a defect"))  # noqa: SLF001 - as nothing does
    name, body = events(text)[-1]
    assert (name, body["error"]["code"]) == ("error", "internal")


# -- Over a WebSocket.


async def test_a_socket_is_sent_the_events_that_the_session_s_own_viewer_is_sent() -> None:
    async with playing("fmp4") as (served, owner, gate):
        token = await owner.token()
        async with live(served.port, path=f"/v1/watch/{token}") as caller:
            assert caller.socket.subprotocol == "headrace.v1"
            started = await caller.until("started")
            for _ in range(20):
                gate.release()
            assert await caller.rest() == 1000
        await owner.task
        assert caller.names() == ["started", *["frames"] * 5, "ended"]
        assert (started["resume_token"], started["watch_token"], started["next_frame"]) == ("", token, CHUNK)
        own = [base64.b64decode(data) for name, fields in owner.events if name == "frames" for data in fields["data"]]
        assert caller.frames == own[1:]
        assert served.metric("calls_total", rpc="own.watch", outcome="completed") == 1


async def test_a_socket_of_a_token_that_nobody_has_is_told_so() -> None:
    """After it was accepted, because a browser does not say why a WebSocket was refused."""
    async with http_serving() as served, live(served.port, path=f"/v1/watch/{'x' * 43}") as caller:
        assert await caller.rest() == 4404
        assert caller.events[-1]["error"]["code"] == "not_found"


async def test_whoever_watches_over_a_socket_has_nothing_to_say() -> None:
    async with playing("fmp4") as (served, owner, _), live(served.port, path=f"/v1/watch/{await owner.token()}") as caller:
        await caller.until("started")
        await caller.say(stop={})
        assert await caller.rest() == 4400
        assert caller.events[-1]["error"]["code"] == "invalid"
        await eventually(lambda: served.hub.watchers == 0)
        assert not owner.task.done()


async def test_a_socket_whose_caller_leaves_is_forgotten_and_a_drain_closes_it_with_a_word() -> None:
    async with playing("fmp4") as (served, owner, _):
        path = f"/v1/watch/{await owner.token()}"
        async with live(served.port, path=path) as caller:
            await caller.until("frames")
            assert served.hub.watchers == 1
        await eventually(lambda: served.hub.watchers == 0)
        async with live(served.port, path=path) as caller:
            await caller.until("frames")
            served.runner.drain()
            served.runner.hand_over()
            assert await caller.rest() == 1012
        assert caller.events[-1]["reason"] == "draining"

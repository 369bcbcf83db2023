"""Callers that send slowly, too much, or nonsense; and those that go away. Each wait has an end, and nothing is left."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from tests.fakes import eventually
from tests.http_served import OPTIONS, HttpServed, http_serving
from tests.live_socket import HANDSHAKE, request
from tests.toy_socket import until_closed

QUICK = replace(
    OPTIONS, head_timeout_s=0.1, linger_s=0.1, body_timeout_s=0.3, idle_timeout_s=0.15, max_head_bytes=2048, max_body_bytes=100_000
)
BODY = json.dumps({"prompt": "a red circle", "seconds": 0.1}).encode()


@asynccontextmanager
async def bare(served: HttpServed) -> AsyncGenerator[tuple[asyncio.StreamReader, asyncio.StreamWriter], None]:
    reader, writer = await served.connect()
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def status(reader: asyncio.StreamReader) -> int:
    """Of the answer that comes next; 0 where the connection ends without one."""
    async with asyncio.timeout(20):
        line = await reader.readline()
    return int(line.split()[1]) if line else 0


async def ends(reader: asyncio.StreamReader) -> bytes:
    """What comes until the connection is closed."""
    async with asyncio.timeout(20):
        return await until_closed(reader)


def post(size: int, more: bytes = b"") -> bytes:
    return b"POST /v1/stream HTTP/1.1\r\nhost: h\r\ncontent-type: application/json\r\ncontent-length: %d\r\n%s\r\n" % (size, more)


@pytest.mark.parametrize("head", [b"", b"GET /healthz HTTP/1.1\r\nx: 1\r\n", b"\r\n"])
async def test_a_head_that_does_not_end_is_cut_off(head: bytes) -> None:
    async with http_serving(options=QUICK) as served, bare(served) as (reader, writer):
        writer.write(head)
        assert await status(reader) == (408 if head.startswith(b"GET") else 0)
        await ends(reader)
        await served.still_serves()


async def test_a_head_that_comes_byte_by_byte_is_cut_off() -> None:
    async with http_serving(options=QUICK) as served, bare(served) as (reader, writer):
        answer = asyncio.create_task(status(reader))
        for byte in b"GET /healthz HTTP/1.1\r\n" + b"x" * 10_000:
            if answer.done():
                break
            writer.write(bytes((byte,)))
            await asyncio.sleep(0.005)
        assert await answer == 408


@pytest.mark.parametrize(
    "head",
    [
        b"GET /healthz HTTP/1.1\r\n" + b"".join(b"x-%d: %s\r\n" % (n, b"v" * 90) for n in range(40)) + b"\r\n",
        b"GET /healthz HTTP/1.1\r\nx: " + b"v" * 4000 + b"\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nx: " + b"v" * 4000,
        b"GET /" + b"p" * 4000 + b" HTTP/1.1\r\n\r\n",
    ],
    ids=["many headers", "a long header", "a header without an end", "a long path"],
)
async def test_a_head_that_is_too_large_is_refused(head: bytes) -> None:
    async with http_serving(options=QUICK) as served, bare(served) as (reader, writer):
        writer.write(head)
        assert await status(reader) == 431
        await ends(reader)


async def test_what_is_no_http_is_refused() -> None:
    async with http_serving(options=QUICK) as served, bare(served) as (reader, writer):
        writer.write(b"\x16\x03\x01 is what TLS begins with\r\n\r\n")
        assert await status(reader) == 400
        await ends(reader)


@pytest.mark.parametrize("body", [b"content-length: 1\r\n", b"content-length: 1000000\r\n", b"transfer-encoding: chunked\r\n"])
async def test_a_request_for_a_socket_that_has_a_body_is_refused_before_the_body_comes(body: bytes) -> None:
    async with http_serving() as served, bare(served) as (reader, writer):
        writer.write(request("/v1/live", HANDSHAKE + body))
        assert await status(reader) == 400
        assert b"a request for a WebSocket has no body" in await ends(reader)
        await eventually(lambda: not served.server.connections)


async def test_a_request_for_a_socket_may_say_that_it_has_no_body() -> None:
    async with http_serving() as served, bare(served) as (reader, writer):
        writer.write(request("/v1/live", HANDSHAKE + b"content-length: 0\r\n"))
        assert await status(reader) == 101


@pytest.mark.parametrize("target", ["http://h", "h:443", "/\xff"])
async def test_a_request_for_a_socket_at_no_path_is_refused(target: str, caplog: pytest.LogCaptureFixture) -> None:
    async with http_serving() as served, bare(served) as (reader, writer):
        method = "CONNECT" if target == "h:443" else "GET"
        writer.write(f"{method} {target} HTTP/1.1\r\n".encode("latin-1") + HANDSHAKE + b"\r\n")
        assert await status(reader) == 400
    assert "Fatal error" not in caplog.text


@pytest.mark.parametrize("pause_s", [0.02, 10.0])
async def test_a_body_that_comes_too_slowly_is_refused_and_nothing_is_held(pause_s: float) -> None:
    async with http_serving(options=QUICK) as served, bare(served) as (reader, writer):
        writer.write(post(5000))
        answer = asyncio.create_task(status(reader))
        for _ in range(5000):
            writer.write(b" ")
            done, _ = await asyncio.wait({answer}, timeout=pause_s)
            if done:
                break
        assert await answer == 400
        text = (await ends(reader)).decode()
        assert ("must arrive within 0.3 s" if pause_s < 1 else "must not pause for more than 0.15 s") in text
        await served.nothing_left()


@pytest.mark.parametrize("declared", [True, False])
async def test_a_body_that_is_too_large_is_refused(declared: bool) -> None:
    data = b" " * 150_000
    async with http_serving(options=replace(OPTIONS, max_body_bytes=100_000)) as served:
        content = data if declared else _in_parts(data)
        answer = await served.client.post("/v1/stream", content=content)
        assert answer.status_code == 413
        assert answer.json()["error"]["message"].startswith("the body must have at most 100000 bytes; got 1")
        await served.nothing_left()
        await served.still_serves()


async def _in_parts(data: bytes) -> AsyncGenerator[bytes, None]:
    for at in range(0, len(data), 10_000):
        yield data[at : at + 10_000]


async def test_all_bodies_together_are_bounded() -> None:
    async with http_serving(options=replace(OPTIONS, max_held_bytes=50_000)) as served, bare(served) as (_, writer):
        writer.write(post(60_000) + b" " * 30_000)
        await eventually(lambda: served.edge.held.size == 30_000)
        refused = await served.client.post("/v1/stream", content=b" " * 30_000)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "busy")
        assert refused.headers["retry-after"] == "2"
        writer.transport.abort()
        await served.nothing_left()
        await served.still_serves()


async def test_the_rest_of_a_body_that_nobody_wants_does_not_hold_the_connection() -> None:
    async with http_serving(options=replace(QUICK, head_timeout_s=10.0)) as served, bare(served) as (reader, writer):
        writer.write(b"POST /healthz HTTP/1.1\r\nhost: h\r\ncontent-length: 50000\r\nexpect: 100-continue\r\n\r\n")
        assert await status(reader) == 405
        assert b"connection: close" in await ends(reader)
        async with bare(served) as (other, sending):
            sending.write(b"POST /healthz HTTP/1.1\r\nhost: h\r\ncontent-length: 50000\r\n\r\nx")
            assert await status(other) == 405
            await ends(other)


async def test_a_body_that_is_answered_early_is_passed_over_and_the_connection_goes_on() -> None:
    async with http_serving() as served, bare(served) as (reader, writer):
        writer.write(b"POST /healthz HTTP/1.1\r\nhost: h\r\ncontent-length: 50000\r\n\r\n")
        assert await status(reader) == 405
        while (await reader.readline()).strip():
            pass
        writer.write(b"x" * 50_000 + b"GET /healthz HTTP/1.1\r\nhost: h\r\n\r\n")
        async with asyncio.timeout(20):
            while b"HTTP/1.1 200" not in await reader.readline():
                pass


async def test_a_caller_that_waits_for_a_sign_gets_it_only_for_a_body_that_is_read() -> None:
    async with http_serving() as served, bare(served) as (reader, writer):
        writer.write(post(len(BODY), b"expect: 100-continue\r\n"))
        assert await status(reader) == 100
        writer.write(BODY)
        assert await reader.readline() == b"\r\n"
        assert await status(reader) == 200


async def test_one_connection_too_many_is_told_to_come_back() -> None:
    async with http_serving(options=replace(OPTIONS, max_connections=2)) as served, bare(served), bare(served) as second:
        await eventually(lambda: True)
        async with bare(served) as (reader, _):
            assert await status(reader) == 503
            assert b"retry-after: 2" in await ends(reader)
        second[1].transport.abort()
        await asyncio.sleep(0.05)
        await served.still_serves()


async def test_requests_on_one_connection_are_answered_in_turn_and_not_without_end() -> None:
    one = b"GET /healthz HTTP/1.1\r\nhost: h\r\n\r\n"
    async with http_serving() as served, bare(served) as (reader, writer):
        writer.write(one * 3)
        for _ in range(3):
            assert await status(reader) == 200
            while (await reader.readline()).strip():
                pass
            await reader.readexactly(len(b'{"status":"ok"}'))
        writer.write(one * 1000)
        text = await ends(reader)
        assert text.count(b"200 OK") < 20


async def test_an_idle_connection_is_closed_and_a_drained_server_keeps_none() -> None:
    async with http_serving(options=replace(OPTIONS, keep_alive_s=1)) as served, bare(served) as (reader, writer):
        writer.write(b"GET /healthz HTTP/1.1\r\nhost: h\r\n\r\n")
        assert await status(reader) == 200
        draining = asyncio.create_task(served.doors.drain(grace_s=20))
        await ends(reader)
        async with asyncio.timeout(10):
            await draining

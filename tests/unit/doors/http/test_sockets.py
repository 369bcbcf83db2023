"""WebSockets of any room: who gets one, what bounds it, and how it ends whatever its caller does."""

from __future__ import annotations

import asyncio
import json
import logging
import struct
from dataclasses import replace

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Opcode

from doors.http.room import Credentials, Socket
from model_core.errors import CapacityExceeded
from service.identity.principal import Forbidden
from tests.fakes import eventually
from tests.http_served import OPTIONS
from tests.live_socket import HANDSHAKE, frame, live, request
from tests.toy_socket import PATH, bare, closed_with, forever, goodbye, outcomes, serving
from tests.unit.doors.http.test_edge import KEY, Keys

# -- Who gets one.


async def test_messages_go_both_ways_and_the_end_is_counted_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "doors.http.access_log"):
        async with serving() as served, live(served.port, path=PATH, offered=()) as caller:
            for message in ("", "text \u00e9", b"", b"\x00\xff", "x" * 70_000, b"y" * 200_000):
                await caller.socket.send(message)
                assert await caller.socket.recv() == message
            assert caller.socket.response is not None
            assert caller.socket.response.headers["x-request-id"]
            assert caller.socket.subprotocol is None
            await caller.socket.send(["in ", "", "parts"])
            assert await caller.socket.recv() == "in parts"
            await caller.socket.send("bye")
            with pytest.raises(ConnectionClosed) as closed:
                await caller.socket.recv()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1000
            await eventually(lambda: outcomes(served, "completed") == 1)
            await eventually(lambda: not served.server.connections)
    (line,) = [record.getMessage() for record in caplog.records if "toy.talk" in record.getMessage()]
    assert line.startswith(f"GET {PATH} toy.talk 101, ")
    assert ": completed; request id-" in line


async def test_a_socket_takes_the_place_of_its_connection() -> None:
    async with serving(options=replace(OPTIONS, max_connections=1)) as served:
        async with live(served.port, path=PATH, offered=()):
            assert len(served.server.connections) == 1
            reader, writer = await served.connect()
            assert (await reader.read()).startswith(b"HTTP/1.1 503 ")
            writer.close()
        await eventually(lambda: not served.server.connections)
        async with live(served.port, path=PATH, offered=()):
            pass


@pytest.mark.parametrize(
    ("path", "status", "told"),
    [
        ("/toy/a/b", 418, "there is no WebSocket at /toy/a/b"),
        ("/nothing", 404, "there is no WebSocket at /nothing"),
        ("/v1/models", 404, "there is no WebSocket at /v1/models"),
    ],
)
async def test_where_there_is_none_the_nearest_room_says_so(path: str, status: int, told: str) -> None:
    async with serving() as served:
        with pytest.raises(InvalidStatus) as refused:
            async with live(served.port, path=path, offered=()):
                pass
        answer = refused.value.response
        assert (answer.status_code, told in bytes(answer.body or b"").decode()) == (status, True)
        assert answer.headers["connection"] == "close"
        assert served.metric("calls_total", rpc="none", outcome="unknown") == 1


async def test_a_plain_request_for_a_socket_is_told_what_to_send() -> None:
    async with serving() as served:
        answer = await served.client.get(PATH)
        assert (answer.status_code, answer.headers["upgrade"]) == (426, "websocket")
        assert f"there is a WebSocket at {PATH}" in answer.json()["message"]
        assert (await served.client.get("/toy/thing")).text == "seen"


@pytest.mark.parametrize(
    ("headers", "told"),
    [
        (HANDSHAKE.replace(b"13", b"12"), "Sec-WebSocket-Version"),
        (HANDSHAKE.replace(b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n", b""), "Sec-WebSocket-Key"),
        (HANDSHAKE.replace(b"dGhl", b"\xe9\xe9"), "Sec-WebSocket-Key"),
        (HANDSHAKE + b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n", "Sec-WebSocket-Key"),
    ],
)
async def test_a_request_that_is_unsound_is_refused_in_words(headers: bytes, told: str) -> None:
    async with serving() as served:
        reader, writer = await served.connect()
        writer.write(request(PATH, headers))
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        assert head.startswith(b"HTTP/1.1 418 ")
        assert "must be a sound request for a WebSocket" in json.loads(body)["message"]
        assert told in json.loads(body)["message"]


async def test_a_request_for_a_socket_behind_one_that_runs_is_refused() -> None:
    async with serving() as served:
        reader, writer = await served.connect()
        writer.write(b"GET /v1/models HTTP/1.1\r\nhost: h\r\n\r\n" + request(PATH))
        assert b"101" not in (await reader.read()).split(b"\r\n")[0]
        writer.close()
        await served.still_serves()


async def test_a_socket_may_follow_a_request_on_its_connection() -> None:
    async with serving() as served:
        reader, writer = await served.connect()
        writer.write(b"GET /toy/thing HTTP/1.1\r\nhost: h\r\n\r\n")
        await reader.readuntil(b"seen")
        writer.write(request(PATH))
        await reader.readuntil(b"\r\n\r\n")
        writer.write(frame(b"hello"))
        assert await reader.readexactly(7) == b"\x81\x05hello"
        writer.close()


@pytest.mark.parametrize("headers", [[], [("authorization", "Bearer wrong")], [("x-api-key", "")]])
async def test_nobody_gets_one_without_a_key(headers: list[tuple[str, str]]) -> None:
    async with serving(authority=Keys(), credentials=Credentials.USUAL) as served:
        with pytest.raises(InvalidStatus) as refused:
            async with live(served.port, path=PATH, offered=(), headers=headers):
                pass
        assert json.loads(refused.value.response.body or b"")["toy"] == "unauthenticated"
        assert outcomes(served, "unauthenticated") == 1


@pytest.mark.parametrize(
    ("headers", "offered"),
    [([("authorization", f"Bearer {KEY}")], ["other", "toy.v1"]), ([], ["toy.v1", f"ticket.{KEY}"]), ([("x-api-key", KEY)], [])],
)
async def test_a_key_or_a_ticket_is_found_and_stands_in_no_answer(headers: list[tuple[str, str]], offered: list[str]) -> None:
    keys = Keys()
    async with (
        serving(authority=keys, credentials=Credentials.USUAL, subprotocols=("toy.v1",)) as served,
        live(served.port, path=PATH, offered=offered, headers=headers) as caller,
    ):
        assert caller.socket.subprotocol == ("toy.v1" if offered else None)
        await caller.socket.send("hello")
        assert await caller.socket.recv() == "hello"
    assert len(keys.callers) == 1


@pytest.mark.parametrize(
    ("offered", "told"),
    [
        (["other"], "Sec-WebSocket-Protocol: must offer toy.v1; got other"),
        (["toy.v1", "ticket.a", "ticket.b"], "must offer at most one ticket; got 2"),
    ],
)
async def test_a_subprotocol_that_is_not_spoken_is_refused(offered: list[str], told: str) -> None:
    async with serving(subprotocols=("toy.v1",)) as served:
        with pytest.raises(InvalidStatus) as refused:
            async with live(served.port, path=PATH, offered=offered):
                pass
        assert told in json.loads(refused.value.response.body or b"")["message"]


async def test_pages_of_other_sites_get_none_unless_they_are_listed() -> None:
    page = "https://example.com"
    async with serving() as served:
        for origin in (page, "null", "http://["):
            with pytest.raises(InvalidStatus) as refused:
                async with live(served.port, path=PATH, offered=(), origin=origin):
                    pass
            assert json.loads(refused.value.response.body or b"")["toy"] == "forbidden"
        async with live(served.port, path=PATH, offered=(), origin=f"http://127.0.0.1:{served.port}"):
            pass
    async with serving(options=replace(OPTIONS, origins=(page,))) as served, live(served.port, path=PATH, offered=(), origin=page):
        pass


@pytest.mark.parametrize("place", ["authorization", "ticket", "query"])
async def test_no_secret_is_written_down(place: str, caplog: pytest.LogCaptureFixture) -> None:
    secret = "planted-secret-7"  # noqa: S105 - no secret

    async def fails(socket: Socket) -> None:
        if place != "authorization":
            await socket.accept()
        raise ValueError(f"failed with {dict(socket.raw.headers)} {socket.raw.url}")

    headers = [("authorization", f"Bearer {secret}")] if place == "authorization" else []
    with caplog.at_level(logging.DEBUG):
        async with serving(fails) as served:
            path = f"{PATH}?key={secret}" if place == "query" else PATH
            offered = [f"ticket.{secret}", "b"] if place == "ticket" else []
            reader, writer = await served.connect()
            more = b"".join(f"{name}: {value}\r\n".encode() for name, value in headers)
            more += f"sec-websocket-protocol: {', '.join(offered)}\r\n".encode() if offered else b""
            writer.write(request(path, HANDSHAKE + more))
            seen = await reader.readuntil(b"internal")
            writer.close()
            await eventually(lambda: outcomes(served, "internal") == 1)
            exposed = "".join(f"{sample}" for family in served.registry.collect() for sample in family.samples)
    written = "\n".join(record.getMessage() for record in caplog.records if not record.name.startswith("asyncio"))
    assert "failed with" in written
    assert b"planted" not in seen
    assert "planted" not in written
    assert "planted" not in exposed


# -- How it ends.


async def test_an_error_before_the_accept_is_an_answer_and_one_after_it_a_farewell() -> None:
    error: Exception = Forbidden("not that")
    accepts = False

    async def fails(socket: Socket) -> None:
        if accepts:
            await socket.accept()
        raise error

    async with serving(fails) as served:
        with pytest.raises(InvalidStatus) as refused:
            async with live(served.port, path=PATH, offered=()):
                pass
        assert json.loads(refused.value.response.body or b"") == {"toy": "forbidden", "message": "not that"}
        error = CapacityExceeded("full", 7.0)
        with pytest.raises(InvalidStatus) as refused:
            async with live(served.port, path=PATH, offered=()):
                pass
        assert refused.value.response.headers["retry-after"] == "7"
        accepts, error = True, Forbidden("not that")
        got, code, reason = await closed_with(served)
        assert ([json.loads(each) for each in got], code, reason) == ([{"toy": "forbidden", "message": "not that"}], 4418, "not that")
        assert outcomes(served, "forbidden") == 2


@pytest.mark.parametrize("how", ["goodbye", "cut"])
async def test_a_caller_who_leaves_cancels_the_handler(how: str) -> None:
    ended = asyncio.Event()

    async def waits(socket: Socket) -> None:
        await socket.accept()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with serving(waits) as served:
        async with bare(served) as (_, writer):
            if how == "goodbye":
                writer.write(frame(struct.pack("!H", 1001), Opcode.CLOSE))
            else:
                writer.transport.abort()
            async with asyncio.timeout(20):
                await ended.wait()
        await eventually(lambda: outcomes(served, "cancelled") == 1)
        await eventually(lambda: not served.server.connections)


async def test_last_words_are_not_cancelled() -> None:
    left, finished = asyncio.Event(), asyncio.Event()

    async def settles(socket: Socket) -> None:
        await socket.accept()
        socket.ending()
        await socket.send("over")
        await left.wait()
        finished.set()

    async with serving(settles) as served:
        async with live(served.port, path=PATH, offered=()) as caller:
            assert await caller.socket.recv() == "over"
        await eventually(lambda: not served.server.connections)
        left.set()
        await eventually(lambda: outcomes(served, "completed") == 1)
        assert finished.is_set()


async def test_in_a_drain_what_has_not_begun_ends_at_once_and_the_rest_with_the_grace() -> None:
    async def opens(socket: Socket) -> None:
        await socket.accept()
        await socket.first("start", 60)
        await asyncio.Event().wait()

    async with serving(opens) as served, bare(served) as (idle, _), bare(served) as (busy, writer):
        writer.write(frame(b"{}"))
        await asyncio.sleep(0.05)
        draining = asyncio.create_task(served.doors.drain(grace_s=0.4))
        message, code, _ = await goodbye(idle)
        assert (b"unavailable" in message, code) == (True, 1012)
        assert not draining.done()
        message, code, _ = await goodbye(busy)
        assert (b"unavailable" in message, code) == (True, 1012)
        async with asyncio.timeout(20):
            await draining


async def test_a_drain_waits_for_no_caller_who_says_no_goodbye() -> None:
    async with serving(forever) as served, bare(served):
        async with asyncio.timeout(20):
            await served.doors.drain(grace_s=0)
        assert not served.server.connections

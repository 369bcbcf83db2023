"""Callers of a WebSocket that send as much as they can, and those that wait for its beginning."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace

import pytest
from uvicorn.server import ServerState
from websockets.frames import Opcode

from doors.http.bodies import FREE_BYTES, Held
from doors.http.pace import Pace
from doors.http.room import Socket
from doors.http.sockets.connection import SocketConnection
from doors.http.sockets.incoming import Incoming
from tests.fakes import ManualClock, eventually
from tests.http_served import OPTIONS, HttpServed
from tests.live_socket import HANDSHAKE, frame, request
from tests.toy_socket import PATH, bare, forever, goodbye, outcomes, serving

QUICK = replace(OPTIONS, linger_s=0.1, body_timeout_s=0.4, idle_timeout_s=0.2)
SLOW = replace(OPTIONS, body_timeout_s=10.0, idle_timeout_s=10.0)


class Wire(asyncio.Transport):
    """Takes everything, and notes whether it is read."""

    def __init__(self) -> None:
        super().__init__()
        self.written, self.reading, self.closing = b"", True, False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True

    def get_write_buffer_size(self) -> int:
        return 0


@contextmanager
def accepted(bytes_a_second: float = 1e9) -> Generator[tuple[SocketConnection, Incoming, Wire]]:
    """A WebSocket for which no time passes as long as its frames are counted."""
    headers = [(name, value) for name, _, value in (line.partition(b": ") for line in HANDSHAKE.split(b"\r\n") if line)]
    scope = {"type": "websocket", "method": "GET", "path": PATH, "http_version": "1.1", "headers": headers}
    wire = Wire()
    connection = SocketConnection(scope, wire, ServerState(), SLOW, writable=True)
    connection.accept((), "", 64 * FREE_BYTES, Held(10**9), Pace(bytes_a_second, ManualClock()))
    incoming = connection._incoming  # noqa: SLF001 - what it has parsed shows nowhere else
    assert incoming is not None
    yield connection, incoming, wire
    connection.connection_lost(None)


async def waiting(served: HttpServed) -> SocketConnection:
    """The one that is served."""
    await eventually(lambda: any(isinstance(each, SocketConnection) for each in served.server.connections))
    (connection,) = served.server.connections
    assert isinstance(connection, SocketConnection)
    return connection


@pytest.mark.parametrize("opcode", [Opcode.PONG, Opcode.PING, Opcode.TEXT])
async def test_one_read_of_tiny_frames_is_not_parsed_at_once(opcode: Opcode) -> None:
    with accepted() as (connection, incoming, wire):
        connection.data_received(frame(b"", opcode) * 40_000)
        assert 0 < incoming.frames < 1000
        assert not wire.reading
        await asyncio.sleep(0)
        assert incoming.frames < 1000


async def test_a_large_message_in_one_frame_is_parsed_at_once() -> None:
    with accepted() as (connection, incoming, wire):
        connection.data_received(frame(b"x" * 250_000))
        assert (incoming.frames, incoming.waiting, wire.reading) == (1, 1, False)
        assert len((await connection.receive()).data) == 250_000
        assert wire.reading


async def test_frames_that_had_to_wait_are_answered() -> None:
    async with serving(forever) as served, bare(served) as (reader, writer):
        writer.write(b"".join(frame(b"%04d" % number, Opcode.PING) for number in range(900)))
        async with asyncio.timeout(20):
            pongs = await reader.readexactly(900 * 6)
        assert pongs[-6:] == b"\x8a\x040899"


async def test_a_goodbye_behind_many_frames_is_heard_once_the_server_has_said_its_own() -> None:
    with accepted() as (connection, _, wire):
        connection.data_received(frame(b"", Opcode.PONG) * 5000 + frame(b"", Opcode.CLOSE))
        connection.close(1000)
        for _ in range(50):
            await asyncio.sleep(0)
        assert wire.closing


async def test_large_messages_are_read_at_the_pace_of_bodies() -> None:
    large = frame(b"x" * 3 * FREE_BYTES)
    with accepted(bytes_a_second=100_000) as (connection, _, wire):
        connection.data_received(large[:FREE_BYTES])
        assert wire.reading
        connection.data_received(large[FREE_BYTES : FREE_BYTES + 200_000])
        assert not wire.reading


async def test_a_caller_who_was_held_up_has_that_much_more_time() -> None:
    large = frame(b"x" * 3 * FREE_BYTES)
    now = asyncio.get_running_loop().time()
    with accepted(bytes_a_second=100) as (connection, incoming, wire):  # a part of 2048 bytes has to wait for 20 s
        connection.data_received(large[: FREE_BYTES + 4096])
        assert not wire.reading
        connection.sweep(now + 15)
        assert incoming.failure is None
        connection.sweep(now + 60)
        assert "must arrive within 10 s" in str(incoming.failure)


async def test_a_caller_who_is_held_up_for_its_many_frames_has_no_more_time() -> None:
    now = asyncio.get_running_loop().time()
    with accepted() as (connection, incoming, _):
        connection.data_received(frame(b"x", fin=False) + frame(b"", Opcode.CONT, fin=False) * 40_000)
        connection.sweep(now + 9)
        assert incoming.failure is None
        connection.sweep(now + 12)
        assert "must arrive within 10 s" in str(incoming.failure)


async def test_a_caller_who_leaves_before_the_accept_is_noticed() -> None:
    async with serving(in_line) as served:
        _, writer = await served.connect()
        writer.write(request(PATH))
        await waiting(served)
        writer.close()
        await eventually(lambda: outcomes(served, "cancelled") == 1)
        await eventually(lambda: not served.server.connections)


async def test_what_is_said_before_the_accept_is_refused() -> None:
    async with serving(in_line) as served:
        reader, writer = await served.connect()
        writer.write(request(PATH))
        await waiting(served)
        writer.write(frame(b"hello"))
        async with asyncio.timeout(20):
            answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert answer.endswith(b"nothing may be sent before the WebSocket is accepted")
        writer.close()
        await eventually(lambda: outcomes(served, "cancelled") == 1)


async def in_line(socket: Socket) -> None:
    """Waits for its turn to accept."""
    await asyncio.Event().wait()


async def test_half_a_ping_does_not_begin_a_message_that_may_take_for_ever() -> None:
    async def starts(socket: Socket) -> None:
        await socket.accept()
        await socket.first("start", 20.0)

    ping = frame(b"", Opcode.PING)
    async with serving(starts, options=QUICK) as served, bare(served) as (reader, writer):
        connection = await waiting(served)
        writer.write(ping[:3])
        await eventually(lambda: connection._heard_at > connection._pinged_at)  # noqa: SLF001 - its first half has come
        writer.write(ping[3:])
        message, code, _ = await goodbye(reader)
        assert (b"got 0 bytes so far" in message, code) == (True, 4418)

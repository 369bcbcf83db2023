"""Callers of a WebSocket that send slowly, too much, or nonsense, and those that read nothing. Each wait has an end."""

from __future__ import annotations

import asyncio
import json
import struct
from dataclasses import replace

import pytest
from websockets.frames import Opcode

from doors.http.room import Socket
from tests.fakes import eventually
from tests.http_served import OPTIONS
from tests.live_socket import frame, live, request
from tests.toy_socket import PATH, bare, closed_with, echo, forever, goodbye, outcomes, serving

QUICK = replace(OPTIONS, linger_s=0.1, body_timeout_s=0.4, idle_timeout_s=0.2, max_body_bytes=100_000, stall_s=0.3)
AWAKE = replace(OPTIONS, ping_s=0.05, pong_s=0.2, linger_s=0.1)


async def narrow(socket: Socket) -> None:
    """Takes large messages first, and small ones later."""
    await socket.accept()
    await socket.receive()
    await socket.receive(100)


async def keeps(socket: Socket) -> None:
    """Works on one message."""
    await socket.accept()
    await socket.receive()
    await socket.send("taken")
    await asyncio.Event().wait()


async def asks_later(socket: Socket) -> None:
    """Sends one word when a message was taken."""
    await socket.accept()
    await asyncio.sleep(0.1)
    while True:
        await socket.receive()
        await socket.send("taken")


@pytest.mark.parametrize(
    ("size", "cut"),
    [(100_001, False), (100_001, True), (10_000_000, False)],
)
async def test_a_message_that_is_too_large_ends_it_in_the_rooms_words(size: int, cut: bool) -> None:
    async with serving(options=QUICK) as served:
        async with live(served.port, path=PATH, offered=()) as caller:
            await caller.socket.send("x" * 100_000)
            assert len(await caller.socket.recv()) == 100_000
        got, code, reason = await closed_with(served, says=["x" * 50_000, "x" * (size - 50_000)] if cut else "x" * size)
        told = f"the message must have at most 100000 bytes; got {size}"
        assert ([json.loads(each) for each in got], code, reason) == ([{"toy": "too_large", "message": told}], 4418, told)
        await eventually(lambda: outcomes(served, "too_large") == 1)
        await eventually(lambda: served.edge.held.size == 0)


async def test_the_bound_may_be_narrowed_also_for_what_has_come_already() -> None:
    async with serving(narrow, options=QUICK) as served:
        async with bare(served) as (reader, writer):
            writer.write(frame(b"x" * 90_000) + frame(b"y" * 101))
            message, code, _ = await goodbye(reader)
            assert (b"at most 100 bytes; got 101" in message, code) == (True, 4418)
        async with bare(served) as (reader, writer):
            writer.write(frame(b"x" * 90_000))
            await asyncio.sleep(0.05)
            writer.write(frame(b"y" * 50, fin=False) + frame(b"y" * 51, Opcode.CONT))
            message, code, _ = await goodbye(reader)
            assert (b"at most 100 bytes; got 101" in message, code) == (True, 4418)


async def test_messages_are_counted_with_all_bodies() -> None:
    async with serving(keeps, options=replace(QUICK, max_held_bytes=100_000)) as served:
        async with live(served.port, path=PATH, offered=()) as caller:
            await caller.socket.send("x" * 90_000)
            await caller.socket.recv()
            assert served.edge.held.size == 90_000
            got, code, _ = await closed_with(served, says="x" * 90_000)
            assert (json.loads(got[0])["toy"], code) == ("refused", 4418)
            assert served.edge.held.size == 90_000
        await eventually(lambda: served.edge.held.size == 0)
    async with serving(options=replace(QUICK, max_held_bytes=100_000)) as served, live(served.port, path=PATH, offered=()) as caller:
        for _ in range(3):
            await caller.socket.send("x" * 90_000)
            await caller.socket.recv()


async def test_a_session_does_not_end_because_bodies_of_others_fill_the_server() -> None:
    async with serving() as served, live(served.port, path=PATH, offered=()) as caller:
        served.edge.held.take(OPTIONS.max_held_bytes)
        await caller.socket.send("x" * 70_000)
        assert len(await caller.socket.recv()) == 70_000
        served.edge.held.give_back(OPTIONS.max_held_bytes)


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        ([frame(b"x" * 1000)[:500]], "must not pause for more than 0.2 s; got 492 bytes so far"),
        ([frame(b"x" * 1000, fin=False)], "must not pause for more than 0.2 s; got 1000 bytes so far"),
        ([frame(b"x" * 9, fin=False), *[frame(b"", Opcode.CONT, fin=False)] * 40], "must arrive within 0.4 s; got 9 bytes so far"),
    ],
)
async def test_a_message_that_does_not_come_in_time_ends_it(parts: list[bytes], told: str) -> None:
    async with serving(options=QUICK) as served, bare(served) as (reader, writer):

        async def drip() -> None:
            for part in parts:
                writer.write(part)
                await asyncio.sleep(0.05)

        dripping = asyncio.create_task(drip())
        message, code, _ = await goodbye(reader)
        dripping.cancel()
        assert (told in message.decode(errors="replace"), code) == (True, 4418)
        assert outcomes(served, "invalid") == 1


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x81\x05hello", 1002),  # not masked
        (frame(b"a", Opcode.CONT), 1002),
        (frame(b"a", fin=False) + frame(b"b"), 1002),
        (b"\xf1" + frame(b"a")[1:], 1002),
        (b"\x83" + frame(b"a")[1:], 1002),
        (frame(b"\x03", Opcode.CLOSE), 1002),
        (frame(struct.pack("!H", 1000) + b"\xff", Opcode.CLOSE), 1007),
        (b"GET / HTTP/1.1\r\n\r\n", 1002),
    ],
    ids=["unmasked", "goes on with nothing", "begun anew", "reserved bits", "opcode", "short close", "no UTF-8", "HTTP"],  # random masks
)
async def test_what_is_no_websocket_is_ended_in_the_protocols_words(data: bytes, code: int) -> None:
    async with serving(forever, options=QUICK) as served:
        async with bare(served) as (reader, writer):
            writer.write(data)
            _, got, _ = await goodbye(reader)
            assert got == code
        await eventually(lambda: outcomes(served, "cancelled") == 1)
        await eventually(lambda: not served.server.connections)


async def test_text_that_is_no_utf_8_is_bad_input() -> None:
    async with serving(options=QUICK) as served, bare(served) as (reader, writer):
        writer.write(frame(b"\xff"))
        message, code, _ = await goodbye(reader)
        assert (b"must be UTF-8" in message, code) == (True, 4418)


async def test_messages_that_nobody_takes_hold_up_the_caller_and_end_it() -> None:
    async with serving(forever, options=replace(QUICK, stall_s=0.5)) as served, bare(served) as (reader, writer):
        writer.write(frame(b"x" * 1000) * 5000)
        message, code, reason = await goodbye(reader)
        assert (message, code) == (b"", 1008)
        assert reason.endswith("messages wait, and none was taken for 0.5 s")
        assert int(reason.split()[0]) < 1000  # and not all that were sent
        await eventually(lambda: outcomes(served, "cancelled") == 1)


async def test_a_caller_that_was_held_up_goes_on() -> None:
    async with serving(asks_later, options=replace(AWAKE, stall_s=20)) as served, live(served.port, path=PATH, offered=()) as caller:
        for _ in range(300):
            await caller.socket.send("x" * 1000)
        for _ in range(300):
            assert await caller.socket.recv() == "taken"


async def test_a_caller_that_does_not_answer_pings_is_gone() -> None:
    async with serving(forever, options=AWAKE) as served:
        async with bare(served) as (reader, _):
            message, code, reason = await goodbye(reader)
            assert (message, code, reason) == (b"\x89\x00", 1011, "nothing came for 0.2 s after a ping")
        await eventually(lambda: outcomes(served, "cancelled") == 1)
        await eventually(lambda: not served.server.connections)


async def test_a_caller_that_answers_stays_and_so_does_one_that_sends_slowly() -> None:
    async with serving(options=AWAKE) as served, live(served.port, path=PATH, offered=()) as caller, bare(served) as (_, writer):
        for part in range(0, 1000, 100):
            writer.write(frame(b"x" * 994)[part : part + 100])
            await asyncio.sleep(0.05)
        await caller.socket.send("still here")
        assert await caller.socket.recv() == "still here"
        assert len(served.server.connections) == 2
        assert outcomes(served, "cancelled") == 0


async def test_pings_of_a_caller_that_reads_nothing_fill_no_buffer() -> None:
    async with serving(forever, options=replace(OPTIONS, linger_s=0.1, stall_s=1.0)) as served:
        async with bare(served) as (_, writer):
            (connection,) = served.server.connections
            ping, sent = frame(b"p" * 100, Opcode.PING) * 1000, 0
            while sent < 400 and not writer.transport.is_closing():
                writer.write(ping)
                sent += 1
                await asyncio.sleep(0)
                assert connection.transport.get_write_buffer_size() < 1024 * 1024
        await eventually(lambda: outcomes(served, "cancelled") == 1)


@pytest.mark.parametrize("binary", [True, False])
async def test_a_caller_that_reads_nothing_is_stalled(binary: bool) -> None:
    async def floods(socket: Socket) -> None:
        await socket.accept()
        while True:
            await socket.send(b"x" * 65536 if binary else "x" * 65536)

    async with serving(floods, options=replace(OPTIONS, stall_s=0.3, linger_s=0.1)) as served, bare(served):
        await eventually(lambda: outcomes(served, "stalled") == 1)
        await eventually(lambda: not served.server.connections)
        await served.still_serves()


async def test_a_caller_that_says_no_goodbye_is_not_waited_for() -> None:
    async def leaves(socket: Socket) -> None:
        await socket.accept()
        socket.close(4000, "enough " * 40)

    async with serving(leaves, options=QUICK) as served, bare(served) as (reader, writer):
        writer.write(frame(b"") * 10_000)
        message, code, reason = await goodbye(reader)
        assert (message, code, reason) == (b"", 4000, ("enough " * 40)[:123])
        await eventually(lambda: not served.server.connections)
        assert outcomes(served, "completed") == 1


async def test_a_message_where_none_is_expected_is_refused() -> None:
    async def told_only(socket: Socket) -> None:
        await socket.accept()
        await socket.silence()

    async with serving(told_only) as served:
        got, code, _ = await closed_with(served, says="hello")
        assert (json.loads(got[0])["message"], code) == ("message: must not be sent here; got one of 5 bytes", 4418)


async def test_a_handler_that_returns_without_an_answer_is_a_defect() -> None:
    async def nothing(socket: Socket) -> None:
        return

    async with serving(nothing) as served:
        reader, writer = await served.connect()
        writer.write(request(PATH))
        assert b'{"toy":"internal"' in await reader.read()
        writer.close()
        assert outcomes(served, "internal") == 1


async def test_echo_is_what_the_tests_take_it_for() -> None:
    async with serving(echo) as served, bare(served) as (reader, writer):
        writer.write(frame(b"ping me", Opcode.PING))
        assert await reader.readexactly(9) == b"\x8a\x07ping me"

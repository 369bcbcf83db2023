"""However often a client asks whether the server is there, its connection stays. Its client is frames of HTTP/2, which keep no pace."""

from __future__ import annotations

import asyncio
import struct

import pytest

from headrace.v1 import video_pb2 as pb
from tests.served import serving

DATA, HEADERS, SETTINGS, PING, GOAWAY = 0, 1, 4, 6, 7
ACK, END_HEADERS = 1, 4
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
CALL = {
    b":method": b"POST",
    b":scheme": b"http",
    b":path": b"/headrace.v1.VideoService/Live",
    b":authority": b"test",
    b"te": b"trailers",
    b"content-type": b"application/grpc",
}
PINGS = 40


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def headers() -> bytes:
    """Literal fields, which need no table."""
    return b"".join(b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value for name, value in CALL.items())


def message(request: pb.LiveRequest) -> bytes:
    data = request.SerializeToString()
    return b"\x00" + struct.pack(">I", len(data)) + data


async def read(reader: asyncio.StreamReader) -> tuple[int, int, bytes]:
    head = await reader.readexactly(9)
    return head[3], head[4], await reader.readexactly(int.from_bytes(head[:3], "big"))


@pytest.mark.parametrize("paused", [False, True], ids=["no call", "a paused session"])
async def test_pings_without_pause_are_all_answered(paused: bool) -> None:
    async with serving() as served, asyncio.timeout(20):
        reader, writer = await asyncio.open_connection(*served.address.split(":"))
        writer.write(PREFACE + frame(SETTINGS, 0, 0))
        if paused:
            start = pb.LiveRequest(start=pb.LiveStart(spec=pb.VideoSpec(prompt="a red circle")))
            writer.write(frame(HEADERS, END_HEADERS, 1, headers()))
            writer.write(frame(DATA, 0, 1, message(start) + message(pb.LiveRequest(pause=pb.Pause()))))
            while True:  # until the pause is answered, after which the server has nothing to say
                kind, _, payload = await read(reader)
                if kind == DATA and pb.LiveResponse.FromString(payload[5:]).HasField("paused"):
                    break
        for number in range(PINGS):
            content = struct.pack(">Q", number)
            writer.write(frame(PING, 0, 0, content))
            while True:
                kind, flags, payload = await read(reader)
                assert kind != GOAWAY, payload
                if (kind, flags, payload) == (PING, ACK, content):
                    break
        assert served.service.open_sessions == paused
        writer.close()
        await writer.wait_closed()
        await served.nothing_left()

"""Viewers that cost little, so that many of them fit beside the server that they measure: each only notes which chunk came, and when."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from urllib.parse import urlsplit

import grpc

from headrace.v1 import video_pb2 as pb
from headrace.v1.video_pb2_grpc import VideoServiceStub

_MAX_MESSAGE_BYTES = 16 * 1024 * 1024
# Of server-sent events: where what is looked for stands at the latest.
_HEAD_BYTES = 256

Note = Callable[[str, int], None]
"""Is told of each event: its name as server-sent events have it, and the first frame of `frames`, or how many were `skipped`; else 0."""


class ReaderFailed(Exception):
    """The server did not answer as one that shows a session."""


def channel(address: str) -> grpc.aio.Channel:
    """A connection of its own, for some viewers."""
    options = (("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES))
    return grpc.aio.insecure_channel(address, options=options)


async def over_grpc(connection: grpc.aio.Channel, token: str, note: Note) -> None:
    """Watch until the session ends. Raises grpc.aio.AioRpcError."""
    watch = VideoServiceStub(connection).Watch
    async for message in watch(pb.WatchRequest(token=token, max_message_bytes=_MAX_MESSAGE_BYTES)):
        event = message.WhichOneof("event")
        note(event, message.frames.first_frame if event == "frames" else message.skipped.frames)


async def over_http(url: str, token: str, note: Note) -> None:
    """The same as server-sent events, until the server closes. Raises OSError, ReaderFailed."""
    parts = urlsplit(url)
    loop = asyncio.get_running_loop()
    transport, reader = await loop.create_connection(lambda: EventsReader(note), parts.hostname or "", parts.port or 80)
    try:
        path = f"/v1/watch/{token}?format=sse"
        transport.write(f"GET {path} HTTP/1.1\r\nHost: {parts.netloc}\r\nAccept: text/event-stream\r\n\r\n".encode())
        await reader.over
    finally:
        transport.close()


class EventsReader(asyncio.Protocol):
    """An answer of server-sent events, of which no more is read than its events' names and first numbers."""

    def __init__(self, note: Note) -> None:
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._note = note
        self._rest = bytearray()
        self._answered = False

    def data_received(self, data: bytes) -> None:
        scanned = max(0, len(self._rest) - 1)
        self._rest += data
        if not self._answered:
            if b"\r\n\r\n" not in self._rest:
                return
            status = bytes(self._rest.split(b"\r\n", 1)[0])
            if b" 200 " not in status + b" ":
                self._end(ReaderFailed(status.decode("latin-1")))
                return
            self._answered = True
        while (end := self._rest.find(b"\n\n", scanned)) >= 0:
            begin = self._rest.find(b"event: ", 0, end)
            if begin >= 0:
                self._told(bytes(self._rest[begin : min(end, begin + _HEAD_BYTES)]))
            del self._rest[: end + 2]
            scanned = 0

    def _told(self, head: bytes) -> None:
        name, _, data = head.partition(b"\n")
        event = name[len(b"event: ") :].strip().decode()
        key = {"frames": b'"first_frame":', "skipped": b'"frames":'}.get(event)
        digits = data.partition(key)[2].lstrip().partition(b",")[0].rstrip(b"}") if key else b"0"
        self._note(event, int(digits))

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(exc)

    def _end(self, error: Exception | None) -> None:
        if self.over.done():
            return
        if error is None:
            self.over.set_result(None)
        else:
            self.over.set_exception(error)

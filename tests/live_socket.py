"""A caller of `GET /v1/live`, as a page is one: JSON in text, frames in binary."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode
from websockets.typing import Subprotocol

SUBPROTOCOL = "headrace.v1"


@dataclass(slots=True)
class Caller:
    """What it has sent and got.

    Attributes:
        events: in order, frames among them.
        frames: items of chunks, as far as they came.
    """

    socket: ClientConnection
    events: list[dict[str, Any]] = field(default_factory=list)
    frames: list[bytes] = field(default_factory=list)

    async def say(self, **message: Any) -> None:
        await self.socket.send(json.dumps(message))

    async def next(self) -> dict[str, Any]:
        """The next event; of frames, with their binary message."""
        text = await self.socket.recv()
        assert isinstance(text, str), f"a binary message of {len(text)} bytes"
        event: dict[str, Any] = json.loads(text)
        self.events.append(event)
        if event["event"] == "frames":
            data = await self.socket.recv()
            assert isinstance(data, bytes)
            assert sum(event["sizes"]) == len(data)
            for size in event["sizes"]:
                self.frames.append(data[:size])
                data = data[size:]
        return event

    async def until(self, name: str) -> dict[str, Any]:
        """The next event of that name; those before it are in `events`."""
        while (event := await self.next())["event"] != name:
            pass
        return event

    async def rest(self) -> int:
        """Everything up to the end. Returns the code that it was closed with."""
        try:
            while True:
                await self.next()
        except ConnectionClosed as closed:
            return 1006 if closed.rcvd is None else closed.rcvd.code

    def names(self) -> list[str]:
        """Of the events, but for usage, which comes by the clock."""
        return [event["event"] for event in self.events if event["event"] != "usage"]


@asynccontextmanager
async def live(
    port: int,
    *,
    path: str = "/v1/live",
    offered: Sequence[str] = (SUBPROTOCOL,),
    headers: Sequence[tuple[str, str]] = (),
    **more: Any,
) -> AsyncGenerator[Caller, None]:
    """A caller whose socket is accepted. Raises InvalidStatus: it is not."""
    subprotocols = [Subprotocol(each) for each in offered] or None
    connecting = connect(
        f"ws://127.0.0.1:{port}{path}", subprotocols=subprotocols, additional_headers=list(headers), max_size=None, proxy=None,
        compression=None, ping_interval=None, **more,
    )  # fmt: skip
    async with connecting as socket:
        yield Caller(socket)


HANDSHAKE = (
    b"host: h\r\nupgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n"
)


def request(path: str, headers: bytes = HANDSHAKE, method: str = "GET") -> bytes:
    """The head of a request for a WebSocket."""
    return f"{method} {path} HTTP/1.1\r\n".encode() + headers + b"\r\n"


def frame(data: bytes, opcode: Opcode = Opcode.TEXT, *, fin: bool = True) -> bytes:
    """A frame as callers write it."""
    return Frame(opcode, data, fin).serialize(mask=True)

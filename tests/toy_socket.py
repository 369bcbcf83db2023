"""A room with one WebSocket behind the real HTTP door, and callers of it."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from starlette.responses import JSONResponse, Response
from websockets.exceptions import ConnectionClosed

from doors.http.room import Credentials, Endpoint, Farewell, Socket, SocketEndpoint
from service.failures import Failure
from tests.http_served import OPTIONS, HttpServed, http_serving
from tests.live_socket import live, request

PATH = "/toy/socket"
Handler = Callable[[Socket], Awaitable[None]]


class ToyRoom:
    """A room with one WebSocket, and a path beside it."""

    name = "toy"

    def __init__(self, handler: Handler, credentials: Credentials = Credentials.NONE, subprotocols: tuple[str, ...] = ()) -> None:
        self._handler = handler
        self._credentials = credentials
        self._subprotocols = subprotocols

    def endpoints(self) -> Sequence[Endpoint]:
        async def handler(_: object) -> Response:
            return Response("seen")

        return (Endpoint(path="/toy/thing", method="GET", operation="see", handler=handler, credentials=Credentials.NONE),)

    def sockets(self) -> Sequence[SocketEndpoint]:
        return (
            SocketEndpoint(
                path="/toy/{name}", operation="talk", handler=self._handler, credentials=self._credentials, subprotocols=self._subprotocols
            ),
        )

    def refuse(self, failure: Failure) -> Response:
        return JSONResponse({"toy": failure.kind.value, "message": failure.message}, 418)

    def farewell(self, failure: Failure) -> Farewell:
        return Farewell(json.dumps({"toy": failure.kind.value, "message": failure.message}), 4418, failure.message)


async def echo(socket: Socket) -> None:
    """Says everything again. `bye` ends it."""
    await socket.accept()
    while (message := await socket.receive()) != "bye":
        await socket.send(message)


async def forever(socket: Socket) -> None:
    """Sends nothing and asks for nothing."""
    await socket.accept()
    await asyncio.Event().wait()


def serving(handler: Handler = echo, *, options: Any = OPTIONS, **more: Any) -> Any:
    room = {name: more.pop(name) for name in ("credentials", "subprotocols") if name in more}
    return http_serving(options=options, more_rooms=[ToyRoom(handler, **room)], **more)


@asynccontextmanager
async def bare(served: HttpServed, path: str = PATH) -> AsyncGenerator[tuple[asyncio.StreamReader, asyncio.StreamWriter], None]:
    """A WebSocket that was accepted, for what no client does."""
    reader, writer = await served.connect()
    writer.write(request(path))
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def until_closed(reader: asyncio.StreamReader) -> bytes:
    """What comes until the connection is closed, in order or, where the server left something unread, with a reset."""
    seen = b""
    with suppress(ConnectionResetError):
        while data := await reader.read(65536):
            seen += data
    return seen


async def goodbye(reader: asyncio.StreamReader) -> tuple[bytes, int, str]:
    """What comes before the goodbye of the server, its code and its reason."""
    async with asyncio.timeout(20):
        seen = await until_closed(reader)
    at = next(at for at in range(len(seen)) if seen[at] == 0x88 and at + 2 + seen[at + 1] == len(seen))
    return seen[:at], struct.unpack("!H", seen[at + 2 : at + 4])[0], seen[at + 4 :].decode()


def outcomes(served: HttpServed, outcome: str) -> float:
    return served.metric("calls_total", rpc="toy.talk", outcome=outcome)


async def closed_with(
    served: HttpServed, *, headers: Sequence[tuple[str, str]] = (), says: str | bytes | Sequence[str] = ""
) -> tuple[list[Any], int, str]:
    """What a caller gets, and how it was closed."""
    got: list[Any] = []
    async with live(served.port, path=PATH, offered=()) as caller:
        if says:
            await caller.socket.send(says)
        try:
            while True:
                got.append(await caller.socket.recv())
        except ConnectionClosed as closed:
            return (got, 1006, "") if closed.rcvd is None else (got, closed.rcvd.code, closed.rcvd.reason)

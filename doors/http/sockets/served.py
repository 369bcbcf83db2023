"""A WebSocket as rooms see it; `doors.http.room.Socket` says what each part is."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, NoReturn

from starlette.requests import HTTPConnection

from doors.http import json_body
from doors.http.bodies import Held
from doors.http.options import HttpOptions
from doors.http.pace import Pace
from doors.http.sockets.connection import RawHeaders, SocketConnection
from doors.http.sockets.incoming import FIELD, Message
from doors.http.workers import Workers
from model_core.errors import FieldViolation, InvalidRequest
from service.call import Call, taken_within
from service.identity.principal import Principal

# Parsing less than this takes less time than a thread does.
_AT_ONCE_BYTES = 64 * 1024


class ServedSocket:
    """One WebSocket whose caller is known.

    Args:
        raw: the request.
        wire: the connection.
        call: for the service.
        request_id: names it in logs.
        headers: for the answer that accepts.
        subprotocol: for the same.
        options: the bounds.
        held: counts messages.
        pace: of large ones.
        workers: parse large messages.
    """

    def __init__(
        self,
        raw: HTTPConnection,
        wire: SocketConnection,
        call: Call,
        request_id: str,
        headers: RawHeaders,
        subprotocol: str,
        options: HttpOptions,
        held: Held,
        pace: Pace,
        workers: Workers,
    ) -> None:
        self.raw = raw
        self.call = call
        self.request_id = request_id
        self._wire = wire
        self._headers = headers
        self._subprotocol = subprotocol
        self._options = options
        self._held = held
        self._pace = pace
        self._workers = workers

    @property
    def principal(self) -> Principal:
        return self.call.principal

    async def accept(self, max_bytes: int | None = None) -> None:
        self._wire.accept(self._headers, self._subprotocol, max_bytes or self._options.max_body_bytes, self._held, self._pace)

    async def first(self, name: str, seconds: float) -> dict[str, Any]:
        try:
            async with asyncio.timeout(seconds):
                await self._wire.begun()
        except TimeoutError:
            raise InvalidRequest((FieldViolation(name, f"must be sent within {seconds:g} s; got nothing"),)) from None
        return await self.json()

    async def json(self, max_bytes: int | None = None) -> dict[str, Any]:
        return await self._parsed(await self._wire.receive(max_bytes))

    async def receive(self, max_bytes: int | None = None) -> str | bytes:
        message = await self._wire.receive(max_bytes)
        if not message.text:
            return message.data
        try:
            return message.data.decode()
        except UnicodeDecodeError as error:
            raise _problem(f"must be UTF-8; {error.reason} at byte {error.start}") from None

    async def silence(self) -> NoReturn:
        message = await self._wire.receive()
        raise _problem(f"must not be sent here; got one of {len(message.data)} bytes")

    async def send(self, *messages: str | bytes) -> None:
        for message in messages:
            text = isinstance(message, str)
            data = message.encode() if isinstance(message, str) else message
            await taken_within(self._options.stall_s, self._wire.send(data, text=text))

    def ending(self) -> None:
        self._wire.ending()

    def close(self, code: int = 1000, reason: str = "") -> None:
        self._wire.close(code, reason)

    async def _parsed(self, message: Message) -> dict[str, Any]:
        if not message.text:
            raise _problem(f"must be text that holds JSON; got a binary one of {len(message.data)} bytes")
        data = message.data
        try:
            return json_body.parsed(data) if len(data) <= _AT_ONCE_BYTES else await self._workers.run(json_body.parsed, data)
        except InvalidRequest as error:
            raise InvalidRequest(tuple(FieldViolation(FIELD, each.description) for each in error.violations)) from None


def chosen(offered: Sequence[str], spoken: Sequence[str]) -> str:
    """The subprotocol that is answered; empty for none.

    Raises:
        InvalidRequest: some are offered, and none of them is spoken here.
    """
    if not offered or not spoken:
        return ""
    for name in spoken:
        if name in offered:
            return name
    got = ascii(", ".join(offered)[:128])[1:-1]
    raise InvalidRequest((FieldViolation("Sec-WebSocket-Protocol", f"must offer {' or '.join(spoken)}; got {got}"),))


def _problem(told: str) -> InvalidRequest:
    return InvalidRequest((FieldViolation(FIELD, told),))

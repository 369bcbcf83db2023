"""Reads the bodies of requests: bounded in bytes and in time, each by itself and all of them together. What it is given may be hostile.

Large ones are read at a pace, so that live sessions keep the processor. The time that this takes is not the caller's.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from starlette.requests import ClientDisconnect
from starlette.types import Receive

from doors.http.options import HttpOptions
from doors.http.pace import Pace
from model_core.errors import CapacityExceeded, FieldViolation, InvalidRequest
from service.clock import Clock
from service.failures import BodyTooLarge

FIELD = "body"
# Of each body, so much is read as fast as it comes.
FREE_BYTES = 1024 * 1024

_BUSY_RETRY_S = 2.0
# Joining less than this takes less time than a thread does.
_MANY_BYTES = 1024 * 1024


class Held:
    """Counts the bytes of all bodies that wait to be worked on.

    Args:
        most: of them together.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._now = 0

    @property
    def size(self) -> int:
        return self._now

    def take(self, size: int) -> None:
        """Raises CapacityExceeded: there is no room for so many more."""
        if self._now + size > self._most:
            raise CapacityExceeded(f"the server holds {self._now} bytes of requests, of at most {self._most}", _BUSY_RETRY_S)
        self._now += size

    def give_back(self, size: int) -> None:
        self._now -= size


class Body:
    """The body of one request. It is read once; `read` may be called again.

    Args:
        receive: ASGI's.
        declared: by Content-Length; None where the length is not known before.
        empty: there is none.
        expects: the caller waits for a sign before it sends it.
        options: the bounds.
        held: counts it with all others.
        pace: of all others too.
        clock: for the time that it may take.
    """

    def __init__(
        self,
        receive: Receive,
        *,
        declared: int | None,
        empty: bool,
        expects: bool,
        options: HttpOptions,
        held: Held,
        pace: Pace,
        clock: Clock,
    ) -> None:
        self._receive = receive
        self._declared = declared
        self._expects = expects
        self._options = options
        self._held = held
        self._pace = pace
        self._clock = clock
        self._taken = 0
        self._begun = False
        self._complete = empty
        self._whole: bytes | None = b"" if empty else None

    @property
    def unasked(self) -> bool:
        """The caller waits for a sign to send it, and got none: it may send it or not."""
        return self._expects and not self._begun and not self._complete

    async def read(self, max_bytes: int | None = None) -> bytes:
        """All of it.

        Raises:
            BodyTooLarge, CapacityExceeded.
            InvalidRequest: it does not come in time.
            ClientDisconnect: it does not come at all.
        """
        if self._whole is None:
            async with aclosing(self.parts(max_bytes)) as arriving:
                parts = [part async for part in arriving]
            size = sum(map(len, parts))
            # The interpreter is free for others while large parts are joined.
            self._whole = await asyncio.to_thread(b"".join, parts) if size > _MANY_BYTES else b"".join(parts)
        elif max_bytes is not None and len(self._whole) > max_bytes:
            raise BodyTooLarge(len(self._whole), max_bytes)
        return self._whole

    async def parts(self, max_bytes: int | None = None) -> AsyncGenerator[bytes, None]:
        """It, part by part, as it comes. Raises as `read`."""
        if self._whole is not None:
            yield self._whole
            return
        options = self._options
        most = options.max_body_bytes if max_bytes is None else min(max_bytes, options.max_body_bytes)
        if self._declared is not None and self._declared > most:
            raise BodyTooLarge(self._declared, most)
        until = self._clock.now() + options.body_timeout_s
        self._begun = True
        size = 0
        while not self._complete:
            part = await self._next(until, size)
            size += len(part)
            if size > most:
                raise BodyTooLarge(size, most)
            self._held.take(len(part))
            self._taken += len(part)
            if part:
                yield part
            if size > FREE_BYTES:
                until += await self._paced(len(part))

    def release(self) -> None:
        """It is worked on, or of no more use: others may come."""
        self._held.give_back(self._taken)
        self._taken = 0
        self._whole = b""

    async def _paced(self, size: int) -> float:
        """Count a part. Returns the seconds that it had to wait before the next one may be read."""
        if self._complete:
            self._pace.take(size)
            return 0.0
        return await self._pace.passed(size)

    async def _next(self, until: float, size: int) -> bytes:
        idle_s = self._options.idle_timeout_s
        try:
            if (left_s := until - self._clock.now()) <= 0:
                raise TimeoutError
            async with asyncio.timeout(min(left_s, idle_s)):
                return await self._message()
        except TimeoutError:
            if self._clock.now() < until:
                told = f"must not pause for more than {idle_s:g} s; got {size} bytes so far"
            else:
                told = f"must arrive within {self._options.body_timeout_s:g} s; got {size} bytes so far"
            raise InvalidRequest((FieldViolation(FIELD, told),)) from None

    async def _message(self) -> bytes:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self._complete = True
            raise ClientDisconnect
        self._complete = not message.get("more_body", False)
        part: bytes = message.get("body", b"")
        return part

"""A running session as the body of an answer: each event is encoded and written as it comes, and no sooner than the caller takes it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from model_core.tasks import cancel_and_wait, run_in_thread
from service.call import Call, outcome_of, taken_within
from service.events import Event, Frames
from service.orders import Order
from service.sessions.runner import SessionRunner

# Frames of fewer bytes are encoded sooner than a thread would begin.
_MANY_BYTES = 64 * 1024

Encode = Callable[[Event], bytes]
"""What is written of an event; empty for nothing."""


async def streamed(
    runner: SessionRunner,
    order: Order,
    call: Call,
    encode: Encode,
    media_type: str,
    *,
    stall_s: float,
    headers: Mapping[str, str] | None = None,
    failed: Callable[[Exception], bytes] | None = None,
) -> Response:
    """An answer whose body is the session of `order`. It is there with the first event that has something to write.

    The session ends when the caller leaves, or takes nothing for `stall_s`.

    Args:
        encode: of each event. Large frames are encoded in a thread.
        failed: encodes an error that comes after the first byte; without it, the answer breaks off.

    Raises:
        CapacityExceeded, StageUnavailable, InvalidRequest: as `SessionRunner.run`, before there is something to write.
    """
    session = _Session(runner, order, call, encode)
    await session.begun()
    return _SessionResponse(session, call, stall_s, failed, media_type, headers or {})


class _Session:
    """A session in a task of its own, which hands over one encoded event at a time."""

    def __init__(self, runner: SessionRunner, order: Order, call: Call, encode: Encode) -> None:
        self._encode = encode
        self._next: asyncio.Queue[bytes | None] = asyncio.Queue(1)
        self._taken = asyncio.Event()
        self._begun = asyncio.Event()
        self.error: Exception | None = None
        self._task = asyncio.create_task(self._run(runner, order, call))

    async def begun(self) -> None:
        """Return when there is something to write. Raises what ended the session before."""
        try:
            await self._begun.wait()
        except asyncio.CancelledError:
            await self.end()
            raise
        if self.error is not None:
            raise self.error

    async def next(self) -> bytes | None:
        """What to write; None after the last. Call `taken` when it is written."""
        return await self._next.get()

    def taken(self) -> None:
        self._taken.set()

    async def end(self) -> None:
        await cancel_and_wait(self._task)

    async def _run(self, runner: SessionRunner, order: Order, call: Call) -> None:
        try:
            await runner.run(order, self._send, call)
        except Exception as error:  # noqa: BLE001 - whoever writes raises it
            self.error = error
        self._begun.set()
        await self._next.put(None)

    async def _send(self, event: Event) -> None:
        """See `service.events.Send`."""
        many = isinstance(event, Frames) and sum(map(len, event.chunk.data)) > _MANY_BYTES
        data = await run_in_thread(self._encode, event) if many else self._encode(event)
        if data:
            self._taken.clear()
            await self._next.put(data)
            self._begun.set()
            await self._taken.wait()


class _SessionResponse(Response):
    def __init__(
        self,
        session: _Session,
        call: Call,
        stall_s: float,
        failed: Callable[[Exception], bytes] | None,
        media_type: str,
        headers: Mapping[str, str],
    ) -> None:
        # As Starlette's own streams: without a body, whose length would be announced.
        self.status_code = 200
        self.media_type = media_type
        self.background = None
        self.init_headers({"cache-control": "no-store", "x-accel-buffering": "no", **headers})
        self._session = session
        self._call = call
        self._stall_s = stall_s
        self._failed = failed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises ReaderStalled; and what ended the session, where `failed` does not encode it."""
        left, body = asyncio.create_task(_left(receive)), asyncio.create_task(self._write(send))
        try:
            await asyncio.wait({left, body}, return_when=asyncio.FIRST_COMPLETED)
            if body.done():
                body.result()
            else:
                self._call.outcome = "cancelled"
        finally:
            await cancel_and_wait(left, body)
            await self._session.end()

    async def _write(self, send: Send) -> None:
        start = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        await taken_within(self._stall_s, send(start))
        while (data := await self._session.next()) is not None:
            await self._part(send, data)
            self._session.taken()
        if (error := self._session.error) is not None:
            if self._failed is None:
                raise error
            self._call.outcome = outcome_of(error)
            await self._part(send, self._failed(error))
        await self._part(send, b"", more=False)

    async def _part(self, send: Send, data: bytes, *, more: bool = True) -> None:
        await taken_within(self._stall_s, send({"type": "http.response.body", "body": data, "more_body": more}))


async def _left(receive: Receive) -> None:
    """Return when the caller has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass

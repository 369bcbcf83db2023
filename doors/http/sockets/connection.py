"""One WebSocket: a connection from the moment its caller asks to leave HTTP/1.1.

As with HTTP, every wait has an end, and every buffer a bound. Messages that nobody takes hold up the connection, and end it after a while.
A caller that says nothing is asked whether it is there. One that reads nothing gets one answer for all its pings. What is read is parsed in
small parts, and no more frames a second than a caller has use for, so that the loop is free for others in between.

The task that serves it is cancelled when the caller goes away.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Awaitable, Callable, Iterable

from starlette.requests import ClientDisconnect
from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import STATUS_LINE
from uvicorn.server import ServerState
from websockets.datastructures import Headers
from websockets.frames import Close, CloseCode, Frame, Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol

from doors.http.bodies import FREE_BYTES, Held
from doors.http.options import HttpOptions
from doors.http.pace import LEAST_S, Pace
from doors.http.sockets.incoming import Discreet, Incoming, Message
from model_core.errors import StageUnavailable
from service.sessions.session import DRAINING

RawHeaders = Iterable[tuple[bytes, bytes]]

_MOST_REASON_BYTES = 123  # of a close frame
_MOST_PROBLEM_CHARS = 128
# A caller whose messages are not read any more has seen our goodbye when it is quiet for so long.
_QUIET_S = 0.5
# What is parsed without a look at how many frames it was. The smallest frame has 6 bytes.
_PART_BYTES = 2048
_FRAMES_A_SECOND = 1000.0
_EARLY = b"nothing may be sent before the WebSocket is accepted"

log = logging.getLogger(__name__)


class SocketConnection(asyncio.Protocol):
    """Made by the connection whose request asks for a WebSocket; it takes over its transport.

    Before `accept`, a caller may only wait or go away.

    Attributes:
        scope: the request, as ASGI has it.
        problem: what is wrong with it as a request for a WebSocket; empty for nothing.
        status: of the answer to the request; 0 for none yet.
        sent_bytes: of messages, or of the body of that answer.

    Args:
        transport: the connection's.
        state: uvicorn's; it lists connections and tasks.
        options: the bounds.
        writable: whether the transport takes more at the moment.
    """

    def __init__(self, scope: Scope, transport: asyncio.Transport, state: ServerState, options: HttpOptions, *, writable: bool) -> None:
        self.scope = scope
        self.status = self.sent_bytes = 0
        self.transport = transport
        self._state = state
        self._options = options
        self._loop = asyncio.get_running_loop()
        self._incoming: Incoming | None = None  # from `accept` on
        self._pace: Pace | None = None  # of large messages, and of the bodies of requests
        self._frames: Pace | None = None
        self._unread = bytearray()  # what came and is not parsed; at most one read, since meanwhile reading stops
        self._going_on: asyncio.Handle | None = None  # when it is parsed
        self._task: asyncio.Task[None] | None = None
        self._opening = self._ending = False
        self._lost = self._closed = False  # the connection; the socket, by us
        self._writable = asyncio.Event()
        if writable:
            self._writable.set()
        self._late_pong = b""
        now = self._loop.time()
        self._heard_at = self._pinged_at = now
        self._unheard_since: float | None = None  # when a ping was sent that nothing has followed
        self._full_since: float | None = None  # when reading was stopped because nobody takes what is there
        self._blocked_since: float | None = None if writable else now  # when the caller began to take nothing
        self._closing_since: float | None = None
        self._unsent_bytes = 0
        self._accepting, self.problem = _handshake(scope)

    def serve(self, application: Callable[[Scope, SocketConnection], Awaitable[None]]) -> None:
        """Have `application` answer the request."""

        async def run() -> None:
            await application(self.scope, self)

        # A context of its own, as each request has.
        self._task = self._loop.create_task(run(), context=contextvars.Context())
        self._task.add_done_callback(self._served)
        self._state.tasks.add(self._task)
        self._state.connections.add(self)  # type: ignore[arg-type]  # uvicorn names its own protocols

    # --- What asyncio calls.

    def data_received(self, data: bytes) -> None:
        if self._incoming is None:
            self._refuse_early()
        elif not self.transport.is_closing():
            self._unread += data
            self._read_on()

    def pause_writing(self) -> None:
        self._writable.clear()
        self._blocked_since = self._loop.time()

    def resume_writing(self) -> None:
        self._writable.set()
        self._blocked_since = None
        if self._late_pong and not self._closed:
            self._write(self._late_pong)
        self._late_pong = b""

    def connection_lost(self, exc: Exception | None) -> None:
        self._state.connections.discard(self)
        self._lost = True
        self._writable.set()
        self._unread.clear()
        self._wait_no_more()
        if self._incoming is not None:
            self._incoming.release()
        if not self._ending:
            self._cancel()

    # --- What the application calls.

    @property
    def accepted(self) -> bool:
        return self._incoming is not None

    def refuse(self, status: int, headers: RawHeaders, body: bytes) -> None:
        """Answer the request as one of HTTP, and close the connection. Does nothing once it is answered."""
        if self.status or self._lost:
            return
        self.status, self.sent_bytes = status, len(body)
        lines = [(name, value) for name, value in headers if name.lower() not in (b"content-length", b"connection")]
        lines += [(b"content-length", b"%d" % len(body)), (b"connection", b"close")]
        self._write(STATUS_LINE[status] + b"".join(b"%b: %b\r\n" % line for line in lines) + b"\r\n" + body)
        self.transport.close()

    def accept(self, headers: RawHeaders, subprotocol: str, max_bytes: int, held: Held, pace: Pace) -> None:
        """Leave HTTP, and read messages from now on.

        Args:
            headers: for the answer.
            subprotocol: of those that the caller offers; empty for none.
            max_bytes: of a message.
            held: counts messages with the bodies of all requests.
            pace: of large messages, and of those bodies.

        Raises:
            RuntimeError: the request is answered already.
            ClientDisconnect: the caller is gone.
        """
        if self.status:
            raise RuntimeError("the request for a WebSocket is answered already")
        self._check_present()
        self.status, self._incoming = 101, Incoming(max_bytes, held)
        self._pace, self._frames = pace, pace.beside(_FRAMES_A_SECOND)
        lines = [*self._accepting, *headers]
        if subprotocol:
            lines.append((b"sec-websocket-protocol", subprotocol.encode("ascii")))
        self._write(STATUS_LINE[101] + b"".join(b"%b: %b\r\n" % line for line in lines) + b"\r\n")
        self._heard_at = self._pinged_at = self._loop.time()

    async def begun(self) -> None:
        """Returns when the first byte of the first message has come, or none will.

        Until that message is taken, nothing goes on that would be worth waiting for when the server is told to stop.
        """
        self._opening = True
        await self._accepted().begun()

    async def receive(self, max_bytes: int | None = None) -> Message:
        """The next message; it counts as held until the one after it is asked for.

        Args:
            max_bytes: of this one and those after it; None for as many as before.

        Raises:
            BodyTooLarge, CapacityExceeded.
            InvalidRequest: it does not come in time.
            StageUnavailable: the server is told to stop, and this is the first message.
        """
        message = await self._accepted().receive(max_bytes)
        self._opening = False
        self._flow()
        return message

    async def send(self, data: bytes, *, text: bool) -> None:
        """Returns when the caller takes it. Raises ClientDisconnect: nothing can be sent any more."""
        await self._writable.wait()
        self.say(data, text=text)

    def say(self, data: bytes, *, text: bool) -> None:
        """As `send`, whether the caller takes it or not: for last words."""
        self._check_present()
        self.sent_bytes += len(data)
        self._write(Frame(Opcode.TEXT if text else Opcode.BINARY, data).serialize(mask=False))

    def close(self, code: int, reason: str = "") -> None:
        """Say goodbye. The connection is closed when the caller has said so, too. Does nothing once that is done."""
        if not self.accepted or self._closed or self._lost:
            return
        self._closed = True
        self._accepted().ignore()
        self._write(Frame(Opcode.CLOSE, Close(code, _short(reason)).serialize()).serialize(mask=False))
        self._wait_no_more()
        self._flow()

    def ending(self) -> None:
        """What is left to do needs no caller: it is not cancelled when the caller goes away."""
        self._ending = True

    # --- What the server calls.

    def sweep(self, now: float) -> None:
        """End what waits for too long."""
        options, incoming = self._options, self._incoming
        if self._closed or self.transport.is_closing():
            self._sweep_closing(now)
        elif incoming is None:
            return  # the application is about to answer
        elif self._blocked_since is not None:
            if now - self._blocked_since > options.stall_s + options.linger_s:  # whoever writes has had its time
                self._drop(CloseCode.POLICY_VIOLATION, f"nothing was read for {options.stall_s:g} s")
        elif self._full_since is not None:
            if now - self._full_since > options.stall_s:
                self._drop(CloseCode.POLICY_VIOLATION, f"{incoming.waiting} messages wait, and none was taken for {options.stall_s:g} s")
        elif self._unheard_since is not None and now - self._unheard_since > options.pong_s:
            self._drop(CloseCode.INTERNAL_ERROR, f"nothing came for {options.pong_s:g} s after a ping")
        else:
            incoming.check(now, self._heard_at, options)
            if now - self._pinged_at > options.ping_s and self._unheard_since is None and self._going_on is None:
                self._unheard_since = self._pinged_at = now
                self._write(Frame(Opcode.PING, b"").serialize(mask=False))

    def shutdown(self) -> None:
        """The server takes no more. A socket whose session runs goes on until the session ends."""
        if self._opening and self._incoming is not None:
            self._incoming.fail(StageUnavailable(DRAINING))

    def abort(self) -> None:
        self.transport.abort()

    def _sweep_closing(self, now: float) -> None:
        left = self.transport.get_write_buffer_size()
        if self._closing_since is None or left < self._unsent_bytes:
            self._closing_since, self._unsent_bytes = now, left
        elif now - self._closing_since > self._options.linger_s:
            self.transport.abort()
        elif left == 0 and not self.transport.is_closing() and self._deaf and now - self._heard_at > _QUIET_S:
            self.transport.close()  # its goodbye would not be read

    # --- How it is read.

    @property
    def _deaf(self) -> bool:
        """What comes is not parsed any more."""
        return self._incoming is not None and self._incoming.failure is not None

    def _refuse_early(self) -> None:
        if not self.status:
            self.refuse(400, ((b"content-type", b"text/plain; charset=utf-8"),), _EARLY)
            self._cancel()

    def _read_on(self) -> None:
        """Parse what came, as far as messages are taken and the caller may send."""
        incoming, self._going_on = self._accepted(), None
        self._heard_at, self._unheard_since = self._loop.time(), None
        while self._unread and not incoming.full and not self.transport.is_closing():
            part = bytes(self._unread[:_PART_BYTES])
            del self._unread[:_PART_BYTES]
            before = incoming.frames
            self._answer(incoming, incoming.feed(part, self._heard_at))
            if self._has_to_wait(incoming, incoming.frames - before, len(part)):
                break
        self._flow()

    def _answer(self, incoming: Incoming, replies: list[bytes]) -> None:
        """Write what the protocol says to what came."""
        if incoming.broken or incoming.said_goodbye:
            if not self._closed:
                self._closed = True
                self._write(b"".join(replies))
            self.transport.close()
            if incoming.broken:
                self._cancel()
        elif replies and not self._closed:
            self._pong(replies)

    def _has_to_wait(self, incoming: Incoming, frames: int, size: int) -> bool:
        """Count what was parsed, and go on later if it was too much. Only the wait for the pace of all is not the caller's own."""
        if self._pace is None or self._frames is None:
            return False
        own_s = self._frames.take(frames)
        pace_s = self._pace.take(size) if incoming.partial_bytes > FREE_BYTES else 0.0
        wait_s = max(own_s, pace_s)
        if wait_s < LEAST_S:
            return False
        if self._closed:  # it has `linger_s` to say goodbye, so let others in, and go on
            self._going_on = self._loop.call_soon(self._read_on)
            return True
        incoming.put_off(pace_s)
        self._heard_at += wait_s  # it cannot be heard meanwhile
        self._going_on = self._loop.call_later(wait_s, self._read_on)
        return True

    def _wait_no_more(self) -> None:
        if self._going_on is not None:
            self._going_on.cancel()
            self._going_on = None

    def _flow(self) -> None:
        """Read on, or wait: until messages are taken, or for a while."""
        if self._incoming is None or self.transport.is_closing():
            return
        full = self._incoming.full
        if full and self._full_since is None:
            self._full_since = self._loop.time()
        elif not full and self._full_since is not None:
            self._full_since = self._unheard_since = None
            self._heard_at = self._loop.time()  # it could not be heard meanwhile
        if not full and self._unread and self._going_on is None:
            self._going_on = self._loop.call_soon(self._read_on)
        if full or self._going_on is not None:
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()

    def _pong(self, replies: list[bytes]) -> None:
        if self._writable.is_set():
            self._write(b"".join(replies))
        else:  # the newest is an answer to all
            self._late_pong = replies[-1]

    # --- How it ends.

    def _drop(self, code: CloseCode, reason: str) -> None:
        self.close(code, reason)
        self._cancel()

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _served(self, task: asyncio.Task[None]) -> None:
        self._state.tasks.discard(task)
        self._task = None
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("the application of a WebSocket failed", exc_info=error)
        self.refuse(500, (), b"")
        self.close(CloseCode.INTERNAL_ERROR)

    def _accepted(self) -> Incoming:
        if self._incoming is None:
            raise RuntimeError("the request for a WebSocket is not accepted")
        return self._incoming

    def _check_present(self) -> None:
        if self._lost or self._closed or self.transport.is_closing():
            raise ClientDisconnect

    def _write(self, data: bytes) -> None:
        if not self._lost:
            self.transport.write(data)


def _handshake(scope: Scope) -> tuple[list[tuple[bytes, bytes]], str]:
    """The headers that accept the request, or what is wrong with it."""
    headers = Headers([(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]])
    handshake = ServerProtocol(logger=Discreet(log))
    answer = handshake.accept(Request(scope["path"], headers, scope["method"], f"HTTP/{scope['http_version']}"))
    if answer.status_code == 101:
        return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers.raw_items()], ""
    return [], f"must be a sound request for a WebSocket; {ascii(f'{handshake.handshake_exc}'[:_MOST_PROBLEM_CHARS])[1:-1]}"


def _short(reason: str) -> str:
    """As much of it as a close frame holds."""
    return reason.encode(errors="replace")[:_MOST_REASON_BYTES].decode(errors="ignore")

"""One connection: uvicorn's protocol for HTTP/1.1, with an end to every wait and a bound to every buffer.

uvicorn leaves three things open. A caller may send the head of a request, or what is left of a body after its answer, one byte at a
time, for as long as it likes. A head may grow without bound. And a connection that is to be closed waits for a caller who takes nothing.
A look at every connection, once a second, ends the waits; the parser's callbacks bound the head.

A request whose caller goes away is cancelled.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any
from urllib.parse import unquote

import httptools
from starlette.types import Scope
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from doors.http.answer import WHOLE, RawHeaders
from doors.http.credentials import CERTIFICATE_NAMES
from doors.http.head import LAST_HEAD, LastHead
from doors.http.options import HttpOptions
from doors.http.sockets.connection import SocketConnection

# Requests that a caller may have sent before the first of them is answered.
_MOST_PIPELINED = 8
_RETRY_S = 2
# An answer with one of these is uvicorn's to write.
_OF_THE_CONNECTION = frozenset({b"connection", b"transfer-encoding"})
# To put a larger body behind its head takes longer than to write it by itself.
_MOST_AT_ONCE = 64 * 1024
_WITHOUT_BODY = frozenset({204, 304})
_NO_REQUEST = "this is no HTTP/1.1 request"


class _Refused(Exception):
    """Raised into the parser, which then stops."""


class Connection(HttpToolsProtocol):
    """Made by the server for each connection.

    Args:
        config: uvicorn's; it holds the application.
        state: uvicorn's; it lists connections and requests.
        options: the bounds.
        socket: answers requests for a WebSocket.
    """

    def __init__(
        self, config: Config, state: ServerState, options: HttpOptions, socket: Callable[[Scope, SocketConnection], Awaitable[None]]
    ) -> None:
        super().__init__(config, state, {})
        self._options = options
        self._socket = socket
        self._in_message = False  # between the first byte of a request and its last
        self._head_since: float | None = None  # when the head that is awaited was begun
        self._head_bytes = 0  # of the head, as far as it was read
        self._unread_bytes = 0  # of the head, that the parser still holds
        self._too_large = False
        self._problem = _NO_REQUEST  # what a request that cannot be parsed is told
        self._rest_since: float | None = None  # when the answer to a body was written that is still coming
        self._idle_since: float | None = None  # when the last answer was written, and nothing came since
        self._closing_since: float | None = None
        self._unsent_bytes = 0
        self._running: tuple[RequestResponseCycle, asyncio.Task[None]] | None = None
        self._certificate_names: tuple[str, ...] = ()
        self._last_head = LastHead()

    # --- What asyncio calls.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self._certificate_names = _names(transport.get_extra_info("peercert"))
        self._head_since = self.loop.time()
        if len(self.connections) > self._options.max_connections:
            self._answer_and_close(503, "too many connections", (b"retry-after: %d\r\n" % _RETRY_S))

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        self._idle_since = None
        if self._head_since is None and not self._in_message:
            self._head_since = self.loop.time()
        super().data_received(data)
        if self._in_message and self._head_since is not None:
            self._unread_bytes += len(data)
            if self._unread_bytes > self._options.max_head_bytes and not self.transport.is_closing():
                self._too_large = True
                self.send_400_response("")

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._running is not None:
            cycle, task = self._running
            if not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()
                task.cancel()
            self._running = None

    # --- What the parser calls.

    def on_message_begin(self) -> None:
        super().on_message_begin()
        scope: Any = self.scope  # uvicorn types it key by key, and this one is ours
        scope[CERTIFICATE_NAMES], scope[LAST_HEAD] = self._certificate_names, self._last_head
        self._in_message = True
        self._head_since = self.loop.time()
        self._head_bytes = self._unread_bytes = 0

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Also of trailers, after a body."""
        self._count(len(name) + len(value) + 4)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head of a request for a WebSocket is awaited on: no request is under way until the connection is taken over."""
        if not (self.parser.should_upgrade() and self._should_upgrade()):
            self._head_since = None
        elif self._has_body():
            self._problem = "a request for a WebSocket has no body"
            raise _Refused
        if len(self.pipeline) >= _MOST_PIPELINED:
            raise _Refused
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._in_message = False
        if self._rest_since is not None:
            self._rest_since, self._head_since = None, self.loop.time()
        super().on_message_complete()

    def _has_body(self) -> bool:
        """The parser would read it before it says that the connection is to be taken over, and nobody would wait for it or count it."""
        return any(name == b"transfer-encoding" or (name == b"content-length" and value.strip() != b"0") for name, value in self.headers)

    def _count(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > self._options.max_head_bytes:
            self._too_large = True
            raise _Refused

    # --- What uvicorn calls.

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        scope: Any = cycle.scope
        scope[WHOLE] = partial(self._write_whole, cycle)
        # A context of its own: else the next request on this connection would be logged under the ids of the last one.
        task = self.loop.create_task(cycle.run_asgi(app), context=contextvars.Context())
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)
        self._running = (cycle, task)

    def _should_upgrade_to_ws(self) -> bool:
        return True

    def handle_websocket_upgrade(self) -> None:
        """The connection is a WebSocket's from now on. Bytes that came with the request are dropped: its caller has to wait."""
        if self._running is not None or self.pipeline:
            self.send_400_response("")
            return
        try:
            url = httptools.parse_url(self.url)
            raw_path: bytes | None = url.path
        except httptools.HttpParserInvalidURLError:
            raw_path = None
        if raw_path is None or not raw_path.isascii():
            self.send_400_response("")
            return
        scope: Scope = {
            **self.scope, "type": "websocket", "path": unquote(raw_path.decode("ascii")), "raw_path": raw_path,
            "query_string": url.query or b"", "scheme": "wss" if self.scheme == "https" else "ws",
        }  # fmt: skip
        taken = SocketConnection(scope, self.transport, self.server_state, self._options, writable=not self.flow.write_paused)
        self.connections.discard(self)
        self.transport.set_protocol(taken)
        taken.serve(self._socket)

    def on_response_complete(self) -> None:
        self._running = None
        if self._in_message:
            self._rest_since = self.loop.time()
        # Not uvicorn's, which makes and cancels a timer for each request: that takes longer than the answer to a poll.
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        else:
            self._idle_since = self.loop.time()

    def _write_whole(self, cycle: RequestResponseCycle, status: int, headers: RawHeaders, body: bytes | memoryview) -> bool:
        """A small answer, head and body in one piece. Returns False, and writes nothing, where uvicorn's own way is needed."""
        if cycle.response_started or cycle.disconnected or not cycle.keep_alive or self.flow.write_paused or status < 200:
            return False
        if len(body) > _MOST_AT_ONCE or status in _WITHOUT_BODY or cycle.scope["method"] == "HEAD":
            return False
        if (b"content-length", b"%d" % len(body)) not in headers:
            return False
        parts = [STATUS_LINE[status]]
        for name, value in headers:
            if name in _OF_THE_CONNECTION:
                return False
            parts += (name, b": ", value, b"\r\n")
        lines = b"".join(parts)
        if lines.count(b"\r") != len(headers) + 1 or lines.count(b"\n") != len(headers) + 1:
            raise RuntimeError("a header must be one line")
        cycle.response_started = cycle.response_complete = True
        cycle.waiting_for_100_continue = False
        self.transport.write(b"".join((lines, b"\r\n", body)))
        cycle.message_event.set()
        cycle.on_response()
        return True

    def send_400_response(self, msg: str) -> None:
        """For a request that cannot be parsed. An answer that has begun is broken off."""
        if self._running is not None and self._running[0].response_started:
            self.transport.close()
        elif self._too_large:
            self._answer_and_close(431, f"the request's line and headers must have at most {self._options.max_head_bytes} bytes")
        else:
            self._answer_and_close(400, self._problem)

    # --- What the server calls.

    def sweep(self, now: float) -> None:
        """Close the connection if one of its waits is over."""
        options = self._options
        if self.transport.is_closing():
            left = self.transport.get_write_buffer_size()
            if self._closing_since is None or left < self._unsent_bytes:
                self._closing_since, self._unsent_bytes = now, left
            elif now - self._closing_since > options.linger_s:
                self.transport.abort()
        elif self._head_since is not None and now - self._head_since > options.head_timeout_s:
            if self._in_message and self._running is None:
                self._answer_and_close(408, f"the request's line and headers must arrive within {options.head_timeout_s:g} s")
            elif self._running is None:
                self.transport.close()
        elif _over(self._rest_since, now, options.idle_timeout_s) or _over(self._idle_since, now, options.keep_alive_s):
            self.transport.close()

    def abort(self) -> None:
        self.transport.abort()

    def _answer_and_close(self, status: int, sentence: str, headers: bytes = b"") -> None:
        body = sentence.encode("ascii")
        head = b"content-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\nconnection: close\r\n" % len(body)
        self.transport.write(STATUS_LINE[status] + head + headers + b"\r\n" + body)
        self.transport.close()


def _over(since: float | None, now: float, seconds: float) -> bool:
    return since is not None and now - since > seconds


def _names(certificate: Mapping[str, Any] | None) -> tuple[str, ...]:
    """URI and DNS names in a certificate that TLS has verified, in the order in which the gRPC door has them."""
    names = () if not certificate else certificate.get("subjectAltName", ())
    return tuple(name for wanted in ("URI", "DNS") for kind, name in names if kind == wanted)

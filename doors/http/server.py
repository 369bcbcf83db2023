"""The HTTP door: uvicorn's protocol in the running loop, on a socket of its own.

Of uvicorn's server nothing is used. It takes the process's signals, looks for its end ten times a second, and waits for open streams
without end; a door must do none of these.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from contextlib import suppress
from typing import Any, Protocol

from starlette.types import Receive, Scope, Send
from uvicorn.config import Config
from uvicorn.server import ServerState

from doors.http.connection import Connection
from doors.http.options import HttpOptions, HttpTls
from doors.http.sockets.connection import SocketConnection
from model_core.tasks import cancel_and_wait

_BACKLOG = 2048
# For requests that were cancelled to end, and for what they wrote to leave.
_CANCELLED_WITHIN_S = 1.0
_LAST_BYTES_S = 0.5
_LOOK_S = 0.01
# A caller whose machine is gone says no goodbye. Whoever waits for an answer sends nothing, so the kernel asks: after 15 s, and then
# every 10 s; the third question without an answer ends the connection. Connections have this of the listener.
_KEEPALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
)

log = logging.getLogger(__name__)


class Application(Protocol):
    """An ASGI application that can be told of its end."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None: ...

    async def socket(self, scope: Scope, wire: SocketConnection) -> None:
        """Answer a request for a WebSocket, and serve it to its end."""
        ...

    def stop_serving(self) -> None:
        """Connections are not kept from now on."""
        ...

    def close(self) -> None:
        """After the last request."""
        ...


class HttpServer:
    """See `service.doors.Door`. It listens once.

    Args:
        app: answers requests.
        options: where to listen, and the bounds.
    """

    def __init__(self, app: Application, options: HttpOptions) -> None:
        self._app = app
        self._options = options
        self._state = ServerState()
        self._config: Config | None = None
        self._listener: socket.socket | None = None
        self._server: asyncio.Server | None = None
        self._stopping = asyncio.Event()
        self._sweeping: asyncio.Task[None] | None = None

    async def start(self) -> int:
        """See `Door`. Also raises RuntimeError: the server was started before, or its certificate cannot be read."""
        if self._server is not None:
            raise RuntimeError("an HttpServer can be started once")
        options = self._options
        certificate = None if options.tls is None else Certificate(options.tls)
        app: Any = self._app  # uvicorn types scopes one by one
        self._config = config = Config(
            app, loop="none", http="httptools", ws="none", ws_per_message_deflate=False, lifespan="off", interface="asgi3",
            log_config=None, log_level="critical", access_log=False, proxy_headers=False, server_header=False, date_header=False,
        )  # fmt: skip
        config.load()
        self._listener = _bound(options.host, options.port)
        self._server = await self._listening(certificate)
        self._sweeping = asyncio.create_task(self._sweep(certificate))
        port: int = self._listener.getsockname()[1]
        return port

    async def stop_serving(self) -> None:
        """See `Door`. Answers say that their connection is closed, so that callers come back elsewhere."""
        self._app.stop_serving()

    async def stop(self, grace_s: float) -> None:
        """See `Door`.

        Raises:
            RuntimeError: the server was never started.
        """
        if self._server is None or self._sweeping is None:
            raise RuntimeError("the HttpServer was not started")
        loop = asyncio.get_running_loop()
        until = loop.time() + grace_s
        self._stopping.set()
        self._server.close()
        if self._listener is not None:
            self._listener.close()
        for connection in self.connections:
            connection.shutdown()
        while self._state.tasks and (left := until - loop.time()) > 0:
            await asyncio.wait(set(self._state.tasks), timeout=left)
        cut = set(self._state.tasks)
        for task in cut:
            task.cancel()
        if cut:
            await asyncio.wait(cut, timeout=_CANCELLED_WITHIN_S)
        until = max(until, loop.time() + _LAST_BYTES_S) if cut else loop.time() + _LAST_BYTES_S
        while self._state.connections and loop.time() < until:  # noqa: ASYNC110 - uvicorn's set has no event
            await asyncio.sleep(_LOOK_S)
        for connection in self.connections:
            connection.abort()
        await cancel_and_wait(self._sweeping)
        self._app.close()

    @property
    def connections(self) -> list[Connection | SocketConnection]:
        """Those that are open."""
        every: list[object] = list(self._state.connections)
        return [connection for connection in every if isinstance(connection, Connection | SocketConnection)]

    async def _listening(self, certificate: Certificate | None) -> asyncio.Server:
        """A server that accepts what comes to the listener. Several may do so at once: they share its queue."""
        config, listener, options = self._config, self._listener, self._options
        if config is None or listener is None:
            raise RuntimeError("the HttpServer was not started")
        return await asyncio.get_running_loop().create_server(
            lambda: Connection(config, self._state, options, self._app.socket),
            sock=listener.dup(),
            backlog=_BACKLOG,
            ssl=None if certificate is None else certificate.context,
            ssl_handshake_timeout=None if certificate is None else options.head_timeout_s,
        )

    async def _follow(self, certificate: Certificate) -> None:
        """Show new connections what has taken the place of the old files. Those that are open go on.

        Each context has sessions of its own. So nobody goes on with one that was begun with a certificate of an authority that is gone.
        """
        if not await asyncio.to_thread(certificate.renewed) or self._stopping.is_set():
            return
        try:
            new = await self._listening(certificate)
        except OSError as error:
            log.warning("the new certificate is not shown, since the port cannot be listened on anew: %s", error)
            return
        if self._stopping.is_set():
            new.close()
            return
        old, self._server = self._server, new
        if old is not None:
            old.close()

    async def _sweep(self, certificate: Certificate | None) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self._options.sweep_s)
            if certificate is not None:
                try:
                    await self._follow(certificate)
                except Exception:  # the waits of all callers end here
                    log.exception("the files of the certificate could not be followed")
            now = loop.time()
            for connection in self.connections:
                try:
                    connection.sweep(now)
                except Exception:
                    log.exception("a connection is ended, because the look at it failed")
                    connection.abort()


class Certificate:
    """TLS that follows its files.

    Attributes:
        context: of the files as they were read last.

    Raises:
        RuntimeError: they cannot be read, or do not belong together.
    """

    def __init__(self, tls: HttpTls) -> None:
        self._tls = tls
        self._seen = self._stamp()
        try:
            self.context = _tls_context(tls)
        except (OSError, ssl.SSLError) as error:
            raise RuntimeError(f"the certificate in {tls.certificate_file} cannot be served: {error}") from None

    def renewed(self) -> bool:
        """Read files that were replaced, once all are there and belong together. Returns whether there is another context. Blocks."""
        stamp = self._stamp()
        if stamp == self._seen or None in stamp:
            return False
        self._seen = stamp
        try:
            self.context = _tls_context(self._tls)
        except (OSError, ssl.SSLError) as error:
            log.warning("the new certificate in %s is not taken: %s", self._tls.certificate_file, error)
            return False
        log.info("a new certificate is served from %s", self._tls.certificate_file)
        return True

    def _stamp(self) -> tuple[tuple[int, int, int] | None, ...]:
        stamps: list[tuple[int, int, int] | None] = []
        for path in self._tls.files:
            stamps.append(None)
            with suppress(OSError):
                about = path.stat()
                stamps[-1] = (about.st_ino, about.st_mtime_ns, about.st_size)
        return tuple(stamps)


def _tls_context(tls: HttpTls) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.set_alpn_protocols(["http/1.1"])
    context.load_cert_chain(tls.certificate_file, tls.key_file)
    if tls.client_ca_file is not None:
        context.load_verify_locations(tls.client_ca_file)
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


def _bound(host: str, port: int) -> socket.socket:
    """Front-door replicas on one node share a port; the kernel spreads connections over them.

    Raises:
        RuntimeError: the address cannot be bound.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        # With the protocol: asyncio turns Nagle's algorithm off only for sockets that name it. Else an answer of two writes takes 40 ms.
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise RuntimeError(f"{host} cannot be listened on: {error.strerror}") from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        for level, option, value in _KEEPALIVE:
            listener.setsockopt(level, option, value)
        listener.bind(address)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise RuntimeError(f"{host}, port {port}, cannot be listened on: {error.strerror}") from None
    return listener

"""The HTTP endpoint of one process: `/metrics` for Prometheus, and `/targets` where somebody knows all the others."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler

from prometheus_client import CollectorRegistry, disable_created_metrics, make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer

METRICS_PATH = "/metrics"
TARGETS_PATH = "/targets"

# As Prometheus' HTTP service discovery wants it: addresses, and labels for every series scraped from them.
Targets = list[dict[str, Any]]


# A few Prometheus servers and people read metrics. Whoever else connects must not take memory or threads from what serves.
MAX_CONNECTIONS = 32
# For a whole request and its answer, however slowly either goes.
_WITHIN_S = 15.0
_IDLE_S = 5.0


class _Quiet(WSGIRequestHandler):
    timeout = _IDLE_S  # of the socket, between two bytes

    def log_message(self, *_: object) -> None:
        """A line for each scrape is of no use to anyone."""


class _Server(ThreadingWSGIServer):
    """A thread for each connection, of which there are `MAX_CONNECTIONS` at most: the one that has been open longest makes room.

    Nothing is open for longer than `_WITHIN_S`. `clock` says how long that is.
    """

    request_queue_size = 128  # who connects in a crowd need not try again a second later

    def __init__(self, address: tuple[str, int], handler: type[WSGIRequestHandler], clock: Callable[[], float]) -> None:
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        self._clock = clock
        self._since: dict[socket.socket, float] = {}  # oldest first
        self._handlers = threading.BoundedSemaphore(2 * MAX_CONNECTIONS)  # those sent away included, until they notice
        self._lock = threading.Lock()
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._handlers.acquire(blocking=False):
            self.shutdown_request(request)
            return
        with self._lock:
            while len(self._since) >= MAX_CONNECTIONS:
                self._drop(next(iter(self._since)))
            self._since[request] = self._clock()
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._handlers.release()

    def service_actions(self) -> None:
        """Called between connections, and twice a second."""
        with self._lock:
            for request in [request for request, since in self._since.items() if self._clock() - since > _WITHIN_S]:
                self._drop(request)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._since.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, *_: object) -> None:
        """A peer that went away, or was sent away."""

    def _drop(self, request: socket.socket) -> None:
        """Its thread finds the connection closed, and ends."""
        del self._since[request]
        with suppress(OSError):
            request.shutdown(socket.SHUT_RDWR)


class Exporter:
    """Serves from threads of its own, from now until `close`.

    Args:
        registry: what `/metrics` shows. Asked for OpenMetrics, it shows exemplars too.
        host, port: port 0 takes a free one.
        targets: answers `/targets`; called in a thread of the server. Without it there is none.
        clock: seconds, for how long a connection may last.

    Raises:
        OSError: the port is taken, or the host is not this machine's.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        host: str = "127.0.0.1",
        port: int = 0,
        targets: Callable[[], Targets] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a third of all series, of no use to any rule or panel
        self._metrics = make_wsgi_app(registry)
        self._targets = targets
        self._server = _Server((host, port), _Quiet, clock=clock)
        self._server.set_app(self._answer)
        self.port: int = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening; blocks until the thread has ended."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _answer(self, environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if path == METRICS_PATH:
            answer: Iterable[bytes] = self._metrics(environ, start)
            return answer
        if path == TARGETS_PATH and self._targets is not None:
            try:
                body = json.dumps(self._targets()).encode()
            except Exception as error:  # noqa: BLE001 - whatever it is, Prometheus keeps the targets that it knows
                start("503 Service Unavailable", [("Content-Type", "text/plain")])
                return [f"{type(error).__name__}\n".encode()]
            start("200 OK", [("Content-Type", "application/json")])
            return [body]
        start("404 Not Found", [("Content-Type", "text/plain")])
        return [b"not found\n"]

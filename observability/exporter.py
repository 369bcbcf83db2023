"""The HTTP endpoint of one process: `/metrics` for Prometheus, and `/targets` where somebody knows all the others."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

from prometheus_client import CollectorRegistry, disable_created_metrics, make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer

METRICS_PATH = "/metrics"
TARGETS_PATH = "/targets"

# As Prometheus' HTTP service discovery wants it: addresses, and labels for every series scraped from them.
Targets = list[dict[str, Any]]


class _Quiet(WSGIRequestHandler):
    def log_message(self, *_: object) -> None:
        """A line for each scrape is of no use to anyone."""


class Exporter:
    """Serves from threads of its own, from now until `close`.

    Args:
        registry: what `/metrics` shows. Asked for OpenMetrics, it shows exemplars too.
        host, port: port 0 takes a free one.
        targets: answers `/targets`; called in a thread of the server. Without it there is none.

    Raises:
        OSError: the port is taken, or the host is not this machine's.
    """

    def __init__(
        self, registry: CollectorRegistry, host: str = "127.0.0.1", port: int = 0, targets: Callable[[], Targets] | None = None
    ) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a third of all series, of no use to any rule or panel
        self._metrics = make_wsgi_app(registry)
        self._targets = targets
        self._server = make_server(host, port, self._answer, ThreadingWSGIServer, handler_class=_Quiet)
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

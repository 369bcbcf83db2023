"""What the head of a request says besides its first line. Callers that poll send the same head each time: it is read once a connection."""

from __future__ import annotations

from dataclasses import replace

from starlette.types import Scope

from doors.http.credentials import Presented, presented
from doors.http.guard import first, host, picked, trace_headers
from service.identity.principal import Principal

# Where a connection keeps its last head, in ASGI's scope.
LAST_HEAD = "headrace.last_head"
# Larger ones are read each time, so that connections hold little while they wait.
_MOST_BYTES = 4096


class Head:
    """One head.

    Attributes:
        headers: those that an edge looks at, by name.
        host: what the caller calls this server.
        origin: of the page that calls; empty where there is none.
        trace: the caller's trace context.
    """

    __slots__ = ("_given", "_placed", "headers", "host", "origin", "trace")

    def __init__(self, scope: Scope) -> None:
        self.headers = picked(scope)
        self.host = host(scope)
        self.origin = first(self.headers, b"origin")
        self.trace = trace_headers(self.headers)
        self._given: Presented | None = None
        self._placed: tuple[Principal, Principal] | None = None

    def presented(self, scope: Scope) -> Presented:
        """See `credentials.presented`. Raises InvalidRequest."""
        if self._given is None:
            self._given = presented(scope, self.headers)
        return self._given

    def placed(self, principal: Principal, address: str) -> Principal:
        """`principal`, who calls from `address`."""
        if self._placed is None or self._placed[0] is not principal:
            self._placed = (principal, replace(principal, address=address))
        return self._placed[1]


class LastHead:
    """The last head of one connection."""

    __slots__ = ("_head", "_headers", "_query")

    def __init__(self) -> None:
        self._headers: list[tuple[bytes, bytes]] | None = None
        self._query = b""
        self._head: Head | None = None

    def of(self, scope: Scope) -> Head:
        """The head of `scope`, a request of this connection."""
        headers, query = scope["headers"], scope["query_string"]
        if self._head is not None and self._headers == headers and self._query == query:
            return self._head
        head = Head(scope)
        small = len(query) + sum(len(name) + len(value) for name, value in headers) <= _MOST_BYTES
        # A copy: trailers of the body that may follow come into the same list.
        self._headers, self._query, self._head = (list(headers), query, head) if small else (None, b"", None)
        return head


def head_of(scope: Scope) -> Head:
    """Of a request."""
    last: LastHead | None = scope.get(LAST_HEAD)
    return Head(scope) if last is None else last.of(scope)

"""What both edges have in common: what they read of a request's head, what they add to an answer's, and what they do with an error."""

from __future__ import annotations

import logging
import math
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field

from starlette.responses import Response
from starlette.types import Scope

from doors.http.answer import RawHeaders
from doors.http.bodies import Held
from doors.http.credentials import Picked, Presented, scrubbed
from doors.http.options import HttpOptions
from doors.http.origins import Origins
from doors.http.pace import Pace
from doors.http.room import Room
from doors.http.workers import Workers
from observability.metrics import Metrics
from observability.tracing import Tracing
from service.failures import Failure, Kind
from service.identity.principal import Authority, QuotaExceeded
from service.identity.standings import REQUESTS, Standings
from service.ledger.denials import Denials

REQUEST_ID = b"x-request-id"


@dataclass(frozen=True, slots=True)
class Guards:
    """What both edges go by.

    Attributes:
        authority: says who callers are.
        metrics: where to count.
        tracing: makes traces.
        new_id: of a request.
        options: the bounds.
        denials: for the audit log.
        standings: what tenants have left of their limits.
    """

    authority: Authority
    metrics: Metrics
    tracing: Tracing
    new_id: Callable[[], str]
    options: HttpOptions
    denials: Denials = field(default_factory=Denials)
    standings: Standings | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """What both edges share while they read what callers send.

    Attributes:
        origins: web pages that may call.
        held: counts what callers send.
        pace: how fast large bodies and messages are read.
        workers: parse it.
    """

    origins: Origins
    held: Held
    pace: Pace
    workers: Workers


_PICKED = frozenset({
    b"authorization", b"x-api-key", b"api-key", b"x-goog-api-key", b"x-headrace-tenant", b"origin", b"host", b"content-length",
    b"transfer-encoding", b"expect", b"traceparent", b"tracestate", b"access-control-request-method", b"access-control-request-headers",
})  # fmt: skip

log = logging.getLogger(__name__)


def picked(scope: Scope) -> dict[bytes, list[bytes]]:
    """The headers that an edge looks at, by name."""
    found: dict[bytes, list[bytes]] = {}
    for name, value in scope["headers"]:
        if name in _PICKED:
            found.setdefault(name, []).append(value)
    return found


def first(headers: Picked, name: bytes) -> str:
    """Empty where there is none."""
    values = headers.get(name)
    return values[0].decode("latin-1").strip() if values else ""


def trace_headers(headers: Picked) -> list[tuple[str, str | bytes]]:
    return [(name.decode(), value.decode("latin-1")) for name in (b"traceparent", b"tracestate") for value in headers.get(name, ())]


def host(scope: Scope) -> str:
    """What the caller calls this server; of more than one host, the first."""
    for name, value in scope["headers"]:
        if name == b"host":
            text: str = value.decode("latin-1")
            return text
    server = scope.get("server") or ("localhost", None)
    return str(server[0]) if server[1] is None else f"{server[0]}:{server[1]}"


def shown_path(scope: Scope) -> str:
    """The path, short and plain enough for an error."""
    return ascii(scope["path"][:128])[1:-1]


def advice(error: Exception, failure: Failure) -> RawHeaders:
    """Headers that say when to try again, and how much of a limit is left."""
    found: RawHeaders = []
    if failure.retry_after_s is not None:
        found.append((b"retry-after", b"%d" % max(1, math.ceil(failure.retry_after_s))))
        found.append((b"retry-after-ms", b"%d" % max(1, math.ceil(1000 * failure.retry_after_s))))
    if isinstance(error, QuotaExceeded) and error.limit == REQUESTS:
        found += _rate_limit(error.allowed, error.used, error.retry_after_s)
    return found


def standing(standings: Standings | None, tenant: str) -> RawHeaders:
    """Headers that say how many requests the tenant has left; for good answers, too."""
    known = None if standings is None or not tenant else standings.of(tenant)
    if known is None:
        return []
    left, more_in_s = known
    return _rate_limit(left.allowed, left.used, more_in_s)


def _rate_limit(allowed: float, used: float, more_in_s: float | None) -> RawHeaders:
    """As OpenAI's clients read it; of the limit of requests alone, since others are no requests."""
    found = [
        (b"x-ratelimit-limit-requests", b"%d" % allowed),
        (b"x-ratelimit-remaining-requests", b"%d" % max(0, math.floor(allowed - used))),
    ]
    if more_in_s is not None:
        found.append((b"x-ratelimit-reset-requests", b"%d" % max(1, math.ceil(more_in_s))))
    return found


def note(denials: Denials, room: Room, failure: Failure, error: Exception, given: Presented) -> None:
    """Write `error` into the audit log if a caller was turned away, and into the log if it is a defect; without secrets."""
    denials.note(room.name, given.caller.address, error, failure.request_id)
    if failure.kind is Kind.INTERNAL:
        told = "".join(traceback.format_exception(error))
        log.error("request %s to %s failed: %s", failure.request_id, room.name, scrubbed(told, given.hidden))


def words(room: Room, failure: Failure) -> Response:
    """The room's answer to a call that failed."""
    try:
        return room.refuse(failure)
    except Exception:
        log.exception("request %s: %s has no words for %s", failure.request_id, room.name, failure.kind)
        return Response("internal error", 500, media_type="text/plain")

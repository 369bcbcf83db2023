"""How our own API says what went wrong."""

from __future__ import annotations

import json
from typing import Any

from starlette.responses import JSONResponse, Response

from doors.http.room import Farewell
from service.failures import Failure, Kind

STATUSES = {
    Kind.INVALID: 400,
    Kind.UNAUTHENTICATED: 401,
    Kind.FORBIDDEN: 403,
    Kind.NOT_FOUND: 404,
    Kind.NOT_READY: 409,
    Kind.CONFLICT: 409,
    Kind.TOO_LARGE: 413,
    Kind.BUSY: 503,
    Kind.QUOTA: 429,
    Kind.UNAVAILABLE: 503,
    Kind.STALLED: 408,
    Kind.NOT_SERVED: 501,
    Kind.INTERNAL: 500,
}
_SOCKET_CODES = 4000  # those from here on are for applications
_CODES = {Kind.NOT_FOUND: "not_found", Kind.BUSY: "busy"}


def told(failure: Failure) -> dict[str, Any]:
    """The body of an error."""
    error: dict[str, Any] = {
        "code": _CODES.get(failure.kind, failure.kind.value),
        "message": failure.message,
        "request_id": failure.request_id,
    }
    if failure.violations:
        error["violations"] = [{"field": v.field, "description": v.description} for v in failure.violations]
    if failure.retry_after_s is not None:
        error["retry_after_seconds"] = failure.retry_after_s
    return {"error": error}


def refusal(failure: Failure) -> Response:
    """The answer to a call that failed."""
    headers = {"www-authenticate": "Bearer"} if failure.kind is Kind.UNAUTHENTICATED else None
    return JSONResponse(told(failure), STATUSES[failure.kind], headers)


def farewell(failure: Failure) -> Farewell:
    """The end of a WebSocket that failed: the body as an event, and 4000 more than the status of HTTP."""
    event = {"event": "error", **told(failure)}
    return Farewell(json.dumps(event, separators=(",", ":")), _SOCKET_CODES + STATUSES[failure.kind], failure.message)

"""What went wrong, as OpenAI's clients read it: a status, and an object with a sentence, a type, a field and a code."""

from __future__ import annotations

import math
from dataclasses import dataclass

from starlette.responses import JSONResponse, Response

from service.failures import Failure, Kind

_INVALID = "invalid_request_error"
_SERVER = "server_error"


@dataclass(frozen=True, slots=True)
class _Shape:
    status: int
    type: str
    code: str


# The client's class goes by the status: 400 is BadRequestError, 401 AuthenticationError, 403 PermissionDeniedError, 404 NotFoundError,
# 409 ConflictError, 429 RateLimitError, 5xx InternalServerError. What is not ready is a 404, because a 409 would be tried again.
SHAPES = {
    Kind.INVALID: _Shape(400, _INVALID, "invalid_value"),
    Kind.UNAUTHENTICATED: _Shape(401, _INVALID, "invalid_api_key"),
    Kind.FORBIDDEN: _Shape(403, _INVALID, "insufficient_permissions"),
    Kind.NOT_FOUND: _Shape(404, _INVALID, "not_found"),
    Kind.NOT_READY: _Shape(404, _INVALID, "not_ready"),
    Kind.CONFLICT: _Shape(409, _INVALID, "idempotency_key_reused"),
    Kind.TOO_LARGE: _Shape(413, _INVALID, "too_large"),
    Kind.BUSY: _Shape(503, _SERVER, "overloaded"),
    Kind.QUOTA: _Shape(429, "rate_limit_error", "rate_limit_exceeded"),
    Kind.UNAVAILABLE: _Shape(503, _SERVER, "unavailable"),
    Kind.STALLED: _Shape(408, _INVALID, "stalled"),
    Kind.NOT_SERVED: _Shape(501, _INVALID, "not_served"),
    Kind.INTERNAL: _Shape(500, _SERVER, "internal_error"),
}
_SPENT = _Shape(429, "insufficient_quota", "insufficient_quota")


def refusal(failure: Failure) -> Response:
    """The answer to a call that failed. Clients try again by themselves where it says when, and nowhere else."""
    spent = failure.kind is Kind.QUOTA and failure.retry_after_s is None
    shape = _SPENT if spent else SHAPES[failure.kind]
    param = failure.violations[0].field if failure.violations else None
    body = {"error": {"message": failure.message, "type": shape.type, "param": param, "code": shape.code}}
    return JSONResponse(body, shape.status, _headers(failure))


def _headers(failure: Failure) -> dict[str, str]:
    headers = {"x-request-id": failure.request_id} if failure.request_id else {}
    if failure.kind is Kind.UNAUTHENTICATED:
        headers["www-authenticate"] = "Bearer"
    if failure.retry_after_s is None:
        return {**headers, "x-should-retry": "false"}  # clients would, after 408, 409, 429 and 5xx
    # Clients know the first, proxies the second.
    milliseconds, seconds = math.ceil(1000 * failure.retry_after_s), math.ceil(failure.retry_after_s)
    headers |= {"retry-after-ms": f"{max(1, milliseconds)}", "retry-after": f"{max(1, seconds)}"}
    return headers

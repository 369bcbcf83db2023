"""What Google's APIs have in common: shapes of video, and errors."""

from __future__ import annotations

import math
from typing import Any

from starlette.responses import JSONResponse, Response

from doors.http.given import Given
from doors.http.sizes import LINES, ratio, sized
from service.failures import Failure, Kind
from service.jobs.job import JobError, Presentation

DOOR = "google"
SECONDS = 8.0

_SHAPE = "16:9"
_LINES = "720p"

# By Kind: the HTTP status, and Google's word for it. Clients of Interactions try 408, 409, 429 and 5xx again, up to five times, so what no
# second try can mend is none of these where there is a choice.
_STATUSES = {
    Kind.INVALID: (400, "INVALID_ARGUMENT"),
    Kind.UNAUTHENTICATED: (401, "UNAUTHENTICATED"),
    Kind.FORBIDDEN: (403, "PERMISSION_DENIED"),
    Kind.NOT_FOUND: (404, "NOT_FOUND"),
    Kind.NOT_READY: (400, "FAILED_PRECONDITION"),
    Kind.CONFLICT: (400, "FAILED_PRECONDITION"),
    Kind.TOO_LARGE: (413, "INVALID_ARGUMENT"),
    Kind.BUSY: (429, "RESOURCE_EXHAUSTED"),
    Kind.QUOTA: (429, "RESOURCE_EXHAUSTED"),
    Kind.UNAVAILABLE: (503, "UNAVAILABLE"),
    Kind.STALLED: (504, "DEADLINE_EXCEEDED"),
    Kind.NOT_SERVED: (501, "UNIMPLEMENTED"),
    Kind.INTERNAL: (500, "INTERNAL"),
}
# Numbers of `google.rpc.Code`, as operations have them, by the code of a job's error.
_CODES = {"invalid": 3, "too_large": 11, "unavailable": 14, "destination": 9, "internal": 13}
CANCELLED = 1


def presentation(given: Given, shape_name: str, resolution_name: str) -> Presentation:
    """The size of the file, by its shape and the lines of its shorter side."""
    lines = LINES[given.choice(resolution_name, tuple(LINES)) or _LINES]
    shape = ratio(given.text(shape_name) or _SHAPE)
    if shape is None:
        given.refuse(shape_name, "must be width:height, as 16:9")
        return Presentation()
    return sized(shape, lines)


def status(error: JobError) -> dict[str, Any]:
    """Why a job failed, as a `google.rpc.Status`."""
    return {"code": _CODES.get(error.code, 13), "message": error.message}


def error(failure: Failure) -> dict[str, Any]:
    code, word = _STATUSES[failure.kind]
    shown: dict[str, Any] = {"code": code, "message": failure.message, "status": word}
    details: list[dict[str, Any]] = []
    if failure.violations:
        fields = [{"field": v.field, "description": v.description} for v in failure.violations]
        details.append({"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": fields})
    if failure.retry_after_s is not None:
        details.append({"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{failure.retry_after_s:.3f}s"})
    return {**shown, "details": details} if details else shown


def refusal(failure: Failure) -> Response:
    headers = {} if failure.retry_after_s is None else {"retry-after": str(max(1, math.ceil(failure.retry_after_s)))}
    return JSONResponse({"error": error(failure)}, _STATUSES[failure.kind][0], headers)

"""What goes wrong, in the words of Amazon Bedrock's runtime. One table, for responses and for streams that have begun."""

from __future__ import annotations

import math
from dataclasses import dataclass

from starlette.responses import JSONResponse, Response

from service.failures import Failure, Kind

REQUEST_ID = "x-amzn-requestid"


@dataclass(frozen=True, slots=True)
class _Exception:
    """Of a response: its status and name. `in_stream` is the name of the nearest one that a response stream declares."""

    status: int
    name: str
    in_stream: str = "modelStreamErrorException"


# boto3 tries 429 and 5xx again, and no other. So what waiting does not help is none of these.
_EXCEPTIONS: dict[Kind, _Exception] = {
    Kind.INVALID: _Exception(400, "ValidationException", "validationException"),
    Kind.UNAUTHENTICATED: _Exception(403, "UnrecognizedClientException"),
    Kind.FORBIDDEN: _Exception(403, "AccessDeniedException"),
    Kind.NOT_FOUND: _Exception(400, "ValidationException", "validationException"),  # GetAsyncInvoke declares no other
    Kind.NOT_READY: _Exception(400, "ValidationException", "validationException"),
    Kind.CONFLICT: _Exception(400, "ConflictException"),
    Kind.TOO_LARGE: _Exception(400, "ValidationException", "validationException"),
    Kind.BUSY: _Exception(429, "ThrottlingException", "throttlingException"),
    Kind.QUOTA: _Exception(400, "ServiceQuotaExceededException"),
    Kind.UNAVAILABLE: _Exception(503, "ServiceUnavailableException", "serviceUnavailableException"),
    Kind.STALLED: _Exception(408, "ModelTimeoutException", "modelTimeoutException"),
    Kind.NOT_SERVED: _Exception(501, "NotImplementedException"),
    Kind.INTERNAL: _Exception(500, "InternalServerException", "internalServerException"),
}


def refusal(failure: Failure) -> Response:
    """The answer to a call that failed."""
    exception = _exception(failure)
    headers = {"x-amzn-errortype": exception.name, REQUEST_ID: failure.request_id}
    if failure.retry_after_s is not None:
        headers["x-amz-retry-after"] = str(max(1, math.ceil(1000 * failure.retry_after_s)))
    return JSONResponse({"message": failure.message}, exception.status, headers)


def in_stream(failure: Failure) -> str:
    """The exception that ends a response stream."""
    return _exception(failure).in_stream


def _exception(failure: Failure) -> _Exception:
    if failure.kind is Kind.QUOTA and failure.retry_after_s is not None:
        return _EXCEPTIONS[Kind.BUSY]
    return _EXCEPTIONS[failure.kind]

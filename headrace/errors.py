"""What a failed call raises, with the details that servers send in `grpc-status-details-bin`."""

from __future__ import annotations

from dataclasses import dataclass

import grpc
import grpc.aio
from google.rpc import error_details_pb2, status_pb2


@dataclass(frozen=True, slots=True)
class Violation:
    """One bad field: its path in the request, and a sentence with the limit and the value."""

    field: str
    description: str


class ClientError(Exception):
    """A call failed. `code` is the gRPC status code."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        self.code = code
        super().__init__(message or code.name)


class BadRequest(ClientError):
    """The request breaks one or more limits."""

    def __init__(self, code: grpc.StatusCode, message: str, violations: tuple[Violation, ...]) -> None:
        self.violations = violations
        super().__init__(code, "; ".join(f"{v.field}: {v.description}" for v in violations) or message)


class Refused(ClientError):
    """The server does not know the caller, or the caller may not do this. To try again does not help."""


class Busy(ClientError):
    """All capacity is taken. `retry_after_s` is the server's advice, None where it gave none."""

    def __init__(self, code: grpc.StatusCode, message: str, retry_after_s: float | None) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(code, message)


class Unavailable(ClientError):
    """No server answers at the address, or it cannot serve now. `retry_after_s` as in `Busy`."""

    def __init__(self, code: grpc.StatusCode, message: str, retry_after_s: float | None) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(code, message)


# What grpc.aio reports when a write meets the end of its call: nothing that the server said.
_BROKEN_WRITE = "Internal error from Core"

_NOT_FOR_YOU = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)

# What gRPC itself reports with the code that servers use for "busy". To try again would not help.
_TOO_LARGE = ("message larger than max", "metadata size exceeds")


def client_error(error: grpc.aio.AioRpcError) -> ClientError:
    """The typed form of a failed call, with the details that came in `grpc-status-details-bin`."""
    code, message = error.code(), error.details() or ""
    violations: list[Violation] = []
    retry_after_s: float | None = None
    for key, value in error.trailing_metadata() or ():
        if key != "grpc-status-details-bin" or not isinstance(value, bytes):
            continue
        for detail in status_pb2.Status.FromString(value).details:
            bad, retry = error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
            if detail.Unpack(bad):
                violations.extend(Violation(v.field, v.description) for v in bad.field_violations)
            elif detail.Unpack(retry):
                retry_after_s = retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9
    if code is grpc.StatusCode.INTERNAL and message == _BROKEN_WRITE:
        return Unavailable(grpc.StatusCode.UNAVAILABLE, "the connection broke while a message was being written", None)
    if code is grpc.StatusCode.INVALID_ARGUMENT:
        return BadRequest(code, message, tuple(violations))
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and not any(sign in message for sign in _TOO_LARGE):
        return Busy(code, message, retry_after_s)
    if code is grpc.StatusCode.UNAVAILABLE:
        return Unavailable(code, message, retry_after_s)
    return (Refused if code in _NOT_FOR_YOU else ClientError)(code, message)

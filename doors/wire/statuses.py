"""Errors to the statuses of gRPC, which gRPC-Web has too. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import grpc
from google.protobuf import duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2

from doors.wire.trailer import short
from model_core.errors import FieldViolation, InvalidRequest
from service.failures import Failure, Kind, failure_of
from service.records.store import SessionMismatch

_Code = grpc.StatusCode
_CODES: dict[Kind, grpc.StatusCode] = {
    Kind.INVALID: _Code.INVALID_ARGUMENT,
    Kind.UNAUTHENTICATED: _Code.UNAUTHENTICATED,
    Kind.FORBIDDEN: _Code.PERMISSION_DENIED,
    Kind.NOT_FOUND: _Code.NOT_FOUND,
    Kind.NOT_READY: _Code.FAILED_PRECONDITION,
    Kind.CONFLICT: _Code.ABORTED,
    Kind.TOO_LARGE: _Code.INVALID_ARGUMENT,
    Kind.BUSY: _Code.RESOURCE_EXHAUSTED,
    Kind.QUOTA: _Code.RESOURCE_EXHAUSTED,
    Kind.UNAVAILABLE: _Code.UNAVAILABLE,
    Kind.STALLED: _Code.DEADLINE_EXCEEDED,
    Kind.NOT_SERVED: _Code.UNIMPLEMENTED,
    Kind.INTERNAL: _Code.INTERNAL,
}
# A conflict that no retry mends: this server will never serve that session.
_FOR_GOOD = (SessionMismatch,)


class UnknownName(InvalidRequest):
    """The request names something, such as a model, that is not there. Rooms that make a difference raise it."""


@dataclass(frozen=True, slots=True)
class Status:
    """How a call ends."""

    code: grpc.StatusCode
    message: str
    detail: Message | None = None


def status_of(error: Exception, new_id: Callable[[], str]) -> Status:
    """What the caller learns of `error`; of a defect only an id, by which the log names it."""
    failure = failure_of(error, "")
    if failure.kind is Kind.INTERNAL:
        failure = failure_of(error, new_id())
    status = status_of_failure(failure)
    if isinstance(error, UnknownName):
        return Status(_Code.NOT_FOUND, status.message, status.detail)
    return Status(_Code.FAILED_PRECONDITION, status.message) if isinstance(error, _FOR_GOOD) else status


def status_of_failure(failure: Failure) -> Status:
    """The same of a failure, of which no more is known than its kind."""
    code, message = _CODES[failure.kind], short(failure.message)
    if failure.kind is Kind.INTERNAL:
        return Status(code, message, error_details_pb2.RequestInfo(request_id=failure.request_id))
    if failure.kind in {Kind.INVALID, Kind.TOO_LARGE}:
        violations = failure.violations or (FieldViolation("", failure.message),)
        return Status(code, message, _bad_request(violations))
    if failure.retry_after_s is not None:
        return _later(code, failure.message, failure.retry_after_s)
    if failure.kind is Kind.QUOTA:  # RESOURCE_EXHAUSTED says that trying again helps
        return Status(_Code.FAILED_PRECONDITION, message)
    return Status(code, message)


def _bad_request(violations: Sequence[FieldViolation]) -> error_details_pb2.BadRequest:
    violation = error_details_pb2.BadRequest.FieldViolation
    return error_details_pb2.BadRequest(field_violations=[violation(field=v.field, description=v.description) for v in violations])


def _later(code: grpc.StatusCode, message: str, seconds: float) -> Status:
    """To be tried again after `seconds`: the sentence and the detail say the same, to a tenth."""
    tenths = max(1, round(10 * seconds))
    again = f"; try again in {tenths / 10:g} s"
    delay = duration_pb2.Duration()
    delay.FromMilliseconds(100 * tenths)
    return Status(code, short(message, len(again)) + again, error_details_pb2.RetryInfo(retry_delay=delay))

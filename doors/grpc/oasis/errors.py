"""Errors as the protocol has them: in the answer, with a code of its own list. Pure."""

from __future__ import annotations

from doors.grpc.oasis import a2v_pb2 as pb
from service.failures import Failure, Kind

_CODES = {
    Kind.INVALID: pb.ERROR_CODE_INVALID_REQUEST,
    Kind.UNAUTHENTICATED: pb.ERROR_CODE_INVALID_API_KEY,
    Kind.FORBIDDEN: pb.ERROR_CODE_INVALID_API_KEY,
    Kind.NOT_FOUND: pb.ERROR_CODE_INVALID_SESSION,
    Kind.STALLED: pb.ERROR_CODE_INVALID_SESSION,
}
_MAX_DETAILS = 16


class Refused(Exception):
    """The protocol has a code for this.

    Attributes:
        code: of `pb.ErrorCode`.
    """

    def __init__(self, code: pb.ErrorCode, message: str) -> None:
        super().__init__(message)
        self.code = code


def refusal(error: Refused) -> pb.Error:
    return pb.Error(code=error.code, message=str(error))


def failed(failure: Failure) -> pb.Error:
    """The protocol has no code for a busy server: its error says so in `details`, with the time to wait."""
    told = pb.Error(code=_CODES.get(failure.kind, pb.ERROR_CODE_UNSPECIFIED), message=failure.message[:2048])
    told.details["kind"] = failure.kind.value
    if failure.retry_after_s is not None:
        told.details["retry_after_seconds"] = f"{failure.retry_after_s:.1f}"
    for violation in failure.violations[:_MAX_DETAILS]:
        told.details[violation.field] = violation.description[:512]
    return told

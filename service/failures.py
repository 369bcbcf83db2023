"""What kind of failure an error is, once, for all doors, and what calls that end with it are counted as.

A door has a table from `Kind` to its own statuses and words.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from model_core.errors import CapacityExceeded, FieldViolation, HeadraceError, InvalidRequest, StageUnavailable
from service.call import FileTooLarge, ReaderStalled
from service.identity.principal import Forbidden, QuotaExceeded, Unauthenticated
from service.records.store import SessionMismatch, SessionMoved, SessionNotFound

# Long enough for a stage to be replaced, short enough that a viewer still waits.
UNAVAILABLE_RETRY_S = 2.0


class NotFound(HeadraceError):
    """The caller's tenant has no such thing. Another tenant's is answered the same."""


class NotReady(HeadraceError):
    """What is asked for is not there yet, or no more."""


class Conflict(HeadraceError):
    """The request contradicts an earlier one."""


class NotServed(HeadraceError):
    """This server is not set up for that, so to try again is no use."""


class BodyTooLarge(HeadraceError):
    """A request, or a message of a caller, has more bytes than may be sent there."""

    def __init__(self, size: int, most: int, what: str = "body") -> None:
        super().__init__(f"the {what} must have at most {most} bytes; got {size}")
        self.size, self.most = size, most


class Kind(Enum):
    """The value is the label in metrics."""

    INVALID = "invalid"
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "unknown"
    NOT_READY = "not_ready"
    CONFLICT = "conflict"
    TOO_LARGE = "too_large"
    BUSY = "refused"  # no capacity now
    QUOTA = "quota"  # a limit of the tenant's
    UNAVAILABLE = "unavailable"
    STALLED = "stalled"
    NOT_SERVED = "not_served"  # as jobs without a database
    INTERNAL = "internal"


_KINDS: dict[type[Exception], Kind] = {
    InvalidRequest: Kind.INVALID,
    Unauthenticated: Kind.UNAUTHENTICATED,
    Forbidden: Kind.FORBIDDEN,
    NotFound: Kind.NOT_FOUND,
    SessionNotFound: Kind.NOT_FOUND,
    SessionMismatch: Kind.CONFLICT,
    SessionMoved: Kind.CONFLICT,
    Conflict: Kind.CONFLICT,
    NotReady: Kind.NOT_READY,
    FileTooLarge: Kind.TOO_LARGE,
    BodyTooLarge: Kind.TOO_LARGE,
    CapacityExceeded: Kind.BUSY,
    QuotaExceeded: Kind.QUOTA,
    StageUnavailable: Kind.UNAVAILABLE,
    ReaderStalled: Kind.STALLED,
    NotServed: Kind.NOT_SERVED,
}


# Where the metrics are finer than what callers are told.
_OUTCOMES: dict[type[Exception], str] = {SessionMismatch: "unknown", SessionMoved: "moved"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """An error, ready to be put on a wire.

    Attributes:
        message: for the caller. Of a defect it holds nothing but the request's id.
        violations: of INVALID; the fields as the caller wrote them.
        retry_after_s: None where trying again is no use.
        request_id: by which the log names the call.
    """

    kind: Kind
    message: str
    violations: tuple[FieldViolation, ...] = ()
    retry_after_s: float | None = None
    request_id: str = ""


def failure_of(error: Exception, request_id: str) -> Failure:
    """What the caller learns of `error`."""
    kind = _kind(error)
    if kind is Kind.INTERNAL:
        return Failure(kind=kind, message=f"internal error; request id {request_id}", request_id=request_id)
    violations = error.violations if isinstance(error, InvalidRequest) else ()
    retry_after_s: float | None = None
    match error:
        case CapacityExceeded() | QuotaExceeded():
            retry_after_s = error.retry_after_s
        case StageUnavailable():
            retry_after_s = UNAVAILABLE_RETRY_S
    return Failure(kind=kind, message=str(error), violations=violations, retry_after_s=retry_after_s, request_id=request_id)


def outcome_of(error: Exception) -> str:
    """The label in the metrics of a call that ends with `error`; "internal" for a defect."""
    return next((outcome for known, outcome in _OUTCOMES.items() if isinstance(error, known)), _kind(error).value)


def _kind(error: Exception) -> Kind:
    return next((kind for known, kind in _KINDS.items() if isinstance(error, known)), Kind.INTERNAL)

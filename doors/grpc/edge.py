"""The edge of an RPC: errors become gRPC statuses here, once, and every call is counted by how it ended."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import grpc
import grpc.aio
from google.protobuf import duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2

from doors.grpc.callers import authenticated
from doors.grpc.trailer import short, trailer
from model_core.errors import CapacityExceeded, InvalidRequest, StageUnavailable
from model_core.tasks import finished
from observability.metrics import Metrics
from observability.tracing import Tracing
from service.call import Call, ReaderStalled, outcome_of
from service.identity.principal import Authority, Forbidden, QuotaExceeded, Unauthenticated
from service.records.store import SessionMismatch, SessionMoved, SessionNotFound

Context = grpc.aio.ServicerContext[bytes, Message]

# Long enough for a stage to be replaced, short enough that a viewer still waits.
_UNAVAILABLE_RETRY_S = 2.0

log = logging.getLogger(__name__)


class UnknownName(InvalidRequest):
    """The request names something, such as a model, that is not there. Rooms that make a difference raise it."""


class Outgoing:
    """What goes to a caller, message by message, so that the call can be ended whenever the task that writes is cancelled."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._begun = False

    async def write(self, message: Message) -> None:
        if not self._begun:
            self._begun = True
            # grpc.aio would send them with the first message. A cancelled write of both leaves a call that no status can end.
            await finished(self._context.send_initial_metadata(()))
        await self._context.write(message)


class RpcEdge:
    """Guards the body of every RPC."""

    def __init__(self, service: str, metrics: Metrics, new_id: Callable[[], str], tracing: Tracing, authority: Authority) -> None:
        self._service = service
        self._authority = authority
        self._metrics = metrics
        self._new_id = new_id
        self._tracing = tracing

    @asynccontextmanager
    async def guard(self, rpc: str, context: Context) -> AsyncGenerator[Call, None]:
        """Authenticates the caller before the body begins.

        Errors of the body end the RPC with the status that belongs to them. Nothing of an unexpected error but an id gets out.
        """
        trace = self._tracing.begin(self._service, rpc, context.invocation_metadata() or ())
        call = Call(trace=trace)
        try:
            call.principal = await authenticated(self._authority, context)
            call.tenant = call.principal.tenant
            yield call
        except asyncio.CancelledError:
            self._ended(rpc, call, "cancelled")
            raise
        except Exception as error:
            # A write on a call that the client has left fails, sometimes before gRPC calls the call cancelled.
            if context.cancelled() or isinstance(error, grpc.aio.InternalError):
                self._ended(rpc, call, "cancelled")
                raise asyncio.CancelledError from error
            status = status_of(error, self._new_id)
            if status.code is grpc.StatusCode.INTERNAL:
                log.exception("%s failed: %s", rpc, status.message)
            if isinstance(error, InvalidRequest):
                # What gRPC aborts a call with keeps frames, and the request that they hold, until garbage is collected. All of these have
                # ended; those of an error that came from elsewhere may be of tasks that go on.
                traceback.clear_frames(error.__traceback__)
            # Counted first: to a client that reads nothing, even the status is long in coming.
            self._ended(rpc, call, outcome_of(error))
            await context.abort(status.code, status.message, trailer(status.code, status.message, status.detail))
        else:
            self._ended(rpc, call, call.outcome)

    def _ended(self, rpc: str, call: Call, outcome: str) -> None:
        self._metrics.calls_total.labels(rpc, outcome).inc()
        if call.trace is not None:
            call.trace.end(outcome)
        log.info("%s ended: %s", rpc, outcome)


# Statuses of errors that have nothing more to say than their message.
_PLAIN: dict[type[Exception], grpc.StatusCode] = {
    SessionNotFound: grpc.StatusCode.NOT_FOUND,
    SessionMismatch: grpc.StatusCode.FAILED_PRECONDITION,
    SessionMoved: grpc.StatusCode.ABORTED,
    ReaderStalled: grpc.StatusCode.DEADLINE_EXCEEDED,
    Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    Forbidden: grpc.StatusCode.PERMISSION_DENIED,
    QuotaExceeded: grpc.StatusCode.FAILED_PRECONDITION,
}


@dataclass(frozen=True, slots=True)
class Status:
    """How a call ends."""

    code: grpc.StatusCode
    message: str
    detail: Message | None = None


def status_of(error: Exception, new_id: Callable[[], str]) -> Status:
    """What the caller learns of `error`; of a defect only an id, by which the log names it."""
    message = short(str(error))
    match error:
        case UnknownName():
            return Status(grpc.StatusCode.NOT_FOUND, message, _bad_request(error))
        case InvalidRequest():
            return Status(grpc.StatusCode.INVALID_ARGUMENT, message, _bad_request(error))
        case CapacityExceeded() | QuotaExceeded() if error.retry_after_s is not None:
            return _later(grpc.StatusCode.RESOURCE_EXHAUSTED, error, error.retry_after_s)
        case StageUnavailable():
            return _later(grpc.StatusCode.UNAVAILABLE, error, _UNAVAILABLE_RETRY_S)
        case error if type(error) in _PLAIN:
            return Status(_PLAIN[type(error)], message)
    info = error_details_pb2.RequestInfo(request_id=new_id())
    return Status(grpc.StatusCode.INTERNAL, f"internal error; request id {info.request_id}", info)


def _bad_request(error: InvalidRequest) -> error_details_pb2.BadRequest:
    violation = error_details_pb2.BadRequest.FieldViolation
    return error_details_pb2.BadRequest(field_violations=[violation(field=v.field, description=v.description) for v in error.violations])


def _later(code: grpc.StatusCode, error: Exception, seconds: float) -> Status:
    """To be tried again after `seconds`: the sentence and the detail say the same, to a tenth."""
    tenths = max(1, round(10 * seconds))
    again = f"; try again in {tenths / 10:g} s"
    delay = duration_pb2.Duration()
    delay.FromMilliseconds(100 * tenths)
    return Status(code, short(str(error), len(again)) + again, error_details_pb2.RetryInfo(retry_delay=delay))

"""The edge of an RPC: errors become gRPC statuses here, once, and every call is counted by how it ended."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import grpc
import grpc.aio
from google.protobuf.message import Message

from doors.grpc.callers import address_of, authenticated
from doors.wire.statuses import status_of
from doors.wire.trailer import trailer
from model_core.errors import InvalidRequest
from model_core.tasks import finished
from observability.metrics import Metrics
from observability.tracing import Tracing
from service.call import Call
from service.failures import outcome_of
from service.identity.principal import Authority
from service.ledger.denials import Denials

Context = grpc.aio.ServicerContext[bytes, Message | bytes]

log = logging.getLogger(__name__)


class Outgoing:
    """What goes to a caller, message by message, so that the call can be ended whenever the task that writes is cancelled."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._begun = False

    async def write(self, message: Message | bytes) -> None:
        """A message, or one that is serialized where the method has no serializer."""
        if not self._begun:
            self._begun = True
            # grpc.aio would send them with the first message. A cancelled write of both leaves a call that no status can end.
            await finished(self._context.send_initial_metadata(()))
        await self._context.write(message)


class RpcEdge:
    """Guards the body of every RPC."""

    def __init__(
        self,
        service: str,
        metrics: Metrics,
        new_id: Callable[[], str],
        tracing: Tracing,
        authority: Authority,
        denials: Denials | None = None,
    ) -> None:
        self._service = service
        self._authority = authority
        self._denials = denials or Denials()
        self._metrics = metrics
        self._new_id = new_id
        self._tracing = tracing

    @asynccontextmanager
    async def guard(self, rpc: str, context: Context) -> AsyncGenerator[Call, None]:
        """Authenticates the caller before the body begins.

        Errors of the body end the RPC with the status that belongs to them. Nothing of an unexpected error but an id gets out.
        """
        trace = self._tracing.begin(self._service, rpc, context.invocation_metadata() or ())
        call = Call(trace=trace, address=address_of(context.peer()), request_id=self._new_id())
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
            status = status_of(error, lambda: call.request_id)
            if status.code is grpc.StatusCode.INTERNAL:
                log.exception("%s failed: %s", rpc, status.message)
            if isinstance(error, InvalidRequest):
                # What gRPC aborts a call with keeps frames, and the request that they hold, until garbage is collected. All of these have
                # ended; those of an error that came from elsewhere may be of tasks that go on.
                traceback.clear_frames(error.__traceback__)
            self._denials.note(self._service, call.address, error, call.request_id)
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

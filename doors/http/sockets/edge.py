"""The guard around every WebSocket, as `doors.http.edge` is around every request: who calls, what is counted, and what an error becomes.

Before a WebSocket is accepted, an error is an answer of HTTP. After that it is the room's farewell: a last message, and a code.
"""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import Sequence
from email.utils import formatdate

from starlette.requests import ClientDisconnect, HTTPConnection
from starlette.responses import Response
from starlette.types import Scope
from websockets.frames import CloseCode

from doors.http import access_log
from doors.http.access_log import Entry
from doors.http.answer import RawHeaders
from doors.http.credentials import Presented, identified, presented, subprotocols
from doors.http.guard import REQUEST_ID, Guards, Reading, advice, first, host, note, picked, shown_path, standing, trace_headers, words
from doors.http.room import Credentials, Room, SocketEndpoint, WithSockets
from doors.http.router import Found, Missing, socket_router
from doors.http.sockets.connection import SocketConnection
from doors.http.sockets.served import ServedSocket, chosen
from model_core.errors import FieldViolation, InvalidRequest, StageUnavailable
from service.call import Call
from service.events import EndReason
from service.failures import Failure, Kind, failure_of, outcome_of
from service.identity.principal import NOBODY, Caller
from service.sessions.session import DRAINING

_NO_ENDPOINT = "none"


class SocketEdge:
    """See the module.

    Args:
        rooms, guards: as `HttpEdge`'s.
        reading: what it shares with it.
    """

    def __init__(self, rooms: Sequence[Room], guards: Guards, reading: Reading) -> None:
        self._router = socket_router(rooms)
        self._denials, self._standings, self._authority = guards.denials, guards.standings, guards.authority
        self._metrics, self._tracing = guards.metrics, guards.tracing
        self._new_id = guards.new_id
        self._options = guards.options
        self._reading = reading
        self._leaving = False

    def stop_serving(self) -> None:
        """No WebSocket is accepted from now on."""
        self._leaving = True

    def serves(self, path: str) -> bool:
        """Whether there is a WebSocket."""
        return isinstance(self._router.find("GET", path), Found)

    async def __call__(self, scope: Scope, wire: SocketConnection) -> None:
        began, request_id = time.monotonic(), self._new_id()
        headers = picked(scope)
        common = [(REQUEST_ID, request_id.encode()), *self._reading.origins.headers(first(headers, b"origin"))]
        found = self._router.find(scope["method"], scope["path"])
        call, given = Call(door=found.room.name, request_id=request_id), Presented(None, Caller(), ())
        operation, ended = _NO_ENDPOINT, "cancelled"
        try:
            given = presented(scope, headers)
            call.address = given.caller.address
            if isinstance(found, Missing):
                told = Failure(kind=Kind.NOT_FOUND, message=f"there is no WebSocket at {shown_path(scope)}", request_id=request_id)
                ended = Kind.NOT_FOUND.value
                _answer(wire, words(found.room, told), common)
            else:
                operation = f"{found.room.name}.{found.endpoint.operation}"
                call.trace = self._tracing.begin(found.room.name, found.endpoint.operation, trace_headers(headers), system="http")
                ended = await self._guarded(found, call, given, wire, common, request_id)
        except Exception as error:  # noqa: BLE001 - of whatever kind, the caller gets an answer
            ended = self._refused(found.room, error, wire, common, given, request_id)
        finally:
            self._ended(scope, call, given, wire, operation, ended, began, request_id)

    async def _guarded(
        self, found: Found[SocketEndpoint], call: Call, given: Presented, wire: SocketConnection, common: RawHeaders,
        request_id: str,
    ) -> str:  # fmt: skip
        """Run the handler to its end. Returns how the call ended."""
        endpoint, scope = found.endpoint, wire.scope
        scope["path_params"] = found.parameters
        try:
            if self._leaving:
                raise StageUnavailable(DRAINING)
            if wire.problem:
                raise InvalidRequest((FieldViolation("Upgrade", wire.problem),))
            self._reading.origins.check(given.caller.origin, host(scope))
            subprotocol = chosen(subprotocols(scope), endpoint.subprotocols)
            unguarded = endpoint.credentials is Credentials.NONE
            call.principal = NOBODY if unguarded else await identified(self._authority, given)
            call.tenant = call.principal.tenant
            told = [*common, *standing(self._standings, call.tenant)]
            read = self._reading
            socket = ServedSocket(
                HTTPConnection(scope), wire, call, request_id, told, subprotocol, self._options, read.held, read.pace, read.workers
            )
            await endpoint.handler(socket)
            if not wire.accepted:
                raise RuntimeError(f"{endpoint.operation} has not accepted its WebSocket")
        except asyncio.CancelledError:
            # By the connection, whose caller has gone; or by the server, whose time to drain is over.
            self._say_farewell(found.room, failure_of(StageUnavailable(DRAINING), request_id), wire, common)
            return "cancelled"
        except ClientDisconnect:
            return "cancelled"
        wire.close(CloseCode.SERVICE_RESTART if call.outcome == EndReason.DRAINING.value else CloseCode.NORMAL_CLOSURE)
        return call.outcome

    def _refused(self, room: Room, error: Exception, wire: SocketConnection, common: RawHeaders, given: Presented, request_id: str) -> str:
        """Answer, or say farewell, as `room` has words for `error`. Returns how the call ended."""
        failure = failure_of(error, request_id)
        note(self._denials, room, failure, error, given)
        if failure.kind in (Kind.INVALID, Kind.TOO_LARGE):
            traceback.clear_frames(error.__traceback__)  # which hold the message
        self._say_farewell(room, failure, wire, [*common, *advice(error, failure)])
        return outcome_of(error)

    def _say_farewell(self, room: Room, failure: Failure, wire: SocketConnection, headers: RawHeaders) -> None:
        """For whoever still listens. It is a few bytes, so nobody waits until they are taken."""
        if not wire.accepted:
            _answer(wire, words(room, failure), headers)
            return
        if not isinstance(room, WithSockets):
            wire.close(CloseCode.INTERNAL_ERROR)
            return
        farewell = room.farewell(failure)
        leaving = self._leaving and failure.kind is Kind.UNAVAILABLE
        try:
            if farewell.message:
                wire.say(farewell.message.encode(), text=True)
        except ClientDisconnect:
            return
        wire.close(CloseCode.SERVICE_RESTART if leaving else farewell.code, farewell.reason)

    def _ended(
        self, scope: Scope, call: Call, given: Presented, wire: SocketConnection, operation: str, outcome: str, began: float,
        request_id: str,
    ) -> None:  # fmt: skip
        self._metrics.calls_total.labels(operation, outcome).inc()
        if call.trace is not None:
            call.trace.end(outcome)
        access_log.write(
            Entry(
                request_id=request_id, address=given.caller.address, method=scope["method"], path=scope["path"], operation=operation,
                tenant=call.tenant, subject=call.principal.subject, status=wire.status, size=wire.sent_bytes,
                seconds=time.monotonic() - began, outcome=outcome, hidden=given.hidden,
            )
        )  # fmt: skip


def _answer(wire: SocketConnection, response: Response, headers: RawHeaders) -> None:
    wire.refuse(response.status_code, [*response.raw_headers, *headers, (b"date", formatdate(usegmt=True).encode())], bytes(response.body))

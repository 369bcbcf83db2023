"""The guard around every handler: who calls, how long it may take, what is counted, and what an error becomes.

It is the ASGI application of the HTTP door. A room never sees a caller that is not known, and never writes an error by itself, unless the
answer has begun.
"""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from collections.abc import Sequence

from prometheus_client import Counter
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from doors.http import access_log
from doors.http.access_log import AccessLog, Entry
from doors.http.answer import Answer
from doors.http.bodies import Body, Held
from doors.http.credentials import Picked, Presented, identified
from doors.http.guard import REQUEST_ID, Guards, Reading, advice, first, note, shown_path, standing, words
from doors.http.head import Head, head_of
from doors.http.origins import Origins
from doors.http.pace import Pace
from doors.http.room import Authenticating, Credentials, Endpoint, Room
from doors.http.router import Found, Missing, endpoint_router
from doors.http.served_request import ServedRequest
from doors.http.sockets.connection import SocketConnection
from doors.http.sockets.edge import SocketEdge
from doors.http.times import HttpDate
from doors.http.workers import Workers
from model_core.errors import HeadraceError, InvalidRequest, StageUnavailable
from service.call import Call
from service.clock import MonotonicClock
from service.failures import BodyTooLarge, Failure, Kind, failure_of, outcome_of
from service.identity.principal import NOBODY, Caller, Principal
from service.sessions.session import DRAINING

_NO_ENDPOINT = "none"
# Asked by load balancers all the time: a good answer is not worth a line.
_UNLOGGED = frozenset({"own.healthz", "own.readyz"})

log = logging.getLogger(__name__)


class HttpEdge:
    """See the module.

    Args:
        rooms: the first one answers for paths that are like nobody's.
        guards: what it goes by.
    """

    def __init__(self, rooms: Sequence[Room], guards: Guards) -> None:
        options = guards.options
        self._router = endpoint_router(rooms)
        # Looked up once: to ask a class whether it obeys a protocol takes longer than the rest of a small request.
        self._authenticating: dict[str, Authenticating] = {room.name: room for room in rooms if isinstance(room, Authenticating)}
        self._denials, self._standings, self._authority = guards.denials, guards.standings, guards.authority
        self._metrics, self._tracing = guards.metrics, guards.tracing
        self._new_id = guards.new_id
        self._options = options
        self._origins = Origins(options.origins, options.public_url)
        self._leaving = False
        self._workers = Workers()
        self._log = AccessLog(time.monotonic)
        self._date = HttpDate(time.time)
        self._counts: dict[tuple[str, str], Counter] = {}
        self.held = Held(options.max_held_bytes)
        self._clock = MonotonicClock()
        self._pace = Pace(options.body_bytes_a_second, self._clock)
        self._sockets = SocketEdge(rooms, guards, Reading(self._origins, self.held, self._pace, self._workers))

    def stop_serving(self) -> None:
        """Connections are not kept from now on."""
        self._leaving = True
        self._sockets.stop_serving()

    def close(self) -> None:
        """After the last request."""
        self._workers.close()
        self._log.close()

    async def socket(self, scope: Scope, wire: SocketConnection) -> None:
        """See `doors.http.server.Application`."""
        await self._sockets(scope, wire)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        scope["asgi"] = {"version": "3.0", "spec_version": "2.4"}  # `send` and the connection notice a caller that goes away
        began, request_id = time.monotonic(), self._new_id()
        head = head_of(scope)
        body = self._body(receive, head.headers)
        common = [(REQUEST_ID, request_id.encode()), *self._origins.headers(head.origin)]
        found = self._router.find(scope["method"], scope["path"])
        call, given = Call(door=found.room.name, request_id=request_id), Presented(None, Caller(), ())

        def begins() -> None:
            body.release()
            self._tell_standing(call.principal.tenant, answer)

        answer = Answer(send, self._options.stall_s, common, begins, self._date)
        if self._leaving:
            answer.add(b"connection", b"close")
        operation, ended = _NO_ENDPOINT, "cancelled"
        try:
            given = head.presented(scope)
            call.address = given.caller.address
            if isinstance(found, Missing):
                ended = await self._without_endpoint(found, scope, head.headers, answer, body, request_id)
            else:
                operation = f"{found.room.name}.{found.endpoint.operation}"
                call.trace = self._tracing.begin(found.room.name, found.endpoint.operation, head.trace, system="http")
                ended = await self._guarded(found, call, given, head, scope, receive, answer, body, request_id)
        except Exception as error:  # noqa: BLE001 - of whatever kind, the caller gets an answer
            ended = await self._refused(found.room, error, answer, body, request_id, given)
        finally:
            body.release()
            self._ended(scope, call, given, answer, operation, ended, began, request_id)

    async def _guarded(
        self,
        found: Found[Endpoint],
        call: Call,
        given: Presented,
        head: Head,
        scope: Scope,
        receive: Receive,
        answer: Answer,
        body: Body,
        request_id: str,
    ) -> str:
        """Run the handler, and write what it returns. Returns how the call ended."""
        endpoint, room = found.endpoint, found.room
        scope["path_params"] = found.parameters
        request = ServedRequest(Request(scope), body, call, request_id, self._base_url(scope, head), self._workers)
        try:
            self._origins.check(given.caller.origin, head.host)
            call.principal = head.placed(await self._principal(room, endpoint, request, body, given), call.address)
            call.tenant = call.principal.tenant
            response = await endpoint.handler(request)
            if not answer.whole(response, scope):
                await response(scope, receive, answer.send)
        except asyncio.CancelledError:
            # By the connection, whose caller has gone; or by the server, whose time to drain is over.
            await self._write(room.refuse(failure_of(StageUnavailable(DRAINING), request_id)), answer)
            return "cancelled"
        except ClientDisconnect:
            return "cancelled"
        except Exception as error:  # noqa: BLE001 - of whatever kind, the caller gets an answer
            return await self._refused(room, error, answer, body, request_id, given)
        finally:
            await request.close()
        return call.outcome

    async def _principal(self, room: Room, endpoint: Endpoint, request: ServedRequest, body: Body, given: Presented) -> Principal:
        if endpoint.credentials is Credentials.NONE:
            return NOBODY
        if (proving := self._authenticating.get(room.name)) is not None:
            principal = await proving.authenticate(request.raw, body.read, self._authority, given.caller)
            if principal is not None:
                return principal
        return await identified(self._authority, given)

    async def _without_endpoint(self, missing: Missing, scope: Scope, headers: Picked, answer: Answer, body: Body, request_id: str) -> str:
        """A question for what there is, or a request for what there is not."""
        allowed = ", ".join((*missing.methods, "OPTIONS")).encode()
        if scope["method"] == "OPTIONS" and missing.methods:
            asks = first(headers, b"access-control-request-method")
            if asks and self._origins.allows(first(headers, b"origin")):
                for name, value in self._origins.preflight(missing.methods, b", ".join(headers.get(b"access-control-request-headers", ()))):
                    answer.add(name, value)
            answer.add(b"allow", allowed)
            await self._write(Response(status_code=204), answer)
            return "completed"
        shown = shown_path(scope)
        if missing.methods:
            sentence = f"method must be one of {', '.join(missing.methods)} at {shown}; got {scope['method']}"
        elif self._sockets.serves(scope["path"]):
            sentence = f"there is a WebSocket at {shown}; a request for it has the headers Upgrade and Sec-WebSocket-Key"
            answer.add(b"upgrade", b"websocket")
        else:
            sentence = f"there is nothing at {shown}"
        response = missing.room.refuse(Failure(kind=Kind.NOT_FOUND, message=sentence, request_id=request_id))
        if missing.methods:
            response.status_code = 405
            answer.add(b"allow", allowed)
        elif self._sockets.serves(scope["path"]):
            response.status_code = 426
        self._close_if_unasked(body, answer)
        await self._write(response, answer)
        return Kind.NOT_FOUND.value

    async def _refused(self, room: Room, error: Exception, answer: Answer, body: Body, request_id: str, given: Presented) -> str:
        """Write what `room` says of `error`, or break off an answer that has begun. Returns how the call ended."""
        failure, ended = failure_of(error, request_id), outcome_of(error)
        note(self._denials, room, failure, error, given)
        if isinstance(error, InvalidRequest | BodyTooLarge):
            traceback.clear_frames(error.__traceback__)  # which hold the body
        if answer.begun:
            return ended
        response = words(room, failure)
        for name, value in advice(error, failure):
            answer.add(name, value)
        self._close_if_unasked(body, answer)
        await self._write(response, answer)
        return ended

    async def _write(self, response: Response, answer: Answer) -> None:
        """An answer of our own. A caller that does not take it gets none."""
        if answer.begun:
            return
        try:
            await answer.send({"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers})
            await answer.send({"type": "http.response.body", "body": bytes(response.body)})
        except HeadraceError:
            return

    @staticmethod
    def _close_if_unasked(body: Body, answer: Answer) -> None:
        """What comes next on the connection may be the body or another request. The rest of any other body is passed over."""
        if body.unasked:
            answer.add(b"connection", b"close")

    def _tell_standing(self, tenant: str, answer: Answer) -> None:
        for name, value in standing(self._standings, tenant):
            answer.add(name, value)

    def _body(self, receive: Receive, headers: Picked) -> Body:
        length, chunked = first(headers, b"content-length"), b"transfer-encoding" in headers
        declared = int(length) if length.isascii() and length.isdecimal() and len(length) < 19 else None
        return Body(
            receive, declared=declared, empty=not chunked and not declared, expects=b"expect" in headers, options=self._options,
            held=self.held, pace=self._pace, clock=self._clock,
        )  # fmt: skip

    def _base_url(self, scope: Scope, head: Head) -> str:
        return self._options.public_url or f"{scope['scheme']}://{head.host}"

    def _ended(
        self, scope: Scope, call: Call, given: Presented, answer: Answer, operation: str, outcome: str, began: float, request_id: str
    ) -> None:
        # To find a counter by its labels takes longer than to count.
        if (counted := self._counts.get((operation, outcome))) is None:
            counted = self._counts[operation, outcome] = self._metrics.calls_total.labels(operation, outcome)
        counted.inc()
        if call.trace is not None:
            call.trace.end(outcome)
        if operation in _UNLOGGED and answer.status == 200:
            return
        if self._log.poll(scope["method"], answer.status, answer.size, operation, call.tenant, call.principal.subject):
            return
        access_log.write(
            Entry(
                request_id=request_id, address=given.caller.address, method=scope["method"], path=scope["path"], operation=operation,
                tenant=call.tenant, subject=call.principal.subject, status=answer.status, size=answer.size,
                seconds=time.monotonic() - began, outcome=outcome, hidden=given.hidden,
            )
        )  # fmt: skip

"""gRPC-Web for `Stream` and `ListModels`, so that a page in a browser needs no proxy between.

Of the others, `Generate` has no part that could come while it is made, no browser can send the controls of a `Live`, and what `Watch` shows
is at `GET /v1/watch/{token}`.

The answer is always 200. How the call ended is said by the trailers, which are the last frame of the body.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import re
from collections.abc import Awaitable, Callable, Sequence
from urllib.parse import quote

import grpc
from google.protobuf.message import Message
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from doors.http.grpc_web import framing
from doors.http.pushed import PushedResponse, Write
from doors.http.room import Endpoint, Handler, HttpRequest, Services
from doors.wire.messages import RequestParser
from doors.wire.models import list_models
from doors.wire.replies import replies
from doors.wire.requests import Orders
from doors.wire.statuses import Status, status_of, status_of_failure
from doors.wire.trailer import trailer
from headrace.v1 import video_pb2 as pb
from model_core.errors import FieldViolation, InvalidRequest
from model_core.tasks import run_in_thread
from service.call import ReaderStalled
from service.events import Event
from service.failures import Failure, outcome_of

NAME = "grpc_web"
SERVICE = pb.DESCRIPTOR.services_by_name["VideoService"].full_name
_BINARY, _TEXT = "application/grpc-web+proto", "application/grpc-web-text+proto"
_KINDS = {"application/grpc-web": _BINARY, _BINARY: _BINARY, "application/grpc-web-text": _TEXT, _TEXT: _TEXT}
_TIMEOUT = re.compile(r"(\d{1,8})([HMSmun])", re.ASCII)
_UNITS_S = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_AT_ONCE_BYTES = 64 * 1024

log = logging.getLogger(__name__)


class GrpcWebRoom:
    """See `doors.http.room.Room`.

    Args:
        services: what it works with.
        new_id: names a defect in the log.
    """

    name = NAME

    def __init__(self, services: Services, new_id: Callable[[], str]) -> None:
        self._services = services
        self._new_id = new_id
        self._orders = Orders(services.intake)
        self._parser = RequestParser()

    def endpoints(self) -> Sequence[Endpoint]:
        return (self._endpoint("Stream", self.stream), self._endpoint("ListModels", self.list_models))

    def refuse(self, failure: Failure) -> Response:
        """For calls that end before their own words begin, as those of unknown callers do."""
        return Response(_end(status_of_failure(failure)), media_type=_BINARY)

    async def stream(self, request: HttpRequest) -> Response:
        call, parser = request.call, self._parser

        async def produce(write: Write) -> None:
            data = await _message(request, pb.StreamRequest.DESCRIPTOR.name, self._services.intake.limits.max_request_bytes)
            order, size = await self._orders.stream(parser.parse(pb.StreamRequest, data), call.principal.tenant)
            request.principal.check_model(order.config.name)

            async def send(event: Event) -> None:
                for reply in replies(pb.StreamResponse, event, size):
                    await write(framing.message(reply.SerializeToString()))

            await self._services.runner.run(order, send, call)

        return self._answer(request, produce)

    async def list_models(self, request: HttpRequest) -> Response:
        intake = self._services.intake

        async def produce(write: Write) -> None:
            data = await _message(request, pb.ListModelsRequest.DESCRIPTOR.name, intake.limits.max_control_bytes)
            self._parser.parse(pb.ListModelsRequest, data)
            await write(framing.message(_bytes(list_models(intake.catalogue, intake.limits))))

        return self._answer(request, produce)

    def _endpoint(self, rpc: str, handler: Handler) -> Endpoint:
        return Endpoint(path=f"/{SERVICE}/{rpc}", method="POST", operation=rpc, handler=handler)

    def _answer(self, request: HttpRequest, produce: Callable[[Write], Awaitable[None]]) -> Response:
        kind = _KINDS.get(_media_type(request), _BINARY)

        async def whole(write: Write) -> None:
            async def coded(data: bytes) -> None:
                await write(data if kind == _BINARY else await _as_text(data))

            status = Status(grpc.StatusCode.OK, "")
            try:
                async with asyncio.timeout(_timeout_s(request)):
                    await produce(coded)
            except (ReaderStalled, ClientDisconnect):
                raise
            except TimeoutError:
                request.call.outcome = "cancelled"
                status = Status(grpc.StatusCode.DEADLINE_EXCEEDED, "the call did not end within its grpc-timeout")
            except Exception as error:
                request.call.outcome = outcome_of(error)
                status = status_of(error, lambda: request.request_id)
                if status.code is grpc.StatusCode.INTERNAL:
                    log.exception("request %s failed", request.request_id)
            await coded(_end(status))

        return PushedResponse(whole, kind)


def _media_type(request: HttpRequest) -> str:
    return request.raw.headers.get("content-type", "").partition(";")[0].strip().lower()


async def _message(request: HttpRequest, name: str, most: int) -> bytes:
    """The one message of the call.

    Raises:
        InvalidRequest: the body is of another kind, or no message of gRPC-Web.
    """
    kind = _KINDS.get(_media_type(request))
    if kind is None:
        got = ascii(_media_type(request)[:64])
        raise InvalidRequest((FieldViolation("Content-Type", f"must be one of {', '.join(sorted(set(_KINDS)))}; got {got}"),))
    body = await request.body((most if kind == _BINARY else 4 * most // 3 + 4) + framing.HEAD_BYTES)
    if kind == _TEXT:
        body = framing.from_text(body, name) if len(body) <= _AT_ONCE_BYTES else await run_in_thread(framing.from_text, body, name)
    return framing.only_message(body, name)


async def _as_text(data: bytes) -> bytes:
    return base64.b64encode(data) if len(data) <= _AT_ONCE_BYTES else await run_in_thread(base64.b64encode, data)


def _timeout_s(request: HttpRequest) -> float | None:
    """What the header says; None for no end. Raises InvalidRequest."""
    text = request.raw.headers.get("grpc-timeout")
    if text is None:
        return None
    match = _TIMEOUT.fullmatch(text)
    if match is None:
        told = f"must be a number and one of {', '.join(_UNITS_S)}; got {text[:32]!a}"
        raise InvalidRequest((FieldViolation("grpc-timeout", told),))
    return int(match[1]) * _UNITS_S[match[2]]


def _end(status: Status) -> bytes:
    """The trailers of a call that ended so."""
    pairs = [("grpc-status", str(status.code.value[0]))]
    if status.message:
        pairs.append(("grpc-message", quote(status.message, safe=" !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~")))
    if status.detail is not None:
        packed = trailer(status.code, status.message, status.detail)
        pairs += [(name, base64.b64encode(value).decode().rstrip("=")) for name, value in packed]
    return framing.trailers(pairs)


def _bytes(message: Message) -> bytes:
    return bytes(message.SerializeToString())

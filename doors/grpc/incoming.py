"""Reads what a caller sends, message by message, and refuses one that comes late, is too large or does not parse. Knows gRPC only."""

from __future__ import annotations

import asyncio
from typing import TypeVar

from google.protobuf.message import Message

from doors.grpc.edge import Context
from doors.wire.messages import RequestParser
from doors.wire.requests import control
from headrace.v1 import video_pb2 as pb
from model_core.errors import FieldViolation, InvalidRequest
from service.checks import Limits
from service.controls import Control

M = TypeVar("M", bound=Message)

_LOOKS, _BETWEEN_LOOKS_S = 20, 0.01


class Incoming:
    """Reads one call. gRPC's own reader of single requests would wait without end for one that does not come."""

    def __init__(self, context: Context, parser: RequestParser, limits: Limits) -> None:
        self._context = context
        self._parser = parser
        self._limits = limits

    async def only(self, kind: type[M], *, upload: bool) -> M:
        """The one message of a call that has one; it may hold an upload, on a slow line. Raises as `first`."""
        return await self.first(kind, kind.DESCRIPTOR.name, self._limits.stall_timeout_seconds, upload=upload)

    async def first(self, kind: type[M], field: str, seconds: float, *, upload: bool) -> M:
        """The opening message, not yet checked. `field` is what an error calls it, `seconds` how long it may take.

        Raises:
            InvalidRequest: it does not come, is too large, or is no message.
        """
        try:
            async with asyncio.timeout(seconds):
                message = await self.next(kind, upload=upload)
        except TimeoutError:
            raise InvalidRequest((FieldViolation(field, f"must be sent within {seconds:g} s of the call; got nothing"),)) from None
        if message is None:
            await self.unless_cancelled()
            raise InvalidRequest((FieldViolation(field, "must be the first message; the call was closed without any"),))
        return message

    async def next(self, kind: type[M], *, upload: bool, source: bool = False) -> M | None:
        """None at the end. A message with no room for an `upload` or a part of a `source` may be much smaller. Raises InvalidRequest."""
        data: object = await self._context.read()
        if not isinstance(data, bytes):
            return None  # grpc.aio.EOF
        most = self._limits.max_request_bytes if upload else self._limits.max_control_bytes
        most += 2 * self._limits.max_source_bytes if source else 0
        if len(data) > most:
            uploads = self._limits.uploads
            taken = f"of which an image may take {uploads.max_image_bytes} and a video {uploads.max_video_bytes}"
            framed = f"of which frames of a source may take {self._limits.max_source_bytes}"
            why = taken if upload else framed if source else "because it holds no image and no video"
            raise InvalidRequest((FieldViolation(kind.DESCRIPTOR.name, f"must be at most {most} bytes, {why}; got {len(data)}"),))
        return self._parser.parse(kind, data)

    async def unless_cancelled(self) -> None:
        """Raise if the call was cancelled: gRPC ends its messages first, and says a moment later that it was cancelled."""
        for _ in range(_LOOKS):
            if self._context.cancelled():
                raise asyncio.CancelledError
            await asyncio.sleep(_BETWEEN_LOOKS_S)


async def next_control(incoming: Incoming, *, source: bool = False) -> Control | None:
    """See `service.controls.Controls`. `source`: of a session that restyles one, which the end of its controls would end."""
    message = await incoming.next(pb.LiveRequest, upload=False, source=source)
    if message is None and source:
        await incoming.unless_cancelled()
    return None if message is None else control(message)

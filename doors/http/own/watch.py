"""`GET /v1/watch/{token}`: a session that somebody else runs, from its newest chunk on; over a WebSocket, too."""

from __future__ import annotations

import asyncio
from typing import get_args

from starlette.responses import Response

from doors.http.given import shown
from doors.http.own.formats import Format, PlayingMp4, ReplacingJpegs, ServerSentEvents
from doors.http.own.live import messages
from doors.http.own.schemas import StreamFormat
from doors.http.own.stream import ACCEPTED, introduce
from doors.http.own.words import told
from doors.http.pushed import PushedResponse, Write
from doors.http.room import HttpRequest, Services, Socket
from model_core.errors import FieldViolation, InvalidRequest
from model_core.tasks import cancel_and_wait
from model_core.types import Codec
from service.call import ReaderStalled
from service.events import Ended, EndReason, Shown, Started
from service.failures import failure_of
from service.watching.show import Item
from service.watching.viewers import SendItem

# Of a message of somebody who has nothing to say.
_MOST_SAID_BYTES = 1024
# Those who watch do not know how long the session was to be.
_ENDS = (EndReason.COMPLETED, EndReason.STOPPED)
_FORMATS: tuple[StreamFormat, ...] = get_args(StreamFormat)
# What frames of each codec can be watched as; the first is what comes where nobody asks.
_SHOWN_AS: dict[Codec, tuple[StreamFormat, ...]] = {
    Codec.FMP4_H264: ("mp4", "sse"), Codec.JPEG: ("mjpeg", "sse"), Codec.RAW_RGB: ("sse",),
}  # fmt: skip


class Watches:
    """The endpoint's handler.

    Args:
        services: what it works with.
    """

    def __init__(self, services: Services) -> None:
        self._services = services

    async def watch(self, request: HttpRequest) -> Response:
        viewers = self._services.watching()
        token = request.raw.path_params["token"]
        asked, accepted = _asked(request)

        async def show(write: Write) -> None:
            events: ServerSentEvents | None = None

            def meet(started: Started) -> SendItem:
                nonlocal events
                introduce(response, started)
                response.headers["x-headrace-codec"] = started.codec.value
                response.headers["x-headrace-next-frame"] = str(started.next_frame)
                chosen = _chosen(asked, accepted, started.codec)
                if chosen == "sse":
                    response.headers["content-type"] = f"{ServerSentEvents.media_type}; charset=utf-8"
                    events = ServerSentEvents(write)
                    return events.show
                form = PlayingMp4(write, _ENDS) if chosen == "mp4" else ReplacingJpegs(write, _ENDS)
                response.headers["content-type"] = form.media_type
                return _Media(form).show

            try:
                await viewers.run(token, meet, request.call)
            except Exception as error:
                if events is not None and not isinstance(error, ReaderStalled):
                    await events.fail(told(failure_of(error, request.request_id)))
                raise

        response = PushedResponse(show, PlayingMp4.media_type)
        return response

    async def watch_socket(self, socket: Socket) -> None:
        """The same over a WebSocket, with the events of `GET /v1/live`.

        It is accepted before the session is found: a browser tells its page nothing of a request that is refused.
        """
        viewers, told = self._services.watching(), _Told(socket)
        await socket.accept(_MOST_SAID_BYTES)
        showing = asyncio.create_task(viewers.run(socket.raw.path_params["token"], lambda _: told.show, socket.call))
        listening = asyncio.create_task(socket.silence())
        try:
            done, _ = await asyncio.wait({showing, listening}, return_when=asyncio.FIRST_COMPLETED)
            (showing if showing in done else listening).result()
        finally:
            await cancel_and_wait(showing, listening)


class _Told:
    """A caller who is only told something."""

    def __init__(self, socket: Socket) -> None:
        self._socket = socket

    async def show(self, item: Item) -> None:
        if isinstance(item.event, Ended):
            self._socket.ending()
        text, *data = item.once(_Told, _messages)
        await self._socket.send(text.decode(), *data)


def _messages(event: Shown) -> list[bytes]:
    text, *data = messages(event)
    return [text.encode(), *data]


class _Media:
    def __init__(self, form: Format) -> None:
        self._form = form

    async def show(self, item: Item) -> None:
        await self._form.send(item.event)


def _asked(request: HttpRequest) -> tuple[StreamFormat | None, list[StreamFormat]]:
    """What the query says, and what the header Accept says. Raises InvalidRequest: the query asks for what there is not."""
    asked = request.raw.query_params.get("format")
    if asked is not None and asked not in _FORMATS:
        raise InvalidRequest((FieldViolation("format", f"must be one of {', '.join(_FORMATS)}; got {shown(asked)}"),))
    accepted = [part.partition(";")[0].strip().lower() for part in request.raw.headers.get("accept", "").split(",")]
    return next((known for known in _FORMATS if known == asked), None), [ACCEPTED[kind] for kind in accepted if kind in ACCEPTED]


def _chosen(asked: StreamFormat | None, accepted: list[StreamFormat], codec: Codec) -> StreamFormat:
    """Raises InvalidRequest: frames of `codec` cannot be watched as what was asked for."""
    possible = _SHOWN_AS[codec]
    if asked is None:
        return next((form for form in accepted if form in possible), possible[0])
    if asked not in possible:
        sentence = f"must be one of {', '.join(possible)} for a session whose frames are {codec.value}; got {asked}"
        raise InvalidRequest((FieldViolation("format", sentence),))
    return asked
